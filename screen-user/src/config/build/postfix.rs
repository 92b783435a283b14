//! `forward.*` in mode `postfix`: the client's socket itself goes to smtpd.

use std::{net::SocketAddr, path::PathBuf};

use crate::{
    config::{
        Backend, ClientAddress, Forward, Layout, Mode,
        document::Value,
        values::{Fault, Values},
    },
    screen::{policy::Policy, record::Test},
};

use super::{
    forward::{client_address, most_connections, steer_to, steer_uid},
    socket_address, socket_path,
};

/// The way to the mail server.
pub(super) fn forward(values: &mut Values<'_>, layout: Layout, kernel: bool) -> Forward {
    let to: Vec<Backend> = service(values).map(Backend::Socket).into_iter().collect();
    let replay_to = replay_to(values);
    let client_address = match replay_to {
        Some(address) => client_address(values, &[Backend::At(address)], kernel),
        None => no_client_address(values),
    };
    Forward {
        mode: Mode::Postfix,
        steer_to: steer_to(values, layout, &to, client_address),
        steer_uid: steer_uid(values),
        to,
        weights: Vec::new(),
        most_connections: most_connections(values),
        client_address,
        replay_to,
    }
}

/// Without a server for replayed sessions there is no going on after the deep tests.
pub(super) fn come_back(values: &mut Values<'_>, forward: &Forward, policy: &mut Policy) {
    let key = "forward.after_deep_tests";
    if forward.mode == Mode::Relay || values.is_given("forward.replay_to") || !policy.replays {
        return;
    }
    policy.replays = false;
    if values.is_given(key) {
        values.fault(key, Fault::new("in mode \"postfix\" \"continue\" needs forward.replay_to"));
    } else if !policy.dry_run
        && [Test::Pipelining, Test::NonSmtpCommand, Test::BareNewline].into_iter().any(|test| policy.enables(test))
    {
        values.notices.push(
            "forward.mode = \"postfix\" without forward.replay_to: clients that pass the deep tests are asked to come back, with a 450"
                .to_owned(),
        );
    }
}

/// The socket of smtpd's `pass` service.
fn service(values: &mut Values<'_>) -> Option<PathBuf> {
    let key = "forward.to";
    let wrong = || {
        let fault = Fault::new("in mode \"postfix\" it must be the path of the socket of smtpd's `pass` service");
        fault.hint("for example to = [\"/var/spool/postfix/private/smtpd\"]")
    };
    if !values.is_given(key) {
        values.fault(key, wrong());
        return None;
    }
    values.read(key, |value| {
        let alone = match value {
            Value::List(items) => match items.as_slice() {
                [item] => &item.value,
                _ => return Err(wrong()),
            },
            alone => alone,
        };
        match alone {
            Value::Text(path) if path.starts_with('/') => socket_path(path),
            _ => Err(wrong()),
        }
    })
}

fn replay_to(values: &mut Values<'_>) -> Option<SocketAddr> {
    let key = "forward.replay_to";
    if !values.is_given(key) {
        return None;
    }
    values.read(key, |value| socket_address(value, None))
}

/// Postfix is told the client's address with its socket.
fn no_client_address(values: &mut Values<'_>) -> ClientAddress {
    let key = "forward.client_address";
    if values.is_given(key) {
        let fault = Fault::new(
            "in mode \"postfix\" the client's address goes along with its socket, and this key is about forward.replay_to alone",
        );
        values.fault(key, fault.hint("leave it out"));
    }
    ClientAddress::None
}
