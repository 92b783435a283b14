//! The kernel's gate follows the host's interfaces.

use std::sync::Arc;

use crate::{
    kernel::Installation,
    operate::{exit::chain, log::Log},
};

/// Logs how the gate is attached, and attaches it anew when interfaces come, go or change. Runs until the runtime ends.
pub(super) async fn follow(installation: Arc<Installation>, log: Log) {
    // Before the state that is logged: what changes from here on is told.
    let changes = installation.link_changes();
    for interface in installation.attached().interfaces {
        if interface.steps.is_empty() && !interface.silent {
            log.info(format!("interface {interface}"));
        } else {
            log.warn(format!("interface {interface}"));
        }
    }
    let mut changes = match changes {
        Ok(changes) => changes,
        Err(error) => return log.warn(format!("interfaces that come and go are not followed: {}", chain(&error))),
    };
    loop {
        match installation.refresh_interfaces() {
            Ok(changed) => changed.iter().for_each(|change| log.info(format!("interface {change}"))),
            Err(error) => log.warn(format!("interfaces: {}", chain(&error))),
        }
        if let Err(error) = changes.next().await {
            return log.warn(format!("interfaces that come and go are no longer followed: {error}"));
        }
    }
}
