//! `kernel.*` and `forward.steer`.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use screen_common::{cookie::TEXTS, reply::Text};

use crate::config::{
    Kernel, KernelReply, Layout, ScreenerDown, Steer, XdpMode,
    document::{Located, Value},
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
            Value::Text(text) if Text::new(&format!("521 {text}")).is_some() && is_enhanced(&text) => {
                texts.insert(list, text);
            }
            Value::Text(_) => {
                let fault =
                    Fault::new("it must be one line of printable ASCII, 82 characters at most, that begins with 5.x.x");
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

/// Whether a text begins with an enhanced status code of a permanent failure (RFC 3463 section 2).
fn is_enhanced(text: &str) -> bool {
    let code = text.split(' ').next().unwrap_or_default();
    let mut numbers = code.split('.');
    let number = |part: Option<&str>| {
        part.is_some_and(|part| (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit()))
    };
    numbers.next() == Some("5") && number(numbers.next()) && number(numbers.next()) && numbers.next().is_none()
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
