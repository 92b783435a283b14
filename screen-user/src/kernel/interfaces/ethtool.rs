//! What a network interface's driver says of itself (the ioctl of ethtool(8)).

use std::{
    io,
    net::{Ipv4Addr, UdpSocket},
    os::fd::AsRawFd as _,
};

/// Features that put packets together before a program could see them one by one, by the names that ethtool(8) knows.
const MERGING: [&str; 2] = ["rx-lro", "rx-gro-hw"];

const SIOCETHTOOL: libc::c_ulong = 0x8946;
const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETHTOOL_GFEATURES: u32 = 0x3a;
/// The set of the features' names.
const ETH_SS_FEATURES: u32 = 4;
const NAME: usize = 32;
/// `struct ethtool_drvinfo`: the command, five names, twelve bytes, five numbers. The driver's name comes first.
const DRIVER_INFO: usize = 4 + 5 * NAME + 12 + 5 * 4;
/// A block of `struct ethtool_gfeatures`: what is available, requested, active, and never changed, of 32 features.
const FEATURE_BLOCK: usize = 16;
/// Where what is active stands in it.
const ACTIVE: usize = 8;

/// The name of the driver of `interface`, if it has one.
pub(super) fn driver(interface: &str) -> Option<String> {
    let mut info = request(ETHTOOL_GDRVINFO, DRIVER_INFO);
    ask(interface, &mut info).ok()?;
    Some(name_at(&info, 4)).filter(|name| !name.is_empty())
}

/// Which features of `interface` are on that put packets together.
pub(super) fn merging(interface: &str) -> Vec<&'static str> {
    let active = active_features(interface).unwrap_or_default();
    MERGING.into_iter().filter(|feature| active.iter().any(|name| name == feature)).collect()
}

fn active_features(interface: &str) -> io::Result<Vec<String>> {
    let mut count = request(ETHTOOL_GSSET_INFO, 20);
    put(&mut count, 8, 1 << ETH_SS_FEATURES);
    ask(interface, &mut count)?;
    let count = number_at(&count, 16);
    let mut names = request(ETHTOOL_GSTRINGS, 12 + NAME * count as usize);
    put(&mut names, 4, ETH_SS_FEATURES);
    put(&mut names, 8, count);
    ask(interface, &mut names)?;
    let blocks = count.div_ceil(32);
    let mut features = request(ETHTOOL_GFEATURES, 8 + FEATURE_BLOCK * blocks as usize);
    put(&mut features, 4, blocks);
    ask(interface, &mut features)?;
    let is_active = |feature: &usize| {
        number_at(&features, 8 + FEATURE_BLOCK * (feature / 32) + ACTIVE) & (1 << (feature % 32)) != 0
    };
    Ok((0..count as usize).filter(is_active).map(|feature| name_at(&names, 12 + NAME * feature)).collect())
}

/// A request of `length` bytes, which begins with its number.
fn request(command: u32, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    put(&mut bytes, 0, command);
    bytes
}

fn put(bytes: &mut [u8], offset: usize, value: u32) {
    if let Some(place) = bytes.get_mut(offset..).and_then(<[u8]>::first_chunk_mut) {
        *place = value.to_ne_bytes();
    }
}

fn number_at(bytes: &[u8], offset: usize) -> u32 {
    bytes.get(offset..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u32::from_ne_bytes(*bytes))
}

fn name_at(bytes: &[u8], offset: usize) -> String {
    let name = bytes.get(offset..).unwrap_or_default().iter().take(NAME).copied().take_while(|byte| *byte != 0);
    String::from_utf8_lossy(&name.collect::<Vec<u8>>()).into_owned()
}

/// Has the kernel answer in the place of `request`, which must be as long as the answer to its command may be.
fn ask(interface: &str, request: &mut [u8]) -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    // SAFETY: a structure of numbers and pointers, for which zeroes stand.
    let mut asked: libc::ifreq = unsafe { std::mem::zeroed() };
    if interface.len() >= asked.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (place, byte) in asked.ifr_name.iter_mut().zip(interface.bytes()) {
        *place = byte as libc::c_char;
    }
    asked.ifr_ifru.ifru_data = request.as_mut_ptr().cast();
    // SAFETY: the kernel reads the command there and writes the answer, for which the caller has made room.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL as _, &raw mut asked) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_has_features_and_none_that_merges_packets() {
        let active = active_features("lo").unwrap();
        assert!(active.iter().any(|feature| feature == "loopback"), "{active:?}");
        assert!(merging("lo").is_empty());
        assert!(active_features("no-such-thing").is_err() && driver("no-such-thing").is_none());
        assert!(merging("a name that is too long for one").is_empty());
    }
}
