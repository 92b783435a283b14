//! The kernel half, as far as it takes privileges.

use std::{net::TcpListener, os::fd::AsFd as _};

use crate::{
    config::{self, ClientAddress, Config, Layout},
    kernel::{Family, Installation, KernelError, Plan},
    operate::exit::{Failure, chain},
};

/// Loads the kernel half if it is wanted. In layout `front` the gate works without it, and says so.
pub(super) fn load(config: &Config, notices: &mut Vec<String>) -> Result<Option<Installation>, Failure> {
    let needed = if config.layout == Layout::InPlace {
        Some("layout = \"in-place\"")
    } else if config.forward.client_address == ClientAddress::Kernel {
        Some("forward.client_address = \"kernel\"")
    } else if config.kernel.steer == config::Steer::On {
        Some("forward.steer = \"on\"")
    } else {
        None
    };
    if !config.kernel.enabled {
        return match needed {
            Some(key) => Err(Failure::usage(format!("{key} needs the kernel part, and kernel.mode is \"off\""))),
            None => Ok(None),
        };
    }
    match (Installation::start(&Plan::from_config(config)), needed) {
        (Ok(installation), _) => Ok(Some(installation)),
        (Err(error), Some(key)) => {
            let failure = Failure::of_kernel(&error);
            Err(Failure { message: format!("{key} needs the kernel part: {}", failure.message), ..failure })
        }
        (Err(error), None) => {
            notices.push(format!(
                "kernel part off: {}; every client meets the screener, and deny lists are enforced there",
                chain(&error)
            ));
            Ok(None)
        }
    }
}

/// Lets the programs decide by the tables, which are full. The mail server listens already, or known-good clients would meet the screener; and
/// what has come while the programs were put in their places is counted.
pub(super) fn activate(installation: &Installation, listeners: &[TcpListener]) -> Result<(), Failure> {
    let activated = listeners
        .iter()
        .try_for_each(|listener| register(installation, listener))
        .and_then(|()| installation.look_at_sockets())
        .and_then(|()| installation.activate())
        .and_then(|()| installation.look_at_sockets());
    activated.map_err(|error| Failure::of_kernel(&error))
}

/// Makes a listener the one that strangers of its families are given to.
fn register(installation: &Installation, listener: &TcpListener) -> Result<(), KernelError> {
    let families: &[Family] = match listener.local_addr() {
        Ok(address) if address.is_ipv4() => &[Family::Ipv4],
        Ok(address) if address.ip().is_unspecified() => &[Family::Ipv4, Family::Ipv6],
        _ => &[Family::Ipv6],
    };
    families.iter().try_for_each(|&family| installation.register_listener(listener.as_fd(), family))
}
