//! One run: everything started, the probe played, and its verdicts by scenario.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead as _, BufReader, Read as _},
    net::SocketAddr,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde_json::{Map, Value, json};

use super::{
    groups::Group,
    network::{Addresses, Network},
    settings::{self, Place},
};
use crate::{
    process::{self, Guarded, say},
    workspace,
};

/// How long a program may take until it listens.
const START_LIMIT: Duration = Duration::from_secs(20);

/// What to play, and where.
pub(super) struct Plan<'a> {
    /// The folder of the probe, the DNS server and the mail server stub.
    pub(super) tools: &'a Path,
    /// Scenario files.
    pub(super) scenarios: &'a Path,
    /// Recorded transcripts.
    pub(super) golden: &'a Path,
    /// DNS data.
    pub(super) dns: &'a Path,
    /// Scenarios at a time.
    pub(super) jobs: u16,
    /// The groups to play.
    pub(super) groups: &'a [Group],
    /// Where.
    pub(super) network: &'a Network,
    /// A folder for everything that is written.
    pub(super) work: &'a Path,
}

/// How one scenario went.
#[derive(Debug)]
pub(super) struct Played {
    /// `group/scenario`.
    pub(super) name: String,
    /// Its outcome.
    pub(super) outcome: Outcome,
}

/// The outcome of one scenario.
#[derive(Debug, Clone)]
pub(super) enum Outcome {
    /// As recorded.
    Same,
    /// Not as recorded; the lines of the difference.
    Differs(Vec<String>),
    /// Could not be played, which is a failure.
    NotRun(String),
    /// Needs an address that this network lacks.
    Unreachable,
}

/// A gate that was started for a group.
struct Gate {
    process: Guarded,
    place: Place,
    addresses: Addresses,
    errors: PathBuf,
}

/// Plays all groups of the plan.
///
/// # Errors
/// When the surroundings can't be had. A gate that does not start is no error but fails its group's scenarios.
pub(super) fn play(plan: &Plan<'_>) -> Result<Vec<Played>> {
    let total: usize = plan.groups.iter().map(|group| group.scenarios.len()).sum();
    say(&format!("starting {} gates for {total} scenarios", plan.groups.len()));
    let certificate = certificate(plan.work)?;
    let log = plan.work.join("log");
    File::create(&log).context("can't make the log")?;
    let resolver = plan.network.resolver()?;
    let mut surroundings = vec![dns_server(plan, resolver)?];
    let mut awaited = vec![resolver];

    let mut gates = BTreeMap::new();
    for (ordinal, group) in (1..).zip(plan.groups) {
        let addresses = plan.network.addresses(u8::try_from(ordinal).context("too many groups for one run")?)?;
        if group.config.backend_sessions > 0 {
            surroundings.push(backend(plan, addresses.backend, group.config.backend_sessions)?);
            awaited.push(addresses.backend);
        }
        let place = Place {
            listen: [Some(addresses.mx), addresses.mx6, Some(addresses.alt)].into_iter().flatten().collect(),
            alt: Some(addresses.alt),
            backend: addresses.backend,
            resolver,
            folder: plan.work.join(&group.group),
            log: log.clone(),
            certificate: certificate.0.clone(),
            key: certificate.1.clone(),
            mapped: plan.network.mapped(),
        };
        gates.insert(group.group.as_str(), start(plan.network, group, place, addresses)?);
    }
    wait_for_listeners(plan.network, &awaited)?;

    let mut not_run = BTreeMap::new();
    let mut targets = Map::new();
    for group in plan.groups {
        let Some(gate) = gates.get_mut(group.group.as_str()) else { continue };
        match wait_for_gate(gate) {
            Ok(()) => {
                targets.insert(group.group.clone(), target(gate));
            }
            Err(error) => {
                not_run.insert(group.group.as_str(), format!("{error:#}"));
            }
        }
    }
    let mut verdicts = probe(plan, &Value::Object(targets), &log, total)?;
    drop(gates);
    drop(surroundings);

    let mut played = Vec::new();
    for group in plan.groups {
        for scenario in &group.scenarios {
            let name = format!("{}/{}", group.group, scenario.name);
            let outcome = match (not_run.get(group.group.as_str()), verdicts.remove(&name)) {
                (Some(why), _) => Outcome::NotRun(why.clone()),
                (None, Some(outcome)) => outcome,
                (None, None) => Outcome::NotRun("there is no record to compare with".to_owned()),
            };
            played.push(Played { name, outcome });
        }
    }
    Ok(played)
}

/// A self-signed certificate and its key, which last as long as the run.
fn certificate(work: &Path) -> Result<(PathBuf, PathBuf)> {
    let (certificate, key) = (work.join("certificate.pem"), work.join("key.pem"));
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]);
    command.args(["-subj", "/CN=mx.example.test", "-addext", "subjectAltName=DNS:mx.example.test"]);
    command.arg("-out").arg(&certificate).arg("-keyout").arg(&key);
    process::output(&mut command)?;
    Ok((certificate, key))
}

fn dns_server(plan: &Plan<'_>, listen: SocketAddr) -> Result<Guarded> {
    let mut command = plan.network.server("python3");
    command.arg(plan.tools.join("dns_fixture.py")).args(["--listen", &listen.to_string()]).arg(plan.dns);
    for (from, to) in plan.network.mapped() {
        command.args(["--map", &format!("{from}={to}")]);
    }
    spawn(&mut command, &plan.work.join("dns.err"))
}

fn backend(plan: &Plan<'_>, listen: SocketAddr, sessions: u32) -> Result<Guarded> {
    let mut command = plan.network.server("python3");
    command.arg(plan.tools.join("backend_stub.py"));
    command.args(["--listen", &listen.to_string(), "--sessions", &sessions.to_string()]);
    spawn(&mut command, &plan.work.join(format!("backend-{}.err", listen.port())))
}

/// Writes a gate's files and starts it.
fn start(network: &Network, group: &Group, place: Place, addresses: Addresses) -> Result<Gate> {
    std::fs::create_dir_all(place.folder.join("state")).context("can't make a gate's folder")?;
    for (file, text) in settings::files(&group.config, &place) {
        std::fs::write(&file, text).with_context(|| format!("can't write {}", file.display()))?;
    }
    let errors = place.folder.join("stderr");
    let mut command = network.server(workspace::gate());
    command.args(["run", "--config"]).arg(place.config());
    let process = spawn(&mut command, &errors)?;
    Ok(Gate { process, place, addresses, errors })
}

/// Starts a program whose output goes to a file.
fn spawn(command: &mut Command, output: &Path) -> Result<Guarded> {
    let file = File::create(output).with_context(|| format!("can't write {}", output.display()))?;
    let copy = file.try_clone().context("can't share a file")?;
    command.stdin(Stdio::null()).stdout(file).stderr(copy);
    let child = command.spawn().with_context(|| format!("can't start {}", process::shown(command)))?;
    Ok(Guarded(child))
}

/// Waits until all these addresses are listened on.
fn wait_for_listeners(network: &Network, addresses: &[SocketAddr]) -> Result<()> {
    let begin = Instant::now();
    loop {
        let text = process::output(network.server("ss").arg("-Hlntu"))?;
        let listening: Vec<&str> = text.split_whitespace().collect();
        let missing = addresses.iter().find(|address| !listening.contains(&address.to_string().as_str()));
        match missing {
            None => return Ok(()),
            Some(address) if begin.elapsed() > START_LIMIT => bail!("nothing listens on {address}"),
            Some(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// Waits until a gate's control socket answers, which is when it is ready.
fn wait_for_gate(gate: &mut Gate) -> Result<()> {
    let begin = Instant::now();
    while UnixStream::connect(gate.place.control()).is_err() {
        let ended = gate.process.0.try_wait().context("lost a gate")?;
        if ended.is_some() || begin.elapsed() > START_LIMIT {
            let mut said = String::new();
            // What it said is all there is to show; if it can't be read, that it did not start is still to be told.
            let _ = File::open(&gate.errors).map(|file| file.take(2000).read_to_string(&mut said));
            let how =
                ended.map_or_else(|| "did not become ready".to_owned(), |status| format!("ended at once ({status})"));
            bail!("the gate {how}: {}", said.trim());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// A gate as the probe's table of targets has it. The lines of one gate are told from the others' by its process id.
fn target(gate: &Gate) -> Value {
    let mut target = json!({
        "mx": gate.addresses.mx.to_string(),
        "alt": gate.addresses.alt.to_string(),
        "log_tag": format!("mxscreen[{}]", gate.process.0.id()),
    });
    if let (Some(mx6), Some(fields)) = (gate.addresses.mx6, target.as_object_mut()) {
        fields.insert("mx6".to_owned(), Value::String(mx6.to_string()));
    }
    target
}

/// Plays the scenarios and gives the outcome of each that has a record.
fn probe(plan: &Plan<'_>, targets: &Value, log: &Path, total: usize) -> Result<BTreeMap<String, Outcome>> {
    let table = plan.work.join("targets.json");
    std::fs::write(&table, targets.to_string()).context("can't write the table of targets")?;
    let mut command = plan.network.client("python3");
    command.arg(plan.tools.join("smtp_probe.py")).arg("check").arg(plan.scenarios).arg("--golden").arg(plan.golden);
    command.arg("--targets").arg(&table).arg("--out").arg(plan.work.join("played"));
    command.args(["--verbose", "--jobs", &plan.jobs.to_string()]);
    command.args(["--logs", "--log-alias", "mxscreen=postscreen", "--log"]).arg(log);
    for group in plan.groups {
        command.args(["--group", &group.group]);
    }
    for (from, to) in plan.network.mapped() {
        command.args(["--map", &format!("{from}={to}")]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("can't start {}", process::shown(&command)))?;
    let stderr = child.stderr.take().context("the probe has no standard error")?;
    let mut stdout = child.stdout.take().context("the probe has no standard output")?;
    let progress = std::thread::spawn(move || show_progress(stderr, total));
    let mut text = Vec::new();
    stdout.read_to_end(&mut text).context("can't read what the probe found")?;
    let status = child.wait().context("lost the probe")?;
    let other = progress.join().unwrap_or_default();
    // 1 says that scenarios failed; their names are in the text.
    if status.code().is_none_or(|code| code > 1) || !text.ends_with(b"\n") {
        bail!("the probe ended with {status}: {other}");
    }
    Ok(outcomes(&String::from_utf8_lossy(&text)))
}

/// Says now and then how many scenarios have been played; gives everything else that the probe says.
fn show_progress(stderr: impl std::io::Read, total: usize) -> String {
    let mut other = String::new();
    let mut played = 0;
    let mut last = Instant::now();
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        if line.starts_with("ran ") {
            played += 1;
            if last.elapsed() > Duration::from_secs(5) {
                last = Instant::now();
                say(&format!("  {played} of {total} scenarios played"));
            }
        } else {
            other.push_str(&line);
            other.push('\n');
        }
    }
    other
}

/// The probe's report: `ok   NAME`, `FAIL NAME` with an indented difference, `skip NAME (not run)`.
fn outcomes(report: &str) -> BTreeMap<String, Outcome> {
    let mut outcomes = BTreeMap::new();
    let mut differing = None;
    for line in report.lines() {
        let name =
            |prefix| line.strip_prefix(prefix).and_then(|rest: &str| rest.split_whitespace().next()).map(str::to_owned);
        if let Some(name) = name("ok   ") {
            outcomes.insert(name, Outcome::Same);
        } else if let Some(name) = name("skip ") {
            outcomes.insert(name, Outcome::Unreachable);
        } else if let Some(name) = name("FAIL ") {
            outcomes.insert(name.clone(), Outcome::Differs(Vec::new()));
            differing = Some(name);
        } else if let Some(Outcome::Differs(diff)) = differing.as_ref().and_then(|name| outcomes.get_mut(name))
            && line.starts_with("     ")
        {
            diff.push(line.to_owned());
        }
    }
    outcomes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_of_the_probe_is_read_by_scenario() {
        let report = "ok   a/one\nFAIL a/two\n     --- golden\n     -1: < 220\nskip a/three (not run)\n\
                      FAIL a/four (no result)\nok   a/five\n2 passed, 2 failed, 1 skipped\n";
        let outcomes = outcomes(report);
        assert_eq!(outcomes.len(), 5);
        assert!(matches!(outcomes["a/one"], Outcome::Same));
        assert!(matches!(&outcomes["a/two"], Outcome::Differs(diff) if diff.len() == 2));
        assert!(matches!(outcomes["a/three"], Outcome::Unreachable));
        assert!(matches!(&outcomes["a/four"], Outcome::Differs(diff) if diff.is_empty()));
    }

    #[test]
    fn progress_is_told_from_what_else_the_probe_says() {
        let said = show_progress("ran a/b in 0.1s\nTraceback\nran a/c in 2.0s\n".as_bytes(), 2);
        assert_eq!(said, "Traceback\n");
    }
}
