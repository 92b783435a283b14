//! Frames made by hand.

use std::net::{IpAddr, SocketAddr};

pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const ACK: u8 = 0x10;
const TCP: u8 = 6;

/// A TCP packet in an Ethernet frame; what is left empty is as plain as can be.
#[derive(Clone)]
pub(crate) struct Frame {
    pub(crate) client: SocketAddr,
    pub(crate) server: SocketAddr,
    pub(crate) flags: u8,
    pub(crate) sequence: u32,
    pub(crate) acknowledgement: u32,
    pub(crate) window: u16,
    /// The options of the TCP header, four bytes or a multiple.
    pub(crate) tcp_options: Vec<u8>,
    /// Data behind the header.
    pub(crate) data: Vec<u8>,
    /// EtherTypes of the VLAN tags.
    pub(crate) tags: Vec<u16>,
    /// Bytes of IPv4 options.
    pub(crate) options: usize,
    /// The IPv4 header's flags and fragment offset.
    pub(crate) fragment: u16,
    /// IPv6 extension headers: number, and the bytes behind the next header's number.
    pub(crate) chain: Vec<(u8, Vec<u8>)>,
    pub(crate) protocol: u8,
}

impl Frame {
    /// A SYN from `client` (port 40001) to port 25.
    pub(crate) fn syn(client: &str) -> Self {
        let client: IpAddr = client.parse().unwrap();
        let server: IpAddr = if client.is_ipv4() { [192, 0, 2, 1].into() } else { "2001:db8::1".parse().unwrap() };
        Self {
            client: (client, 40_001).into(),
            server: (server, 25).into(),
            flags: SYN,
            sequence: 1,
            acknowledgement: 0,
            window: 0xffff,
            tcp_options: vec![2, 4, 5, 0xb4],
            data: Vec::new(),
            tags: Vec::new(),
            options: 0,
            fragment: 0,
            chain: Vec::new(),
            protocol: TCP,
        }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut segment = Vec::new();
        segment.extend(self.client.port().to_be_bytes());
        segment.extend(self.server.port().to_be_bytes());
        segment.extend(self.sequence.to_be_bytes());
        segment.extend(self.acknowledgement.to_be_bytes());
        segment.extend([((5 + self.tcp_options.len() / 4) << 4) as u8, self.flags]);
        segment.extend(self.window.to_be_bytes());
        segment.extend([0; 4]);
        segment.extend(&self.tcp_options);
        segment.extend(&self.data);
        let (ethertype, packet) = match (self.client.ip(), self.server.ip()) {
            (IpAddr::V4(client), IpAddr::V4(server)) => {
                let mut packet = vec![0x40 | ((20 + self.options) / 4) as u8, 0];
                packet.extend(((20 + self.options + segment.len()) as u16).to_be_bytes());
                packet.extend([0, 1]);
                packet.extend(self.fragment.to_be_bytes());
                packet.extend([64, self.protocol, 0, 0]);
                packet.extend(client.octets());
                packet.extend(server.octets());
                packet.extend(vec![1; self.options]);
                (0x0800u16, packet)
            }
            (IpAddr::V6(client), IpAddr::V6(server)) => {
                let next = |index: usize| self.chain.get(index).map_or(self.protocol, |(number, _)| *number);
                let headers: Vec<u8> = self
                    .chain
                    .iter()
                    .enumerate()
                    .flat_map(|(index, (_, rest))| [vec![next(index + 1)], rest.clone()].concat())
                    .collect();
                let mut packet = vec![0x60, 0, 0, 0];
                packet.extend(((headers.len() + segment.len()) as u16).to_be_bytes());
                packet.extend([next(0), 64]);
                packet.extend(client.octets());
                packet.extend(server.octets());
                packet.extend(headers);
                (0x86dd, packet)
            }
            _ => panic!("two families in a packet"),
        };
        let mut frame = vec![2; 12];
        for tag in &self.tags {
            frame.extend(tag.to_be_bytes());
            frame.extend([0, 5]);
        }
        frame.extend(ethertype.to_be_bytes());
        frame.extend(packet);
        frame.extend(segment);
        frame
    }
}

/// IPv6 extension headers that a SYN may stand behind.
pub(crate) fn chains() -> Vec<Vec<(u8, Vec<u8>)>> {
    let options = |number: u8, eights: u8| (number, [vec![eights], vec![0; eights as usize * 8 + 6]].concat());
    let routing = (43, vec![0; 7]);
    let atomic_fragment = (44, vec![0; 7]);
    let authentication = (51, [vec![4], vec![0; 22]].concat());
    vec![
        vec![],
        vec![options(0, 0)],
        vec![options(60, 3)],
        vec![routing.clone()],
        vec![atomic_fragment.clone()],
        vec![authentication.clone()],
        vec![options(135, 1)],
        vec![options(0, 1), options(60, 0), routing, atomic_fragment, authentication, options(60, 2)],
    ]
}
