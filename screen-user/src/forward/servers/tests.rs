use std::{collections::HashMap, time::Duration};

use proptest::{
    collection::vec,
    prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest},
};

use super::*;
use crate::{
    config::{ClientAddress, Mode},
    screen::event::Endpoints,
};

const SECOND: Duration = Duration::from_secs(1);

/// The mail server with this number.
fn backend(number: usize) -> Backend {
    Backend::At(format!("192.0.2.{number}:25").parse().unwrap())
}

/// A configuration with a weight for each server; in order of preference where there is none.
fn forward(servers: usize, weights: &[u16], most_connections: u32) -> Forward {
    Forward {
        mode: Mode::Relay,
        steer_to: None,
        steer_uid: 0,
        to: (0..servers).map(backend).collect(),
        weights: weights.to_vec(),
        most_connections,
        client_address: ClientAddress::ProxyV2,
        replay_to: None,
    }
}

fn visit() -> Visit {
    let endpoints = Endpoints { client: "198.18.1.1:4000".parse().unwrap(), server: "198.18.0.1:25".parse().unwrap() };
    Visit::new(&endpoints)
}

/// What a client gets that comes now; `None` while it waits.
fn come(servers: &mut Servers, visit: Visit, now: Instant) -> Option<Given> {
    let ticket = servers.ask(visit);
    let answers = servers.hand_out(now);
    let answer = answers.into_iter().find(|(other, _)| *other == ticket);
    answer.map(|(_, given)| given.expect("a server that it could try"))
}

/// The number of the server that serves the next client.
fn next(servers: &mut Servers, now: Instant) -> usize {
    let given = come(servers, visit(), now).expect("a place");
    servers.settle(&given, Ok(()), now);
    number(&given)
}

fn number(given: &Given) -> usize {
    (0..9).find(|number| backend(*number) == given.backend).unwrap()
}

fn state(servers: &Servers, number: usize, now: Instant) -> &'static str {
    servers.show(now, 0)[number].state
}

#[test]
fn the_first_that_is_well_takes_all() {
    let mut now = Instant::now();
    let mut servers = Servers::new(&forward(3, &[], 0), now);
    assert_eq!([(); 5].map(|()| next(&mut servers, now)), [0; 5]);
    let failing = come(&mut servers, visit(), now).unwrap();
    assert_eq!(servers.settle(&failing, Err("refused"), now), Some(Change::LeftOut(SECOND)));
    servers.release(&failing, true);
    assert_eq!(state(&servers, 0, now), "left out");
    assert_eq!([(); 5].map(|()| next(&mut servers, now)), [1; 5]);
    now += SECOND;
    let trial = come(&mut servers, visit(), now).unwrap();
    assert_eq!(number(&trial), 0, "it is tried again");
    assert_eq!(next(&mut servers, now), 1, "by one client alone");
    assert_eq!(servers.settle(&trial, Ok(()), now), Some(Change::Again));
    assert_eq!([(); 5].map(|()| next(&mut servers, now)), [0; 5]);
}

#[test]
fn a_client_tries_each_server_once_and_those_that_are_left_out_as_well() {
    let now = Instant::now();
    let mut servers = Servers::new(&forward(3, &[], 0), now);
    for _ in 0..2 {
        let mut client = visit();
        let mut met = Vec::new();
        while servers.another(&client, false, now) {
            let given = come(&mut servers, client.clone(), now).unwrap();
            servers.settle(&given, Err("refused"), now);
            servers.release(&given, true);
            client.leave(&given.backend);
            met.push(number(&given));
        }
        assert_eq!(met, [0, 1, 2]);
        let ticket = servers.ask(client);
        assert_eq!(servers.hand_out(now), [(ticket, None)]);
    }
    assert_eq!(servers.show(now, 0).iter().map(|shown| (shown.open, shown.failures)).collect::<Vec<_>>(), [(0, 2); 3]);
}

#[test]
fn a_full_server_is_passed_over_and_then_clients_wait_in_order() {
    let now = Instant::now();
    let mut servers = Servers::new(&forward(2, &[], 1), now);
    let first = come(&mut servers, visit(), now).unwrap();
    let second = come(&mut servers, visit(), now).unwrap();
    servers.settle(&first, Ok(()), now);
    servers.settle(&second, Ok(()), now);
    assert_eq!((number(&first), number(&second), state(&servers, 0, now)), (0, 1, "full"));
    let tickets = [(); 3].map(|()| servers.ask(visit()));
    assert!(servers.hand_out(now).is_empty());
    assert_eq!(servers.waiting(), 3);
    servers.give_up(tickets[0]);
    servers.release(&second, true);
    let answers = servers.hand_out(now);
    assert_eq!(answers.len(), 1);
    assert_eq!((answers[0].0, answers[0].1.as_ref().map(number)), (tickets[1], Some(1)), "who came next");
    servers.configure(&forward(2, &[], 0), now);
    let answers = servers.hand_out(now);
    assert_eq!((answers[0].0, answers[0].1.as_ref().map(number)), (tickets[2], Some(0)), "the limit is gone");
}

#[test]
fn nobody_is_sent_to_a_server_that_is_left_out_because_the_other_is_full() {
    let mut now = Instant::now();
    let mut servers = Servers::new(&forward(2, &[], 1), now);
    let failing = come(&mut servers, visit(), now).unwrap();
    servers.settle(&failing, Err("refused"), now);
    servers.release(&failing, true);
    let served = come(&mut servers, visit(), now).unwrap();
    assert_eq!(number(&served), 1);
    let waiting = servers.ask(visit());
    assert!(servers.hand_out(now).is_empty());
    now += SECOND;
    let answers = servers.hand_out(now);
    assert_eq!((answers[0].0, answers[0].1.as_ref().map(number)), (waiting, Some(0)), "it is time to try it again");
}

#[test]
fn a_crowd_before_the_first_one_is_no_reason_to_go_to_the_second() {
    let now = Instant::now();
    let mut servers = Servers::new(&forward(2, &[], 0), now);
    let crowd: Vec<Given> = (0..OPENINGS).map(|_| come(&mut servers, visit(), now).unwrap()).collect();
    assert!(crowd.iter().all(|given| number(given) == 0));
    assert_eq!(come(&mut servers, visit(), now), None);
    servers.settle(&crowd[7], Ok(()), now);
    assert_eq!(servers.hand_out(now).len(), 1);
    // By weight there is no first one.
    servers.configure(&forward(2, &[1, 1], 0), now);
    assert_eq!(number(&come(&mut servers, visit(), now).unwrap()), 1);
}

#[test]
fn a_drained_server_keeps_its_connections_and_goes_with_the_last_of_them() {
    let now = Instant::now();
    let mut servers = Servers::new(&forward(2, &[1, 1], 0), now);
    let given: Vec<Given> = (0..4).map(|_| come(&mut servers, visit(), now).unwrap()).collect();
    for given in &given {
        servers.settle(given, Ok(()), now);
    }
    servers.configure(&forward(2, &[0, 1], 0), now);
    assert_eq!([(); 4].map(|()| next(&mut servers, now)), [1; 4]);
    let shown = servers.show(now, 0);
    assert_eq!((shown[0].state, shown[0].open, shown[0].weight), ("drained", 2, Some(0)));

    let alone = Forward { to: vec![backend(1)], ..forward(1, &[], 0) };
    servers.configure(&alone, now);
    assert_eq!(next(&mut servers, now), 1);
    let shown = servers.show(now, 0);
    assert_eq!((shown.len(), shown[1].state, shown[1].open), (2, "drained", 2));
    for given in given.iter().filter(|given| number(given) == 0) {
        servers.release(given, true);
    }
    assert_eq!(servers.show(now, 0).len(), 1);
    servers.configure(&forward(2, &[], 0), now);
    assert_eq!(servers.show(now, 0)[1].open, 7, "the other one was never forgotten");
}

#[test]
fn a_server_that_fails_in_one_family_takes_clients_of_the_other() {
    let now = Instant::now();
    let to: Backend = Backend::At("127.0.0.1:10025".parse().unwrap());
    let alone =
        Forward { to: vec![to.clone(), backend(1)], client_address: ClientAddress::Kernel, ..forward(2, &[], 0) };
    let mut servers = Servers::new(&alone, now);
    let visit = |client: &str, server: &str| {
        let endpoints = Endpoints { client: client.parse().unwrap(), server: server.parse().unwrap() };
        Visit::new(&endpoints)
    };
    let (v4, v6) = (visit("192.0.2.9:1", "192.0.2.25:25"), visit("[2001:db8::9]:1", "[2001:db8::25]:25"));
    let given = come(&mut servers, v6.clone(), now).unwrap();
    servers.settle(&given, Err("refused"), now);
    let given = come(&mut servers, v4, now).unwrap();
    servers.settle(&given, Ok(()), now);
    assert_eq!((given.backend, state(&servers, 0, now)), (to, "partly left out"));
    assert!(!servers.another(&v6, true, now), "the other server can't be shown an IPv6 client");
}

#[test]
fn shares_are_given_without_runs() {
    let now = Instant::now();
    let mut servers = Servers::new(&forward(3, &[5, 1, 1], 0), now);
    let order: Vec<usize> = (0..7).map(|_| next(&mut servers, now)).collect();
    assert_eq!(order, [0, 0, 1, 0, 2, 0, 0]);
}

/// What happens to the servers.
#[derive(Debug, Clone)]
enum Step {
    Come,
    /// The client in this place of those that wait for a greeting gets it, or does not.
    Settle(usize, bool),
    Leave(usize),
    GiveUp(usize),
    Configure(Vec<u16>, u32),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let weights = prop_oneof![Just(Vec::new()), vec(0..4_u16, 3)];
    prop_oneof![
        4 => Just(Step::Come),
        4 => (any::<usize>(), any::<bool>()).prop_map(|(which, served)| Step::Settle(which, served)),
        3 => any::<usize>().prop_map(Step::Leave),
        1 => any::<usize>().prop_map(Step::GiveUp),
        1 => (weights, 0..4_u32).prop_map(|(weights, most)| Step::Configure(weights, most)),
        2 => (0..90_u64).prop_map(Step::Pass),
    ]
}

proptest! {
    #[test]
    fn weights_are_respected_to_the_client(weights in vec(0..20_u16, 1..6), rounds in 1..4_usize) {
        let total: usize = weights.iter().map(|weight| usize::from(*weight)).sum();
        let now = Instant::now();
        let mut servers = Servers::new(&forward(weights.len(), &weights, 0), now);
        let mut got = vec![0; weights.len()];
        for _ in 0..total * rounds {
            got[next(&mut servers, now)] += 1;
        }
        prop_assert_eq!(got, weights.iter().map(|weight| usize::from(*weight) * rounds).collect::<Vec<_>>());
    }

    /// Whatever happens, in whichever order: places are counted exactly, limits hold, who came first comes first, and nobody is sent
    /// where others failed while another server takes clients.
    #[test]
    fn places_are_given_as_promised(steps in vec(step(), 0..120)) {
        let mut now = Instant::now();
        let mut config = forward(3, &[], 0);
        let mut servers = Servers::new(&config, now);
        let mut waiting: Vec<Ticket> = Vec::new();
        // With whether the greeting came or failed.
        let mut open: Vec<(Given, bool)> = Vec::new();
        for step in steps {
            match step {
                Step::Come => waiting.push(servers.ask(visit())),
                Step::Settle(which, served) => {
                    let mut opening: Vec<_> = open.iter_mut().filter(|(_, settled)| !settled).collect();
                    let count = opening.len().max(1);
                    if let Some((given, settled)) = opening.get_mut(which % count) {
                        let change = servers.settle(given, if served { Ok(()) } else { Err("refused") }, now);
                        *settled = true;
                        prop_assert!(!matches!((change, served), (Some(Change::LeftOut(_)), true) | (Some(Change::Again), false)));
                    }
                }
                Step::Leave(which) if !open.is_empty() => {
                    let (given, settled) = open.swap_remove(which % open.len());
                    servers.release(&given, settled);
                }
                Step::GiveUp(which) if !waiting.is_empty() => servers.give_up(waiting.remove(which % waiting.len())),
                Step::Leave(_) | Step::GiveUp(_) => {}
                Step::Configure(weights, most) => {
                    config = forward(3, &weights, most);
                    servers.configure(&config, now);
                }
                Step::Pass(seconds) => now += Duration::from_secs(seconds),
            }
            let ready_before: HashMap<usize, bool> =
                (0..3).map(|number| (number, is_ready(&servers, number, now))).collect();
            let before = waiting.clone();
            for (ticket, given) in servers.hand_out(now) {
                let at = waiting.iter().position(|other| *other == ticket).unwrap();
                prop_assert_eq!(at, 0, "all are alike: the first of {:?} is first", before);
                waiting.remove(0);
                match given {
                    None => prop_assert!(config.weights.iter().all(|weight| *weight == 0) && !config.weights.is_empty()),
                    Some(given) => {
                        let number = number(&given);
                        let takes_new = |number: usize| config.weights.get(number).is_none_or(|weight| *weight > 0);
                        prop_assert!(takes_new(number), "a drained server took a client");
                        prop_assert!(
                            ready_before[&number] || (0..3).all(|other| !takes_new(other) || !is_ready(&servers, other, now)),
                            "a server that is left out took a client while another one takes clients"
                        );
                        open.push((given, false));
                    }
                }
            }
            for (index, shown) in servers.show(now, 0).iter().enumerate() {
                let here = |given: &Given| given.backend == backend(index);
                let count = open.iter().filter(|(given, _)| here(given)).count();
                let opening = open.iter().filter(|(given, settled)| here(given) && !settled).count();
                prop_assert_eq!((shown.open as usize, shown.waiting_for_greeting as usize), (count, opening));
                prop_assert!(shown.waiting_for_greeting <= OPENINGS);
            }
            prop_assert_eq!(servers.waiting(), waiting.len());
            let all_take_one_more = servers.list.servers.iter().all(|server| {
                server.weight > 0 && servers.list.has_place(server) && server.takes_one_more()
            });
            prop_assert!(waiting.is_empty() || !all_take_one_more, "somebody waits although there is room everywhere");
        }
        for (given, settled) in open {
            servers.release(&given, settled);
        }
        prop_assert!(servers.show(now, 0).iter().all(|shown| (shown.open, shown.waiting_for_greeting) == (0, 0)));
    }
}

fn is_ready(servers: &Servers, number: usize, now: Instant) -> bool {
    let server = &servers.list.servers[number];
    visit().listener(&server.backend, ClientAddress::ProxyV2).is_some_and(|listener| server.is_ready(listener, now))
}
