use std::{net::SocketAddr, sync::Arc, time::Duration};

use hickory_resolver::proto::{
    op::ResponseCode,
    rr::rdata::{A, AAAA, MX, TXT},
};

use super::*;
use crate::dns::testserver::{Answer as Has, TestServer};

const WIDEST: Widest = Widest { ipv4: 17, ipv6: 33 };

fn text(text: &str) -> RData {
    // A string of TXT has 255 bytes at most.
    let parts = text.as_bytes().chunks(255).map(|part| String::from_utf8(part.to_vec()).unwrap());
    RData::TXT(TXT::new(parts.collect()))
}

fn v4(address: &str) -> RData {
    RData::A(A(address.parse().unwrap()))
}

fn v6(address: &str) -> RData {
    RData::AAAA(AAAA(address.parse().unwrap()))
}

fn exchange(name: &str) -> RData {
    RData::MX(MX::new(10, Name::from_ascii(name).unwrap()))
}

fn spf(server: SocketAddr) -> Spf {
    let resolver = config::Resolver { system: Vec::new(), servers: vec![server], timeout: Duration::from_secs(10) };
    Spf::new(&resolver, WIDEST).unwrap()
}

/// A server with these records, each with a TTL of 300 s.
async fn serving(records: &[(&str, &[RData])]) -> TestServer {
    let server = TestServer::start().await;
    for (name, data) in records {
        server.set(name, [Has::Records(data.to_vec(), 300)]);
    }
    server
}

async fn ask(server: &TestServer) -> Result<Answer, Trouble> {
    spf(server.address).ask(&Domain::parse("d.test").unwrap()).await
}

/// The networks of d.test, written out, and the remarks.
async fn found(server: &TestServer) -> (Vec<String>, Vec<String>) {
    let answer = ask(server).await.unwrap();
    let networks = answer.networks.as_ref().map(Networks::networks).unwrap_or_default();
    (networks.iter().map(ToString::to_string).collect(), answer.remarks)
}

#[tokio::test]
async fn all_mechanisms_become_networks() {
    let server = serving(&[
        ("w.test", &[v4("203.0.113.7")]),
        ("i.test", &[text("v=spf1 -ip4:198.51.100.128/25 ip4:198.51.100.0/24 ?all")]),
        ("m.test", &[v4("192.0.2.200"), v6("2001:db8:1::1f")]),
    ])
    .await;
    let own = [
        text("other=1"),
        text("v=spf1 ip4:192.0.2.0/25 ip6:2001:db8::/64 a/31 mx//124 a:w.test include:i.test -all"),
        v4("203.0.113.9"),
        exchange("m.test."),
    ];
    server.set("d.test", [Has::Records(own.to_vec(), 300)]);
    let (networks, remarks) = found(&server).await;
    assert_eq!(
        networks,
        [
            "192.0.2.0/25",
            "192.0.2.200/32",
            "198.51.100.0/25",
            "203.0.113.7/32",
            "203.0.113.8/31",
            "2001:db8::/64",
            "2001:db8:1::10/124"
        ]
    );
    assert_eq!(remarks, [""; 0]);
}

#[tokio::test]
async fn a_redirect_counts_for_those_who_are_left() {
    let server = serving(&[
        ("d.test", &[text("v=spf1 -ip4:192.0.2.0/26 redirect=r.test")]),
        ("r.test", &[text("v=spf1 ip4:192.0.2.0/25 -all")]),
    ])
    .await;
    assert_eq!(found(&server).await.0, ["192.0.2.64/26"]);
    server.set("d.test", [Has::Records(vec![text("v=spf1 ip4:198.51.100.1 -all redirect=r.test")], 300)]);
    assert_eq!(found(&server).await.0, ["198.51.100.1/32"]);
}

#[tokio::test]
async fn a_chain_of_includes_is_followed_and_the_lowest_ttl_counts() {
    let server = serving(&[
        ("d.test", &[text("v=spf1 include:a.test -all")]),
        ("b.test", &[text("v=spf1 include:c.test -all")]),
    ])
    .await;
    server.set("a.test", [Has::Records(vec![text("v=spf1 ip4:192.0.2.1 include:b.test")], 77)]);
    server.set("c.test", [Has::Records(vec![text("v=spf1 a:n.test ip4:192.0.2.9")], 100)]);
    server.set("n.test", [Has::Nothing(ResponseCode::NXDomain, Some((5, 900)))]);
    let answer = ask(&server).await.unwrap();
    assert_eq!(answer.networks.unwrap().networks().len(), 2);
    assert_eq!(answer.ttl, Duration::from_secs(5));
    assert_eq!(answer.remarks, [""; 0]);
}

#[tokio::test]
async fn a_loop_ends_with_the_look_ups() {
    let server = serving(&[
        ("d.test", &[text("v=spf1 ip4:192.0.2.1 include:e.test ip4:192.0.2.9 -all")]),
        ("e.test", &[text("v=spf1 ip4:192.0.2.2 include:d.test ip4:192.0.2.8 -all")]),
    ])
    .await;
    let (networks, remarks) = found(&server).await;
    assert_eq!(networks, ["192.0.2.1/32", "192.0.2.2/32"], "what comes after is an error for whoever comes there");
    assert_eq!(
        remarks,
        ["d.test: include:e.test and what follows it is left out: more than 10 terms ask DNS (RFC 7208 section 4.6.4)"]
    );
    assert_eq!((server.count("d.test"), server.count("e.test")), (6, 5));
}

#[tokio::test]
async fn ten_look_ups_are_enough_and_eleven_too_many() {
    let terms = |count: usize| (0..count).map(|number| format!("a:n{number}.test ")).collect::<String>();
    let server = serving(&[]).await;
    for number in 0..11 {
        server.set(&format!("n{number}.test"), [Has::Records(vec![v4(&format!("192.0.2.{}", 2 * number))], 300)]);
    }
    for (count, found_networks) in [(10, 11), (11, 10)] {
        let record = format!("v=spf1 {}ip4:198.51.100.1 -all", terms(count));
        server.set("d.test", [Has::Records(vec![text(&record)], 300)]);
        let (networks, remarks) = found(&server).await;
        assert_eq!((networks.len(), remarks.len()), (found_networks, usize::from(count == 11)), "{count}: {remarks:?}");
    }
}

#[tokio::test]
async fn two_names_may_be_missing_and_three_may_not() {
    let server = serving(&[("only6.test", &[v6("2001:db8::1")])]).await;
    for (record, expected) in [
        ("v=spf1 a:only6.test a:x.test mx:y.test ip4:192.0.2.1", vec!["192.0.2.1/32", "2001:db8::1/128"]),
        ("v=spf1 ip4:192.0.2.7 a:x.test mx:y.test a:z.test ip4:192.0.2.1", vec!["192.0.2.7/32"]),
    ] {
        server.set("d.test", [Has::Records(vec![text(record)], 300)]);
        let (networks, remarks) = found(&server).await;
        assert_eq!(networks, expected, "{record}");
        assert_eq!(remarks.len(), 2 - expected.len(), "{remarks:?}");
    }
}

#[tokio::test]
async fn more_than_ten_mail_servers_are_an_error() {
    let servers: Vec<RData> = (0..11).map(|number| exchange(&format!("m{number}.test."))).collect();
    let server =
        serving(&[("d.test", &[text("v=spf1 ip4:192.0.2.1 mx:many.test ip4:192.0.2.2")]), ("many.test", &servers)])
            .await;
    let (networks, remarks) = found(&server).await;
    assert_eq!(networks, ["192.0.2.1/32"]);
    assert!(remarks[0].contains("11 mail servers"), "{remarks:?}");
    assert_eq!(server.count("m0.test"), 0);
}

#[tokio::test]
async fn what_depends_on_the_client_is_left_out_by_name() {
    let server = serving(&[
        (
            "d.test",
            &[text("v=spf1 exists:%{i}.l.test ptr include:%{d}.test ip4:192.0.2.1 include:e.test redirect=%{d}.test")],
        ),
        ("e.test", &[text("v=spf1 ip4:192.0.2.2 -exists:%{i}.l.test ip4:192.0.2.3 -all")]),
    ])
    .await;
    let (networks, remarks) = found(&server).await;
    assert_eq!(networks, ["192.0.2.1/32", "192.0.2.2/32"], "who is behind -exists may be taken out by it");
    assert_eq!(
        remarks,
        [
            "d.test: exists:%{i}.l.test is left out: what exists depends on the client",
            "d.test: ptr is left out: it asks for the client's name",
            "d.test: include:%{d}.test is left out: it holds a macro",
            "e.test: -exists:%{i}.l.test is left out: what exists depends on the client",
            "e.test: what stands behind -exists:%{i}.l.test is left out with it",
        ]
    );
}

#[tokio::test]
async fn who_is_taken_out_by_a_record_that_is_not_known_whole_is_nobody_else() {
    let server = serving(&[
        ("d.test", &[text("v=spf1 -include:e.test ip4:192.0.2.0/24 -all")]),
        ("e.test", &[text("v=spf1 ip4:192.0.2.1 ptr -all")]),
    ])
    .await;
    assert_eq!(found(&server).await.0, [""; 0]);
    server.set("e.test", [Has::Records(vec![text("v=spf1 ip4:192.0.2.128/25 -all")], 300)]);
    assert_eq!(found(&server).await.0, ["192.0.2.0/25"]);
}

#[tokio::test]
async fn nobody_can_allow_the_world() {
    let server = serving(&[
        ("d.test", &[text("v=spf1 ip4:10.0.0.0/8 ip6:2000::/3 a:h.test/16 include:e.test ip4:192.0.2.1 +all")]),
        ("h.test", &[v4("203.0.113.7")]),
        ("e.test", &[text("v=spf1 ip4:198.18.0.0/17 ip4:198.18.128.0/17 all")]),
    ])
    .await;
    let (networks, remarks) = found(&server).await;
    assert_eq!(networks, ["192.0.2.1/32", "198.18.0.0/16"]);
    let left_out: Vec<&str> = remarks.iter().map(|remark| remark.split(" is left out").next().unwrap()).collect();
    assert_eq!(
        left_out,
        [
            "d.test: ip4:10.0.0.0/8",
            "d.test: ip6:2000::/3",
            "d.test: a:h.test/16",
            "e.test: all",
            "e.test: all",
            "d.test: +all",
            "d.test: +all"
        ]
    );
}

#[tokio::test]
async fn there_are_never_more_than_a_thousand_networks() {
    let terms: String = (0..1_100).map(|number| format!(" ip4:10.{}.{}.1", number / 200, number % 200)).collect();
    let server = serving(&[]).await;
    let record = vec![text(&format!("v=spf1{terms} -all"))];
    server.set("d.test", [Has::Truncated(Box::new(Has::Records(record, 300)))]);
    let (networks, remarks) = found(&server).await;
    assert_eq!(networks.len(), MOST_NETWORKS);
    assert_eq!(remarks, ["100 networks are left out: more than 1000"]);
}

#[tokio::test]
async fn remarks_are_bounded() {
    let terms: String = (0..200).map(|number| format!(" ip4:{number}.0.0.0/8")).collect();
    let record = vec![text(&format!("v=spf1{terms} -all"))];
    let server = serving(&[]).await;
    server.set("d.test", [Has::Truncated(Box::new(Has::Records(record, 300)))]);
    let (networks, remarks) = found(&server).await;
    assert_eq!((networks.len(), remarks.len()), (0, MOST_REMARKS + 1));
    assert_eq!(remarks[MOST_REMARKS], "180 more is left out");
}

#[tokio::test]
async fn without_a_usable_record_nothing_is_published() {
    let server = serving(&[]).await;
    for (has, why) in [
        (Has::Nothing(ResponseCode::NXDomain, Some((60, 60))), "d.test: it has no SPF record"),
        (Has::Records(vec![text("v=DKIM1")], 60), "d.test: it has no SPF record"),
        (Has::Records(vec![text("v=spf1 -all"), text("v=spf1 +mx")], 60), "d.test: it has more than one SPF record"),
        (
            Has::Records(vec![text("v=spf1 ip4:192.0.2.1 ipv4:192.0.2.2")], 60),
            "d.test: its SPF record can't be understood: \"ipv4:192.0.2.2\" is no term of SPF",
        ),
    ] {
        server.set("d.test", [has]);
        let answer = ask(&server).await.unwrap();
        assert_eq!((answer.networks, answer.ttl), (None, Duration::from_secs(60)));
        assert_eq!(answer.remarks, [why]);
    }
    server.set("d.test", [Has::Records(vec![text("v=spf1 ip4:192.0.2.1 include:none.test ip4:192.0.2.2")], 60)]);
    let (networks, remarks) = found(&server).await;
    assert_eq!(networks, ["192.0.2.1/32"]);
    assert_eq!(
        remarks,
        ["none.test: it has no SPF record", "d.test: include:none.test and what follows it is left out"]
    );
}

#[tokio::test]
async fn dns_that_fails_is_no_answer() {
    let server = serving(&[("d.test", &[text("v=spf1 ip4:192.0.2.1 include:e.test -all")])]).await;
    for (has, failure) in [
        (Has::Nothing(ResponseCode::ServFail, None), Failure::ServerFailure),
        (Has::Nothing(ResponseCode::Refused, None), Failure::Refused),
        (Has::Nothing(ResponseCode::FormErr, None), Failure::BadResponse),
    ] {
        server.set("e.test", [has]);
        assert_eq!(ask(&server).await, Err(Trouble { name: "e.test".into(), failure }));
    }
    server.set("e.test", [Has::Records(vec![text("v=spf1 ip4:192.0.2.2 -all")], 300)]);
    assert_eq!(found(&server).await.0, ["192.0.2.1/32", "192.0.2.2/32"]);
}

#[tokio::test]
async fn silence_ends() {
    let server = serving(&[]).await;
    server.set("d.test", [Has::Silence]);
    let limit = Duration::from_millis(200);
    let resolver = config::Resolver { system: Vec::new(), servers: vec![server.address], timeout: limit };
    let asked = Spf::new(&resolver, WIDEST).unwrap().ask(&Domain::parse("d.test").unwrap()).await;
    assert_eq!(asked, Err(Trouble { name: "d.test".into(), failure: Failure::TimedOut(limit) }));
}

#[tokio::test]
async fn a_followed_domain_is_asked_again_when_its_time_is_over() {
    let server = serving(&[]).await;
    let has = |record: &str, ttl| Has::Records(vec![text(record)], ttl);
    server.set(
        "d.test",
        [
            has("v=spf1 ip4:192.0.2.1 -all", 300),
            has("v=spf1 ip4:192.0.2.2 -all", 0),
            Has::Nothing(ResponseCode::ServFail, None),
            has("v=spf1 ip4:192.0.2.3 -all", 300),
        ],
    );
    let limits = config::Spf { min_ttl: Duration::from_millis(20), max_ttl: Duration::from_millis(30), widest: WIDEST };
    let mut followed = Followed::new(Arc::new(spf(server.address)), Domain::parse("d.test").unwrap(), limits);
    let mut seen = Vec::new();
    for _ in 0..4 {
        let networks = followed.next().await.map(|answer| answer.networks.unwrap().networks()[0].to_string());
        seen.push((networks.map_err(|trouble| trouble.failure), followed.holds()));
    }
    let (least, most) = (limits.min_ttl, limits.max_ttl);
    assert_eq!(
        seen,
        [
            (Ok("192.0.2.1/32".into()), most),
            (Ok("192.0.2.2/32".into()), least),
            (Err(Failure::ServerFailure), least),
            (Ok("192.0.2.3/32".into()), most),
        ]
    );
    assert_eq!(server.count("d.test"), 4);
}
