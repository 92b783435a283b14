use super::*;

fn served(greeting: &str, sees: Option<&str>, relaying: Relaying) -> Met {
    Met::Served(Served { greeting: greeting.to_owned(), sees: sees.map(|sees| sees.parse().unwrap()), relaying })
}

fn refusing(greeting: &str) -> Met {
    served(greeting, None, Relaying::Refused("454 4.7.1 relay access denied".to_owned()))
}

fn judged(way: ClientAddress, no_gate: Option<&str>, visits: &[(Manner, Met)]) -> Vec<Finding> {
    let examined = Examined {
        server: "127.0.0.1:10025".to_owned(),
        from: Some("127.0.0.1".parse().unwrap()),
        stranger: "192.0.2.1".parse().unwrap(),
        visits: visits.to_vec(),
    };
    let no_gate = no_gate.map(str::to_owned);
    judge(&MailServers { way, unknown: None, examined: vec![examined], no_gate, pass: None })
}

/// What is not fine, and its mend.
fn amiss(way: ClientAddress, visits: &[(Manner, Met)]) -> Vec<(Grade, String, String)> {
    let findings = judged(way, None, visits).into_iter().filter(|finding| finding.grade != Grade::Fine);
    findings.map(|finding| (finding.grade, finding.what, finding.mend.unwrap_or_default())).collect()
}

#[track_caller]
fn is(way: ClientAddress, visits: &[(Manner, Met)], grade: Grade, what: &str, mend: &str) {
    let amiss = amiss(way, visits);
    let [(found, said, mended)] = amiss.as_slice() else { panic!("{amiss:?}") };
    assert!(*found == grade && said.contains(what) && mended.contains(mend), "{amiss:?}");
}

#[test]
fn what_is_agreed_is_fine() {
    let seen = || served("220 mx ESMTP Exim", Some("192.0.2.1"), Relaying::Refused("550 no".to_owned()));
    for (way, visits) in [
        (ClientAddress::Kernel, vec![(Manner::Bare, seen())]),
        (ClientAddress::ProxyV2, vec![(Manner::Bare, Met::Silent), (Manner::ProxyV2, seen())]),
        (ClientAddress::ProxyV1, vec![(Manner::Bare, Met::Silent), (Manner::ProxyV1, seen())]),
    ] {
        assert_eq!(amiss(way, &visits), [], "{way:?}");
        assert_eq!(judged(way, None, &visits).len(), 3, "header, address, relaying");
    }
}

#[test]
fn one_that_takes_no_header_is_told_its_own_line() {
    for (greeting, line) in [
        ("220 mx ESMTP Postfix (Debian/GNU)", "smtpd_upstream_proxy_protocol=haproxy"),
        ("220 mx ESMTP Exim 4.96", "hosts_proxy = 127.0.0.1"),
        ("220 mx ESMTP OpenSMTPD", "proxy-v2"),
        ("220 mx", "smtpd_upstream_proxy_protocol=haproxy"),
    ] {
        let visits = [(Manner::Bare, refusing(greeting))];
        is(ClientAddress::ProxyV2, &visits, Grade::Wrong, "greets without a PROXY header", line);
    }
    let opensmtpd = [(Manner::Bare, refusing("220 mx ESMTP OpenSMTPD"))];
    is(ClientAddress::ProxyV1, &opensmtpd, Grade::Wrong, "greets without", "client_address = \"proxy-v2\"");
    // A slow one, which shows only to one who has time.
    let slow = [
        (Manner::Bare, Met::Silent),
        (Manner::ProxyV2, Met::Failed("greeted and closed it".to_owned())),
        (Manner::ProxyV1, Met::Failed("greeted and closed it".to_owned())),
        (Manner::Bare, refusing("220 mx")),
    ];
    is(ClientAddress::ProxyV2, &slow, Grade::Wrong, "greets without", "haproxy");
    assert_eq!(amiss(ClientAddress::Kernel, &slow), []);
}

#[test]
fn one_that_wants_another_header_is_told_the_gates_line() {
    let takes = |header| [(Manner::Bare, Met::Silent), (header, refusing("220 mx"))];
    let [v2, v1] = ["client_address = \"proxy-v2\"", "client_address = \"proxy-v1\""];
    for way in [ClientAddress::Kernel, ClientAddress::None] {
        is(way, &takes(Manner::ProxyV2), Grade::Wrong, "the gate sends none", v2);
        is(way, &takes(Manner::ProxyV1), Grade::Wrong, "the gate sends none", v1);
    }
    is(ClientAddress::ProxyV2, &takes(Manner::ProxyV1), Grade::Wrong, "version 1, and not of version 2", v1);
    is(ClientAddress::ProxyV1, &takes(Manner::ProxyV2), Grade::Wrong, "version 2, and not of version 1", v2);
}

#[test]
fn one_that_serves_nobody_is_looked_at() {
    let all =
        |met: Met| [Manner::Bare, Manner::ProxyV2, Manner::ProxyV1, Manner::Bare].map(|manner| (manner, met.clone()));
    let unreachable = [(Manner::Bare, Met::Unreachable("Connection refused".to_owned()))];
    for way in [ClientAddress::Kernel, ClientAddress::ProxyV2, ClientAddress::None] {
        is(way, &unreachable, Grade::Wrong, "can't be reached", "ss -ltnp 'sport = :10025'");
        is(way, &all(Met::Silent), Grade::Wrong, "says nothing", "ss ");
        is(way, &all(Met::Turned("421 busy".to_owned())), Grade::Wrong, "421 busy", "ss ");
        is(way, &all(Met::Turned("554 go away".to_owned())), Grade::Note, "554 go away", "");
    }
}

#[test]
fn whoever_relays_for_strangers_is_wrong() {
    let bare = [(Manner::Bare, served("220 mx ESMTP Postfix", None, Relaying::Accepted))];
    let by_header = [(Manner::Bare, Met::Silent), (Manner::ProxyV2, bare[0].1.clone())];
    is(ClientAddress::None, &bare, Grade::Wrong, "relays for everybody", "client_address = \"kernel\"");
    is(ClientAddress::Kernel, &bare, Grade::Wrong, "relays for everybody", "postconf mynetworks=");
    is(ClientAddress::ProxyV2, &by_header, Grade::Wrong, "relays for everybody", "postconf mynetworks=");
    let untold = [(Manner::Bare, served("220 mx", None, Relaying::Untold("it closed".to_owned())))];
    is(ClientAddress::Kernel, &untold, Grade::Unknown, "can't be told: it closed", "");
    is(ClientAddress::None, &[(Manner::Bare, refusing("220 mx"))], Grade::Note, "for this host", "\"kernel\"");
}

#[test]
fn a_client_that_is_taken_for_somebody_else_is_wrong() {
    let sees = |address| served("220 mx ESMTP Exim", Some(address), Relaying::Refused("550 no".to_owned()));
    let visits = [(Manner::Bare, Met::Silent), (Manner::ProxyV2, sees("127.0.0.1"))];
    is(ClientAddress::ProxyV2, &visits, Grade::Wrong, "192.0.2.1 for 127.0.0.1", "hosts_proxy");
}

#[test]
fn what_only_a_gate_can_see_is_not_guessed() {
    // As the doctor itself comes from this host, the mail server would relay for it.
    let visits = [(Manner::Bare, served("220 mx", Some("127.0.0.1"), Relaying::Accepted))];
    let grades: Vec<Grade> =
        judged(ClientAddress::Kernel, Some("it is not there"), &visits).iter().map(|found| found.grade).collect();
    assert_eq!(grades, [Grade::Fine, Grade::Unknown]);
}
