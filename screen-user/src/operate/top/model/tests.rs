use super::{super::snapshot::Visitor, *};

fn client(address: &str, per_second: f64) -> Visitor {
    let address: IpAddr = address.parse().unwrap();
    Visitor { net: address.into(), address, per_second, open: None, fates: Default::default(), last: String::new() }
}

fn snapshot(clients: &[(&str, f64)]) -> Snapshot {
    let clients: Vec<Visitor> = clients.iter().map(|(address, rate)| client(address, *rate)).collect();
    let network = Visitor { net: "192.0.2.0/24".parse().unwrap(), ..client("192.0.2.1", 9.0) };
    Snapshot { screener: 1, clients, networks: vec![network], ..Snapshot::default() }
}

fn model() -> Model {
    Model::new(snapshot(&[("192.0.2.1", 5.0), ("192.0.2.2", 3.0), ("2001:db8::1", 1.0)]))
}

fn keys(model: &mut Model, keys: &[Key]) -> Option<Effect> {
    keys.iter().fold(None, |_, key| model.hear(Heard::Key(*key)))
}

fn type_in(model: &mut Model, text: &str) {
    for c in text.chars() {
        assert_eq!(model.hear(Heard::Key(Key::Char(c))), None);
    }
}

fn shown(model: &Model) -> Vec<String> {
    model.rows().into_iter().map(|row| row.key).collect()
}

#[test]
fn a_confirmation_names_the_client_that_was_selected_although_rows_move() {
    let mut model = model();
    assert_eq!(keys(&mut model, &[Key::Down, Key::Char('d')]), None);
    let asked = model.dialog.clone().unwrap();
    assert_eq!(asked.question().unwrap(), "Deny 192.0.2.2/32 for an hour?");
    model.hear(Heard::Looked(Ok(Box::new(snapshot(&[("198.51.100.7", 9.0), ("192.0.2.1", 5.0)])))));
    assert_eq!(model.dialog.as_ref(), Some(&asked));
    let change = Change { action: Action::Deny, net: "192.0.2.2/32".parse().unwrap(), seconds: Some(3600) };
    assert_eq!(keys(&mut model, &[Key::Char('y')]), Some(Effect::Change(change)));
    assert_eq!(model.dialog, None);
}

#[test]
fn nothing_but_yes_confirms_and_the_term_can_be_chosen() {
    let mut model = model();
    for refusal in [Key::Char('n'), Key::Escape] {
        assert_eq!(keys(&mut model, &[Key::Char('a'), Key::Enter, Key::Char('d'), Key::Down, refusal]), None);
        assert_eq!(model.dialog, None);
    }
    let right = [Key::Right; 9];
    keys(&mut model, &[Key::Char('a')]);
    keys(&mut model, &right);
    assert_eq!(model.dialog.as_ref().unwrap().question().unwrap(), "Allow 192.0.2.1/32 until it is forgotten?");
    let change = Change { action: Action::Allow, net: "192.0.2.1/32".parse().unwrap(), seconds: None };
    assert_eq!(keys(&mut model, &[Key::Char('y')]), Some(Effect::Change(change)));
}

#[test]
fn the_selection_follows_its_client_and_keeps_its_place_when_that_is_gone() {
    let mut model = model();
    keys(&mut model, &[Key::Down]);
    let selected = |model: &Model| {
        let rows = model.rows();
        rows[model.selected(&rows)].key.clone()
    };
    model.hear(Heard::Looked(Ok(Box::new(snapshot(&[("192.0.2.9", 9.0), ("192.0.2.1", 5.0), ("192.0.2.2", 3.0)])))));
    assert_eq!(selected(&model), "192.0.2.2/32");
    model.hear(Heard::Looked(Ok(Box::new(snapshot(&[("192.0.2.9", 9.0), ("192.0.2.1", 5.0), ("192.0.2.3", 3.0)])))));
    assert_eq!(selected(&model), "192.0.2.3/32");
    model.hear(Heard::Looked(Ok(Box::new(snapshot(&[])))));
    assert_eq!(keys(&mut model, &[Key::Enter]), None);
}

#[test]
fn a_network_leads_to_its_clients_and_a_client_to_what_is_known_of_it() {
    let mut model = model();
    assert_eq!(keys(&mut model, &[Key::Char('2'), Key::Enter]), None);
    assert_eq!((model.tab, shown(&model)), (Tab::Clients, vec!["192.0.2.1/32".to_owned(), "192.0.2.2/32".to_owned()]));
    let (one, other): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
    assert_eq!(keys(&mut model, &[Key::Enter]), Some(Effect::Explain(one)));
    model.hear(Heard::Explained(other, Ok("of somebody else".into())));
    model.hear(Heard::Explained(one, Ok("helo \u{1b}]0;x\u{7}\nnext".into())));
    let Some(Dialog::Explain { text, .. }) = &model.dialog else { panic!("{:?}", model.dialog) };
    assert_eq!(text.as_deref(), Some("helo \\u{1b}]0;x\\u{7}\nnext"));
    keys(&mut model, &[Key::Char('d')]);
    assert_eq!(model.dialog.as_ref().unwrap().question().unwrap(), "Deny 192.0.2.1/32 for an hour?");
}

#[test]
fn a_filter_takes_networks_and_text() {
    let mut model = model();
    type_in(&mut model, "/2001:db8::/32");
    keys(&mut model, &[Key::Enter]);
    assert_eq!(shown(&model), ["2001:db8::1/128"]);
    keys(&mut model, &[Key::Escape]);
    assert_eq!(shown(&model).len(), 3);
    type_in(&mut model, "/.2.2");
    assert_eq!(shown(&model), ["192.0.2.2/32"]);
}

#[test]
fn sorting_goes_from_column_to_column_and_turns_round() {
    let mut model = model();
    keys(&mut model, &[Key::Char('r')]);
    assert_eq!(shown(&model)[0], "2001:db8::1/128", "the least busy first");
    for _ in 1..Tab::Clients.columns().len() {
        keys(&mut model, &[Key::Char('s')]);
    }
    assert_eq!(model.order(), Order { column: 0, ascending: true });
    assert_eq!(shown(&model)[0], "192.0.2.1/32");
}

#[test]
fn a_pause_holds_the_display_and_loses_nothing() {
    let mut model = model();
    keys(&mut model, &[Key::Char('p')]);
    model.hear(Heard::Looked(Ok(Box::new(snapshot(&[("192.0.2.9", 9.0)])))));
    assert_eq!((model.paused(), shown(&model).len()), (true, 3));
    keys(&mut model, &[Key::Char('p')]);
    assert_eq!((model.paused(), shown(&model)), (false, vec!["192.0.2.9/32".to_owned()]));
}

#[test]
fn a_gate_that_goes_away_is_waited_for() {
    let mut model = model();
    for _ in 0..2 {
        assert_eq!(model.hear(Heard::Looked(Err("gone".into()))), None);
    }
    assert_eq!((model.trouble.clone(), shown(&model).len()), (Some(("gone".into(), 2)), 3));
    model.hear(Heard::Looked(Ok(Box::new(snapshot(&[])))));
    assert_eq!(model.trouble, None);
}

#[test]
fn it_ends_when_asked_to_whatever_is_open() {
    for opened in [None, Some(Key::Char('?')), Some(Key::Char('d')), Some(Key::Char('/'))] {
        let mut model = model();
        keys(&mut model, opened.as_slice());
        assert_eq!(model.hear(Heard::Key(Key::Interrupt)), Some(Effect::Quit));
        assert_eq!(model.hear(Heard::Ended), Some(Effect::Quit));
    }
    assert_eq!(keys(&mut model(), &[Key::Char('q')]), Some(Effect::Quit));
}
