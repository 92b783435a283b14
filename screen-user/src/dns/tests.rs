use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use hickory_resolver::proto::op::ResponseCode;
use tokio::{sync::mpsc, time::timeout};

use super::{
    query::reversed,
    testserver::{Answer, TestServer, listed, not_listed},
    *,
};
use crate::screen::event::{DnsblAnswer, ZoneReply};

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 9));
const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10));

/// More than any of these tests takes.
const LONG: Duration = Duration::from_secs(60);

fn zone(name: &str) -> ZoneName {
    ZoneName::new(name, name)
}

fn quiet() -> Options {
    Options { probe: None, ..Options::default() }
}

async fn gate(zones: &[&str], options: Options) -> (TestServer, Dnsbl, mpsc::Receiver<Report>) {
    let server = TestServer::start().await;
    let resolver =
        config::Resolver { system: Vec::new(), servers: vec![server.address], timeout: Duration::from_secs(10) };
    let zones = zones.iter().map(|name| zone(name)).collect();
    let (dnsbl, reports) = Dnsbl::with_options(zones, &resolver, options).unwrap();
    (server, dnsbl, reports)
}

async fn next(subscription: &mut Subscription) -> Option<DnsblAnswer> {
    timeout(LONG, subscription.next()).await.expect("an answer in time")
}

/// All answers, in the zones' order.
async fn all(mut subscription: Subscription) -> Vec<ZoneReply> {
    let mut answers = Vec::new();
    while let Some(answer) = next(&mut subscription).await {
        answers.push(answer);
    }
    answers.sort_by_key(|answer| answer.zone);
    let zones: Vec<_> = answers.iter().map(|answer| answer.zone).collect();
    assert_eq!(zones, (0..answers.len()).collect::<Vec<_>>(), "each zone once");
    answers.into_iter().map(|answer| answer.reply).collect()
}

async fn one(dnsbl: &Dnsbl, client: IpAddr) -> ZoneReply {
    let mut answers = all(dnsbl.subscribe(client)).await;
    assert_eq!(answers.len(), 1);
    answers.remove(0)
}

async fn report(reports: &mut mpsc::Receiver<Report>) -> Report {
    timeout(LONG, reports.recv()).await.expect("a report in time").expect("a sender")
}

fn listing(codes: &[[u8; 4]], ttl: u64) -> ZoneReply {
    let codes = codes.iter().map(|code| Ipv4Addr::from(*code)).collect();
    ZoneReply::Listed { codes, ttl: Some(Duration::from_secs(ttl)) }
}

fn absent(ttl: Option<u64>) -> ZoneReply {
    ZoneReply::NotListed { ttl: ttl.map(Duration::from_secs) }
}

#[test]
fn addresses_are_reversed() {
    assert_eq!(reversed("1.2.3.4".parse().unwrap()), "4.3.2.1");
    assert_eq!(
        reversed("2001:db8:18::af".parse().unwrap()),
        "f.a.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.1.0.0.8.b.d.0.1.0.0.2"
    );
}

#[test]
fn a_secret_zone_is_never_printed() {
    let secret = ZoneName::new("k3y-4242.paid.test", "paid.test");
    let texts = [
        format!("{secret} {secret:?}"),
        SetupError::Zone(secret.clone()).to_string(),
        Report::Hit { client: CLIENT, zone: secret.clone(), code: Ipv4Addr::LOCALHOST }.to_string(),
        Report::Failed { client: CLIENT, zone: secret.clone(), failure: Failure::Refused, suppressed: 1 }.to_string(),
        format!("{:?}", Report::Suspended(secret.clone())),
        Report::NoTestPoint(secret.clone()).to_string(),
        Report::Resumed(secret).to_string(),
    ];
    for text in texts {
        assert!(text.contains("paid.test") && !text.contains("k3y"), "{text}");
    }
}

#[tokio::test]
async fn a_zone_without_room_for_an_address_is_refused() {
    let resolver =
        config::Resolver { system: Vec::new(), servers: vec!["127.0.0.1:53".parse().unwrap()], timeout: LONG };
    let long = ["a"; 100].join(".");
    for name in ["", ".", "a..b", &"x".repeat(64), &long] {
        let outcome = Dnsbl::with_options(vec![zone(name)], &resolver, quiet());
        assert!(matches!(outcome, Err(SetupError::Zone(_))), "{name}");
    }
}

#[tokio::test]
async fn without_zones_there_is_nothing_to_wait_for() {
    let (server, dnsbl, _reports) = gate(&[], quiet()).await;
    assert_eq!(all(dnsbl.subscribe(CLIENT)).await, []);
    assert_eq!(dnsbl.lookups(), 0);
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn a_listing_has_its_codes_and_their_lowest_ttl() {
    let (server, dnsbl, mut reports) = gate(&["bl.test"], quiet()).await;
    let addresses = vec![([127, 0, 0, 2].into(), 300), ([127, 0, 0, 9].into(), 60)];
    server.set("9.2.0.192.bl.test", [Answer::Addresses(addresses, None)]);
    assert_eq!(one(&dnsbl, CLIENT).await, listing(&[[127, 0, 0, 2], [127, 0, 0, 9]], 60));
    let lines = [report(&mut reports).await.to_string(), report(&mut reports).await.to_string()];
    assert_eq!(
        lines,
        [
            "addr 192.0.2.9 listed by domain bl.test as 127.0.0.2",
            "addr 192.0.2.9 listed by domain bl.test as 127.0.0.9"
        ]
    );
    let stats = dnsbl.stats().remove(0);
    assert_eq!((stats.queries, stats.listed, stats.latency.count), (1, 1, 1));
    assert_eq!(server.asked(), [("9.2.0.192.bl.test".to_owned(), false)], "no search domain, no second query");
}

#[tokio::test]
async fn both_families_and_mapped_addresses_are_asked_for() {
    let (server, dnsbl, _reports) = gate(&["bl.test"], quiet()).await;
    let v6: IpAddr = "2001:db8::1".parse().unwrap();
    server.set(&format!("{}.bl.test", reversed(v6)), [listed(60, &[[127, 0, 0, 2]])]);
    assert_eq!(one(&dnsbl, v6).await, listing(&[[127, 0, 0, 2]], 60));
    assert_eq!(one(&dnsbl, "::ffff:192.0.2.9".parse().unwrap()).await, absent(Some(300)));
    assert_eq!(server.count("9.2.0.192.bl.test"), 1);
}

#[tokio::test]
async fn a_negative_answer_has_the_ttl_of_its_soa_record() {
    let (server, dnsbl, _reports) = gate(&["nx.test", "nodata.test", "nosoa.test", "empty.test"], quiet()).await;
    server.set("9.2.0.192.nx.test", [not_listed(120)]);
    server.set("9.2.0.192.nodata.test", [Answer::Nothing(ResponseCode::NoError, Some((90, 5)))]);
    server.set("9.2.0.192.nosoa.test", [Answer::Nothing(ResponseCode::NXDomain, None)]);
    server.set("9.2.0.192.empty.test", [Answer::Nothing(ResponseCode::NoError, None)]);
    let answers = all(dnsbl.subscribe(CLIENT)).await;
    assert_eq!(answers, [absent(Some(120)), absent(Some(90)), absent(None), absent(None)]);
}

#[tokio::test]
async fn an_alias_is_followed_and_its_ttl_does_not_count() {
    let (server, dnsbl, _reports) = gate(&["bl.test"], quiet()).await;
    let addresses = vec![([127, 0, 0, 4].into(), 200)];
    server.set("9.2.0.192.bl.test", [Answer::Addresses(addresses, Some("other.test."))]);
    server.set("10.2.0.192.bl.test", [Answer::Addresses(Vec::new(), Some("far.test."))]);
    server.set("far.test", [listed(200, &[[127, 0, 0, 5]])]);
    assert_eq!(one(&dnsbl, CLIENT).await, listing(&[[127, 0, 0, 4]], 200));
    assert_eq!(one(&dnsbl, OTHER).await, listing(&[[127, 0, 0, 5]], 200));
}

#[tokio::test]
async fn a_truncated_answer_is_fetched_over_tcp() {
    let (server, dnsbl, _reports) = gate(&["bl.test"], quiet()).await;
    let codes: Vec<_> = (0..100).map(|last| [127, 0, 0, last]).collect();
    server.set("9.2.0.192.bl.test", [Answer::Truncated(Box::new(listed(60, &codes)))]);
    assert_eq!(one(&dnsbl, CLIENT).await, listing(&codes, 60));
    let name = "9.2.0.192.bl.test".to_owned();
    assert_eq!(server.asked(), [(name.clone(), false), (name, true)]);
}

#[tokio::test]
async fn a_failing_zone_is_asked_once_and_counted() {
    let (server, dnsbl, mut reports) = gate(&["fail.test", "no.test", "odd.test"], quiet()).await;
    server.set("9.2.0.192.fail.test", [Answer::Nothing(ResponseCode::ServFail, None)]);
    server.set("9.2.0.192.no.test", [Answer::Nothing(ResponseCode::Refused, None)]);
    server.set("9.2.0.192.odd.test", [Answer::Nothing(ResponseCode::NotImp, None)]);
    let answers = all(dnsbl.subscribe(CLIENT)).await;
    assert_eq!(answers, [ZoneReply::Failed, ZoneReply::Failed, ZoneReply::Failed]);
    let stats = dnsbl.stats();
    assert_eq!((stats[0].server_failures, stats[1].refused, stats[2].bad_responses), (1, 1, 1));
    assert_eq!(server.asked().len(), 3);
    let mut lines = Vec::new();
    for _ in 0..3 {
        lines.push(report(&mut reports).await.to_string());
    }
    lines.sort();
    let lead = "warning: dnsblog_query: lookup error for DNS query 9.2.0.192";
    assert_eq!(
        lines,
        [
            format!("{lead}.fail.test: server failure"),
            format!("{lead}.no.test: query refused"),
            format!("{lead}.odd.test: unusable response"),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_response_that_makes_no_sense_is_a_failure() {
    let (server, dnsbl, _reports) = gate(&["bl.test"], quiet()).await;
    let question = b"\x019\x012\x010\x03192\x02bl\x04test\0\0\x01\0\x01".as_slice();
    let one_answer = b"\x84\0\0\x01\0\x01\0\0\0\0".as_slice();
    let cases: [Vec<u8>; 6] = [
        Vec::new(),
        vec![0xff; 3],
        vec![0xff; 600],
        one_answer.to_vec(),
        // An answer whose name points to itself.
        [one_answer, question, b"\xc0\x23\0\x01\0\x01\0\0\0\x3c\0\x04\x7f\0\0\x02"].concat(),
        // An address of three bytes.
        [one_answer, question, b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x03\x7f\0\0"].concat(),
    ];
    for bytes in cases {
        server.set("9.2.0.192.bl.test", [Answer::Bytes(bytes.clone())]);
        assert_eq!(one(&dnsbl, CLIENT).await, ZoneReply::Failed, "{}", bytes.escape_ascii());
    }
    let sound = [one_answer, question, b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\x7f\0\0\x02"].concat();
    server.set("9.2.0.192.bl.test", [Answer::Bytes(sound)]);
    assert_eq!(one(&dnsbl, CLIENT).await, listing(&[[127, 0, 0, 2]], 60));
}

#[tokio::test]
async fn failures_of_a_zone_do_not_flood_the_log() {
    let (server, dnsbl, mut reports) = gate(&["fail.test"], quiet()).await;
    for last in 1..=5 {
        let client = IpAddr::V4(Ipv4Addr::new(192, 0, 2, last));
        server.set(&format!("{}.fail.test", reversed(client)), [Answer::Nothing(ResponseCode::ServFail, None)]);
        assert_eq!(one(&dnsbl, client).await, ZoneReply::Failed);
    }
    assert!(matches!(report(&mut reports).await, Report::Failed { suppressed: 0, .. }));
    assert!(reports.try_recv().is_err());
    assert_eq!(dnsbl.stats()[0].server_failures, 5);
}

#[tokio::test]
async fn error_codes_are_failures_and_never_listings() {
    let (server, dnsbl, mut reports) = gate(&["bl.test"], quiet()).await;
    let cases: [&[[u8; 4]]; 7] = [
        &[[127, 255, 255, 254]],
        &[[127, 255, 255, 0]],
        &[[127, 0, 1, 255]],
        &[[1, 2, 3, 4]],
        &[[0, 0, 0, 0]],
        &[[127, 0, 0, 2], [127, 255, 255, 252]],
        &[[192, 0, 2, 1], [127, 0, 0, 2]],
    ];
    for codes in cases {
        server.set("9.2.0.192.bl.test", [listed(60, codes)]);
        assert_eq!(one(&dnsbl, CLIENT).await, ZoneReply::Failed, "{codes:?}");
    }
    let stats = dnsbl.stats().remove(0);
    assert_eq!((stats.error_codes, stats.listed), (7, 0));
    assert_eq!(
        report(&mut reports).await.to_string(),
        "warning: dnsblog_query: lookup error for DNS query 9.2.0.192.bl.test: error code 127.255.255.254, which is no listing"
    );
    for codes in [[127, 0, 0, 1], [127, 255, 254, 255], [127, 0, 1, 254], [127, 0, 2, 255]] {
        server.set("9.2.0.192.bl.test", [listed(60, &[codes])]);
        assert_eq!(one(&dnsbl, CLIENT).await, listing(&[codes], 60));
    }
}

#[tokio::test(start_paused = true)]
async fn silence_ends_at_the_limit() {
    let (server, dnsbl, mut reports) = gate(&["dead.test"], quiet()).await;
    server.set("9.2.0.192.dead.test", [Answer::Silence]);
    let start = tokio::time::Instant::now();
    assert_eq!(one(&dnsbl, CLIENT).await, ZoneReply::Failed);
    assert_eq!(start.elapsed().as_secs(), 10, "of virtual time");
    let stats = dnsbl.stats().remove(0);
    assert_eq!((stats.queries, stats.timed_out, stats.latency.count), (1, 1, 0));
    assert_eq!(report(&mut reports).await.to_string(), "warning: dnsblog reply timeout 10s for dead.test");
}

#[tokio::test]
async fn a_slow_answer_is_one_query() {
    let (server, dnsbl, _reports) = gate(&["slow.test"], quiet()).await;
    let slow = Answer::Delayed(Duration::from_millis(900), Box::new(listed(60, &[[127, 0, 0, 2]])));
    server.set("9.2.0.192.slow.test", [slow, not_listed(60)]);
    assert_eq!(one(&dnsbl, CLIENT).await, listing(&[[127, 0, 0, 2]], 60));
    assert_eq!(server.count("9.2.0.192.slow.test"), 1);
}

#[tokio::test]
async fn a_resolver_that_is_silent_gives_way_to_the_next() {
    let (silent, live) = (TestServer::start().await, TestServer::start().await);
    let resolver = config::Resolver {
        system: Vec::new(),
        servers: vec![silent.address, live.address],
        timeout: Duration::from_secs(3),
    };
    let (dnsbl, _reports) = Dnsbl::with_options(vec![zone("bl.test")], &resolver, quiet()).unwrap();
    for last in 1..=3 {
        let client = IpAddr::V4(Ipv4Addr::new(192, 0, 2, last));
        let name = format!("{}.bl.test", reversed(client));
        silent.set(&name, [Answer::Silence]);
        live.set(&name, [listed(60, &[[127, 0, 0, 2]])]);
        assert_eq!(one(&dnsbl, client).await, listing(&[[127, 0, 0, 2]], 60));
    }
}

#[tokio::test]
async fn each_look_up_asks_anew() {
    let (server, dnsbl, _reports) = gate(&["bl.test"], quiet()).await;
    server.set(
        "9.2.0.192.bl.test",
        [not_listed(300), listed(600, &[[127, 0, 0, 2]]), listed(600, &[[127, 0, 0, 3]]), not_listed(300)],
    );
    assert_eq!(one(&dnsbl, CLIENT).await, absent(Some(300)));
    assert_eq!(one(&dnsbl, CLIENT).await, listing(&[[127, 0, 0, 2]], 600));
    assert_eq!(one(&dnsbl, CLIENT).await, listing(&[[127, 0, 0, 3]], 600));
    assert_eq!(one(&dnsbl, CLIENT).await, absent(Some(300)));
    assert_eq!(dnsbl.lookups(), 0);
}

#[tokio::test]
async fn what_was_said_last_is_known_without_a_question() {
    let (server, dnsbl, mut reports) = gate(&["fast.test", "held.test"], quiet()).await;
    server.set("9.2.0.192.held.test", [Answer::Held(Box::new(not_listed(60)))]);
    let said = |client: IpAddr| dnsbl.said(client.into());
    assert_eq!(said(CLIENT), None);
    let mut asks = dnsbl.subscribe(CLIENT);
    let fast = next(&mut asks).await.unwrap();
    assert_eq!(said(CLIENT).map(|said| said.answers), Some(vec![fast]), "while the other is awaited");
    drop(asks);
    server.release();
    let Report::Late(late) = report(&mut reports).await else { panic!("a late answer") };
    assert_eq!(late.answers.len(), 2);
    assert_eq!(said(CLIENT).map(|said| said.answers), Some(late.answers));
    assert_eq!(said(OTHER), None);
    assert_eq!(server.asked().len(), 2);
}

#[tokio::test]
async fn who_joins_gets_the_earlier_answers_first() {
    let (server, dnsbl, _reports) = gate(&["fast.test", "held.test"], quiet()).await;
    server.set("9.2.0.192.held.test", [Answer::Held(Box::new(listed(60, &[[127, 0, 0, 2]])))]);
    let mut first = dnsbl.subscribe(CLIENT);
    let fast = next(&mut first).await;
    assert_eq!(fast, Some(DnsblAnswer { zone: 0, reply: absent(Some(300)) }));
    let mut joiner = dnsbl.subscribe(CLIENT);
    assert_eq!(dnsbl.lookups(), 1);
    assert_eq!(next(&mut joiner).await, fast);
    server.release();
    let held = Some(DnsblAnswer { zone: 1, reply: listing(&[[127, 0, 0, 2]], 60) });
    assert_eq!(next(&mut first).await, held);
    assert_eq!(next(&mut joiner).await, held);
    assert_eq!((next(&mut first).await, next(&mut joiner).await), (None, None));

    let finished = dnsbl.subscribe(CLIENT);
    assert_eq!(all(finished).await.len(), 2, "a finished look-up that is held is joined too");
    assert_eq!(server.asked().len(), 2);
    drop((first, joiner));
    assert_eq!(dnsbl.lookups(), 0);
}

#[tokio::test]
async fn a_look_up_outlives_its_subscribers_and_is_late() {
    let (server, dnsbl, mut reports) = gate(&["held.test", "fast.test"], quiet()).await;
    server.set("9.2.0.192.held.test", [Answer::Held(Box::new(not_listed(60)))]);
    let mut subscription = dnsbl.subscribe(CLIENT);
    assert!(next(&mut subscription).await.is_some());
    drop(subscription);
    assert_eq!(dnsbl.lookups(), 1, "it still runs");
    server.release();
    let answers =
        vec![DnsblAnswer { zone: 1, reply: absent(Some(300)) }, DnsblAnswer { zone: 0, reply: absent(Some(60)) }];
    assert_eq!(report(&mut reports).await, Report::Late(LateResult { client: CLIENT, answers }));
    assert_eq!(dnsbl.lookups(), 0);
    assert_eq!(server.asked().len(), 2);
}

#[tokio::test]
async fn who_leaves_between_the_last_answer_and_its_reading_is_late_once() {
    let (_server, dnsbl, mut reports) = gate(&["bl.test"], quiet()).await;
    let unread = [dnsbl.subscribe(CLIENT), dnsbl.subscribe(CLIENT)];
    let reader = dnsbl.subscribe(CLIENT);
    assert_eq!(all(reader).await.len(), 1);
    drop(unread);
    assert!(matches!(report(&mut reports).await, Report::Late(LateResult { client: CLIENT, .. })));
    assert!(reports.try_recv().is_err());
    assert_eq!(dnsbl.lookups(), 0);
}

#[tokio::test]
async fn who_has_read_everything_is_not_late() {
    let (_server, dnsbl, mut reports) = gate(&["a.test", "b.test"], quiet()).await;
    assert_eq!(all(dnsbl.subscribe(CLIENT)).await.len(), 2);
    assert!(reports.try_recv().is_err());
}

#[tokio::test]
async fn look_ups_beyond_the_bound_fail_at_once() {
    let (server, dnsbl, _reports) = gate(&["held.test", "b.test"], Options { lookups: 1, ..quiet() }).await;
    server.set("9.2.0.192.held.test", [Answer::Held(Box::new(not_listed(60)))]);
    let first = dnsbl.subscribe(CLIENT);
    assert_eq!(all(dnsbl.subscribe(OTHER)).await, [ZoneReply::Failed, ZoneReply::Failed]);
    let joiner = dnsbl.subscribe(CLIENT);
    server.release();
    assert_eq!(all(first).await, [absent(Some(60)), absent(Some(300))]);
    assert_eq!(all(joiner).await, [absent(Some(60)), absent(Some(300))]);
    assert_eq!(dnsbl.stats()[0].overloaded, 1);
    assert_eq!(server.count("10.2.0.192.held.test"), 0);
    assert_eq!(all(dnsbl.subscribe(OTHER)).await, [absent(Some(300)), absent(Some(300))], "there is room again");
}

#[tokio::test]
async fn queries_beyond_the_zones_bound_wait_and_hold_up_no_other_zone() {
    let (server, dnsbl, _reports) = gate(&["held.test", "b.test"], Options { queries_per_zone: 1, ..quiet() }).await;
    for name in ["9.2.0.192.held.test", "10.2.0.192.held.test"] {
        server.set(name, [Answer::Held(Box::new(not_listed(60)))]);
    }
    let mut first = dnsbl.subscribe(CLIENT);
    let mut second = dnsbl.subscribe(OTHER);
    assert_eq!(next(&mut first).await.map(|answer| answer.zone), Some(1));
    assert_eq!(next(&mut second).await.map(|answer| answer.zone), Some(1));
    let held = server.asked().iter().filter(|(name, _)| name.ends_with("held.test")).count();
    assert!(held <= 1, "one permit, {held} queries");
    server.release();
    assert_eq!(next(&mut first).await.map(|answer| answer.zone), Some(0));
    assert_eq!(next(&mut second).await.map(|answer| answer.zone), Some(0));
}

#[tokio::test]
async fn reports_that_nobody_takes_are_lost_and_counted() {
    let (server, dnsbl, mut reports) = gate(&["bl.test"], Options { reports: 1, ..quiet() }).await;
    server.set("9.2.0.192.bl.test", [listed(60, &[[127, 0, 0, 2], [127, 0, 0, 3], [127, 0, 0, 4]])]);
    assert!(matches!(one(&dnsbl, CLIENT).await, ZoneReply::Listed { .. }));
    assert_eq!(dnsbl.reports_lost(), 2);
    assert!(matches!(report(&mut reports).await, Report::Hit { .. }));
}

/// Asks for the test points all the time.
fn probing() -> Options {
    let interval = Duration::from_millis(20);
    Options { probe: Some(Probe { interval, suspended_interval: interval }), ..Options::default() }
}

#[tokio::test]
async fn a_zone_that_lists_everybody_is_suspended_until_it_stops() {
    let (server, dnsbl, mut reports) = gate(&["bl.test"], quiet()).await;
    let everybody = || [listed(60, &[[127, 0, 0, 2]])];
    for name in ["1.0.0.127.bl.test", "2.0.0.127.bl.test", "9.2.0.192.bl.test"] {
        server.set(name, everybody());
    }
    assert!(matches!(one(&dnsbl, CLIENT).await, ZoneReply::Listed { .. }), "nobody has looked yet");
    assert!(matches!(report(&mut reports).await, Report::Hit { .. }));

    health::watch(&dnsbl.desk, probing().probe.unwrap());
    assert_eq!(report(&mut reports).await, Report::Suspended(zone("bl.test")));
    assert_eq!(one(&dnsbl, CLIENT).await, ZoneReply::Failed);
    assert_eq!(server.count("9.2.0.192.bl.test"), 1, "a suspended zone is not asked");
    let stats = dnsbl.stats().remove(0);
    assert_eq!((stats.skipped, stats.queries), (1, 1));
    assert!(stats.suspended_since.is_some());

    server.set("1.0.0.127.bl.test", [not_listed(60)]);
    assert_eq!(report(&mut reports).await, Report::Resumed(zone("bl.test")));
    assert!(matches!(one(&dnsbl, CLIENT).await, ZoneReply::Listed { .. }));
    assert_eq!(dnsbl.stats()[0].suspended_since, None);
}

#[tokio::test]
async fn a_suspended_zone_that_fails_stays_suspended() {
    let (server, dnsbl, mut reports) = gate(&["bl.test"], probing()).await;
    server.set("1.0.0.127.bl.test", [listed(60, &[[127, 0, 0, 2]]), Answer::Nothing(ResponseCode::ServFail, None)]);
    loop {
        // The first round can have been before the answer was set.
        if report(&mut reports).await == Report::Suspended(zone("bl.test")) {
            break;
        }
    }
    let rounds = server.count("1.0.0.127.bl.test");
    server.until("1.0.0.127.bl.test", rounds + 3).await;
    assert!(dnsbl.stats()[0].suspended_since.is_some());
    assert!(reports.try_recv().is_err());
}

#[tokio::test]
async fn a_zone_without_test_points_is_reported_once_and_used() {
    let (server, dnsbl, mut reports) = gate(&["wl.test"], probing()).await;
    server.set("9.2.0.192.wl.test", [listed(60, &[[127, 0, 0, 2]])]);
    assert_eq!(report(&mut reports).await, Report::NoTestPoint(zone("wl.test")));
    server.until("2.0.0.127.wl.test", 3).await;
    assert!(reports.try_recv().is_err());
    let stats = dnsbl.stats().remove(0);
    assert_eq!((stats.test_point, stats.suspended_since, stats.queries), (Some(false), None, 0));
    assert!(matches!(one(&dnsbl, CLIENT).await, ZoneReply::Listed { .. }));
}

#[tokio::test]
async fn probing_ends_with_its_last_user() {
    let (_server, dnsbl, mut reports) = gate(&["bl.test"], probing()).await;
    drop(dnsbl);
    // The channel closes when the last holder of the desk has gone.
    timeout(LONG, async { while reports.recv().await.is_some() {} }).await.unwrap();
}

#[test]
fn latencies_fall_into_their_buckets() {
    let mut latency = Latency::default();
    for millis in [0, 1, 2, 3, 250, 9_999, 60_000] {
        latency.record(Duration::from_millis(millis));
    }
    assert_eq!(latency.buckets, [2, 2, 0, 0, 0, 1, 0, 0, 1, 1]);
    assert_eq!((latency.count, latency.max_us), (7, 60_000_000));
}
