//! Look-ups in the lists.

use aya_ebpf::maps::lpm_trie::Key;
use screen_common::{
    abi::{Deny, Settings},
    address::IpKey,
    decide::{Class, holds},
};

use crate::maps::{allow, classes, deny_class, deny_host, deny_net, pass, proxies};

/// What denies `address` now, if anything does.
#[inline(always)]
pub(crate) fn denied(address: &IpKey, now_ns: u64) -> Option<&'static Deny> {
    if let Some([a, b, c, _]) = address.ipv4() {
        let row = deny_class.get(u32::from(u16::from_be_bytes([a, b])))?;
        match Class::of(*row.get(c as usize)?) {
            Class::Clear => return None,
            Class::Listed(class) => return live(classes.get(u32::from(class))?, now_ns),
            Class::Further => {}
        }
    }
    // SAFETY: entries are replaced whole; a reader sees the old or the new one.
    if let Some(deny) = unsafe { deny_host.get(address) }.and_then(|deny| live(deny, now_ns)) {
        return Some(deny);
    }
    live(deny_net.get(&Key::new(128, *address))?, now_ns)
}

#[inline(always)]
fn live(deny: &'static Deny, now_ns: u64) -> Option<&'static Deny> {
    if holds(deny.expires_ns, now_ns) { Some(deny) } else { None }
}

/// Whether `address` is allowed now.
#[inline(always)]
pub(crate) fn allowed(address: &IpKey, now_ns: u64) -> bool {
    allow.get(&Key::new(128, *address)).is_some_and(|entry| holds(entry.expires_ns, now_ns))
}

/// Whether connections from `address` begin with a PROXY header: it stands for many clients, so nothing that is said of a client
/// may be applied to it.
#[inline(always)]
pub(crate) fn is_proxy(settings: &Settings, address: &IpKey) -> bool {
    settings.proxies != 0 && proxies.get(&Key::new(128, *address)).is_some_and(|entry| entry.header != 0)
}

/// What the lists say of a client that is not turned away.
pub(crate) enum Standing {
    Allowed,
    Passed,
    /// Denied, in a dry run: nobody is turned away.
    LetIn,
    Stranger,
}

/// Whether the client may skip the screener: an allow entry beats a deny entry, which beats a pass.
#[inline(always)]
pub(crate) fn standing(settings: &Settings, address: &IpKey, now_ns: u64) -> Standing {
    if allowed(address, now_ns) {
        return Standing::Allowed;
    }
    // SAFETY: entries are replaced whole.
    let passed = unsafe { pass.get(settings.client(address)) }.is_some_and(|entry| holds(entry.expires_ns, now_ns));
    if !passed && settings.dry_run == 0 {
        return Standing::Stranger;
    }
    match denied(address, now_ns) {
        Some(_) if settings.dry_run != 0 => Standing::LetIn,
        None if passed => Standing::Passed,
        Some(_) | None => Standing::Stranger,
    }
}
