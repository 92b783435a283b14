use proptest::prelude::*;

use super::*;

const V4_CLIENT: [u8; 4] = [198, 51, 100, 7];
const V4_SERVER: [u8; 4] = [192, 0, 2, 25];
const V6_CLIENT: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
const V6_SERVER: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 25];

fn ethernet_frame(tags: &[u16], ethertype: u16, packet: &[u8]) -> Vec<u8> {
    let mut frame = vec![2; 12];
    for tag in tags {
        frame.extend(tag.to_be_bytes());
        frame.extend([0, 5]);
    }
    frame.extend(ethertype.to_be_bytes());
    frame.extend(packet);
    frame
}

fn tcp_segment(port: u16, flags: u8, options: usize) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(40_001u16.to_be_bytes());
    segment.extend(port.to_be_bytes());
    segment.extend(0xdead_beefu32.to_be_bytes());
    segment.extend([0; 4]);
    segment.extend([(((TCP_HEADER + options) / 4) << 4) as u8, flags]);
    segment.extend([0; 6]);
    segment.extend(vec![1; options]);
    segment
}

fn ipv4_packet(options: usize, fragment: u16, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x40 | ((20 + options) / 4) as u8, 0];
    packet.extend(((20 + options + payload.len()) as u16).to_be_bytes());
    packet.extend([0, 1]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend(V4_CLIENT);
    packet.extend(V4_SERVER);
    packet.extend(vec![1; options]);
    packet.extend(payload);
    packet
}

/// `chain`: header number and its bytes from the second on (the first is the next header's number).
fn ipv6_packet(chain: &[(u8, Vec<u8>)], last: u8, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    for (index, (_, rest)) in chain.iter().enumerate() {
        body.push(chain.get(index + 1).map_or(last, |(number, _)| *number));
        body.extend(rest);
    }
    body.extend(payload);
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((body.len() as u16).to_be_bytes());
    packet.extend([chain.first().map_or(last, |(number, _)| *number), 64]);
    packet.extend(V6_CLIENT);
    packet.extend(V6_SERVER);
    packet.extend(body);
    packet
}

fn options_header(eights: u8) -> Vec<u8> {
    let mut rest = vec![eights];
    rest.extend(vec![0; eights as usize * 8 + 6]);
    rest
}

fn decode_smtp(frame: &[u8]) -> Decoded {
    match decode(frame, |port| port == 25, |_| false) {
        // What a reply needs has a test of its own.
        Decoded::Opening(opening) => Decoded::Opening(Opening { wire: Wire::default(), ..opening }),
        other => other,
    }
}

fn expected(ipv6: bool) -> Decoded {
    Decoded::Opening(Opening {
        source: if ipv6 { IpKey::from_ipv6(V6_CLIENT) } else { IpKey::from_ipv4(V4_CLIENT) },
        destination: if ipv6 { IpKey::from_ipv6(V6_SERVER) } else { IpKey::from_ipv4(V4_SERVER) },
        source_port: 40_001,
        destination_port: 25,
        sequence: 0xdead_beef,
        wire: Wire::default(),
    })
}

/// Every SYN that must be recognised, and whether it is IPv6.
fn openings() -> Vec<(Vec<u8>, bool)> {
    let mut frames = Vec::new();
    let chains: Vec<Vec<(u8, Vec<u8>)>> = vec![
        vec![],
        vec![(IPV6_HOP_BY_HOP, options_header(0))],
        vec![(IPV6_DESTINATION, options_header(3))],
        vec![(IPV6_ROUTING, vec![0; 7])],
        vec![(IPV6_FRAGMENT, vec![0; 7])],
        vec![(IPV6_AUTHENTICATION, [vec![4], vec![0; 22]].concat())],
        vec![(IPV6_MOBILITY, options_header(1))],
        vec![
            (IPV6_HOP_BY_HOP, options_header(1)),
            (IPV6_DESTINATION, options_header(0)),
            (IPV6_ROUTING, vec![0; 7]),
            (IPV6_FRAGMENT, vec![0; 7]),
            (IPV6_AUTHENTICATION, [vec![4], vec![0; 22]].concat()),
            (IPV6_DESTINATION, options_header(2)),
        ],
    ];
    let tags: [&[u16]; 4] =
        [&[], &[ETHERTYPE_VLAN], &[ETHERTYPE_QINQ, ETHERTYPE_VLAN], &[ETHERTYPE_VLAN, ETHERTYPE_VLAN]];
    for tags in tags {
        for tcp_options in [0, 20, 40] {
            let segment = tcp_segment(25, SYN | 0xc0, tcp_options);
            for options in [0, 4, 40] {
                let packet = ipv4_packet(options, 0x4000, PROTOCOL_TCP, &segment);
                frames.push((ethernet_frame(tags, ETHERTYPE_IPV4, &packet), false));
            }
            for chain in &chains {
                let packet = ipv6_packet(chain, PROTOCOL_TCP, &segment);
                frames.push((ethernet_frame(tags, ETHERTYPE_IPV6, &packet), true));
            }
        }
    }
    frames
}

#[test]
fn every_header_combination_is_recognised() {
    for (frame, ipv6) in openings() {
        assert_eq!(decode_smtp(&frame), expected(ipv6), "{frame:02x?}");
    }
}

#[test]
fn truncated_at_any_byte_it_is_malformed() {
    for (frame, _) in openings() {
        for length in 0..frame.len() {
            assert_eq!(decode_smtp(&frame[..length]), Decoded::Malformed, "{length} of {frame:02x?}");
        }
    }
}

#[test]
fn padding_behind_the_packet_does_no_harm() {
    let mut frame = ethernet_frame(&[], ETHERTYPE_IPV4, &ipv4_packet(0, 0, PROTOCOL_TCP, &tcp_segment(25, SYN, 0)));
    frame.extend([0; 6]);
    assert_eq!(decode_smtp(&frame), expected(false));
}

#[test]
fn all_else_is_not_ours() {
    let syn = tcp_segment(25, SYN, 0);
    let v4 = |packet: &[u8]| ethernet_frame(&[], ETHERTYPE_IPV4, packet);
    let v6 = |packet: &[u8]| ethernet_frame(&[], ETHERTYPE_IPV6, packet);
    let mut frames = vec![
        ("first fragment", v4(&ipv4_packet(0, 0x2000, PROTOCOL_TCP, &syn))),
        ("last fragment", v4(&ipv4_packet(0, 0x0010, PROTOCOL_TCP, &syn))),
        ("UDP", v4(&ipv4_packet(0, 0, 17, &syn))),
        ("UDP over IPv6", v6(&ipv6_packet(&[], 17, &syn))),
        ("no next header", v6(&ipv6_packet(&[], 59, &syn))),
        ("ESP", v6(&ipv6_packet(&[(IPV6_HOP_BY_HOP, options_header(0))], 50, &syn))),
        ("first IPv6 fragment", v6(&ipv6_packet(&[(IPV6_FRAGMENT, vec![0, 0, 1, 0, 0, 0, 9])], PROTOCOL_TCP, &syn))),
        ("later IPv6 fragment", v6(&ipv6_packet(&[(IPV6_FRAGMENT, vec![0, 1, 0, 0, 0, 0, 9])], PROTOCOL_TCP, &syn))),
        ("segments left", v6(&ipv6_packet(&[(IPV6_ROUTING, vec![0, 0, 1, 0, 0, 0, 0])], PROTOCOL_TCP, &syn))),
        ("ARP", ethernet_frame(&[], 0x0806, &syn)),
        ("three tags", ethernet_frame(&[ETHERTYPE_VLAN; 3], ETHERTYPE_IPV4, &ipv4_packet(0, 0, PROTOCOL_TCP, &syn))),
        ("nine headers", v6(&ipv6_packet(&vec![(IPV6_DESTINATION, options_header(0)); 9], PROTOCOL_TCP, &syn))),
        ("another port", v4(&ipv4_packet(0, 0, PROTOCOL_TCP, &tcp_segment(26, SYN, 0)))),
    ];
    for flags in [ACK, SYN | ACK, RST, SYN | RST, SYN | FIN, 0, FIN | ACK] {
        frames.push(("not a SYN", v4(&ipv4_packet(0, 0, PROTOCOL_TCP, &tcp_segment(25, flags, 0)))));
        frames.push(("not a SYN", v6(&ipv6_packet(&[], PROTOCOL_TCP, &tcp_segment(25, flags, 0)))));
    }
    for (what, frame) in frames {
        assert_eq!(decode_smtp(&frame), Decoded::NotOurs, "{what}");
    }
}

#[test]
fn contradictions_are_malformed() {
    let syn = tcp_segment(25, SYN, 0);
    let good = ipv4_packet(0, 0, PROTOCOL_TCP, &syn);
    let with = |index: usize, byte: u8| {
        let mut packet = good.clone();
        packet[index] = byte;
        decode_smtp(&ethernet_frame(&[], ETHERTYPE_IPV4, &packet))
    };
    assert_eq!(with(0, 0x44), Decoded::Malformed, "header of 16 bytes");
    assert_eq!(with(0, 0x65), Decoded::Malformed, "version 6 in an IPv4 frame");
    assert_eq!(with(3, 39), Decoded::Malformed, "total length without a whole TCP header");
    assert_eq!(with(3, 41), Decoded::Malformed, "total length beyond the frame");
    assert_eq!(with(32, 0x40), Decoded::Malformed, "TCP header of 16 bytes");
    assert_eq!(with(32, 0x60), Decoded::Malformed, "TCP header beyond the packet");
    let mut packet = ipv6_packet(&[], PROTOCOL_TCP, &syn);
    packet[5] = 19;
    assert_eq!(decode_smtp(&ethernet_frame(&[], ETHERTYPE_IPV6, &packet)), Decoded::Malformed, "payload too short");
}

#[test]
fn what_acknowledges_a_number_of_interest_is_an_answer() {
    for (flags, fin) in [(ACK, false), (ACK | 0x08, false), (FIN | ACK, true)] {
        let mut segment = tcp_segment(25, flags, 12);
        segment[8..12].copy_from_slice(&7u32.to_be_bytes());
        segment[14..16].copy_from_slice(&4_321u16.to_be_bytes());
        segment.extend(*b"EHLO");
        let frame = ethernet_frame(&[ETHERTYPE_VLAN], ETHERTYPE_IPV4, &ipv4_packet(0, 0, PROTOCOL_TCP, &segment));
        let of_interest = |wanted| decode(frame.as_slice(), |port| port == 25, move |number| number == wanted);
        let Decoded::Answer(answer) = of_interest(7) else { panic!("{:?}", of_interest(7)) };
        assert_eq!((answer.acknowledgement, answer.fin, answer.payload, answer.window), (7, fin, 4, 4_321));
        assert_eq!((answer.source, answer.sequence), (IpKey::from_ipv4(V4_CLIENT), 0xdead_beef));
        assert_eq!(answer.wire, Wire { network: 18, plain: true, tcp: 32 });
        assert_eq!(of_interest(8), Decoded::NotOurs);
    }
    for flags in [RST, RST | ACK, SYN | ACK, FIN, 0] {
        let frame = ethernet_frame(&[], ETHERTYPE_IPV4, &ipv4_packet(0, 0, PROTOCOL_TCP, &tcp_segment(25, flags, 0)));
        assert_eq!(decode(frame.as_slice(), |_| true, |_| true), Decoded::NotOurs, "{flags:02x}");
    }
}

#[test]
fn a_reply_is_told_what_lies_between_the_headers() {
    let wire = |frame: &[u8]| match decode(frame, |_| true, |_| true) {
        Decoded::Opening(opening) => opening.wire,
        other => panic!("{other:?}"),
    };
    let syn = tcp_segment(25, SYN, 0);
    let with_options = ethernet_frame(&[], ETHERTYPE_IPV4, &ipv4_packet(4, 0, PROTOCOL_TCP, &syn));
    assert_eq!(wire(&with_options), Wire { network: 14, plain: false, tcp: 20 });
    let chained = ipv6_packet(&[(IPV6_HOP_BY_HOP, options_header(0))], PROTOCOL_TCP, &syn);
    assert!(!wire(&ethernet_frame(&[], ETHERTYPE_IPV6, &chained)).plain);
    let tags = [ETHERTYPE_QINQ, ETHERTYPE_VLAN];
    let tagged = ethernet_frame(&tags, ETHERTYPE_IPV6, &ipv6_packet(&[], PROTOCOL_TCP, &tcp_segment(25, SYN, 4)));
    assert_eq!(wire(&tagged), Wire { network: 22, plain: true, tcp: 24 });
}

proptest! {
    #[test]
    fn any_bytes_are_decoded_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        decode(bytes.as_slice(), |_| true, |_| true);
    }

    #[test]
    fn a_damaged_opening_never_names_bytes_beyond_the_frame(
        index in 0usize..132, at in 0usize..120, byte: u8, cut in 0usize..200,
    ) {
        let frames = openings();
        let mut frame = frames[index % frames.len()].0.clone();
        let at = at % frame.len();
        frame[at] = byte;
        frame.truncate(cut);
        if let Decoded::Opening(opening) = decode_smtp(&frame) {
            prop_assert_eq!(opening.destination_port, 25);
            prop_assert!(frame.windows(4).any(|window| window == opening.sequence.to_be_bytes()));
        }
    }
}
