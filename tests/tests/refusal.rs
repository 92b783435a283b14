//! A client that is turned away hears why, and sees an orderly end, whatever happens to its segments on the way.

use std::{
    net::IpAddr,
    process::{Command, Stdio},
    time::Duration,
};

use screen_tests::{
    gate::{Gate, Settings},
    middlebox::{Fate, Middlebox},
    mta,
    net::Net,
    postfix::Postfix,
    smtp::Client,
    wire::{Segment, Wire, flags},
};

const REFUSAL: &str = "521 5.3.2 Service currently unavailable\r\n";

/// What a client does once it is connected, before it reads.
#[derive(Debug, Clone, Copy)]
enum Then {
    Listens,
    Talks,
    EndsSending,
    AsksWhetherWeLive,
}

/// What happens to whom: the fate of the first segment of a kind.
struct Story {
    what: &'static str,
    kind: fn(&Segment) -> bool,
    fate: Fate,
    then: Then,
}

fn syn(segment: &Segment) -> bool {
    segment.flags == flags::SYN
}

fn offer(segment: &Segment) -> bool {
    segment.flags == flags::SYN | flags::ACK
}

/// The acknowledgement that ends the handshake.
fn acceptance(segment: &Segment) -> bool {
    segment.to.port() == 25 && segment.flags == flags::ACK && segment.data.is_empty()
}

fn text(segment: &Segment) -> bool {
    segment.from.port() == 25 && segment.data == REFUSAL.as_bytes()
}

fn quit(segment: &Segment) -> bool {
    segment.to.port() == 25 && segment.data == b"QUIT\r\n"
}

/// The acknowledgement of a QUIT, or of the client's end.
fn receipt(segment: &Segment) -> bool {
    segment.from.port() == 25 && segment.flags == flags::ACK
}

const STORIES: [Story; 15] = {
    use Fate::{Forward, Lose, Overtaken, Repeat};
    use Then::{AsksWhetherWeLive, EndsSending, Listens, Talks};
    [
        Story { what: "nothing", kind: syn, fate: Forward, then: Listens },
        Story { what: "the SYN is lost", kind: syn, fate: Lose, then: Listens },
        Story { what: "the SYN comes twice", kind: syn, fate: Repeat, then: Listens },
        Story { what: "the SYN-ACK is lost", kind: offer, fate: Lose, then: Listens },
        Story { what: "the SYN-ACK comes twice", kind: offer, fate: Repeat, then: Listens },
        Story { what: "the ACK comes twice", kind: acceptance, fate: Repeat, then: Listens },
        Story { what: "the ACK is lost, and the client talks", kind: acceptance, fate: Lose, then: Talks },
        Story { what: "the client's words overtake its ACK", kind: acceptance, fate: Overtaken, then: Talks },
        Story { what: "the text comes twice", kind: text, fate: Repeat, then: Listens },
        Story { what: "the text is lost, and the client talks", kind: text, fate: Lose, then: Talks },
        Story { what: "the text is lost, and the client ends", kind: text, fate: Lose, then: EndsSending },
        Story { what: "the text is lost, and the client probes", kind: text, fate: Lose, then: AsksWhetherWeLive },
        Story { what: "the text is overtaken by itself", kind: text, fate: Overtaken, then: Talks },
        Story { what: "the QUIT is lost", kind: quit, fate: Lose, then: Listens },
        Story { what: "the QUIT's receipt is lost", kind: receipt, fate: Lose, then: Listens },
    ]
};

/// The client of a story, in both families.
fn clients(number: usize) -> [IpAddr; 2] {
    [format!("198.18.1.{}", number + 1), format!("2001:2:0:1{number:x}::1")].map(|address| address.parse().unwrap())
}

fn deny(gate: &Gate, client: IpAddr) {
    gate.tell(&["deny", &client.to_string()]);
    gate.wait_denied(client);
}

#[test]
fn segments_that_are_lost_repeated_and_swapped_change_nothing_for_the_client() {
    let Some(net) = Net::new() else { return };
    // Each story's fate meets one segment of each of its clients.
    let mut waiting: Vec<(IpAddr, &Story)> =
        STORIES.iter().enumerate().flat_map(|(number, story)| clients(number).map(|client| (client, story))).collect();
    let wire = Middlebox::between(&net, move |segment| {
        let ends = [segment.from.ip(), segment.to.ip()];
        let met = waiting.iter().position(|(client, story)| ends.contains(client) && (story.kind)(segment));
        met.map_or(Fate::Forward, |met| waiting.swap_remove(met).1.fate)
    });
    let gate = Gate::start(&net, Settings::in_place(&net));
    for (number, Story { what, kind, fate, then }) in STORIES.iter().enumerate() {
        for address in clients(number) {
            deny(&gate, address);
            let mut client = Client::connect(net.client(), address);
            match then {
                Then::Listens => {}
                Then::Talks => client.send("EHLO early.example\r\n"),
                Then::EndsSending => client.end_sending(),
                Then::AsksWhetherWeLive => client.keep_alive(Duration::from_secs(1)),
            }
            assert_eq!(String::from_utf8(client.read_to_end()).unwrap(), REFUSAL, "{what}: {address}");
            if !matches!(then, Then::EndsSending) {
                client.send("QUIT\r\n");
            }
            drop(client);
            let is_its_end = |segment: &Segment| segment.from.ip() == address && segment.flags & flags::FIN != 0;
            wire.wait_segment("the client's end", is_its_end);
            let seen = wire.seen();
            let (end, _) = seen.iter().find(|(segment, _)| is_its_end(segment)).unwrap();
            let last = end.sequence.wrapping_add(u32::try_from(end.data.len()).unwrap() + 1);
            wire.wait_segment(&format!("{what}: the end of {address} is acknowledged"), |segment| {
                segment.to == end.from && segment.acknowledgement == last
            });
            let seen = wire.seen();
            let own: Vec<_> =
                seen.iter().filter(|(segment, _)| [segment.from.ip(), segment.to.ip()].contains(&address)).collect();
            assert!(own.iter().any(|(segment, met)| kind(segment) && met == fate), "{what}: it happened");
            assert!(own.iter().all(|(segment, _)| segment.flags & flags::RST == 0), "{what}: nobody was cut off");
        }
    }
    assert_eq!(gate.logged("CONNECT from"), 0, "the screener never saw them");
}

#[test]
fn python_is_told_by_each_family_and_at_its_limit() {
    let Some(net) = Net::new() else { return };
    let settings = Settings::in_place(&net)
        .set("limits.client_connections", "1")
        .set("kernel.reply_texts", "{ operator = \"5.7.1 Ask at https://mx.example.test/why\" }");
    let gate = Gate::start(&net, settings);
    let script = "
import smtplib, sys
try:
    smtplib.SMTP(sys.argv[1], 25, timeout=20, source_address=(sys.argv[2], 0))
except smtplib.SMTPConnectError as refused:
    print(refused.smtp_code, refused.smtp_error.decode())
";
    let hears = |address: IpAddr| {
        let to = net.client().edge(address).ip().to_string();
        let mut command = Command::new("python3");
        command.args(["-c", script, &to, &address.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = net.client().namespace.spawn(command).unwrap().wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    for (denied, full) in [("198.18.1.1", "198.18.1.2"), ("2001:2:0:1::1", "2001:2:0:2::1")] {
        let (denied, full): (IpAddr, IpAddr) = (denied.parse().unwrap(), full.parse().unwrap());
        net.client().adopt(denied);
        deny(&gate, denied);
        assert_eq!(hears(denied), "521 5.7.1 Ask at https://mx.example.test/why\n");
        let _only = Client::connect(net.client(), full);
        gate.wait("the connection is counted", || {
            gate.pins().client(full).is_some_and(|entry| entry.number("active") == 1)
        });
        assert_eq!(hears(full), "421 4.7.0 Error: too many connections\n");
    }
}

#[test]
fn postfix_bounces_with_the_text_or_logs_it_and_tries_again() {
    const URL: &str = "https://mx.example.test/why";
    for bounces in [true, false] {
        let Some(net) = Net::new() else { return };
        let text = format!("{{ operator = \"5.7.1 Ask at {URL}\" }}");
        let gate = Gate::start(&net, Settings::in_place(&net).set("kernel.reply_texts", &text));
        // By default a 5xx in place of a greeting is the trouble of one host, and others are tried. The bounce goes to its own mailbox.
        let settings = ["virtual_mailbox_domains=client.example.test", "smtp_skip_5xx_greeting=no"];
        let sender = "198.18.0.9".parse().unwrap();
        net.client().adopt(sender);
        deny(&gate, sender);
        let postfix = Postfix::relaying_with(&net, false, if bounces { &settings } else { &settings[..1] });
        mta::submit(&net, "Subject: refused\r\n\r\nhello\r\n");
        let status = if bounces { "status=bounced" } else { "status=deferred" };
        let line = postfix.wait_log(status);
        assert!(line.contains("refused to talk to me: 521 5.7.1") && line.contains(URL), "{line}");
        if bounces {
            let bounce = &postfix.wait_mail(1)[0];
            assert!(bounce.contains("Undelivered Mail Returned to Sender") && bounce.contains(URL), "{bounce}");
            assert_eq!(postfix.logged("status=deferred"), 0);
        } else {
            assert_eq!(postfix.logged("status=bounced"), 0);
        }
    }
}

#[test]
fn who_forges_an_acknowledgement_is_told_nothing() {
    // None that a connection gets by itself (ip_local_port_range).
    const PORT: u16 = 20_000;
    let Some(net) = Net::new() else { return };
    let gate = Gate::start(&net, Settings::in_place(&net));
    for client in clients(0) {
        deny(&gate, client);
        net.client().adopt(client);
        let wire = Wire::open(&net.client().namespace, "c0");
        // Any number in 64 has the tag of a cookie; with the data and the FIN of a client that goes on.
        for number in 0..2_048_u32 {
            let forged = Segment {
                from: (client, PORT).into(),
                to: net.client().edge(client),
                sequence: 1,
                acknowledgement: number << 21 | 0x1234,
                flags: flags::ACK | if number % 2 == 0 { 0 } else { flags::FIN },
                data: if number % 3 == 0 { b"QUIT\r\n".to_vec() } else { Vec::new() },
                length: 0,
            };
            wire.send(&forged.frame());
        }
        // Whoever asks properly afterwards is answered, and everything before it has been.
        let mut real = Client::connect(net.client(), client);
        assert_eq!(real.read_to_end(), REFUSAL.as_bytes());
        while let Some(frame) = wire.receive() {
            let Some(segment) = Segment::read(&frame).filter(|segment| segment.to == (client, PORT).into()) else {
                continue;
            };
            // The stack knows no such connection and says so, as it does to everybody.
            assert!(segment.flags & flags::RST != 0 && segment.data.is_empty(), "{segment:?}");
        }
    }
}
