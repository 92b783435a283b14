//! The harness without a gate: what the other tests stand on.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, TcpStream, UdpSocket},
};

use screen_tests::{
    dns::{DnsServer, Zone},
    net::Net,
    postfix::Postfix,
    smtp::Client,
};

#[test]
fn a_client_delivers_straight_into_postfix() {
    let Some(net) = Net::new() else { return };
    let postfix = Postfix::start(&net);
    for (number, client) in ["198.18.1.1", "2001:2:0:1::1"].into_iter().enumerate() {
        let client: IpAddr = client.parse().unwrap();
        let mut session = Client::connect(net.client(), client);
        assert_eq!(session.reply(), "220 mx.example.test ESMTP Postfix (Debian/GNU)");
        session.deliver(&format!("Subject: from {client}\r\n\r\nbody\r\n"));
        session.quit();
        postfix.wait_log(&format!("connect from unknown[{client}]:"));
        assert!(postfix.wait_mail(number + 1)[number].contains(&format!("Subject: from {client}\n")));
    }
}

#[test]
fn the_dns_server_answers_over_udp_and_tcp() {
    let Some(net) = Net::new() else { return };
    let dns = DnsServer::start(&net.edge, vec![Zone::new("bl.test").list("198.18.0.9".parse().unwrap(), 4)]);
    let query =
        b"\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x019\x010\x0218\x03198\x02bl\x04test\x00\x00\x01\x00\x01";
    let (over_udp, over_tcp) = net.edge.enter(|| {
        let mut answer = vec![0; 512];
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        udp.send_to(query, "127.0.0.1:53").unwrap();
        let length = udp.recv(&mut answer).unwrap();
        answer.truncate(length);
        let mut tcp = TcpStream::connect("127.0.0.1:53").unwrap();
        tcp.write_all(&[&[0, 36], query.as_slice()].concat()).unwrap();
        let mut framed = vec![0; 2 + length];
        tcp.read_exact(&mut framed).unwrap();
        (answer, framed.split_off(2))
    });
    assert_eq!(over_udp, over_tcp);
    assert!(over_udp.ends_with(&[127, 0, 0, 4]));
    assert_eq!(dns.asked("bl.test"), 2);
}
