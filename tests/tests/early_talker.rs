//! A client talks before it is greeted, and gets what the action says.

use std::net::IpAddr;

use screen_tests::{
    gate::{Gate, Settings},
    net::Net,
    postfix::Postfix,
    smtp::Client,
};

const CLIENTS: [&str; 2] = ["198.18.1.1", "2001:2:0:1::1"];

/// Connects, reads the teaser and speaks at once.
fn early(net: &Net, client: IpAddr) -> Client {
    let mut client = Client::connect(net.client(), client);
    assert_eq!(client.line(), "220-mx.example.test ESMTP");
    client.send("EHLO early\r\n");
    client
}

fn pregreet(client: &Client) -> String {
    format!(" from {}: EHLO early\\r\\n", client.name())
}

#[test]
fn ignore_lets_the_mail_server_answer_what_came_early() {
    let Some(net) = Net::new() else { return };
    let postfix = Postfix::start(&net);
    let gate = Gate::start(&net, Settings::in_place(&net).text("pregreet.action", "ignore"));
    for (number, client) in CLIENTS.into_iter().enumerate() {
        let mut client = early(&net, client.parse().unwrap());
        assert_eq!(client.line(), "220 mx.example.test ESMTP Postfix (Debian/GNU)");
        assert!(client.reply().starts_with("250-mx.example.test\n"), "the answer to the early EHLO");
        assert!(gate.wait_log(&pregreet(&client)).contains("PREGREET 12 after "));
        client.command("MAIL FROM:<early@client.example.test>", "250");
        client.command("RCPT TO:<inbox@example.test>", "250");
        client.command("DATA", "354");
        client.command("Subject: early\r\n\r\nbody\r\n.", "250");
        assert_eq!(gate.logged(&format!("PASS NEW {}", client.name())), 0, "an ignored failure is no pass");
        client.quit();
        assert!(postfix.wait_mail(number + 1)[number].contains("Subject: early\n"));
    }
}

#[test]
fn enforce_rejects_every_recipient() {
    let Some(net) = Net::new() else { return };
    let postfix = Postfix::start(&net);
    let gate = Gate::start(&net, Settings::in_place(&net).text("pregreet.action", "enforce"));
    for client in CLIENTS {
        let mut client = early(&net, client.parse().unwrap());
        assert!(client.reply().starts_with("250-mx.example.test\n"), "no line \"220 \" comes in between");
        client.command("MAIL FROM:<early@client.example.test>", "250 2.1.0 Ok");
        client.command("RCPT TO:<inbox@example.test>", "550 5.5.1 Protocol error");
        gate.wait_log(&pregreet(&client));
        gate.wait_log(&format!(
            "NOQUEUE: reject: RCPT from {}: 550 5.5.1 Protocol error; from=<early@client.example.test>, to=<inbox@example.test>, \
             proto=ESMTP, helo=<early>",
            client.name()
        ));
        let name = client.name();
        client.quit();
        gate.wait_log(&format!("DISCONNECT {name}"));
    }
    assert_eq!(postfix.logged("connect from"), 0, "the mail server never heard of them");
}

#[test]
fn drop_turns_away_at_once_and_then_in_the_kernel() {
    let Some(net) = Net::new() else { return };
    let postfix = Postfix::start(&net);
    let settings = Settings::in_place(&net).text("pregreet.action", "drop").text("kernel.deny_reply", "drop");
    let gate = Gate::start(&net, settings);
    for client in CLIENTS {
        let address: IpAddr = client.parse().unwrap();
        let mut client = early(&net, address);
        assert_eq!(client.line(), "521 5.5.1 Protocol error");
        client.wait_closed();
        gate.wait_log(&pregreet(&client));
        gate.wait_log(&format!("DISCONNECT {}", client.name()));

        gate.wait_denied(address);
        let rows = gate.ask(&["list", "deny"]);
        assert_eq!(rows[0]["net"], gate.client_net(address));
        assert_eq!(rows[0]["reason"], "pregreet: EHLO early\\r\\n");
        assert_eq!(rows[0]["host"], "mx.example.test");
        Client::assert_dropped(net.client(), address);
        assert!(gate.pins().count("refused", address, "denied") > 0);

        gate.tell(&["forget", &gate.client_net(address)]);
        gate.wait_undenied(address);
        let mut again = Client::connect(net.client(), address);
        assert_eq!(again.line(), "220-mx.example.test ESMTP");
    }
    assert_eq!(postfix.logged("connect from"), 0, "the mail server never heard of them");
}

#[test]
fn failures_are_not_remembered_when_asked_not_to() {
    let Some(net) = Net::new() else { return };
    let _postfix = Postfix::start(&net);
    let settings = Settings::in_place(&net).text("pregreet.action", "drop").text("kernel.remember_failures", "0s");
    let gate = Gate::start(&net, settings);
    for _ in 0..2 {
        let mut client = early(&net, "198.18.1.1".parse().unwrap());
        assert_eq!(client.line(), "521 5.5.1 Protocol error");
        client.wait_closed();
    }
    assert_eq!(gate.ask(&["list", "deny"]).as_array().map(Vec::len), Some(0));
}
