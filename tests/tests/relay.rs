//! Between a stranger and the mail server stands a relay, and neither of them notices.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Shutdown, SocketAddr, TcpStream},
    sync::mpsc,
};

use screen_tests::{
    backend::Backend,
    gate::{Gate, Settings},
    net::Net,
    postfix::Postfix,
    smtp::Client,
    wait::SOON,
};

const CLIENTS: [&str; 2] = ["198.18.1.1", "2001:2:0:1::1"];
const BACKEND: &str = "127.0.0.1:10025";

fn backend() -> SocketAddr {
    BACKEND.parse().unwrap()
}

/// The gate before a scripted server, without anything that is of no use to this test.
fn front(net: &Net) -> Settings {
    Settings::front(net, BACKEND).text("forward.client_address", "none").text("forward.steer", "off")
}

/// Bytes that never repeat in step with any buffer.
fn pattern(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    })
    .take(length)
    .collect()
}

/// As `assert_eq!`, without printing a million bytes.
#[track_caller]
fn assert_same(got: &[u8], expected: &[u8], what: &str) {
    let differ = got.iter().zip(expected).position(|(got, expected)| got != expected);
    assert!(differ.is_none(), "{what} differs from byte {differ:?} on");
    assert_eq!(got.len(), expected.len(), "{what} has another length");
}

/// A message body of printable lines, at least `length` bytes long.
fn body(length: usize) -> String {
    let mut text = String::with_capacity(length + 80);
    for (number, chunk) in pattern(length * 50 / 111).chunks(50).enumerate() {
        text.push_str(&format!("{number:08x} "));
        chunk.iter().for_each(|byte| text.push_str(&format!("{byte:02x}")));
        text.push_str("\r\n");
    }
    text
}

#[test]
fn the_client_ends_first_and_still_hears_everything() {
    let Some(net) = Net::new() else { return };
    let answer = pattern(3_000_000);
    let (heard, said) = mpsc::channel();
    let expected = answer.clone();
    let _backend = Backend::start(&net.edge, &[backend()], move |mut stream: TcpStream| {
        stream.write_all(b"220 backend\r\n")?;
        let mut all = Vec::new();
        stream.read_to_end(&mut all)?;
        // The gate looks at its start whether anybody is here, and says nothing.
        if !all.is_empty() {
            drop(heard.send(all));
        }
        // Only now, after the client's end has come through.
        stream.write_all(&answer)
    });
    let _gate = Gate::start(&net, front(&net));
    for client in CLIENTS {
        let mut client = Client::connect(net.client(), client.parse().unwrap());
        client.reply();
        client.send(pattern(1_000_000));
        client.end_sending();
        assert_same(&said.recv_timeout(SOON).unwrap(), &pattern(1_000_000), "what the backend got");
        assert_same(&client.read_to_end(), &expected, "what the client got");
    }
}

#[test]
fn the_server_ends_first_and_still_hears_everything() {
    let Some(net) = Net::new() else { return };
    let (heard, said) = mpsc::channel();
    let _backend = Backend::start(&net.edge, &[backend()], move |mut stream: TcpStream| {
        stream.write_all(b"220 backend\r\n")?;
        stream.write_all(&pattern(1_000_000))?;
        stream.shutdown(Shutdown::Write)?;
        let mut all = Vec::new();
        stream.read_to_end(&mut all)?;
        if !all.is_empty() {
            drop(heard.send(all));
        }
        Ok(())
    });
    let _gate = Gate::start(&net, front(&net));
    for client in CLIENTS {
        let mut client = Client::connect(net.client(), client.parse().unwrap());
        client.reply();
        assert_same(&client.read_to_end(), &pattern(1_000_000), "what the client got");
        client.send(pattern(3_000_000));
        client.end_sending();
        assert_same(&said.recv_timeout(SOON).unwrap(), &pattern(3_000_000), "what the backend got after its own end");
    }
}

#[test]
fn ten_megabytes_arrive_intact() {
    let Some(net) = Net::new() else { return };
    let postfix = Postfix::start(&net);
    let gate = Gate::start(&net, Settings::in_place(&net));
    let body = body(10_000_000);
    for (number, client) in CLIENTS.into_iter().enumerate() {
        let mut client = Client::connect(net.client(), client.parse().unwrap());
        client.reply();
        gate.wait_log(&format!("PASS NEW {}", client.name()));
        client.deliver(&format!("Subject: large\r\n\r\n{body}"));
        client.quit();
        let mail = postfix.wait_mail(number + 1);
        let (_, delivered) = mail[number].split_once("\n\n").unwrap();
        assert!(delivered == body.replace("\r\n", "\n"), "the message changed on its way");
    }
}

#[test]
fn while_the_mail_server_is_down_clients_are_told_to_come_back() {
    let Some(net) = Net::new() else { return };
    let mut postfix = Postfix::start_with(&net, &[(BACKEND, "")]);
    let gate = Gate::start(&net, front(&net));
    postfix.down();
    for (number, address) in CLIENTS.into_iter().enumerate() {
        let address: IpAddr = address.parse().unwrap();
        let mut stranger = Client::connect(net.client(), address);
        assert_eq!(stranger.line(), "220-mx.example.test ESMTP");
        assert!(stranger.line().starts_with("220 mx.example.test"));
        stranger.command("EHLO client.example.test", "421 4.3.2 ");
        stranger.wait_closed();
        gate.wait_log(&format!("PASS NEW {}", stranger.name()));

        let mut friend = Client::connect(net.client(), address);
        assert_eq!(friend.line(), "421 4.3.2 All server ports are busy");
        friend.wait_closed();

        postfix.up(&net);
        let mut again = Client::connect(net.client(), address);
        assert_eq!(again.line(), "220 mx.example.test ESMTP Postfix (Debian/GNU)", "its pass was not lost");
        again.deliver("Subject: again\r\n\r\nbody\r\n");
        again.quit();
        assert_eq!(postfix.wait_mail(number + 1).len(), number + 1);
        postfix.down();
    }
}
