//! Messages of netlink(7): sockets, requests, and what the kernel answers.

use std::{
    io, iter,
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, socket,
};

pub(super) const HEADER: usize = 16;
/// The kernel makes no longer message in answer to a dump.
pub(super) const BUFFER: usize = 64 * 1024;
/// Dumps that were interrupted by a change; one more change, one more message to come of it.
const ATTEMPTS: usize = 8;

pub(super) const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_DUMP: u16 = 0x300;
pub(super) const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLA_TYPE: u16 = 0x3fff;

/// A socket for `protocol`, which hears of what happens to `groups`.
pub(super) fn open(protocol: SockProtocol, groups: u32, flags: SockFlag) -> io::Result<OwnedFd> {
    let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC | flags, protocol)?;
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(fd)
}

/// Asks for everything of one kind; `read` takes the body of each message of the kind `answer`.
pub(super) fn dump<T>(
    protocol: SockProtocol,
    request: u16,
    answer: u16,
    body: &[u8],
    read: impl Fn(&[u8]) -> Option<T>,
) -> io::Result<Vec<T>> {
    let mut found = Vec::new();
    for _ in 0..ATTEMPTS {
        found.clear();
        if dump_once(protocol, request, body, |kind, body| {
            found.extend((kind == answer).then(|| read(body)).flatten());
        })? {
            break;
        }
    }
    Ok(found)
}

/// Returns whether nothing changed meanwhile.
fn dump_once(protocol: SockProtocol, request: u16, body: &[u8], mut each: impl FnMut(u16, &[u8])) -> io::Result<bool> {
    let socket = open(protocol, 0, SockFlag::empty())?;
    send(socket.as_raw_fd(), &message(request, NLM_F_REQUEST | NLM_F_DUMP, body), MsgFlags::empty())?;
    let mut buffer = vec![0; BUFFER];
    let mut whole = true;
    loop {
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        for (kind, flags, body) in messages(buffer.get(..length).unwrap_or_default()) {
            whole &= flags & NLM_F_DUMP_INTR == 0;
            match kind {
                NLMSG_DONE => return Ok(whole),
                NLMSG_ERROR => return Err(failure(body)),
                _ => each(kind, body),
            }
        }
    }
}

/// The number in an error message; 0: the request was carried out.
pub(super) fn error_number(body: &[u8]) -> Option<i32> {
    Some(i32::from_ne_bytes(*body.first_chunk()?))
}

/// The error in an error message.
pub(super) fn failure(body: &[u8]) -> io::Error {
    io::Error::from_raw_os_error(error_number(body).unwrap_or(0).wrapping_neg())
}

/// The kind, flags and body of each message in a buffer.
pub(super) fn messages(mut buffer: &[u8]) -> impl Iterator<Item = (u16, u16, &[u8])> {
    iter::from_fn(move || {
        let length = usize::try_from(number(buffer)?).ok()?;
        let kind = u16::from_ne_bytes(*buffer.get(4..)?.first_chunk()?);
        let flags = u16::from_ne_bytes(*buffer.get(6..)?.first_chunk()?);
        let body = buffer.get(HEADER..length)?;
        buffer = buffer.get(padded(length)..).unwrap_or_default();
        Some((kind, flags, body))
    })
}

/// The kind and value of each attribute in a body.
pub(super) fn attributes(mut body: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*body.first_chunk()?));
        let kind = u16::from_ne_bytes(*body.get(2..)?.first_chunk()?);
        let value = body.get(4..length)?;
        body = body.get(padded(length)..).unwrap_or_default();
        Some((kind & NLA_TYPE, value))
    })
}

/// A message, header and all.
pub(super) fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(HEADER + body.len());
    message.extend(((HEADER + body.len()) as u32).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    message
}

/// Adds an attribute to a body.
pub(super) fn push_attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    body.extend(((4 + value.len()) as u16).to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(padded(body.len()), 0);
}

/// Messages and attributes begin at multiples of four.
fn padded(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// The first four bytes, as a number in host order.
pub(super) fn number(value: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(*value.first_chunk()?))
}

/// A text that ends in a zero.
pub(super) fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}
