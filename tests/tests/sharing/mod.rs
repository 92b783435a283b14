//! Edge hosts that share what they know through Redis: who knows a client once, everywhere.

mod absences;
mod failover;
mod security;
mod trouble;
mod verdicts;

use std::net::IpAddr;

use screen_tests::fleet::Edge;

/// The Redis of most stories.
const URLS: &str = r#"["redis://192.0.2.5:6379/0"]"#;

/// A client of each family.
const CLIENTS: [&str; 2] = ["198.18.1.1", "2001:2:0:1::1"];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A client tells its gate's edge from others by its own number.
fn numbered(network: u8, edge: usize) -> [IpAddr; 2] {
    let host = u8::try_from(edge + 1).unwrap();
    [
        IpAddr::from([198, 18, network, host]),
        IpAddr::from([0x2001, 2, 0, u16::from(network) << 8 | u16::from(host), 0, 0, 0, 1]),
    ]
}

/// Every edge's kernel lets these clients through.
#[track_caller]
fn assert_known(edges: &[Edge], clients: &[&str]) {
    for edge in edges {
        for client in clients {
            edge.wait_passed(ip(client));
            edge.assert_steers(ip(client));
        }
    }
}
