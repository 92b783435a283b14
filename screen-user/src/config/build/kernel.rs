//! `kernel.*` and `forward.steer`.

use std::{path::PathBuf, time::Duration};

use crate::config::{
    Kernel, KernelReply, Layout, ScreenerDown, Steer, XdpMode,
    document::Value,
    values::{Fault, Values, mismatch},
};

/// The longest name of an interface (IFNAMSIZ less its end).
const INTERFACE_NAME: usize = 15;

/// The kernel half.
pub(super) fn kernel(values: &mut Values, layout: Layout) -> Kernel {
    let enabled = values.word("kernel.mode", &[("auto", true), ("off", false)], true);
    if !enabled && layout == Layout::InPlace {
        let fault = Fault::new(
            "with \"off\" nothing would be screened: in layout \"in-place\" it is the kernel that gives strangers to the screener",
        );
        values.fault("kernel.mode", fault.hint("set layout = \"front\", or leave kernel.mode at \"auto\""));
    }
    let steers = [("auto", Steer::Auto), ("on", Steer::On), ("off", Steer::Off)];
    let steer = values.word("forward.steer", &steers, Steer::Auto);
    if !enabled && steer == Steer::On {
        values.fault("forward.steer", Fault::new("\"on\" needs the kernel, and kernel.mode is \"off\""));
    }
    let modes =
        [("auto", XdpMode::Auto), ("native", XdpMode::Native), ("generic", XdpMode::Generic), ("tc", XdpMode::Tc)];
    let xdp = values.word("kernel.xdp", &modes, XdpMode::Auto);
    Kernel {
        enabled,
        interfaces: values.list("kernel.interfaces", |value| match value {
            Value::Text(name) if is_interface(name) => Ok(name.clone()),
            Value::Text(name) => Err(Fault::new(format!("{name:?} is no name of an interface"))),
            _ => Err(mismatch("a list of interfaces", value)),
        }),
        xdp,
        deny_reply: reply(values, "kernel.deny_reply", "denied clients", enabled),
        limit_reply: reply(values, "kernel.limit_reply", "clients over their limit", enabled),
        remember_failures: values.duration("kernel.remember_failures", Duration::ZERO),
        on_screener_down: values.word(
            "kernel.on_screener_down",
            &[("refuse", ScreenerDown::Refuse), ("pass", ScreenerDown::Pass)],
            ScreenerDown::Refuse,
        ),
        pin_path: pin_path(values),
        debug: values.boolean("kernel.debug"),
        steer,
    }
}

fn is_interface(name: &str) -> bool {
    (1..=INTERFACE_NAME).contains(&name.len())
        && !matches!(name, "." | "..")
        && !name.contains(|letter: char| letter == '/' || letter == ':' || letter.is_whitespace())
}

fn reply(values: &mut Values, key: &str, who: &str, enabled: bool) -> KernelReply {
    let reply = values.word(key, &[("reject", KernelReply::Reject), ("drop", KernelReply::Drop)], KernelReply::Reject);
    if enabled && reply == KernelReply::Reject {
        values.notices.push(format!(
            "{key} = \"reject\": this version has no reply from the kernel; {who} get silence, as with \"drop\""
        ));
    }
    reply
}

fn pin_path(values: &mut Values) -> PathBuf {
    values
        .read("kernel.pin_path", |value| match value {
            Value::Text(text) if text.starts_with('/') => Ok(PathBuf::from(text)),
            Value::Text(text) => Err(Fault::new(format!("{text:?} is no absolute path"))),
            _ => Err(mismatch("a text", value)),
        })
        .unwrap_or_default()
}
