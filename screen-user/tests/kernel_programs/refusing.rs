//! Refusal without a socket: frames through the gate, and clients of the kernel's own stack that are told why they are turned away.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

use screen_user::{
    config::{KernelReply, Layout, XdpMode},
    kernel::{DenyEntry, Expiry, ListId, Plan, Reason},
};

use super::{
    frames::{ACK, Frame, RST, SYN},
    place::{HOST, NEIGHBOUR, Started, alone, plan, privileged},
    site::{PATIENCE, Site},
};

const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const REFUSAL: &str = "521 5.3.2 Service currently unavailable\r\n";
const BUSY: &str = "421 4.7.0 Error: too many connections\r\n";
const OWN_TEXT: &str = "5.7.1 Listed, see https://example.org/why";

fn outspoken() -> Plan {
    Plan { deny_reply: KernelReply::Reject, limit_reply: KernelReply::Reject, ..plan() }
}

fn deny(kernel: &Started, net: &str, list: ListId) {
    kernel.deny(net.parse().unwrap(), DenyEntry { expires: Expiry::NEVER, list }).unwrap();
}

fn host(client: &str) -> String {
    format!("{client}/{}", if client.contains(':') { 128 } else { 32 })
}

/// A reply, taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Reply {
    sequence: u32,
    acknowledgement: u32,
    flags: u8,
    data: Vec<u8>,
}

/// Takes a reply to `frame` apart; everything that both have in common must be right, checksums included.
fn taken_apart(frame: &Frame, reply: &[u8]) -> Reply {
    let sent = frame.bytes();
    let link = 14 + 4 * frame.tags.len();
    assert_eq!((&reply[..6], &reply[6..12]), (&sent[6..12], &sent[..6]), "the hardware addresses change places");
    assert_eq!(reply[12..link], sent[12..link], "tags and type stay");
    let (addresses, tcp) = if frame.client.is_ipv4() {
        let header = &reply[link..link + 20];
        assert_eq!(sum(&[header]), 0xffff, "the checksum of the IPv4 header");
        assert_eq!(usize::from(u16::from_be_bytes([header[2], header[3]])), reply.len() - link);
        (&reply[link + 12..link + 20], &reply[link + 20..])
    } else {
        let header = &reply[link..link + 40];
        assert_eq!(usize::from(u16::from_be_bytes([header[4], header[5]])), reply.len() - link - 40);
        (&reply[link + 8..link + 40], &reply[link + 40..])
    };
    let half = addresses.len() / 2;
    let at = if frame.client.is_ipv4() { link + 12 } else { link + 8 };
    assert_eq!(addresses[..half], sent[at + half..at + 2 * half], "from the address that the client meant");
    assert_eq!(addresses[half..], sent[at..at + half]);
    let pseudo = [&[0, 6][..], &(tcp.len() as u16).to_be_bytes()].concat();
    assert_eq!(sum(&[addresses, &pseudo, tcp]), 0xffff, "the checksum of the segment");
    assert_eq!(tcp[..4], [frame.server.port().to_be_bytes(), frame.client.port().to_be_bytes()].concat());
    let number = |at: usize| u32::from_be_bytes(tcp[at..at + 4].try_into().unwrap());
    let header = usize::from(tcp[12] >> 4) * 4;
    Reply { sequence: number(4), acknowledgement: number(8), flags: tcp[13], data: tcp[header..].to_vec() }
}

fn sum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for pair in parts.concat().chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn denied_syns() -> Vec<Frame> {
    ["198.51.100.7", "2001:db8:1::7"]
        .into_iter()
        .flat_map(|client| {
            [vec![], vec![0x8100], vec![0x88a8, 0x8100]].map(|tags| Frame { tags, sequence: 77, ..Frame::syn(client) })
        })
        .collect()
}

#[test]
fn a_refusal_is_a_whole_conversation_that_nobody_keeps_in_mind() {
    alone(|| {
        let kernel = Started::new(&outspoken()).unwrap();
        let gate = &kernel.installation;
        deny(&kernel, "198.51.100.0/24", ListId::OPERATOR);
        deny(&kernel, "2001:db8:1::/48", ListId::OPERATOR);
        for syn in denied_syns() {
            let bytes = syn.bytes();
            let offer = gate.reply_to(&bytes).unwrap().expect("a cookie");
            assert!(offer.len() <= bytes.len(), "never more bytes than came in");
            let cookie = taken_apart(&syn, &offer);
            assert_eq!((cookie.flags, cookie.acknowledgement, cookie.data.len()), (SYN | ACK, 78, 0));

            let follows = |flags, sequence, received: u32, data: &[u8]| Frame {
                flags,
                sequence,
                acknowledgement: cookie.sequence.wrapping_add(1 + received),
                data: data.to_vec(),
                ..syn.clone()
            };
            let said = |frame: &Frame| taken_apart(frame, &gate.reply_to(&frame.bytes()).unwrap().expect("a reply"));
            let text = |acknowledgement| Reply {
                sequence: cookie.sequence.wrapping_add(1),
                acknowledgement,
                flags: PSH | FIN | ACK,
                data: REFUSAL.into(),
            };
            assert_eq!(said(&follows(ACK, 78, 0, b"")), text(78));
            assert_eq!(
                said(&follows(PSH | ACK, 78, 0, b"EHLO early\r\n")),
                text(90),
                "who talks first is told all the same"
            );
            assert_eq!(said(&follows(FIN | ACK, 78, 0, b"")), text(79), "who leaves at once too");
            let heard = REFUSAL.len() as u32 + 1;
            assert_eq!(gate.reply_to(&follows(ACK, 78, heard, b"").bytes()).unwrap(), None);
            assert!(
                !gate.try_frame(&follows(ACK, 78, heard, b"").bytes()).unwrap(),
                "the stack must not answer either"
            );
            let received = |acknowledgement| Reply {
                sequence: cookie.sequence.wrapping_add(1 + heard),
                acknowledgement,
                flags: ACK,
                data: Vec::new(),
            };
            assert_eq!(said(&follows(PSH | ACK, 78, heard, b"QUIT\r\n")), received(84));
            assert_eq!(said(&follows(FIN | ACK, 84, heard, b"")), received(85));
        }
        assert_eq!(
            kernel.totals().unwrap().iter().find(|(reason, _)| *reason == Reason::Challenged).unwrap().1.packets,
            6
        );
    });
}

#[test]
fn who_has_no_cookie_hears_nothing() {
    alone(|| {
        let kernel = Started::new(&outspoken()).unwrap();
        let gate = &kernel.installation;
        deny(&kernel, "198.51.100.0/24", ListId::OPERATOR);
        let syn = Frame { sequence: 77, ..Frame::syn("198.51.100.7") };
        let cookie = taken_apart(&syn, &gate.reply_to(&syn.bytes()).unwrap().unwrap()).sequence;
        let follows =
            |frame: &Frame, number: u32| Frame { flags: ACK, sequence: 78, acknowledgement: number, ..frame.clone() };
        // Another cookie, another client, another port, and the right number with the wrong flags.
        let elsewhere = Frame::syn("198.51.100.8");
        let mut other_port = syn.clone();
        other_port.client.set_port(40_002);
        for forged in [
            follows(&syn, cookie.wrapping_add(1 << 12)),
            follows(&syn, 1),
            follows(&elsewhere, cookie.wrapping_add(1)),
            follows(&other_port, cookie.wrapping_add(1)),
            Frame { flags: RST | ACK, ..follows(&syn, cookie.wrapping_add(1)) },
            Frame { flags: SYN | ACK, ..follows(&syn, cookie.wrapping_add(1)) },
        ] {
            assert_eq!(gate.reply_to(&forged.bytes()).unwrap(), None, "{:x}", forged.acknowledgement);
        }
        // One change of keys loses nobody, two do.
        let right = follows(&syn, cookie.wrapping_add(1)).bytes();
        kernel.rotate_keys().unwrap();
        assert!(gate.reply_to(&right).unwrap().is_some());
        kernel.rotate_keys().unwrap();
        assert_eq!(gate.reply_to(&right).unwrap(), None);
    });
}

#[test]
fn a_list_has_a_text_of_its_own_and_a_silent_gate_has_none() {
    alone(|| {
        let kernel = Started::new(&outspoken()).unwrap();
        kernel.set_reply(ListId::IMPORTED, OWN_TEXT).unwrap();
        deny(&kernel, "198.51.100.0/24", ListId::IMPORTED);
        deny(&kernel, "203.0.113.7/32", ListId::IMPORTED);
        for client in ["198.51.100.7", "203.0.113.7"] {
            let syn = Frame::syn(client);
            let cookie = taken_apart(&syn, &kernel.installation.reply_to(&syn.bytes()).unwrap().unwrap()).sequence;
            let ack = Frame { flags: ACK, sequence: 2, acknowledgement: cookie.wrapping_add(1), ..syn };
            let reply = taken_apart(&ack, &kernel.installation.reply_to(&ack.bytes()).unwrap().unwrap());
            assert_eq!(String::from_utf8(reply.data).unwrap(), format!("521 {OWN_TEXT}\r\n"));
        }
        for bad in ["", "two\r\nlines", &"x".repeat(83)] {
            assert!(kernel.set_reply(ListId::OPERATOR, bad).is_err(), "{bad:?}");
        }
        let silent = Started::new(&plan()).unwrap();
        deny(&silent, "198.51.100.0/24", ListId::OPERATOR);
        let syn = Frame::syn("198.51.100.7").bytes();
        assert_eq!(silent.installation.reply_to(&syn).unwrap(), None);
        assert!(!silent.installation.try_frame(&syn).unwrap());
        let dry = Started::new(&Plan { dry_run: true, ..outspoken() }).unwrap();
        deny(&dry, "198.51.100.0/24", ListId::OPERATOR);
        assert!(dry.installation.try_frame(&syn).unwrap());
    });
}

/// All that the client hears until the end, after it has said `first`.
fn heard(mut stream: &TcpStream, first: &str) -> String {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(first.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn clients_of_a_real_stack_are_told_and_let_go_in_order() {
    if !privileged() {
        return;
    }
    for xdp in [XdpMode::Generic, XdpMode::Native] {
        let site = Site::new(Plan { xdp, limit: 4, ..outspoken() });
        // What the gate sends natively over a veth arrives only where the other end runs XDP as well.
        let neighbour = site.pair.within(NEIGHBOUR, || {
            Started::new(&Plan { xdp, layout: Layout::Front, ports: vec![26], ..plan() }).unwrap()
        });
        // Nothing tells a namespace of what happens in another.
        site.pair.within(HOST, || site.kernel.installation.refresh_interfaces()).unwrap();
        for client in ["192.0.2.4", "2001:db8::4"] {
            deny(&site.kernel, &host(client), ListId::OPERATOR);
            for first in ["", "EHLO early\r\n"] {
                for _ in 0..20 {
                    let stream = site.connect(client);
                    assert_eq!(heard(&stream, first), REFUSAL, "{client} {xdp:?}");
                    // Its QUIT is taken, although nobody listens any more.
                    (&stream).write_all(b"QUIT\r\n").unwrap();
                }
            }
        }
        for client in ["192.0.2.2", "2001:db8::2"] {
            let kept: Vec<TcpStream> = (0..4).map(|_| site.connect(client)).collect();
            site.wait_active(client, 4);
            assert_eq!(heard(&site.connect(client), ""), BUSY, "{client} {xdp:?}");
            drop(kept);
        }
        // A connection that was there before its client was denied is nobody's to cut.
        let open = site.connect("192.0.2.3");
        let (_, mut served) = site.taken_from("192.0.2.3");
        deny(&site.kernel, "192.0.2.3/32", ListId::OPERATOR);
        (&open).write_all(b"MAIL\r\n").unwrap();
        let mut line = [0; 6];
        served.set_nonblocking(false).unwrap();
        served.read_exact(&mut line).unwrap();
        assert_eq!(&line, b"MAIL\r\n");
        assert_eq!(heard(&site.connect("192.0.2.3"), ""), REFUSAL);
        drop(neighbour);
    }
}

#[test]
fn small_segments_carry_the_text() {
    if !privileged() {
        return;
    }
    let site = Site::new(outspoken());
    deny(&site.kernel, "192.0.2.4/32", ListId::OPERATOR);
    // The least that Linux announces.
    site.pair.run_in(NEIGHBOUR, &["ip", "route", "replace", "192.0.2.1/32", "dev", "net0", "advmss", "88"]);
    let stream = site.connect("192.0.2.4");
    assert_eq!(heard(&stream, ""), REFUSAL);
}
