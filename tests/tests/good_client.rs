//! A good client delivers its mail, and the mail server knows who it is.

use std::net::IpAddr;

use screen_tests::{
    gate::{Gate, Settings},
    net::Net,
    postfix::Postfix,
    smtp::Client,
};

const CLIENTS: [&str; 2] = ["198.18.1.1", "2001:2:0:1::1"];

/// How Postfix writes a client.
fn to_postfix(client: &Client) -> String {
    format!("unknown[{}]:{}", client.local().ip(), client.local().port())
}

#[test]
fn in_place_a_stranger_waits_and_a_friend_does_not() {
    let Some(net) = Net::new() else { return };
    let postfix = Postfix::start(&net);
    let gate = Gate::start(&net, Settings::in_place(&net));
    for (number, client) in CLIENTS.into_iter().enumerate() {
        let client: IpAddr = client.parse().unwrap();

        let mut first = Client::connect(net.client(), client);
        assert_eq!(first.line(), "220-mx.example.test ESMTP", "the teaser");
        assert_eq!(first.line(), "220 mx.example.test ESMTP Postfix (Debian/GNU)", "Postfix itself");
        first.deliver("Subject: first visit\r\n\r\nbody\r\n");
        gate.wait_log(&format!("CONNECT from {} to [{}]:25", first.name(), net.client().edge(client).ip()));
        gate.wait_log(&format!("PASS NEW {}", first.name()));
        postfix.wait_log(&format!("connect from {}", to_postfix(&first)));
        postfix.wait_log(&format!("client={}", to_postfix(&first)));
        first.quit();

        let accepted = gate.ask(&["status"])["connections"]["accepted"].as_u64().unwrap();
        let mut second = Client::connect(net.client(), client);
        assert_eq!(second.line(), "220 mx.example.test ESMTP Postfix (Debian/GNU)", "no teaser any more");
        second.deliver("Subject: second visit\r\n\r\nbody\r\n");
        gate.wait_log(&format!("PASS OLD {}", second.name()));
        postfix.wait_log(&format!("connect from {}", to_postfix(&second)));
        second.quit();

        // The second visit never came near the screener.
        let status = gate.ask(&["status"]);
        assert_eq!(status["connections"]["accepted"].as_u64().unwrap(), accepted, "{status}");
        let counted = gate.pins().client(client).expect("the client in the map clients");
        assert_eq!(counted.number("steered"), 1);
        assert_eq!(counted.number("accepted"), 2);
        assert_eq!(gate.pins().total("PassOld", "packets"), i64::try_from(number).unwrap() + 1);

        let mail = postfix.wait_mail(2 * number + 2);
        assert!(mail[2 * number].contains("Subject: first visit\n"));
        assert!(mail[2 * number].contains(&format!("[{}{client}]", if client.is_ipv6() { "IPv6:" } else { "" })));
        assert!(mail[2 * number + 1].contains("Subject: second visit\n"));
    }
}

#[test]
fn in_front_the_proxy_header_names_the_client() {
    let Some(net) = Net::new() else { return };
    let postfix = Postfix::start_with(&net, &[("127.0.0.1:10025", "smtpd_upstream_proxy_protocol=haproxy")]);
    let settings = Settings::front(&net, "127.0.0.1:10025");
    let gate = Gate::start(&net, settings.text("forward.client_address", "proxy-v2"));
    for client in CLIENTS {
        let client: IpAddr = client.parse().unwrap();

        let mut first = Client::connect(net.client(), client);
        assert_eq!(first.line(), "220-mx.example.test ESMTP");
        assert_eq!(first.line(), "220 mx.example.test ESMTP Postfix (Debian/GNU)");
        first.deliver("Subject: first visit\r\n\r\nbody\r\n");
        gate.wait_log(&format!("PASS NEW {}", first.name()));
        postfix.wait_log(&format!("connect from {}", to_postfix(&first)));
        first.quit();

        let mut second = Client::connect(net.client(), client);
        assert_eq!(second.line(), "220 mx.example.test ESMTP Postfix (Debian/GNU)");
        gate.wait_log(&format!("PASS OLD {}", second.name()));
        second.deliver("Subject: second visit\r\n\r\nbody\r\n");
        postfix.wait_log(&format!("client={}", to_postfix(&second)));
        second.quit();
    }
    assert_eq!(postfix.wait_mail(4).len(), 4);
}

#[test]
fn in_front_without_a_header_the_kernel_names_the_client() {
    let Some(net) = Net::new() else { return };
    let postfix = Postfix::start_with(&net, &[("127.0.0.1:10025", ""), ("[::1]:10025", "")]);
    let settings = Settings::front(&net, "127.0.0.1:10025")
        .set("forward.to", r#"["127.0.0.1:10025", "[::1]:10025"]"#)
        .text("forward.client_address", "kernel")
        .text("forward.steer", "off");
    let gate = Gate::start(&net, settings);
    // An IPv4 socket has no way to say an IPv6 address; the screener prefers a backend of the client's family.
    for client in CLIENTS {
        let mut visit = Client::connect(net.client(), client.parse().unwrap());
        assert_eq!(visit.line(), "220-mx.example.test ESMTP");
        assert_eq!(visit.line(), "220 mx.example.test ESMTP Postfix (Debian/GNU)");
        visit.deliver("Subject: hello\r\n\r\nbody\r\n");
        gate.wait_log(&format!("PASS NEW {}", visit.name()));
        postfix.wait_log(&format!("connect from {}", to_postfix(&visit)));
        visit.quit();
    }
}

#[test]
fn an_allowed_client_is_never_screened() {
    let Some(net) = Net::new() else { return };
    let _postfix = Postfix::start(&net);
    let gate = Gate::start(&net, Settings::in_place(&net));
    for client in CLIENTS {
        gate.tell(&["allow", client]);
        let mut visit = Client::connect(net.client(), client.parse().unwrap());
        assert_eq!(visit.line(), "220 mx.example.test ESMTP Postfix (Debian/GNU)");
        gate.wait_log(&format!("ALLOWLISTED {}", visit.name()));
        visit.quit();
    }
}
