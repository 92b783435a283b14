//! A Redis that asks who is there, and gates that ask who it is.

use std::{fs, os::unix::fs::PermissionsExt as _};

use screen_tests::{
    certificate::Authority,
    fleet::{Edge, Fleet},
    redis::{PORT, Redis, encrypted, guarded},
};

use super::{CLIENTS, URLS, assert_known, ip};

const PASSWORD: &str = "Dwp0tD-sesame-9";

/// Everything that this gate has written and that it answers.
fn said(edge: &Edge) -> String {
    let directory = edge.settings().directory();
    let written = ["log", "output"].map(|file| fs::read_to_string(directory.join(file)).unwrap_or_default());
    let answers = [&["status"][..], &["status", "--json"], &["list"]].map(|words| edge.gate().tell(words));
    let (_, checked) = edge.settings().run_to_end(&edge.net().edge, &[], &["check"]);
    [&written[..], &answers, &[checked]].concat().concat()
}

fn with_password(fleet: &mut Fleet, password: &str) {
    let file = fleet.backplane.directory().join("password");
    fs::write(&file, format!("{password}\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let file = file.display().to_string();
    fleet.configure(|settings| settings.text("cache.redis.user", "mxscreen").text("cache.redis.password_file", &file));
}

#[test]
fn a_gate_needs_few_rights_and_speaks_tls() {
    let Some(mut fleet) = Fleet::new(2, r#"["rediss://192.0.2.5:6379/0"]"#) else { return };
    let authority = Authority::make(fleet.backplane.directory());
    let ca = authority.file().display().to_string();
    let asks = format!("tls-ca-cert-file {ca}\ntls-auth-clients yes");
    let lines = [guarded(PASSWORD), encrypted(PORT, &authority.sign("redis", "IP:192.0.2.5")), asks];
    let redis = Redis::start(&fleet.backplane, PORT, &lines.each_ref().map(String::as_str));
    with_password(&mut fleet, PASSWORD);
    let own = authority.sign("gates", "DNS:mx.example.test");
    let (certificate, key) = (own.certificate.display().to_string(), own.key.display().to_string());
    fleet.configure(|settings| {
        let settings = settings.text("cache.redis.ca_file", &ca);
        settings.text("cache.redis.certificate", &certificate).text("cache.redis.key", &key)
    });
    fleet.start();
    fleet.edges[0].tests(ip(CLIENTS[0]));
    assert_known(&fleet.edges, &CLIENTS[..1]);
    fleet.edges[1].gate().tell(&["deny", "198.18.1.7"]);
    fleet.edges[0].gate().wait_denied(ip("198.18.1.7"));
    fleet.edges[0].gate().tell(&["forget", "198.18.1.7"]);
    // What it takes to start, too.
    fleet.edges[1].stop();
    fleet.edges[1].start();
    assert_eq!(fleet.wait_agreement().passed.len(), 1);
    assert_eq!(redis.ask(&["ACL", "LOG"]).list(), [], "nothing was refused");
    for edge in &fleet.edges {
        assert!(!said(edge).contains(PASSWORD));
    }
}

#[test]
fn a_certificate_that_nobody_vouches_for_is_not_spoken_to() {
    let Some(mut fleet) = Fleet::new(1, r#"["rediss://192.0.2.5:6379/0"]"#) else { return };
    let others = fleet.backplane.directory().join("others");
    fs::create_dir_all(&others).unwrap();
    let (authority, another) = (Authority::make(fleet.backplane.directory()), Authority::make(&others));
    let _redis = Redis::start(&fleet.backplane, PORT, &[&encrypted(PORT, &another.sign("redis", "IP:192.0.2.5"))]);
    let ca = authority.file().display().to_string();
    fleet.configure(|settings| settings.text("cache.redis.ca_file", &ca));
    fleet.edges[0].start();
    let line = fleet.edges[0].gate().wait_log("192.0.2.5:6379");
    assert!(line.contains("certificate"), "{line}");
    assert_eq!(fleet.edges[0].redis()["connected"], false);
    fleet.edges[0].tests(ip(CLIENTS[0]));
}

#[test]
fn a_wrong_password_is_a_message_and_no_secret() {
    let Some(mut fleet) = Fleet::new(1, URLS) else { return };
    let redis = Redis::start(&fleet.backplane, PORT, &[&guarded("another")]);
    with_password(&mut fleet, PASSWORD);
    fleet.edges[0].start();
    let edge = &fleet.edges[0];
    let line = edge.gate().wait_log("192.0.2.5:6379");
    assert!(line.to_lowercase().contains("password"), "{line}");
    edge.wait_disconnected();
    edge.tests(ip(CLIENTS[0]));
    assert!(!said(edge).contains(PASSWORD));
    // The server is told of the right one meanwhile.
    redis.ask(&["ACL", "SETUSER", "mxscreen", &format!(">{PASSWORD}")]);
    edge.wait_synced();
    assert!(!said(edge).contains(PASSWORD));
}
