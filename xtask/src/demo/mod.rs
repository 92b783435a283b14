//! `cargo xtask demo`: the gate at work, in a sandbox of network namespaces, with Debian's Postfix behind it.

mod client;
mod gate;
mod postfix;
mod report;
mod stage;
mod traffic;

use std::{
    net::IpAddr,
    process::ExitCode,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use client::{Got, Manner, Visit};
use gate::Gate;
use postfix::Syslog;
use report::{Decided, Row};
use stage::{EDGE, Host, server_for};
use traffic::Traffic;

use crate::{
    process::{self, Guarded, say},
    sandbox, setup, workspace,
};

/// What `cargo xtask demo` takes.
#[derive(clap::Args)]
pub(crate) struct Options {}

/// Connections of one client that the gate's configuration allows at a time (its default).
const CONNECTION_LIMIT: usize = 50;

/// Somebody who comes to the gate.
#[derive(Clone, Copy)]
struct Client {
    host: Host,
    who: &'static str,
    address: &'static str,
}

impl Client {
    fn ip(self) -> Result<IpAddr> {
        self.address.parse().with_context(|| format!("{} is no address", self.address))
    }

    /// Lets this client connect once, from its own host.
    fn visit(self, manner: Manner) -> Result<JoinHandle<Result<Visit>>> {
        let server = server_for(self.ip()?);
        Ok(self.host.thread(move || client::visit(server, manner)))
    }
}

const PARTNER: Client = Client { host: Host("mxs-partner"), who: "partner", address: "198.51.100.20" };
const GOOD_V4: Client = Client { host: Host("mxs-good4"), who: "good client", address: "198.51.100.10" };
const GOOD_V6: Client = Client { host: Host("mxs-good6"), who: "good client", address: "2001:db8:60::10" };
const TALKER: Client = Client { host: Host("mxs-talker"), who: "early talker", address: "192.0.2.66" };
const LISTED: Client = Client { host: Host("mxs-listed"), who: "DNSBL-listed", address: "192.0.2.99" };
const DENIED_V4: Client = Client { host: Host("mxs-denied4"), who: "deny-listed", address: "192.0.2.150" };
const DENIED_V6: Client = Client { host: Host("mxs-denied6"), who: "deny-listed", address: "2001:db8:bad::66" };
const HOG: Client = Client { host: Host("mxs-hog"), who: "connection hog", address: "192.0.2.77" };

const CAST: [Client; 8] = [PARTNER, GOOD_V4, GOOD_V6, TALKER, LISTED, DENIED_V4, DENIED_V6, HOG];

/// Says what happens, with the time since the beginning.
struct Narrator(Instant);

impl Narrator {
    fn say(&self, text: &str) {
        say(&format!("{:5.1} s  {text}", self.0.elapsed().as_secs_f64()));
    }
}

/// Plays the demonstration; success only if every client got what it should.
pub(crate) fn run(_options: &Options) -> Result<ExitCode> {
    if !sandbox::is_inside() {
        say(
            "mxscreen demonstration: a mail server, the gate before it, and clients of every kind, in a sandbox that vanishes",
        );
        setup::ensure(&[setup::Part::Build, setup::Part::Sandbox])?;
        // Cargo knows best whether the gate is up to date, and says what it does if it is not.
        process::run(process::cargo().args(["build", "--release", "--locked", "-p", "screen-user"]))
            .context("can't build the gate")?;
        return sandbox::run_inside();
    }
    sandbox::settle()?;
    let narrator = Narrator(Instant::now());
    let rows = play(&narrator).inspect_err(|_| show_log())?;
    say("");
    for line in report::table(&rows) {
        say(&line);
    }
    let wrong = rows.iter().filter(|row| row.wrong.is_some()).count();
    say("");
    if wrong > 0 {
        say(&format!("{wrong} of {} visits did not end as they should", rows.len()));
        show_log();
        return Ok(ExitCode::FAILURE);
    }
    say(&format!("all {} visits ended as they should; nothing is left behind", rows.len()));
    Ok(ExitCode::SUCCESS)
}

/// For whoever has to find out what went wrong.
fn show_log() {
    say("the gate's log:");
    say(&gate::log_text());
}

/// The whole story. The sandbox takes everything away at its end.
fn play(narrator: &Narrator) -> Result<Vec<Row>> {
    stage::private_files()?;
    let addresses = CAST.iter().map(|client| Ok((client.host, client.ip()?))).collect::<Result<Vec<_>>>()?;
    stage::network(&addresses)?;
    narrator.say(&format!(
        "an edge host ({}, {}), {} clients, and an internet between them",
        stage::EDGE_V4,
        stage::EDGE_V6,
        CAST.len()
    ));
    let _dns = dns_server()?;
    let syslog = Syslog::listen()?;
    postfix::start()?;
    let version = process::output(std::process::Command::new("postconf").args(["-h", "mail_version"]))?;
    narrator.say(&format!(
        "Debian's Postfix {} on port 25 of the edge host, configured as its package does it",
        version.trim()
    ));

    let traffic = Traffic::start(PARTNER.host, server_for(PARTNER.ip()?));
    traffic.wait_for(2)?;
    narrator.say("mail flows: a partner delivers one message after the other, straight into Postfix");

    let gate = Gate::start()?;
    narrator.say("the gate has come, in place: `mxscreen run`; nobody told Postfix. Its whole configuration:");
    for line in gate::CONFIG.lines().filter(|line| !line.is_empty()) {
        say(&format!("             {line}"));
    }
    let mut rows = first_visits(narrator, &syslog)?;
    narrator.say("everybody comes again");
    rows.append(&mut second_visits(&syslog)?);
    rows.push(partner(&traffic)?);
    narrator.say("what the kernel has counted:");
    let cast = addresses.iter().map(|(_, address)| *address).collect::<Vec<_>>();
    for line in report::maps(&cast)? {
        say(&format!("         {line}"));
    }
    gate.leave()?;
    let before = traffic.delivered();
    traffic.wait_for(before + 3)?;
    rows.push(after_the_gate(&syslog)?);
    let delivered = traffic.stop()?;
    narrator.say(&format!(
        "the gate is gone, mail flows on: the partner has delivered {delivered} messages, none of its connections failed"
    ));
    Ok(rows)
}

/// A DNS server on the edge host with one block list, which lists what RFC 5782 section 5 wants and one client.
fn dns_server() -> Result<Guarded> {
    let records = serde_json::json!({
        "zones": { "bl.example.test": {} },
        "records": [
            { "zone": "bl.example.test", "client": "127.0.0.2", "a": ["127.0.0.2"] },
            { "zone": "bl.example.test", "client": LISTED.address, "a": ["127.0.0.2"] },
        ],
    });
    std::fs::write("/run/dns.json", records.to_string()).context("can't write the DNS data")?;
    let fixture = workspace::root().join("tests/oracle/dns_fixture.py");
    let mut command = EDGE.command("python3");
    command.arg(fixture).args(["--listen", "127.0.0.1:53", "--pid-file", "/run/dns.pid", "/run/dns.json"]);
    let server = Guarded(command.spawn().context("can't start the DNS server")?);
    let begin = Instant::now();
    while !std::path::Path::new("/run/dns.pid").exists() {
        if begin.elapsed() > Duration::from_secs(10) {
            bail!("the DNS server did not start");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(server)
}

fn finish<T>(thread: JoinHandle<Result<T>>) -> Result<T> {
    thread.join().map_err(|_| anyhow!("a client's thread panicked"))?
}

/// Everybody comes for the first time, all together.
fn first_visits(narrator: &Narrator, syslog: &Syslog) -> Result<Vec<Row>> {
    narrator.say("strangers come, all at once; those who wait their turn are let in after the greet wait of 6 s");
    let good4 = GOOD_V4.visit(Manner::Polite)?;
    let good6 = GOOD_V6.visit(Manner::Polite)?;
    let talker = TALKER.visit(Manner::Hasty)?;
    let listed = LISTED.visit(Manner::Polite)?;
    let denied4 = DENIED_V4.visit(Manner::Polite)?;
    let denied6 = DENIED_V6.visit(Manner::Polite)?;
    let hog_server = server_for(HOG.ip()?);
    let hog = HOG.host.thread(move || hog(hog_server));

    let mut rows = Vec::new();
    for (client, visit) in [(DENIED_V4, finish(denied4)?), (DENIED_V6, finish(denied6)?)] {
        rows.push(turned_away(client, "connects", &visit)?);
    }
    narrator.say("the deny-listed have been turned away");
    rows.append(&mut finish(hog)?);
    narrator.say("the hog has met its limit");
    for (client, did, visit, evidence) in
        [(TALKER, "talks at once", finish(talker)?, "PREGREET"), (LISTED, "connects", finish(listed)?, "DNSBL rank")]
    {
        let row = Row::new(client.who, client.address, did, &visit);
        let seen = gate::wait_logged(client.ip()?, 0, evidence).is_some();
        rows.push(match visit.got {
            Got::Refused(ref reply) if reply.starts_with("521") && seen => row.decided(Decided::Screener),
            _ => row.wrong(&format!("expected a 521 and a log line {evidence}")),
        });
    }
    narrator.say("the early talker and the listed one have been refused");
    for (client, visit) in [(GOOD_V4, finish(good4)?), (GOOD_V6, finish(good6)?)] {
        let row = Row::new(client.who, client.address, "delivers", &visit);
        let seen = gate::wait_logged(client.ip()?, 0, "PASS NEW").is_some();
        rows.push(delivered(row, client, &visit, syslog, seen, Decided::Screener)?);
    }
    narrator.say("the good clients have delivered their mail");
    Ok(rows)
}

/// Who was known by now is known in the kernel.
fn second_visits(syslog: &Syslog) -> Result<Vec<Row>> {
    wait_for_denials(&[TALKER, LISTED])?;
    let mut rows = Vec::new();
    let talker = TALKER.visit(Manner::Hasty)?;
    let listed = LISTED.visit(Manner::Polite)?;
    let mut good = Vec::new();
    for client in [GOOD_V4, GOOD_V6] {
        let before = gate::logged(client.ip()?).len();
        good.push((client, before, client.visit(Manner::Polite)?));
    }
    for (client, before, visit) in good {
        let visit = finish(visit)?;
        let row = Row::new(client.who, client.address, "delivers again", &visit);
        let pass = gate::wait_logged(client.ip()?, before, "PASS OLD");
        let by_kernel = pass.as_ref().is_some_and(|line| line.ends_with(" (kernel)"));
        let decided = if by_kernel { Decided::Kernel } else { Decided::Screener };
        let quick = visit.after < Duration::from_secs(1);
        rows.push(delivered(row, client, &visit, syslog, quick && pass.is_some(), decided)?);
    }
    rows.push(turned_away(TALKER, "comes again", &finish(talker)?)?);
    rows.push(turned_away(LISTED, "comes again", &finish(listed)?)?);
    Ok(rows)
}

/// Waits until the failures of these clients are in the list of the denied.
fn wait_for_denials(clients: &[Client]) -> Result<()> {
    let begin = Instant::now();
    loop {
        let list = gate::command(&["list", "deny"])?;
        if clients.iter().all(|client| list.contains(client.address)) {
            return Ok(());
        }
        if begin.elapsed() > Duration::from_secs(3) {
            bail!("failed clients are not in the list of the denied:\n{list}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A client whose mail must have reached Postfix, and Postfix must have seen its true address.
fn delivered(
    row: Row,
    client: Client,
    visit: &Visit,
    syslog: &Syslog,
    evidence: bool,
    decided: Decided,
) -> Result<Row> {
    let Got::Delivered(_) = visit.got else { return Ok(row.wrong("expected its mail to be accepted")) };
    if syslog.wait_for(&format!("connect from unknown[{}]", client.ip()?)).is_none() {
        return Ok(row.wrong("Postfix has not seen its true address"));
    }
    if !evidence {
        return Ok(row.wrong("the gate did not treat it as it should"));
    }
    Ok(row.decided(decided))
}

/// A client that must not get as far as a session.
fn turned_away(client: Client, did: &str, visit: &Visit) -> Result<Row> {
    let row = Row::new(client.who, client.address, did, visit);
    let by_kernel = match visit.got {
        Got::NoConnection | Got::Reset => true,
        Got::Refused(ref reply) => reply.starts_with("521"),
        Got::Delivered(_) | Got::Ended => false,
    };
    if !by_kernel {
        return Ok(row.wrong("expected to be turned away in the kernel"));
    }
    if report::refusals(client.ip()?)?.0 == 0 {
        return Ok(row.wrong("the kernel has not counted it among the refused"));
    }
    Ok(row.decided(Decided::Kernel))
}

/// One connection more than the limit; and again, when one of them has ended.
fn hog(server: std::net::SocketAddr) -> Result<Vec<Row>> {
    let begin = Instant::now();
    let mut held = Vec::new();
    for number in 1..=CONNECTION_LIMIT {
        match client::hold(server) {
            Ok(connection) => held.push(connection),
            Err(got) => bail!("the hog's connection {number} of {CONNECTION_LIMIT} got {got:?}"),
        }
    }
    let within = Visit { got: Got::Refused(format!("{} connections stand", held.len())), after: begin.elapsed() };
    let row = Row::new(HOG.who, HOG.address, &format!("opens {CONNECTION_LIMIT} connections"), &within);
    let greeted = held.iter().all(|connection| connection.first.starts_with("220"));
    let mut rows =
        vec![if greeted { row.decided(Decided::Screener) } else { row.wrong("expected a greeting on each") }];

    let begin = Instant::now();
    let over = client::hold(server);
    let after = begin.elapsed();
    let got = match over {
        Ok(connection) => Got::Refused(connection.first),
        Err(got) => got,
    };
    let refused = match &got {
        Got::NoConnection | Got::Reset => true,
        Got::Refused(reply) => reply.starts_with("421"),
        Got::Delivered(_) | Got::Ended => false,
    };
    let row = Row::new(HOG.who, HOG.address, "opens one more", &Visit { got, after });
    let counted = report::refusals(HOG.ip()?)?.1 > 0;
    rows.push(if refused && counted {
        row.decided(Decided::Kernel)
    } else {
        row.wrong("expected to be limited by the kernel")
    });

    drop(held.pop().map(|connection| connection.stream));
    let begin = Instant::now();
    let again = loop {
        match client::hold(server) {
            Ok(connection) if connection.first.starts_with("220") => break Some(connection),
            // The end of the one that was closed may still be on its way.
            Ok(_) | Err(_) if begin.elapsed() < Duration::from_secs(8) => std::thread::sleep(Duration::from_millis(20)),
            Ok(_) | Err(_) => break None,
        }
    };
    let visit = Visit {
        got: again.as_ref().map_or(Got::NoConnection, |held| Got::Refused(held.first.clone())),
        after: begin.elapsed(),
    };
    let row = Row::new(HOG.who, HOG.address, "closes one, opens one", &visit);
    rows.push(if again.is_some() { row.decided(Decided::Screener) } else { row.wrong("expected to be let in again") });
    Ok(rows)
}

/// The partner, who never stopped delivering, is given to Postfix in the kernel.
fn partner(traffic: &Traffic) -> Result<Row> {
    let before = traffic.delivered();
    traffic.wait_for(before + 2)?;
    let visit = Visit {
        got: Got::Delivered(format!("{} messages accepted so far", traffic.delivered())),
        after: traffic.last(),
    };
    let row = Row::new(PARTNER.who, PARTNER.address, "keeps delivering", &visit);
    let steered = report::steered(PARTNER.ip()?)?;
    Ok(if steered > 0 { row.decided(Decided::Kernel) } else { row.wrong("the kernel has not given it to Postfix") })
}

/// A new client after the gate has left: nobody screens it.
fn after_the_gate(syslog: &Syslog) -> Result<Row> {
    let seen = syslog.with(&format!("connect from unknown[{TALKER}]", TALKER = TALKER.address)).len();
    let visit = finish(TALKER.visit(Manner::Polite)?)?;
    let row = Row::new(TALKER.who, TALKER.address, "comes after the gate left", &visit);
    if seen > 0 {
        return Ok(row.wrong("Postfix had seen the early talker before, which the gate should have prevented"));
    }
    delivered(row, TALKER, &visit, syslog, true, Decided::Nobody)
}
