//! The links and addresses of this thread's network namespace, and word of their changes (rtnetlink(7)).

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd, RawFd},
};

use nix::sys::socket::{MsgFlags, SockFlag, SockProtocol, recv, send};

use super::super::netlink::{
    self, BUFFER, HEADER, NLM_F_REQUEST, NLMSG_ERROR, attributes, error_number, failure, message, messages, number,
    push_attribute, text,
};

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) mtu: u32,
    /// Whether its packets have Ethernet headers.
    pub(super) ethernet: bool,
    /// Identifiers of the XDP programs that are attached to it.
    pub(super) programs: BTreeSet<u32>,
    /// Whether XDP is attached in its driver.
    pub(super) native: bool,
    /// What it is a part or one end of: an index, and the number of the namespace that this one counts in, if another.
    pub(super) other: Option<(u32, Option<u32>)>,
}

/// How XDP is attached, as the kernel's `if_link.h` numbers it.
#[derive(Debug, Clone, Copy)]
pub(super) enum XdpFlag {
    Generic = 2,
    Native = 4,
}

const LINK_BODY: usize = 16;
const ADDRESS_BODY: usize = 8;
const FILTER_BODY: usize = 20;

const NLM_F_ACK: u16 = 0x4;
/// There are attributes behind an error.
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWTFILTER: u16 = 44;
const RTM_GETTFILTER: u16 = 46;
const RTMGRP_LINK: u32 = 0x1;
const RTMGRP_IPV4_IFADDR: u32 = 0x10;
const RTMGRP_IPV6_IFADDR: u32 = 0x100;

const ARPHRD_ETHER: u16 = 1;
const ARPHRD_LOOPBACK: u16 = 772;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_XDP: u16 = 43;
const IFLA_TARGET_NETNSID: u16 = 46;
const IFLA_XDP_FD: u16 = 1;
const IFLA_XDP_ATTACHED: u16 = 2;
/// In the driver, or there and elsewhere.
const XDP_ATTACHED_NATIVELY: [u8; 2] = [1, 4];
const IFLA_XDP_FLAGS: u16 = 3;
/// Of the program, or of those in the driver, behind it, and on the card.
const IFLA_XDP_IDS: std::ops::RangeInclusive<u16> = 4..=7;
const IFLA_XDP_EXPECTED_FD: u16 = 8;
const XDP_FLAGS_UPDATE_IF_NOEXIST: u32 = 1;
const XDP_FLAGS_REPLACE: u32 = 16;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
/// `TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS)`.
const TC_INGRESS: u32 = 0xffff_fff2;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_NAME: u16 = 7;
const NLA_F_NESTED: u16 = 0x8000;

/// Every link of the namespace.
pub(super) fn links() -> io::Result<Vec<Link>> {
    dump(RTM_GETLINK, RTM_NEWLINK, &[0; LINK_BODY], link)
}

/// The other end of a pair of links, wherever it is; none where it can't be seen.
pub(super) fn other_end(of: &Link) -> Option<Link> {
    let (index, namespace) = of.other?;
    let mut body = vec![0; LINK_BODY];
    body.splice(4..8, index.to_ne_bytes());
    if let Some(namespace) = namespace {
        push_attribute(&mut body, IFLA_TARGET_NETNSID, &namespace.to_ne_bytes());
    }
    let socket = open(0, SockFlag::empty()).ok()?;
    send(socket.as_raw_fd(), &message(RTM_GETLINK, NLM_F_REQUEST, &body), MsgFlags::empty()).ok()?;
    let mut buffer = vec![0; BUFFER];
    let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()).ok()?;
    let (_, _, body) = messages(buffer.get(..length)?).find(|(kind, ..)| *kind == RTM_NEWLINK)?;
    link(body)
}

/// The indices of the links that have an address of global scope.
pub(super) fn with_global_address() -> io::Result<BTreeSet<u32>> {
    let addresses = dump(RTM_GETADDR, RTM_NEWADDR, &[0; ADDRESS_BODY], |body| {
        let index = u32::from_ne_bytes(*body.get(4..)?.first_chunk()?);
        let (mut far, mut own) = (None, None);
        for (kind, value) in attributes(body.get(ADDRESS_BODY..)?) {
            match kind {
                IFA_ADDRESS => far = address(value),
                IFA_LOCAL => own = address(value),
                _ => {}
            }
        }
        // Point to point, the first one is the other end's.
        own.or(far).filter(|address| is_global(*address)).map(|_| index)
    })?;
    Ok(addresses.into_iter().collect())
}

/// Whether the filter `name` is at ingress of a link.
pub(super) fn has_filter(index: u32, name: &str) -> io::Result<bool> {
    let mut request = [0; FILTER_BODY];
    request[4..8].copy_from_slice(&index.to_ne_bytes());
    request[12..16].copy_from_slice(&TC_INGRESS.to_ne_bytes());
    let names = dump(RTM_GETTFILTER, RTM_NEWTFILTER, &request, |body| {
        let (_, options) = attributes(body.get(FILTER_BODY..)?).find(|(kind, _)| *kind == TCA_OPTIONS)?;
        attributes(options).find(|(kind, _)| *kind == TCA_BPF_NAME).map(|(_, name)| text(name))
    })?;
    Ok(names.iter().any(|found| found == name))
}

/// What the kernel, or the driver, has to say of why the program can't be attached; `bpf(2)`, which attaches it, tells a number only.
pub(super) fn complaint(index: u32, program: BorrowedFd<'_>, flag: XdpFlag) -> Option<String> {
    let attach = |fd: RawFd, flags: u32, expected: Option<RawFd>| {
        let mut xdp = Vec::new();
        push_attribute(&mut xdp, IFLA_XDP_FD, &fd.to_ne_bytes());
        push_attribute(&mut xdp, IFLA_XDP_FLAGS, &(flag as u32 | flags).to_ne_bytes());
        if let Some(expected) = expected {
            push_attribute(&mut xdp, IFLA_XDP_EXPECTED_FD, &expected.to_ne_bytes());
        }
        let mut body = vec![0; LINK_BODY];
        body.splice(4..8, index.to_ne_bytes());
        push_attribute(&mut body, IFLA_XDP | NLA_F_NESTED, &xdp);
        ask(RTM_SETLINK, &body)
    };
    match attach(program.as_raw_fd(), XDP_FLAGS_UPDATE_IF_NOEXIST, None) {
        Ok(Some(complaint)) => return Some(complaint),
        // What was in the way has gone in this moment: back to where we were, unless somebody else has been there since.
        Ok(None) => drop(attach(-1, XDP_FLAGS_REPLACE, Some(program.as_raw_fd()))),
        Err(_) => {}
    }
    None
}

/// Tells that links or addresses have changed.
#[derive(Debug)]
pub(super) struct Changes(OwnedFd);

impl Changes {
    /// Begins to listen.
    pub(super) fn new() -> io::Result<Self> {
        open(RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR, SockFlag::SOCK_NONBLOCK).map(Self)
    }

    /// Takes what has been told so far: what it says is read anew anyway.
    pub(super) fn drain(&self) {
        let mut buffer = [0; 4_096];
        loop {
            match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                // Some were lost; which ones doesn't matter.
                Ok(_) | Err(nix::errno::Errno::ENOBUFS | nix::errno::Errno::EINTR) => {}
                Err(_) => return,
            }
        }
    }
}

impl AsFd for Changes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl std::os::fd::AsRawFd for Changes {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

fn open(groups: u32, flags: SockFlag) -> io::Result<OwnedFd> {
    netlink::open(SockProtocol::NetlinkRoute, groups, flags)
}

fn dump<T>(request: u16, answer: u16, body: &[u8], read: impl Fn(&[u8]) -> Option<T>) -> io::Result<Vec<T>> {
    netlink::dump(SockProtocol::NetlinkRoute, request, answer, body, read)
}

/// Sends a request and waits for the answer: nothing if it was carried out, or what the kernel says of why it was not.
fn ask(request: u16, body: &[u8]) -> io::Result<Option<String>> {
    let socket = open(0, SockFlag::empty())?;
    for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK] {
        let on: libc::c_int = 1;
        // SAFETY: the option reads an integer of the length stated.
        let result = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_NETLINK,
                option,
                (&raw const on).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    send(socket.as_raw_fd(), &message(request, NLM_F_REQUEST | NLM_F_ACK, body), MsgFlags::empty())?;
    let mut buffer = vec![0; BUFFER];
    let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
    let answer = messages(buffer.get(..length).unwrap_or_default()).find(|(kind, ..)| *kind == NLMSG_ERROR);
    let (_, flags, body) = answer.ok_or(io::ErrorKind::InvalidData)?;
    if error_number(body) == Some(0) {
        return Ok(None);
    }
    let said = (flags & NLM_F_ACK_TLVS != 0)
        .then(|| attributes(body.get(4 + HEADER..).unwrap_or_default()).find(|(kind, _)| *kind == NLMSGERR_ATTR_MSG))
        .flatten()
        .map(|(_, value)| text(value));
    said.map(Some).ok_or_else(|| failure(body))
}

fn link(body: &[u8]) -> Option<Link> {
    let kind = u16::from_ne_bytes(*body.get(2..)?.first_chunk()?);
    let mut link = Link {
        index: u32::from_ne_bytes(*body.get(4..)?.first_chunk()?),
        name: String::new(),
        mtu: 0,
        ethernet: kind == ARPHRD_ETHER || kind == ARPHRD_LOOPBACK,
        programs: BTreeSet::new(),
        native: false,
        other: None,
    };
    let (mut other, mut namespace) = (None, None);
    for (kind, value) in attributes(body.get(LINK_BODY..)?) {
        match kind {
            IFLA_IFNAME => link.name = text(value),
            IFLA_MTU => link.mtu = number(value)?,
            IFLA_LINK => other = number(value).filter(|index| *index != 0),
            IFLA_LINK_NETNSID => namespace = number(value),
            IFLA_XDP => {
                link.native = attributes(value).any(|(kind, value)| {
                    kind == IFLA_XDP_ATTACHED && value.first().is_some_and(|how| XDP_ATTACHED_NATIVELY.contains(how))
                });
                let ids = attributes(value).filter(|(kind, _)| IFLA_XDP_IDS.contains(kind));
                link.programs.extend(ids.filter_map(|(_, value)| number(value)).filter(|id| *id != 0));
            }
            _ => {}
        }
    }
    link.other = other.map(|index| (index, namespace));
    Some(link)
}

fn address(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => Some(Ipv4Addr::from(*value.first_chunk::<4>()?).into()),
        16 => Some(Ipv6Addr::from(*value.first_chunk::<16>()?).into()),
        _ => None,
    }
}

/// Whether the address has global scope as the kernel reckons it: neither loopback nor link-local.
fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !address.is_loopback() && !address.is_link_local() && !address.is_unspecified(),
        IpAddr::V6(address) => {
            address != Ipv6Addr::LOCALHOST && !address.is_unicast_link_local() && !address.is_unspecified()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_is_among_the_links_and_has_no_global_address() {
        let links = links().unwrap();
        let loopback = links.iter().find(|link| link.name == "lo").unwrap();
        assert!(loopback.ethernet && loopback.mtu > 0 && loopback.index > 0);
        assert!(!with_global_address().unwrap().contains(&loopback.index));
    }

    #[test]
    fn attributes_are_read_as_they_are_written() {
        let mut inner = Vec::new();
        push_attribute(&mut inner, 4, &77u32.to_ne_bytes());
        let mut body = vec![0; LINK_BODY];
        body[2] = 1;
        body[4] = 9;
        push_attribute(&mut body, IFLA_IFNAME, b"mail0\0");
        push_attribute(&mut body, IFLA_MTU, &1_500u32.to_ne_bytes());
        push_attribute(&mut inner, IFLA_XDP_ATTACHED, &[1]);
        push_attribute(&mut body, IFLA_LINK, &3u32.to_ne_bytes());
        push_attribute(&mut body, IFLA_XDP | NLA_F_NESTED, &inner);
        let found = link(&body).unwrap();
        let expected = Link {
            index: 9,
            name: "mail0".into(),
            mtu: 1_500,
            ethernet: true,
            programs: BTreeSet::from([77]),
            native: true,
            other: Some((3, None)),
        };
        assert_eq!(found, expected);
        // Cut anywhere, they end there.
        for length in 0..body.len() {
            let _ = link(&body[..length]);
        }
    }

    #[test]
    fn scopes() {
        for (text, global) in [
            ("127.0.0.1", false),
            ("169.254.1.1", false),
            ("10.0.0.1", true),
            ("::1", false),
            ("fe80::1", false),
            ("fd00::1", true),
            ("2001:db8::1", true),
        ] {
            assert_eq!(is_global(text.parse().unwrap()), global, "{text}");
        }
    }
}
