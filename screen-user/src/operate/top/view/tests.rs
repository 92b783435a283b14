use ratatui::{Terminal, backend::TestBackend};

use super::{
    super::{
        model::{Heard, Key},
        snapshot::{Fates, Part, Queue, Snapshot, Visitor, Zone},
    },
    *,
};

const PLAIN: Appearance = Appearance { colour: false, unicode: false };

fn snapshot(second: u64) -> Snapshot {
    let visitor = |net: &str, per_second, open, last: &str| {
        let net: ipnet::IpNet = net.parse().unwrap();
        let screened = Fates { forwarded: 8, rejected: 9, deferred: 1, left: 1, ..Fates::default() };
        let fates = Fates { denied: 12, limited: 3, steered: 4567, ..screened };
        Visitor { net, address: net.addr(), per_second, open, fates, last: last.into() }
    };
    Snapshot {
        version: "0.1.0".into(),
        hostname: "mx.example.test".into(),
        screener: 7,
        uptime_ms: 90_000_000 + second * 1000,
        kernel: true,
        fates: Fates { denied: second * second, steered: second * 12_345, rejected: second, ..Fates::default() },
        queues: vec![
            Queue { name: "being screened".into(), now: 1200, limit: Some(100_000) },
            Queue { name: "relayed".into(), now: 7, limit: None },
        ],
        clients: vec![
            visitor("192.0.2.1/32", 12.34, Some(50), "limited"),
            visitor("2001:db8:1234:5678::/64", 0.4, None, "he\u{1b}[2Jlo"),
        ],
        networks: vec![visitor("192.0.2.0/24", 15.0, None, "denied")],
        zones: vec![Zone {
            name: "zen.example".into(),
            queries: second * 20,
            listed: second * 5,
            failed: second,
            answers: (second * 19, second * 19 * 2500),
            state: "no test point".into(),
        }],
        parts: vec![
            Part { name: "mail server 127.0.0.1:25".into(), well: true, state: "takes clients".into() },
            Part { name: "redis".into(), well: false, state: "not reached for 12 s: refused".into() },
        ],
        ..Snapshot::default()
    }
}

fn model() -> Model {
    let mut model = Model::new(snapshot(0));
    for second in 1..8 {
        model.hear(Heard::Looked(Ok(Box::new(snapshot(second)))));
    }
    model
}

fn screen(model: &Model, appearance: Appearance, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, model, appearance)).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned() + "\n";
    (0..height).map(line).collect()
}

/// The screen after these keys.
fn after(keys: &[Key], width: u16, height: u16) -> String {
    let mut model = model();
    for key in keys {
        model.hear(Heard::Key(*key));
    }
    screen(&model, PLAIN, width, height)
}

/// Compares with what is kept; `MXSCREEN_KEEP_SCREENS` keeps what is there now, to be looked at before it is committed.
fn assert_kept(name: &str, screen: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/operate/top/view/screens").join(name);
    if std::env::var_os("MXSCREEN_KEEP_SCREENS").is_some() {
        std::fs::write(&path, screen).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap();
    assert_eq!(screen, kept, "{name}:\n{screen}");
}

#[test]
fn the_clients_at_80_by_24_without_colour_in_ascii() {
    let screen = after(&[], 80, 24);
    assert!(screen.is_ascii(), "{screen}");
    assert_kept("clients-80x24.txt", &screen);
    assert!(include_str!("../../../../../docs/top.md").contains(&screen), "docs/top.md shows another screen");
}

#[test]
fn more_columns_and_bars_at_120_by_40() {
    assert_kept("clients-120x40.txt", &screen(&model(), Appearance { colour: true, unicode: true }, 120, 40));
}

#[test]
fn zones_servers_and_limits() {
    for (digit, name) in [('3', "zones-80x24.txt"), ('4', "servers-80x24.txt"), ('5', "limits-80x24.txt")] {
        assert_kept(name, &after(&[Key::Char(digit)], 80, 24));
    }
}

#[test]
fn a_confirmation_and_a_gate_that_is_gone() {
    let mut model = model();
    model.hear(Heard::Key(Key::Down));
    model.hear(Heard::Key(Key::Char('d')));
    model.hear(Heard::Looked(Err("/run/mxscreen/control.sock: no such file".into())));
    assert_kept("confirm-80x24.txt", &screen(&model, PLAIN, 80, 24));
}

#[test]
fn every_size_is_drawn_and_one_that_is_too_small_says_so() {
    for keys in [&[][..], &[Key::Char('?')], &[Key::Char('d')], &[Key::Enter], &[Key::Char('/')]] {
        for (width, height) in
            (1..130).step_by(7).flat_map(|width| (1..45).step_by(4).map(move |height| (width, height)))
        {
            after(keys, width, height);
        }
    }
    assert!(after(&[], 39, 24).contains("too small"));
    assert!(after(&[], 40, 10).contains("192.0.2.1"), "{}", after(&[], 40, 10));
}

#[test]
fn colour_only_repeats_what_is_said() {
    let plain = screen(&model(), PLAIN, 80, 24);
    assert_eq!(screen(&model(), Appearance { colour: true, unicode: false }, 80, 24), plain);
}

#[test]
fn the_environment_says_what_can_be_shown() {
    let of = |set: &[(&str, &str)]| {
        Appearance::of_environment(|name| set.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
    };
    assert_eq!(of(&[("LANG", "C.UTF-8")]), Appearance { colour: true, unicode: true });
    assert_eq!(of(&[("LANG", "C.UTF-8"), ("LC_ALL", "C"), ("NO_COLOR", "1")]), PLAIN);
    assert_eq!(of(&[("NO_COLOR", "")]), Appearance { colour: true, unicode: false });
}
