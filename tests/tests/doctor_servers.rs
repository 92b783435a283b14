//! `mxscreen doctor` and the servers that the gate needs: what is wrong between them is found, alone, and what it names mends it.

use std::{fs, process::Command};

use screen_tests::{
    backplane::{ADDRESSES, Backplane},
    gate::{Gate, Settings},
    mta::{BEHIND, Mta},
    net::Net,
    netns::run,
    postfix::Postfix,
    privilege::{has_mail_programs, has_redis, mxscreen},
    redis::{Cluster, PORT, Redis, Sentinels, guarded},
    wait::{SOON, wait_for},
};
use serde_json::Value;

/// What the doctor says of `subject`, seen from the edge.
#[track_caller]
fn findings(net: &Net, settings: &Settings, subject: &str) -> Vec<Value> {
    let config = settings.write();
    let mut command = Command::new("ip");
    command.args(["netns", "exec", net.edge.name()]).arg(mxscreen()).args(["doctor", "--json", "--config"]);
    let output = command.arg(config).output().expect("the doctor runs");
    let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let findings = said["findings"].as_array().expect("a list of findings").iter();
    findings.filter(|finding| finding["subject"] == subject).cloned().collect()
}

/// The doctor finds this one thing of `subject` to be wrong; returns what mends it.
#[track_caller]
fn finds(net: &Net, settings: &Settings, subject: &str, what: &str) -> String {
    let findings = findings(net, settings, subject);
    let amiss: Vec<&Value> = findings.iter().filter(|finding| finding["grade"] != "fine").collect();
    let [finding] = amiss.as_slice() else { panic!("{findings:#?}") };
    assert!(finding["grade"] == "wrong" && finding["what"].as_str().unwrap().contains(what), "{findings:#?}");
    finding["mend"].as_str().unwrap_or_else(|| panic!("{findings:#?}")).to_owned()
}

/// The doctor has nothing to say against `subject`; `what` is among the things that are fine.
#[track_caller]
fn is_content(net: &Net, settings: &Settings, subject: &str, what: &str) {
    let findings = findings(net, settings, subject);
    assert!(findings.iter().all(|finding| finding["grade"] == "fine"), "{findings:#?}");
    assert!(findings.iter().any(|finding| finding["what"].as_str().unwrap().contains(what)), "{findings:#?}");
}

/// The settings with the line that a mend names.
#[track_caller]
fn with(settings: &Settings, mend: &str) -> Settings {
    let line = mend.strip_prefix("in the configuration, ").unwrap_or_else(|| panic!("{mend}"));
    let (key, value) = line.split_once(" = ").unwrap_or_else(|| panic!("{mend}"));
    settings.clone().set(key, value)
}

/// Before a mail server that is told of clients in this way.
fn front(net: &Net, way: &str) -> Settings {
    Settings::front(net, BEHIND).text("forward.client_address", way).text("forward.steer", "off")
}

const MAIL: &str = "mail server";
/// Postfix would give up after 5 s on a header, which a busy machine may need.
const PATIENT: &str = "smtpd_upstream_proxy_timeout=60s";
const TAKES: &str = "waits for a PROXY header of version 2, and takes it";

#[test]
fn a_header_that_one_side_alone_wants_is_found() {
    let Some(net) = Net::new() else { return };
    let mut postfix = Postfix::start_set(&net, &[(BEHIND, "smtpd_upstream_proxy_protocol=haproxy")], &[PATIENT]);
    let settings = front(&net, "proxy-v2");
    is_content(&net, &settings, MAIL, TAKES);
    is_content(&net, &settings, MAIL, "does not relay for a client that passes: \"454 4.7.1");
    is_content(&net, &front(&net, "proxy-v1"), MAIL, "header of version 1, and takes it");

    let settings = front(&net, "none");
    let mend = finds(&net, &settings, MAIL, "waits for a PROXY header, and the gate sends none");
    let settings = with(&settings, &mend);
    is_content(&net, &settings, MAIL, TAKES);

    let service = format!("{BEHIND}/inet/smtpd_upstream_proxy_protocol");
    postfix.configure(&net, &["-PX", &service]);
    let mend = finds(&net, &settings, MAIL, "greets without a PROXY header");
    let (_, option) = mend.split_once("-o smtpd_upstream_proxy_protocol").unwrap();
    postfix.configure(&net, &["-P", &format!("{service}{option}")]);
    is_content(&net, &settings, MAIL, TAKES);

    postfix.down();
    assert_eq!(finds(&net, &settings, MAIL, "can't be reached"), "ss -ltnp 'sport = :10025'");
    assert_eq!(postfix.logged("postmaster@"), postfix.logged("Relay access denied"), "nothing else was asked for");
}

#[test]
fn a_mail_server_that_takes_strangers_for_the_gate_is_found() {
    let Some(net) = Net::new() else { return };
    let mut postfix = Postfix::start_set(&net, &[(BEHIND, "")], &[PATIENT]);
    let mend = finds(&net, &front(&net, "none"), MAIL, "relays for everybody who passes");
    // From now on the kernel shows it who comes, and only the gate can have that done.
    let settings = with(&front(&net, "none"), &mend);
    let unseen = findings(&net, &settings, MAIL);
    assert!(unseen.iter().any(|finding| finding["grade"] == "unknown"), "{unseen:#?}");
    assert_eq!(unseen.last().unwrap()["mend"], "systemctl start mxscreen");
    let gate = Gate::start(&net, settings.clone());
    is_content(&net, &settings, MAIL, "does not relay for a client that passes");

    postfix.configure(&net, &["-e", "mynetworks=0.0.0.0/0"]);
    let mend = finds(&net, &settings, MAIL, "takes 192.0.2.1 for one of its own clients");
    let line = mend.strip_prefix("postconf mynetworks='").unwrap().split_once('\'').unwrap().0;
    postfix.configure(&net, &["-e", &format!("mynetworks={line}")]);
    is_content(&net, &settings, MAIL, "greets without a PROXY header, and is sent none");

    postfix.configure(&net, &["-P", &format!("{BEHIND}/inet/smtpd_upstream_proxy_protocol=haproxy")]);
    let mend = finds(&net, &settings, MAIL, "waits for a PROXY header, and the gate sends none");
    gate.stop();
    is_content(&net, &with(&settings, &mend), MAIL, TAKES);
    assert_eq!(postfix.logged("status=sent"), 0, "nothing was delivered");
}

#[test]
fn exim_says_whom_it_sees() {
    let Some(net) = Net::new().filter(|_| has_mail_programs()) else { return };
    let exim = Mta::exim_behind(&net);
    exim.wait_behind(&net);
    // Debian's small Exim can't be told to take a header.
    let mend = finds(&net, &front(&net, "proxy-v2"), MAIL, "greets without a PROXY header");
    assert_eq!(mend, "in Exim's configuration, hosts_proxy = 127.0.0.1 (Debian has that in exim4-daemon-heavy)");
    let mend = finds(&net, &front(&net, "none"), MAIL, "relays for everybody who passes");
    let settings = with(&front(&net, "none"), &mend);
    let _gate = Gate::start(&net, settings.clone());
    is_content(&net, &settings, MAIL, "sees the client's address");
    is_content(&net, &settings, MAIL, "550 relay not permitted");
}

#[test]
fn opensmtpd_takes_version_2_alone() {
    let Some(net) = Net::new().filter(|_| has_mail_programs()) else { return };
    let settings = front(&net, "proxy-v2");
    let opensmtpd = Mta::opensmtpd_behind(&net, "");
    opensmtpd.wait_behind(&net);
    let mend = finds(&net, &settings, MAIL, "greets without a PROXY header");
    assert_eq!(mend, "in smtpd.conf, proxy-v2 at the end of this listener's line");
    drop(opensmtpd);
    let opensmtpd = Mta::opensmtpd_behind(&net, "proxy-v2");
    opensmtpd.wait_behind(&net);
    is_content(&net, &settings, MAIL, TAKES);
    is_content(&net, &settings, MAIL, "sees the client's address");
    let settings = front(&net, "proxy-v1");
    let mend = finds(&net, &settings, MAIL, "takes a PROXY header of version 2, and not of version 1");
    is_content(&net, &with(&settings, &mend), MAIL, "does not relay");
}

#[test]
fn a_pass_service_that_nobody_serves_is_found() {
    let Some(net) = Net::new() else { return };
    let mut postfix = Postfix::passing(&net, &[(BEHIND, "")]);
    let path = Postfix::pass_socket(&net).display().to_string();
    let settings = Settings::in_place(&net).text("forward.mode", "postfix").text("forward.to", &path);
    is_content(&net, &settings, MAIL, "smtpd's pass service listens");
    postfix.down();
    assert_eq!(finds(&net, &settings, MAIL, "nobody listens"), "postfix start");
    postfix.up(&net);
    is_content(&net, &settings, MAIL, "smtpd's pass service listens");
    let elsewhere = settings.text("forward.to", &format!("{path}-other"));
    let mend = finds(&net, &elsewhere, MAIL, "smtpd's pass service is not there");
    assert_eq!(mend, "in master.cf, smtpd-other pass - - n - - smtpd; then postfix reload");
    assert_eq!(postfix.logged("from unknown"), 0, "nobody came by it");
}

const REDIS: &str = "redis";
const GOOD: &str = "takes and gives what the gates know";

/// A gate that shares by the servers at these URLs.
fn sharing(net: &Net, urls: &str) -> Settings {
    Settings::in_place(net).text("cache.backend", "redis").set("cache.redis.urls", urls)
}

/// Gives a command of the doctor's as one who may do everything.
fn obey(net: &Net, mend: &str) {
    let command = mend.replacen("redis-cli ", "redis-cli --user harness --pass any --no-auth-warning ", 1);
    let said = run("ip", ["netns", "exec", net.edge.name(), "sh", "-c", &command]);
    assert_eq!(said.trim(), "OK", "{mend}");
}

#[test]
fn what_is_spoilt_of_redis_is_found_and_its_command_mends_it() {
    let Some(net) = Net::new().filter(|_| has_redis()) else { return };
    let backplane = Backplane::behind([&net]);
    let mut redis = Redis::start(&backplane, PORT, &[&guarded("secret")]);
    let password = net.directory().join("password");
    fs::write(&password, "secret\n").unwrap();
    let settings = sharing(&net, r#"["redis://192.0.2.5:6379/0"]"#)
        .text("cache.redis.user", "mxscreen")
        .text("cache.redis.password_file", &password.display().to_string());
    is_content(&net, &settings, REDIS, GOOD);
    for (spoil, what) in [
        (&["ACL", "SETUSER", "mxscreen", "-xadd", "-time"][..], "does not let the user mxscreen use XADD, TIME"),
        (&["ACL", "SETUSER", "mxscreen", "resetkeys"], "use GET, MGET, SET, EXPIREAT, XADD, XREAD"),
        (&["ACL", "SETUSER", "mxscreen", "resetpass", ">other"], "does not let in the user mxscreen"),
        (&["CONFIG", "SET", "maxmemory", "1"], "is full, and takes nothing new"),
        (&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"], "throws away what has no end"),
    ] {
        redis.ask(spoil);
        let mend = finds(&net, &settings, REDIS, what);
        assert!(!mend.contains("secret"), "{mend}");
        obey(&net, &mend.replace("PASSWORD", "secret"));
        is_content(&net, &settings, REDIS, GOOD);
    }
    let open = sharing(&net, r#"["redis://192.0.2.5:6379/0"]"#);
    assert!(finds(&net, &open, REDIS, "NOAUTH").contains("cache.redis.password_file"));
    redis.kill();
    assert_eq!(finds(&net, &settings, REDIS, "can't be reached"), "redis-cli -h 192.0.2.5 -p 6379 ping");
    redis.restart(&backplane);
    is_content(&net, &settings, REDIS, GOOD);
    assert_eq!(redis.keys(""), [""; 0], "nothing was left there");
}

#[test]
fn a_replica_is_not_taken_for_its_master() {
    let Some(net) = Net::new().filter(|_| has_redis()) else { return };
    let backplane = Backplane::behind([&net]);
    let _master = Redis::start(&backplane, PORT, &[]);
    let replica = Redis::start(&backplane, PORT + 1, &[&format!("replicaof {} {PORT}", ADDRESSES[0])]);
    replica.wait_follows();
    let settings = sharing(&net, r#"["redis://192.0.2.5:6380"]"#);
    let mend = finds(&net, &settings, REDIS, "192.0.2.5:6380 is a replica of 192.0.2.5:6379");
    is_content(&net, &with(&settings, &mend), REDIS, "192.0.2.5:6379 (Redis ");
}

#[test]
fn sentinels_are_asked_for_the_master() {
    let Some(net) = Net::new().filter(|_| has_redis()) else { return };
    let backplane = Backplane::behind([&net]);
    let trio = Sentinels::start(&backplane);
    let url = |place: &str| sharing(&net, &format!("[\"redis+sentinel://{place}/0\"]"));
    is_content(&net, &url(&trio.place()), REDIS, "192.0.2.5:6379 (Redis ");
    let mend = finds(&net, &url("192.0.2.5:26379/nobody"), REDIS, "knows no master nobody");
    assert_eq!(mend, "redis-cli -h 192.0.2.5 -p 26379 ping");
}

#[test]
fn every_master_of_a_cluster_is_looked_at() {
    let Some(net) = Net::new().filter(|_| has_redis()) else { return };
    let backplane = Backplane::behind([&net]);
    let mut cluster = Cluster::start(&backplane);
    let urls: Vec<String> = cluster.seeds().iter().map(|seed| format!("redis://{seed}")).collect();
    let settings = sharing(&net, &format!("{urls:?}"));
    is_content(&net, &settings, REDIS, GOOD);
    assert_eq!(findings(&net, &settings, REDIS).len(), 3, "one for each master");

    // A master that nobody replaces, and that the others go on without.
    for node in &cluster.nodes {
        node.ask(&["CONFIG", "SET", "cluster-replica-no-failover", "yes"]);
        node.ask(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]);
    }
    let place = cluster.nodes[2].place();
    assert!(cluster.masters().contains(&2) && !cluster.seeds().contains(&place));
    cluster.nodes[2].kill();
    let mend = finds(&net, &settings, REDIS, &format!("{place} can't be reached"));
    assert_eq!(mend, "redis-cli -h 192.0.2.5 -p 7003 ping");
    cluster.nodes[2].restart(&backplane);
    wait_for("the master serves again", SOON, || {
        cluster.nodes[2].ask(&["CLUSTER", "INFO"]).text().starts_with("cluster_state:ok").then_some(())
    });
    is_content(&net, &settings, REDIS, GOOD);
}
