//! What a gate that is gone left under the same pin path: its programs work on, and its successor takes over without a gap.
//!
//! Tables that are fed anew are made anew. What only the kernel knows (counts, and which sockets stand in them) is kept: the same maps
//! where their layout is the same, else their entries.

use aya::{
    Ebpf,
    maps::{HashMap, MapData, MapInfo},
};
use screen_common::{
    ABI,
    abi::{Settings, Until, map},
    address::IpKey,
};

use super::{KernelError, maps::data, pins::Pins, syscall};

/// The maps that a successor goes on with. Counts and the marks that pair them are kept together or not at all. The relay's connections are
/// kept because the screener of a keeper that is gone may still make some, and none of them may pass for this host's own.
pub(super) const KEPT: [&str; 8] = [
    map::CLIENTS,
    map::COUNTED,
    map::REFUSED,
    map::TOTALS,
    map::SERVERS,
    map::BOUND,
    map::OF_SERVER,
    map::RELAY_CLIENTS,
];

/// What was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Former {
    /// Nothing, or what a gate of another network namespace left: it is removed.
    Nothing,
    /// Programs of this namespace, with maps of another layout: their contents are carried over.
    Differs,
    /// Programs of this namespace whose maps can be kept.
    Fits,
}

impl Former {
    /// Looks under `pins`; `fresh` has the maps as they are now.
    pub(super) fn find(pins: &Pins, netns_cookie: u64, fresh: &Ebpf) -> Self {
        let Ok(settings) = syscall::first_value(&pins.map(map::CONFIG)) else { return Self::Nothing };
        // The cookie comes first in every layout, the number of the layout second.
        let Some((cookie, rest)) = settings.split_first_chunk::<8>() else { return Self::Nothing };
        if u64::from_ne_bytes(*cookie) != netns_cookie {
            return Self::Nothing;
        }
        let same_abi = rest.first_chunk::<4>().is_some_and(|abi| u32::from_ne_bytes(*abi) == ABI);
        let same = same_abi
            && settings.len() == size_of::<Settings>()
            && KEPT.iter().all(|name| same_layout(pins, name, fresh).unwrap_or(false));
        if same { Self::Fits } else { Self::Differs }
    }
}

/// Whether the pinned map `name` is what the programs would make; `None` if it is not there.
fn same_layout(pins: &Pins, name: &str, fresh: &Ebpf) -> Option<bool> {
    let old = MapInfo::from_pin(pins.map(name)).ok()?;
    let new = fresh.map(name).and_then(data)?.info().ok()?;
    let layout = |info: &MapInfo| {
        Some((info.map_type().ok()?, info.key_size(), info.value_size(), info.max_entries(), info.map_flags()))
    };
    Some(layout(&old)? == layout(&new)?)
}

/// Carries over what the new programs' maps should hold from the start: passes, and from maps of another layout the counters.
/// What does not fit is left out: it is knowledge, and is learnt again.
pub(super) fn carry_over(pins: &Pins, former: Former, ebpf: &mut Ebpf) -> Result<(), KernelError> {
    if former == Former::Nothing {
        return Ok(());
    }
    copy(pins, map::PASS, ebpf, |_| ())?;
    if former == Former::Differs {
        // Connections are counted again by the walk over the sockets: the new programs have marked none.
        copy(pins, map::CLIENTS, ebpf, |client| {
            if let Some(live) = client.first_chunk_mut::<16>() {
                *live = [0; 16];
            }
        })?;
        copy(pins, map::REFUSED, ebpf, |_| ())?;
    }
    Ok(())
}

/// Copies a map's entries, values cut or filled up with zeroes where their size has changed, each after `adjust`.
fn copy(pins: &Pins, name: &'static str, ebpf: &Ebpf, adjust: impl Fn(&mut [u8])) -> Result<(), KernelError> {
    let Some(new) = ebpf.map(name).and_then(data) else { return Ok(()) };
    let about = new.info().map_err(KernelError::map(name))?;
    let copied = syscall::copy_entries(&pins.map(name), new.fd(), about.key_size(), about.value_size(), adjust);
    match copied {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(KernelError::system(format!("carry over {name}"), error))
        }
        _ => Ok(()),
    }
}

/// The passes that are in the map already.
pub(super) fn passes(passes: &HashMap<MapData, IpKey, Until>) -> Vec<(IpKey, Until)> {
    passes.iter().filter_map(Result::ok).collect()
}
