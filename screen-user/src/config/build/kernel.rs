//! `kernel.*` and `forward.steer`.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use screen_common::cookie::TEXTS;

use crate::config::{
    Kernel, KernelReply, Layout, REPLY_TEXT, ScreenerDown, Steer, XdpMode,
    document::{Located, Value},
    is_reply_text,
    values::{Fault, Values, mismatch},
};

/// Lists with a text of their own: two texts are the gate's.
const MOST_TEXTS: usize = TEXTS - 2;

/// The longest name of an interface (IFNAMSIZ less its end).
const INTERFACE_NAME: usize = 15;

/// The kernel half.
pub(super) fn kernel(values: &mut Values<'_>, layout: Layout) -> Kernel {
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
        deny_reply: reply(values, "kernel.deny_reply"),
        limit_reply: reply(values, "kernel.limit_reply"),
        reply_texts: reply_texts(values),
        remember_failures: values.duration("kernel.remember_failures", Duration::ZERO),
        repeat_limit: values.duration("kernel.repeat_limit", Duration::ZERO),
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

fn reply(values: &mut Values<'_>, key: &str) -> KernelReply {
    values.word(key, &[("reject", KernelReply::Reject), ("drop", KernelReply::Drop)], KernelReply::Reject)
}

/// Texts by list: what follows the code 521.
fn reply_texts(values: &mut Values<'_>) -> BTreeMap<String, String> {
    let key = "kernel.reply_texts";
    let mut texts = BTreeMap::new();
    for (list, Located { value, place }) in values.table(key) {
        match value {
            Value::Text(text) if is_reply_text(&text) => {
                texts.insert(list, text);
            }
            Value::Text(_) => {
                let fault = Fault::new(REPLY_TEXT);
                values.fault_at(place, key, fault.hint("for example \"5.7.1 See https://example.org/listed\""));
            }
            other => values.fault_at(place, key, mismatch("a table of texts", &other)),
        }
    }
    if texts.len() > MOST_TEXTS {
        values.fault(key, Fault::new(format!("at most {MOST_TEXTS} lists may have a text of their own")));
    }
    texts
}

fn pin_path(values: &mut Values<'_>) -> PathBuf {
    values
        .read("kernel.pin_path", |value| match value {
            Value::Text(text) if text.starts_with('/') => Ok(PathBuf::from(text)),
            Value::Text(text) => Err(Fault::new(format!("{text:?} is no absolute path"))),
            _ => Err(mismatch("a text", value)),
        })
        .unwrap_or_default()
}
