//! Refusal without a socket: frames through the gate, and what it sends back.

use screen_user::{
    config::KernelReply,
    kernel::{DenyEntry, Expiry, ListId, Plan, Reason},
};

use super::{
    frames::{ACK, Frame, RST, SYN},
    place::{Started, alone, plan},
};

const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
pub(crate) const REFUSAL: &str = "521 5.3.2 Service currently unavailable\r\n";
const OWN_TEXT: &str = "5.7.1 Listed, see https://example.org/why";

pub(crate) fn outspoken() -> Plan {
    Plan { deny_reply: KernelReply::Reject, limit_reply: KernelReply::Reject, ..plan() }
}

pub(crate) fn deny(kernel: &Started, net: &str, list: ListId) {
    kernel.deny(net.parse().unwrap(), DenyEntry { expires: Expiry::NEVER, list }).unwrap();
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
        deny(&kernel, "203.0.113.64/26", ListId::IMPORTED);
        deny(&kernel, "203.0.113.77/32", ListId::OPERATOR);
        let told = |text: &str| {
            for client in ["198.51.100.7", "203.0.113.7", "203.0.113.65"] {
                let syn = Frame::syn(client);
                let cookie = taken_apart(&syn, &kernel.installation.reply_to(&syn.bytes()).unwrap().unwrap()).sequence;
                let ack = Frame { flags: ACK, sequence: 2, acknowledgement: cookie.wrapping_add(1), ..syn };
                let reply = taken_apart(&ack, &kernel.installation.reply_to(&ack.bytes()).unwrap().unwrap());
                assert_eq!(String::from_utf8(reply.data).unwrap(), text, "{client}");
            }
        };
        told(&format!("521 {OWN_TEXT}\r\n"));
        // It goes, another list takes its place, and it comes again: what is denied already follows.
        kernel.unset_reply(ListId::IMPORTED).unwrap();
        kernel.set_reply(ListId::OPERATOR, "5.7.1 Ask the operator").unwrap();
        told(REFUSAL);
        kernel.set_reply(ListId::IMPORTED, OWN_TEXT).unwrap();
        told(&format!("521 {OWN_TEXT}\r\n"));
        for bad in ["", "two\r\nlines", &"x".repeat(83)] {
            assert!(kernel.set_reply(ListId::OPERATOR, bad).is_err(), "{bad:?}");
        }
        let silent = Started::new(&plan()).unwrap();
        deny(&silent, "198.51.100.0/24", ListId::OPERATOR);
        let syn = Frame::syn("198.51.100.7").bytes();
        assert_eq!(silent.installation.reply_to(&syn).unwrap(), None);
        assert!(!silent.installation.try_frame(&syn).unwrap());
    });
}

#[test]
fn a_dry_run_challenges_nobody_and_ends_what_has_begun() {
    alone(|| {
        let kernel = Started::new(&outspoken()).unwrap();
        let gate = &kernel.installation;
        deny(&kernel, "198.51.100.0/24", ListId::OPERATOR);
        let syn = Frame { sequence: 77, ..Frame::syn("198.51.100.7") };
        let cookie = taken_apart(&syn, &gate.reply_to(&syn.bytes()).unwrap().unwrap()).sequence;
        let follows = Frame { flags: ACK, sequence: 78, acknowledgement: cookie.wrapping_add(1), ..syn.clone() };
        kernel.reconfigure(&Plan { dry_run: true, ..outspoken() }).unwrap();
        assert!(gate.reply_to(&syn.bytes()).unwrap().is_none() && gate.try_frame(&syn.bytes()).unwrap());
        assert!(gate.reply_to(&follows.bytes()).unwrap().is_some(), "its client has no connection but this one");
        kernel.reconfigure(&outspoken()).unwrap();
        assert!(gate.reply_to(&syn.bytes()).unwrap().is_some());
    });
}

#[test]
fn nobody_is_answered_who_has_no_room_for_it_or_has_part_of_it_or_more_than_there_is() {
    alone(|| {
        let kernel = Started::new(&outspoken()).unwrap();
        let gate = &kernel.installation;
        deny(&kernel, "198.51.100.0/24", ListId::OPERATOR);
        let syn = Frame { sequence: 77, ..Frame::syn("198.51.100.7") };
        let cookie = taken_apart(&syn, &gate.reply_to(&syn.bytes()).unwrap().unwrap()).sequence;
        let length = REFUSAL.len() as u32;
        let follows = |received: u32, window: u16| Frame {
            flags: PSH | ACK,
            sequence: 78,
            acknowledgement: cookie.wrapping_add(1 + received),
            window,
            data: b"EHLO\r\n".to_vec(),
            ..syn.clone()
        };
        // The FIN has to find room as well. Without any, the client would say so again, and be answered again.
        let room = REFUSAL.len() as u16 + 1;
        for (window, answered) in [(0, false), (room - 1, false), (room, true), (u16::MAX, true)] {
            let frame = follows(0, window).bytes();
            assert_eq!(gate.reply_to(&frame).unwrap().is_some(), answered, "{window}");
            assert!(!gate.try_frame(&frame).unwrap(), "the stack must not answer either");
        }
        for received in 1..=length {
            let frame = follows(received, u16::MAX).bytes();
            assert!(gate.reply_to(&frame).unwrap().is_none() && !gate.try_frame(&frame).unwrap(), "{received}");
        }
        assert!(gate.reply_to(&follows(length + 1, 0).bytes()).unwrap().is_some());
        for beyond in [length + 2, length + 200] {
            assert!(gate.try_frame(&follows(beyond, u16::MAX).bytes()).unwrap(), "no cookie: it is left to the stack");
        }
    });
}

#[test]
fn no_segment_is_longer_than_its_client_takes() {
    alone(|| {
        let kernel = Started::new(&outspoken()).unwrap();
        let gate = &kernel.installation;
        let long = "5.7.1 ".to_owned() + &"x".repeat(76);
        kernel.set_reply(ListId::IMPORTED, &long).unwrap();
        let long = format!("521 {long}\r\n");
        assert_eq!(long.len(), 88);
        deny(&kernel, "198.51.100.0/24", ListId::IMPORTED);
        deny(&kernel, "2001:db8:1::/48", ListId::IMPORTED);
        let announced = |size: u8| vec![2, 4, 0, size];
        let last = |size: u8| [[1; 36].as_slice(), &announced(size)].concat();
        for (tcp_options, text) in [
            (vec![], Some(long.as_str())),
            (announced(88), Some(&long)),
            (announced(87), Some(REFUSAL)),
            (announced(64), Some(REFUSAL)),
            (announced(48), Some(REFUSAL)),
            (announced(41), Some(REFUSAL)),
            (last(64), Some(REFUSAL)),
            // Not even the common text: silence.
            (announced(40), None),
            (last(1), None),
        ] {
            for client in ["198.51.100.7", "2001:db8:1::7"] {
                let syn = Frame { tcp_options: tcp_options.clone(), ..Frame::syn(client) };
                let offer = gate.reply_to(&syn.bytes()).unwrap();
                assert_eq!(offer.is_some(), text.is_some(), "{tcp_options:?}");
                let (Some(offer), Some(text)) = (offer, text) else { continue };
                assert!(offer.len() <= syn.bytes().len());
                let acknowledgement = taken_apart(&syn, &offer).sequence.wrapping_add(1);
                let ack = Frame { flags: ACK, sequence: 2, acknowledgement, tcp_options: Vec::new(), ..syn };
                let reply = taken_apart(&ack, &gate.reply_to(&ack.bytes()).unwrap().unwrap());
                assert_eq!(String::from_utf8(reply.data).unwrap(), text, "{tcp_options:?}");
            }
        }
    });
}

/// SYNs as the stacks of other systems make them: flags and options.
fn foreign() -> [(&'static str, u8, Vec<u8>); 6] {
    const ECN: u8 = 0xc0;
    [
        ("Linux with ECN", SYN | ECN, vec![2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7]),
        ("Linux with Fast Open", SYN, vec![2, 4, 5, 0xb4, 1, 1, 4, 2, 34, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 1]),
        ("FreeBSD", SYN, vec![2, 4, 5, 0xb4, 1, 3, 3, 6, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0]),
        ("OpenBSD", SYN, vec![2, 4, 5, 0xb4, 1, 1, 4, 2, 1, 3, 3, 6, 1, 1, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0]),
        ("Windows", SYN | ECN, vec![2, 4, 5, 0xb4, 1, 3, 3, 8, 1, 1, 4, 2]),
        ("a stack without options", SYN, vec![]),
    ]
}

#[test]
fn syns_of_other_systems_get_a_synack_that_answers_them() {
    alone(|| {
        let kernel = Started::new(&outspoken()).unwrap();
        let gate = &kernel.installation;
        deny(&kernel, "198.51.100.0/24", ListId::OPERATOR);
        deny(&kernel, "2001:db8:1::/48", ListId::OPERATOR);
        for (system, flags, tcp_options) in foreign() {
            for client in ["198.51.100.7", "2001:db8:1::7"] {
                // Data in a SYN (RFC 7413) are not taken: their sender sends them again.
                for data in [&b""[..], b"EHLO early\r\n"] {
                    let syn = Frame {
                        flags,
                        sequence: 77,
                        tcp_options: tcp_options.clone(),
                        data: data.to_vec(),
                        ..Frame::syn(client)
                    };
                    let offer = gate.reply_to(&syn.bytes()).unwrap().expect(system);
                    let offer = taken_apart(&syn, &offer);
                    // Neither ECN nor anything else is agreed to that was not asked for (RFC 3168 section 6.1.1).
                    assert_eq!((offer.flags, offer.acknowledgement, offer.data), (SYN | ACK, 78, vec![]), "{system}");
                    let acknowledgement = offer.sequence.wrapping_add(1);
                    let ack = Frame { flags: ACK, sequence: 78, acknowledgement, tcp_options: vec![], ..syn };
                    let reply = taken_apart(&ack, &gate.reply_to(&ack.bytes()).unwrap().expect(system));
                    assert_eq!(reply.data[..REFUSAL.len()], *REFUSAL.as_bytes(), "{system}");
                }
            }
        }
    });
}
