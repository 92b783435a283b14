//! A flood of SYNs from denied addresses, forged ones: nobody is hit by the answers, nothing is kept of them, and the log has a sample
//! and the number of the rest.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Instant,
};

use screen_tests::{
    gate::{Gate, Settings},
    net::Net,
    postfix::Postfix,
    smtp::Client,
    wait::{SOON, wait_for},
    wire::{Segment, Wire, flags},
};

/// Denied networks that the SYNs come from, by their own word.
const FORGED: [&str; 2] = ["203.0.112.0/20", "2001:db8:66::/48"];

/// SYN `number` of a flood: another source each time, and then another port.
fn syn(net: &Net, ipv6: bool, number: u32) -> Segment {
    let [_, _, high, low] = number.to_be_bytes();
    let from: IpAddr = if ipv6 {
        [0x2001, 0xdb8, 0x66, 0, 0, 0, 0, u16::from(high & 0xf) << 8 | u16::from(low)].into()
    } else {
        [203, 0, 112 + (high & 0xf), low].into()
    };
    let port = 1_024 + u16::try_from(number >> 12).unwrap();
    Segment {
        from: SocketAddr::new(from, port),
        to: net.client().edge(from),
        sequence: number,
        acknowledgement: 0,
        flags: flags::SYN,
        data: Vec::new(),
        length: 0,
    }
}

fn deny_the_forged(gate: &Gate) {
    for prefix in FORGED {
        gate.tell(&["deny", prefix]);
    }
    for client in ["203.0.112.1", "2001:db8:66::1"] {
        gate.wait_denied(client.parse().unwrap());
    }
}

#[test]
fn forged_addresses_get_synacks_and_no_more_bytes_than_came_in_their_name() {
    const BURST: u32 = 64;
    const BURSTS: u32 = 200;
    let Some(net) = Net::new() else { return };
    let gate = Gate::start(&net, Settings::in_place(&net));
    deny_the_forged(&gate);
    let wire = Wire::open(&net.client().namespace, "c0");
    let mut balance: HashMap<IpAddr, (usize, usize)> = HashMap::new();
    let (mut sent, mut heard) = (0_u64, 0_u64);
    let mut hear = |balance: &mut HashMap<IpAddr, (usize, usize)>| {
        let Some(frame) = wire.receive() else { return false };
        let Some(reply) = Segment::read(&frame) else { return true };
        if let Some((_, out)) = balance.get_mut(&reply.to.ip()) {
            assert_eq!((reply.flags, reply.data.len()), (flags::SYN | flags::ACK, 0), "{reply:?}");
            *out += reply.length;
            heard += 1;
        }
        true
    };
    for burst in 0..BURSTS {
        for ipv6 in [false, true] {
            for number in burst * BURST..(burst + 1) * BURST {
                let syn = syn(&net, ipv6, number);
                let frame = syn.frame();
                balance.entry(syn.from.ip()).or_default().0 += frame.len();
                wire.send(&frame);
                sent += 1;
            }
            // So that the answers never outgrow what the socket holds.
            for _ in 0..BURST {
                assert!(hear(&mut balance), "an answer to each");
            }
        }
    }
    while hear(&mut balance) {}
    assert_eq!(heard, sent, "one SYN-ACK for each SYN");
    for (address, (came, went)) in &balance {
        assert!(went <= came, "{address}: {went} bytes for {came}");
    }
    assert_eq!(gate.pins().total("Denied", "packets"), i64::try_from(sent).unwrap());
    assert_eq!(gate.pins().total("Challenged", "packets"), i64::try_from(sent).unwrap());
    assert_eq!(gate.pins().total("Refused", "packets"), 0);
    assert!(gate.pins().dump("clients").is_empty() && gate.pins().dump("half_open").is_empty(), "nobody is kept");
}

/// Log lines of the kernel's refusals, and the sum of the lines that were left out.
fn lines(gate: &Gate) -> (i64, i64) {
    let log = gate.log();
    let written = log.lines().filter(|line| line.contains("DENYLISTED") && line.ends_with("(kernel)")).count();
    let left_out = log
        .lines()
        .filter_map(|line| line.strip_suffix(" lines left out (kernel)")?.rsplit(' ').next()?.parse::<i64>().ok())
        .sum();
    (i64::try_from(written).unwrap(), left_out)
}

#[test]
fn a_flood_is_logged_by_a_sample_and_disturbs_nobody() {
    const LEAST: u32 = 300_000;
    /// Ports are of two bytes.
    const MOST: u32 = 60_000 << 12;
    /// Lines a second, of each reason and processor (docs/kernel.md).
    const RATE: u64 = 500;
    let Some(net) = Net::new() else { return };
    let net = Arc::new(net);
    let _postfix = Postfix::start(&net);
    let gate = Gate::start(&net, Settings::in_place(&net).text("forward.client_address", "none"));
    deny_the_forged(&gate);
    let good = ["198.18.1.1", "2001:2:0:1::1"].map(|address| address.parse::<IpAddr>().unwrap());
    for address in good {
        gate.tell(&["allow", &address.to_string()]);
        gate.wait("it is known", || gate.pins().of("allow", address).is_some());
    }
    let (enough, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let began = Instant::now();
    let flood = net.client().namespace.thread({
        let (net, enough, sent) = (Arc::clone(&net), Arc::clone(&enough), Arc::clone(&sent));
        move || {
            let wire = Wire::open(&net.client().namespace, "c0");
            let mut number = 0;
            while number < MOST && (number < LEAST || !enough.load(Ordering::Relaxed)) {
                wire.send(&syn(&net, number % 2 == 1, number).frame());
                number += 1;
                sent.store(number, Ordering::Relaxed);
            }
            number
        }
    });
    wait_for("the flood has come", SOON, || (sent.load(Ordering::Relaxed) > 10_000).then_some(()));
    for address in good {
        assert!(gate.ask(&["status"]).is_object());
        let mut client = Client::connect(net.client(), address);
        assert_eq!(client.line(), "220 mx.example.test ESMTP Postfix (Debian/GNU)");
        client.quit();
    }
    assert!(!flood.is_finished(), "it was served during the flood");
    enough.store(true, Ordering::Relaxed);
    let sent = i64::from(flood.join().unwrap());
    let seconds = began.elapsed().as_secs() + 1;

    let packets = gate.pins().total("Denied", "packets");
    assert_eq!(packets, sent);
    gate.wait("each is a line or counted as left out", || {
        let (written, left_out) = lines(&gate);
        written + left_out == packets
    });
    let (written, left_out) = lines(&gate);
    assert_eq!((gate.pins().total("Denied", "events"), gate.pins().total("Denied", "suppressed")), (written, left_out));
    let processors = std::thread::available_parallelism().unwrap().get() as u64;
    let bound = i64::try_from(RATE * processors * (seconds + 1)).unwrap();
    assert!(written > 0 && written <= bound, "{written} lines, of which at most {bound} were to be expected");
    assert_eq!(gate.logged("the log target is too slow"), 0);
    // It goes on as before.
    wait_for("a refusal is logged again", SOON, || {
        let wire = Wire::open(&net.client().namespace, "c0");
        wire.send(&syn(&net, false, 0).frame());
        (lines(&gate).0 > written).then_some(())
    });
}
