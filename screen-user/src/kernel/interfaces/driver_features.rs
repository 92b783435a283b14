//! Whether a driver has native XDP, as the kernel tells without attaching anything (the netlink family `netdev`, since Linux 6.3).

use std::{io, os::fd::AsRawFd as _};

use nix::sys::socket::{MsgFlags, SockFlag, SockProtocol, recv, send};

use crate::kernel::netlink::{self, BUFFER, NLM_F_REQUEST, attributes, message, messages, push_attribute};

/// `struct genlmsghdr`: command, version, two bytes for later.
const GENERIC_HEADER: usize = 4;
const GENL_ID_CTRL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const FAMILY: &str = "netdev";
const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;
/// The driver runs programs, and does what they answer but for redirecting.
const NETDEV_XDP_ACT_BASIC: u64 = 1;

/// Whether the driver of the interface with this index runs XDP programs; `None` where the kernel does not say.
pub(super) fn native_xdp(index: u32) -> Option<bool> {
    let family = ask(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, CTRL_ATTR_FAMILY_NAME, &[FAMILY.as_bytes(), &[0]].concat());
    let family = family.ok()?.into_iter().find(|(kind, _)| *kind == CTRL_ATTR_FAMILY_ID)?;
    let family = u16::from_ne_bytes(*family.1.first_chunk()?);
    let device = ask(family, NETDEV_CMD_DEV_GET, NETDEV_A_DEV_IFINDEX, &index.to_ne_bytes()).ok()?;
    let (_, features) = device.into_iter().find(|(kind, _)| *kind == NETDEV_A_DEV_XDP_FEATURES)?;
    Some(u64::from_ne_bytes(*features.first_chunk()?) & NETDEV_XDP_ACT_BASIC != 0)
}

/// The attributes that a family answers with.
fn ask(family: u16, command: u8, attribute: u16, value: &[u8]) -> io::Result<Vec<(u16, Vec<u8>)>> {
    let socket = netlink::open(SockProtocol::NetlinkGeneric, 0, SockFlag::empty())?;
    let mut body = vec![command, 1, 0, 0];
    push_attribute(&mut body, attribute, value);
    send(socket.as_raw_fd(), &message(family, NLM_F_REQUEST, &body), MsgFlags::empty())?;
    let mut buffer = vec![0; BUFFER];
    let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
    let answer = messages(buffer.get(..length).unwrap_or_default()).find(|(kind, ..)| *kind == family);
    let answer = answer.and_then(|(_, _, body)| body.get(GENERIC_HEADER..)).unwrap_or_default();
    Ok(attributes(answer).map(|(kind, value)| (kind, value.to_vec())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::netlink::text;

    #[test]
    fn the_kernel_knows_the_family_and_no_interface_zero() {
        assert_eq!(native_xdp(0), None);
        // A kernel before 6.3 does not know it.
        if let Ok(known) = ask(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, CTRL_ATTR_FAMILY_NAME, b"netdev\0")
            && let Some((_, name)) = known.iter().find(|(kind, _)| *kind == CTRL_ATTR_FAMILY_NAME)
        {
            assert_eq!(text(name), FAMILY);
            assert_eq!(native_xdp(1), Some(false), "the loopback has no XDP of its own");
        }
    }
}
