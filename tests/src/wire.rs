//! An interface's frames as they are: made by hand, sent without a stack, and read again.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use nix::{
    ifaddrs::getifaddrs,
    sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, bind, socket},
};
use socket2::Socket;

use crate::netns::Namespace;

/// No more URG, PSH and so on than these tests need (RFC 9293 section 3.1).
pub mod flags {
    /// Nothing more to send.
    pub const FIN: u8 = 0x01;
    /// Opens.
    pub const SYN: u8 = 0x02;
    /// Resets.
    pub const RST: u8 = 0x04;
    /// Acknowledges.
    pub const ACK: u8 = 0x10;
}

/// How long a read waits for a frame.
const PATIENCE: Duration = Duration::from_millis(50);
/// Longer than any frame here.
const LONGEST: usize = 65_536;

/// An interface, below its stack.
#[derive(Debug)]
pub struct Wire {
    socket: Socket,
}

impl Wire {
    /// The interface of this name in a namespace.
    ///
    /// # Panics
    ///
    /// When there is none, or the system refuses.
    #[must_use]
    pub fn open(namespace: &Namespace, interface: &str) -> Self {
        namespace.enter(|| {
            let socket =
                socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, Some(SockProtocol::EthAll))
                    .expect("a packet socket");
            let link = getifaddrs()
                .expect("the interfaces")
                .filter(|entry| entry.interface_name == interface)
                .find_map(|entry| entry.address?.as_link_addr().copied());
            bind(std::os::fd::AsRawFd::as_raw_fd(&socket), &link.expect("the interface")).expect("bind");
            let socket = Socket::from(socket);
            socket.set_read_timeout(Some(PATIENCE)).expect("SO_RCVTIMEO");
            Self { socket }
        })
    }

    /// Sends a frame; waits where the interface is busy.
    ///
    /// # Panics
    ///
    /// When the interface is gone.
    pub fn send(&self, frame: &[u8]) {
        loop {
            match (&self.socket).write(frame) {
                Ok(_) => return,
                Err(error) if error.raw_os_error() == Some(nix::libc::ENOBUFS) => std::thread::yield_now(),
                Err(error) => panic!("a frame of {} bytes: {error}", frame.len()),
            }
        }
    }

    /// The next frame, sent or received by anybody but this value; none if none comes for a while.
    ///
    /// # Panics
    ///
    /// When the interface is gone.
    #[must_use]
    pub fn receive(&self) -> Option<Vec<u8>> {
        let mut frame = vec![0; LONGEST];
        match (&self.socket).read(&mut frame) {
            Ok(length) => {
                frame.truncate(length);
                Some(frame)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) => panic!("read a frame: {error}"),
        }
    }
}

/// A TCP segment, with where it comes from and goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Who sends it.
    pub from: SocketAddr,
    /// To whom.
    pub to: SocketAddr,
    /// Its number.
    pub sequence: u32,
    /// What it acknowledges.
    pub acknowledgement: u32,
    /// Of [`flags`].
    pub flags: u8,
    /// Its data.
    pub data: Vec<u8>,
    /// Bytes of its frame.
    pub length: usize,
}

impl Segment {
    /// The segment in a frame, if there is one. Frames here have neither VLAN tags nor IP options.
    #[must_use]
    pub fn read(frame: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u32::from_be_bytes(frame.get(at..at + 4)?.try_into().ok()?));
        let short = |at: usize| Some(u16::from_be_bytes(frame.get(at..at + 2)?.try_into().ok()?));
        let octets = |at: usize| <[u8; 16]>::try_from(frame.get(at..at + 16)?).ok();
        let (tcp, end, from, to): (usize, usize, IpAddr, IpAddr) = match (short(12)?, *frame.get(23)?, *frame.get(20)?)
        {
            (0x0800, 6, _) => {
                let end = 14 + usize::from(short(16)?);
                (34, end, word(26)?.to_be_bytes().into(), word(30)?.to_be_bytes().into())
            }
            (0x86dd, _, 6) => {
                let end = 54 + usize::from(short(18)?);
                (54, end, octets(22)?.into(), octets(38)?.into())
            }
            _ => return None,
        };
        let data = tcp + usize::from(frame.get(tcp + 12)? >> 4) * 4;
        Some(Self {
            from: SocketAddr::new(from, short(tcp)?),
            to: SocketAddr::new(to, short(tcp + 2)?),
            sequence: word(tcp + 4)?,
            acknowledgement: word(tcp + 8)?,
            flags: *frame.get(tcp + 13)?,
            data: frame.get(data..end)?.to_vec(),
            length: frame.len(),
        })
    }

    /// A frame with this segment, from and to nobody's hardware address. A SYN announces a segment size. Its checksums are left
    /// empty: the gate looks at none, and nobody else is meant to take it.
    ///
    /// # Panics
    ///
    /// When its addresses are of two families.
    #[must_use]
    pub fn frame(&self) -> Vec<u8> {
        let options: &[u8] = if self.flags & flags::SYN == 0 { &[] } else { &[2, 4, 5, 0xb4] };
        let mut segment = Vec::new();
        segment.extend(self.from.port().to_be_bytes());
        segment.extend(self.to.port().to_be_bytes());
        segment.extend(self.sequence.to_be_bytes());
        segment.extend(self.acknowledgement.to_be_bytes());
        segment.extend([if options.is_empty() { 0x50 } else { 0x60 }, self.flags, 0xff, 0xff, 0, 0, 0, 0]);
        segment.extend(options);
        segment.extend(&self.data);
        let length = u16::try_from(segment.len()).expect("a short segment");
        let mut frame = vec![2; 12];
        match (self.from.ip(), self.to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                frame.extend([8, 0, 0x45, 0]);
                frame.extend((length + 20).to_be_bytes());
                frame.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
                frame.extend(from.octets());
                frame.extend(to.octets());
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                frame.extend(length.to_be_bytes());
                frame.extend([6, 64]);
                frame.extend(from.octets());
                frame.extend(to.octets());
            }
            (from, to) => panic!("no packet goes from {from} to {to}"),
        }
        frame.extend(segment);
        frame
    }
}
