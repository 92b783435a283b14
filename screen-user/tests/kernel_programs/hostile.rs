//! Frames of any kind through a gate that talks: nobody gets more bytes than came from it, but whoever returns a cookie.

use std::cell::Cell;

use proptest::{prelude::*, test_runner::TestRunner};
use screen_user::{
    config::KernelReply,
    kernel::{DenyEntry, Expiry, ListId, Plan},
};

use super::{
    frames::{ACK, Frame, SYN, chains},
    place::{Started, alone, plan},
};

const CASES: u32 = 20_000;
const CLIENTS: [&str; 4] = ["198.51.100.7", "2001:db8:1::7", "203.0.113.7", "2001:db8:2::7"];
/// The SYN's options in `Frame::syn`: the TCP header begins this many bytes before the end of a SYN without data.
const SYN_HEADER: usize = 24;

/// A frame that may be anything, and byte by byte what is to be changed in it.
#[derive(Debug, Clone)]
struct Hostile {
    client: usize,
    flags: u8,
    /// How far its acknowledgement is from the cookie that its client was last offered.
    distance: u32,
    window: u16,
    data: Vec<u8>,
    tags: Vec<u16>,
    options: usize,
    tcp_options: Vec<u8>,
    chain: usize,
    damage: Vec<(usize, u8)>,
    cut: usize,
}

fn hostile() -> impl Strategy<Value = Hostile> {
    let tags = prop::collection::vec(prop::sample::select(vec![0x8100, 0x88a8]), 0..=3);
    let tcp_options = prop::collection::vec(any::<[u8; 4]>(), 0..=10).prop_map(|words| words.concat());
    let flags = prop_oneof![3 => Just(SYN), 3 => Just(ACK), 1 => Just(ACK | 0x01), 2 => any::<u8>()];
    // Beside a cookie and what follows it, there are only numbers that nobody was offered.
    let distance = prop_oneof![2 => 300_u32..=u32::MAX - 300, 1 => 0_u32..100, 1 => Just(0)];
    let addressed = (0..CLIENTS.len(), flags, distance, any::<u16>(), prop::collection::vec(any::<u8>(), 0..40));
    let plain = || prop_oneof![3 => Just(0), 1 => 1_usize..=10];
    let shape = (tags, plain(), tcp_options, plain().prop_map(|chain| chain % chains().len()));
    let damage = prop_oneof![
        2 => Just(Vec::new()),
        1 => prop::collection::vec((any::<usize>(), any::<u8>()), 1..4),
    ];
    let cut = prop_oneof![3 => Just(0_usize), 1 => 0_usize..60];
    (addressed, shape, damage, cut).prop_map(
        |((client, flags, distance, window, data), (tags, options, tcp_options, chain), damage, cut)| Hostile {
            client,
            flags,
            distance,
            window,
            data,
            tags,
            options: options * 4,
            tcp_options,
            chain,
            damage,
            cut,
        },
    )
}

impl Hostile {
    fn bytes(&self, cookies: [u32; CLIENTS.len()]) -> Vec<u8> {
        let client = CLIENTS[self.client];
        let ipv6 = client.contains(':');
        let frame = Frame {
            flags: self.flags,
            acknowledgement: cookies[self.client].wrapping_add(1 + self.distance),
            window: self.window,
            data: self.data.clone(),
            tags: self.tags.clone(),
            options: if ipv6 { 0 } else { self.options },
            tcp_options: self.tcp_options.clone(),
            chain: if ipv6 { chains().swap_remove(self.chain) } else { Vec::new() },
            ..Frame::syn(client)
        };
        let mut bytes = frame.bytes();
        for (place, byte) in &self.damage {
            let place = place % bytes.len();
            bytes[place] = *byte;
        }
        // The kernel runs nothing shorter.
        bytes.truncate((bytes.len() - self.cut.min(bytes.len())).max(14));
        bytes
    }
}

#[test]
fn nobody_gets_more_bytes_than_came_but_for_a_cookie() {
    alone(|| {
        let reject = KernelReply::Reject;
        let kernel = Started::new(&Plan { deny_reply: reject, limit_reply: reject, limit: 2, ..plan() }).unwrap();
        for net in ["198.51.100.0/24", "2001:db8:1::/48"] {
            let entry = DenyEntry { expires: Expiry::NEVER, list: ListId::OPERATOR };
            kernel.deny(net.parse().unwrap(), entry).unwrap();
        }
        // What the clients on the list were offered; the others never were.
        let cookies = CLIENTS.map(|client| {
            let offer = kernel.installation.reply_to(&Frame::syn(client).bytes()).unwrap();
            offer.map_or(0, |offer| {
                let sequence = offer.len() - SYN_HEADER + 4;
                u32::from_be_bytes(offer[sequence..sequence + 4].try_into().unwrap())
            })
        });
        assert!(cookies[0] != 0 && cookies[1] != 0 && cookies[2..] == [0, 0]);
        let (offers, answers) = (Cell::new(0), Cell::new(0));
        let mut runner =
            TestRunner::new(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() });
        let outcome = runner.run(&hostile(), |hostile| {
            let bytes = hostile.bytes(cookies);
            let Some(reply) = kernel.installation.reply_to(&bytes).unwrap() else { return Ok(()) };
            let is_tag = |four: &&[u8]| [[0x81, 0], [0x88, 0xa8]].contains(&[four[0], four[1]]);
            let network = 14 + 4 * reply[12..].chunks(4).take_while(is_tag).count();
            let tcp = network + if reply[network] >> 4 == 4 { 20 } else { 40 };
            let returned = hostile.distance < 100 && cookies[hostile.client] != 0;
            if reply[tcp + 13] == SYN | ACK {
                offers.set(offers.get() + 1);
                prop_assert!(reply.len() <= bytes.len(), "{} bytes for {}", reply.len(), bytes.len());
                prop_assert_eq!(reply.len() - tcp, usize::from(reply[tcp + 12] >> 4) * 4, "nothing but the header");
            } else {
                answers.set(answers.get() + 1);
                prop_assert!(returned, "an answer to who has no cookie: {:02x?}", reply);
            }
            Ok(())
        });
        outcome.unwrap();
        assert!(offers.get() > 100 && answers.get() > 100, "{offers:?} and {answers:?}: most was never tried");
    });
}
