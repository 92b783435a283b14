//! The maps: names, sizes, and the layout of keys and values.
//!
//! All structures are `repr(C)` without padding, in host order except where a field says otherwise. Times are nanoseconds of
//! `CLOCK_MONOTONIC`, read in the kernel with its coarse clock (a tick behind at most).

use crate::{address::IpKey, reason::Reason};

/// Map names, at most 15 bytes, which is where the kernel cuts them.
pub mod map {
    /// [`super::Settings`], one entry.
    pub const CONFIG: &str = "config";
    /// One class byte for each IPv4 /24 in rows of 256: see [`crate::decide::Class`].
    pub const DENY_CLASS: &str = "deny_class";
    /// Class to [`super::Deny`].
    pub const CLASSES: &str = "classes";
    /// Denied single addresses.
    pub const DENY_HOST: &str = "deny_host";
    /// Denied prefixes that a class byte can't say.
    pub const DENY_NET: &str = "deny_net";
    /// Allowed prefixes.
    pub const ALLOW: &str = "allow";
    /// Sources whose connections begin with a PROXY header.
    pub const PROXIES: &str = "proxies";
    /// Clients that passed the tests.
    pub const PASS: &str = "pass";
    /// Connections by client.
    pub const CLIENTS: &str = "clients";
    /// SYNs by client that no connection came of yet.
    pub const HALF_OPEN: &str = "half_open";
    /// SYNs that were told to come again.
    pub const UNPROVEN: &str = "unproven";
    /// The sources turned away last.
    pub const REFUSED: &str = "refused";
    /// Counters by reason.
    pub const TOTALS: &str = "totals";
    /// Token buckets of the events.
    pub const BUCKETS: &str = "buckets";
    /// The sources that made the last events.
    pub const NOTED: &str = "noted";
    /// The ring of events.
    pub const EVENTS: &str = "events";
    /// The relay's connections and whom they speak for.
    pub const RELAY_CLIENTS: &str = "relay_clients";
    /// The screener's listening sockets.
    pub const LISTENERS: &str = "listeners";
    /// The mark of a counted connection.
    pub const COUNTED: &str = "counted";
    /// The mail server's listening sockets, by [`super::ServerKey`]; user space reads a socket's cookie.
    pub const SERVERS: &str = "servers";
    /// The mail server's listeners that take nobody, [`super::Hung`] by [`super::ServerKey`] with the index 0.
    pub const HUNG: &str = "hung";
    /// Who bound a socket.
    pub const BOUND: &str = "bound";
    /// The mark of the mail server's listeners and of what they take: its place in [`SERVERS`], counted from 1; 0: it has none.
    pub const OF_SERVER: &str = "of_server";
    /// [`crate::cookie::Keys`], one entry.
    pub const COOKIE_KEYS: &str = "cookie_keys";
    /// [`crate::reply::Text`] by number.
    pub const REPLIES: &str = "replies";
    /// Interfaces, by index, that nothing can be sent back over.
    pub const MUTE: &str = "mute";
    /// What the walk over the sockets is to put right.
    pub const CORRECTIONS: &str = "corrections";
    /// Every map that is pinned for the operator and for a later process.
    pub const PINNED: [&str; 22] = [
        CONFIG,
        DENY_CLASS,
        CLASSES,
        DENY_HOST,
        DENY_NET,
        ALLOW,
        PROXIES,
        PASS,
        CLIENTS,
        HALF_OPEN,
        REFUSED,
        TOTALS,
        EVENTS,
        RELAY_CLIENTS,
        LISTENERS,
        COUNTED,
        REPLIES,
        MUTE,
        SERVERS,
        HUNG,
        BOUND,
        OF_SERVER,
    ];
}

/// Program names.
pub mod program {
    /// XDP: deny and limit.
    pub const GATE: &str = "gate";
    /// TC: the same, where XDP can't be.
    pub const GATE_TC: &str = "gate_tc";
    /// SK_LOOKUP: who gets the connection.
    pub const STEER: &str = "steer";
    /// `sock_ops`: connections by client.
    pub const COUNT: &str = "count";
    /// `cgroup/post_bind4`: who binds the mail server's port.
    pub const OWNER4: &str = "owner4";
    /// `cgroup/post_bind6`.
    pub const OWNER6: &str = "owner6";
    /// `iter/tcp`: sockets that are there.
    pub const WALK: &str = "walk";
    /// `cgroup/getpeername4`.
    pub const PEERNAME4: &str = "peername4";
    /// `cgroup/getpeername6`.
    pub const PEERNAME6: &str = "peername6";
    /// `cgroup/getsockname4`.
    pub const SOCKNAME4: &str = "sockname4";
    /// `cgroup/getsockname6`.
    pub const SOCKNAME6: &str = "sockname6";
}

/// Rows of [`map::DENY_CLASS`]: one for each IPv4 /16.
pub const CLASS_ROWS: usize = 65_536;
/// The most entries of [`map::DENY_HOST`].
pub const DENY_HOST_ENTRIES: usize = 1_048_576;
/// The most entries of [`map::DENY_NET`].
pub const DENY_NET_ENTRIES: usize = 1_048_576;
/// The most entries of [`map::ALLOW`].
pub const ALLOW_ENTRIES: usize = 262_144;
/// The most entries of [`map::PROXIES`].
pub const PROXY_ENTRIES: usize = 4_096;
/// The most entries of [`map::PASS`].
pub const PASS_ENTRIES: usize = 1 << 20;
/// The most entries of [`map::CLIENTS`].
pub const CLIENT_ENTRIES: usize = 262_144;
/// The most entries of [`map::HALF_OPEN`]; the least recent go first.
pub const HALF_OPEN_ENTRIES: usize = 65_536;
/// The entries of [`map::CORRECTIONS`].
pub const CORRECTION_ENTRIES: usize = 64;
/// The most entries of [`map::UNPROVEN`]; the least recent go first.
pub const UNPROVEN_ENTRIES: usize = 16_384;
/// The most entries of [`map::REFUSED`]; the least recent go first.
pub const REFUSED_ENTRIES: usize = 65_536;
/// The most entries of [`map::RELAY_CLIENTS`].
pub const RELAY_ENTRIES: usize = 65_536;
/// The most entries of [`map::SERVERS`].
pub const SERVER_ENTRIES: usize = 256;
/// How many listening sockets with one address and port (`SO_REUSEPORT`) are known.
pub const SERVER_SIBLINGS: u32 = 4;
/// The most entries of [`map::MUTE`].
pub const MUTE_ENTRIES: usize = 256;
/// Bytes of the ring of events.
pub const EVENT_RING_BYTES: usize = 1 << 20;
/// Places, on each processor, for the sources that made the last events.
pub const NOTED_SLOTS: usize = 1024;

/// The most protected ports.
pub const MAX_PORTS: usize = 16;

/// An expiry that never comes.
pub const NEVER: u64 = u64::MAX;

/// Index in [`map::LISTENERS`] of the socket that takes IPv4.
pub const LISTENER_IPV4: u32 = 0;
/// Index in [`map::LISTENERS`] of the socket that takes IPv6.
pub const LISTENER_IPV6: u32 = 1;

/// Everybody meets whoever owns the port (layout front).
pub const STEER_NOBODY: u32 = 0;
/// Everybody meets the screener.
pub const STEER_STRANGERS: u32 = 1;
/// Strangers meet the screener, known-good clients the mail server.
pub const STEER_ALL: u32 = 2;

/// A bit of [`Settings::replies`]: denied clients are told so.
pub const REPLY_DENIED: u32 = 1;
/// A bit of [`Settings::replies`]: clients at their limit are told so.
pub const REPLY_LIMITED: u32 = 2;

/// The screener has been stopped: everybody meets the mail server, known-good clients as before.
pub const STEER_RELEASED: u32 = 3;

/// The mail server's listeners are not known: known-good and relayed clients go to whoever owns the port.
pub const FIND_NONE: u32 = 0;
/// Those are known that began to listen while the programs were at work: known-good clients go to them, and where there is none to the
/// screener.
pub const FIND_NEW: u32 = 1;
/// All are known: relayed clients, too, go to them or to nobody.
pub const FIND_ALL: u32 = 2;

/// The number of the text for clients at their limit.
pub const TEXT_LIMITED: u32 = 0;
/// The number of the text for denied clients whose list has none of its own; those that have follow.
pub const TEXT_DENIED: u32 = 1;

/// What the programs decide by; the only entry of [`map::CONFIG`].
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// The network namespace that this gate is for; the cgroup programs run for all of them.
    pub netns_cookie: u64,
    /// [`crate::ABI`].
    pub abi: u32,
    /// Connections of one client; 0: no limit.
    pub limit: u32,
    /// What counts as one IPv4 client: bits of the key, 96 to 128.
    pub prefix_ipv4: u32,
    /// What counts as one IPv6 client: bits of the key, 0 to 128.
    pub prefix_ipv6: u32,
    /// Events a second, for each reason on each processor.
    pub event_rate: u32,
    /// 1: decide, count and report, but turn nobody away.
    pub dry_run: u32,
    /// [`STEER_NOBODY`], [`STEER_STRANGERS`] or [`STEER_ALL`].
    pub steering: u32,
    /// 1: strangers go to the mail server while no screener listens; 0: they are refused.
    pub pass_when_down: u32,
    /// 1: [`map::PROXIES`] has entries; 0: it need not be looked at.
    pub proxies: u32,
    /// Who is told that he is turned away: [`REPLY_DENIED`], [`REPLY_LIMITED`]. The others hear nothing.
    pub replies: u32,
    /// [`FIND_NONE`], [`FIND_NEW`] or [`FIND_ALL`].
    pub find_servers: u32,
    /// The port of the mail server's listener for steered clients, host order; 0: the one that the client meant.
    pub steer_port: u32,
    /// The user, besides root, whose listeners are taken for the mail server's.
    pub steer_uid: u32,
    /// The address of the mail server's listener for steered clients; all zero: any.
    pub steer_address: IpKey,
    /// How many of `ports` are meant.
    pub port_count: u32,
    /// The protected ports, host order.
    pub ports: [u16; MAX_PORTS],
}

impl Settings {
    /// Whether `port` (host order) is protected.
    ///
    /// Four ports are compared at a time and there is one branch in the end: every packet asks this, and the verifier follows each
    /// branch through all that comes after.
    #[inline(always)]
    #[must_use]
    pub fn protects(&self, port: u16) -> bool {
        const LOWEST: u64 = 0x0001_0001_0001_0001;
        const HIGHEST: u64 = LOWEST << 15;
        let pattern = port as u64 * LOWEST;
        let [quarter_a, quarter_b, quarter_c, quarter_d] = self.quarters();
        let mut found = 0;
        found |= equal_lanes(quarter_a ^ pattern, LOWEST, HIGHEST);
        found |= equal_lanes(quarter_b ^ pattern, LOWEST, HIGHEST);
        found |= equal_lanes(quarter_c ^ pattern, LOWEST, HIGHEST);
        found |= equal_lanes(quarter_d ^ pattern, LOWEST, HIGHEST);
        // Places that are not used hold zeroes.
        found != 0 && port != 0
    }

    /// Whether listeners that this user bound are taken for the mail server's.
    #[inline(always)]
    #[must_use]
    pub const fn trusts(&self, uid: u32) -> bool {
        uid == 0 || uid == self.steer_uid
    }

    #[inline(always)]
    const fn quarters(&self) -> [u64; 4] {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = self.ports;
        [lanes(a, b, c, d), lanes(e, f, g, h), lanes(i, j, k, l), lanes(m, n, o, p)]
    }

    /// What counts as one client with this address.
    #[inline(always)]
    #[must_use]
    pub const fn client(&self, address: &IpKey) -> IpKey {
        let bits = if address.ipv4().is_some() { self.prefix_ipv4 } else { self.prefix_ipv6 };
        address.prefix(bits as u8)
    }
}

#[inline(always)]
const fn lanes(a: u16, b: u16, c: u16, d: u16) -> u64 {
    a as u64 | (b as u64) << 16 | (c as u64) << 32 | (d as u64) << 48
}

/// Not zero if any of the four lanes of `difference` is zero.
#[inline(always)]
const fn equal_lanes(difference: u64, lowest: u64, highest: u64) -> u64 {
    difference.wrapping_sub(lowest) & !difference & highest
}

/// A denied class, address or prefix.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deny {
    /// Until when; [`NEVER`] for good.
    pub expires_ns: u64,
    /// Which list says so.
    pub list: u32,
    /// The number of the text that the client gets.
    pub text: u32,
}

/// An allowed prefix, or a client that passed the tests.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Until {
    /// Until when; [`NEVER`] for good.
    pub expires_ns: u64,
}

/// A prefix in [`map::PROXIES`].
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proxy {
    /// 1: connections from there begin with a PROXY header; 0: they do not, whatever a shorter prefix says.
    pub header: u32,
}

/// The connections of a client.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Client {
    /// Established now.
    pub active: u64,
    /// Admitted SYNs that no connection came of yet, as of the last one.
    pub pending: u64,
    /// Established ever.
    pub accepted: u64,
    /// Of those, given to the mail server without screening.
    pub steered: u64,
    /// SYNs turned away at the limit.
    pub limited: u64,
    /// The last SYN, or the last connection made or ended.
    pub last_seen_ns: u64,
}

/// SYNs of a client that no connection came of yet.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HalfOpen {
    /// How many.
    pub pending: u64,
    /// When the last one was admitted.
    pub last_syn_ns: u64,
}

/// A SYN that was told to come again.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SynKey {
    /// Source address.
    pub address: IpKey,
    /// Initial sequence number, host order.
    pub sequence: u32,
    /// Source port, host order.
    pub source_port: u16,
    /// Destination port, host order.
    pub destination_port: u16,
}

/// A source that was turned away: its SYNs from the first on that made an event; in a flood, while it is one of the last [`NOTED_SLOTS`] or
/// so that made one.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Refused {
    /// SYNs turned away by a deny list.
    pub denied: u64,
    /// SYNs turned away at the limit.
    pub limited: u64,
    /// When the last one came.
    pub last_seen_ns: u64,
    /// The list that denied it last; 0: none did.
    pub list: u32,
    /// Always zero.
    pub reserved: u32,
}

/// The key of [`map::TOTALS`].
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TotalKey {
    /// Printed by name.
    pub reason: Reason,
}

/// A reason's counters on one processor.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Total {
    /// Packets (SYNs), look-ups or connections that it was the reason for.
    pub packets: u64,
    /// Events sent.
    pub events: u64,
    /// Events left out.
    pub suppressed: u64,
}

/// The tokens of a reason's events on one processor.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bucket {
    /// Events that may still be sent.
    pub tokens: u64,
    /// When tokens were added last.
    pub refilled_ns: u64,
    /// Events left out since the last one sent.
    pub suppressed: u64,
}

/// An event in the ring.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// When.
    pub time_ns: u64,
    /// [`Reason`] by number.
    pub reason: u32,
    /// The list, for [`Reason::Denied`].
    pub list: u32,
    /// Events with this reason left out before this one, on this processor.
    pub suppressed: u32,
    /// Host order.
    pub client_port: u16,
    /// Host order.
    pub server_port: u16,
    /// The client.
    pub client: IpKey,
    /// The address that it meant.
    pub server: IpKey,
}

/// An end of a relay's connection: its own address and port.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RelayKey {
    /// The relay's address.
    pub address: IpKey,
    /// The relay's port, host order.
    pub port: u32,
}

/// Whom a relay's connection speaks for.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayClient {
    /// The true client.
    pub client: IpKey,
    /// The address that it meant.
    pub server: IpKey,
    /// Its port, host order.
    pub client_port: u32,
    /// The port that it meant, host order.
    pub server_port: u32,
}

/// A listening socket of the mail server.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerKey {
    /// The address that it is bound to.
    pub address: IpKey,
    /// Its port, host order.
    pub port: u32,
    /// Which of those with this address and port.
    pub index: u32,
}

/// Which of the mail server's listeners with one address and port take nobody: their accept queues are full.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hung {
    /// Until when that holds, unless it is said again.
    pub until_ns: u64,
    /// A bit for each [`ServerKey::index`], and [`HUNG_BESIDE`].
    pub which: u32,
    /// Always zero.
    pub reserved: u32,
}

/// A bit of [`Hung::which`]: one that has no place in [`map::SERVERS`].
pub const HUNG_BESIDE: u32 = 1 << 31;

/// Who bound a socket.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// The user, as the initial user namespace numbers it.
    pub uid: u32,
}

/// The mark of a counted connection: which entry of [`map::CLIENTS`] it stands in.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// The key, which a changed prefix length does not change any more.
    pub client: IpKey,
}

impl Counted {
    /// The mark of the relay's own connections, which are no client's. No packet comes from this address, and no prefix makes it another's.
    pub const RELAY: Self = Self { client: IpKey { address: [0xff; 16] } };
}

/// What is to be added to the connections of a client, once. Entries count up to the first one that adds nothing.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Correction {
    /// The client.
    pub client: IpKey,
    /// How many; less than zero: taken away.
    pub change: i64,
}

/// Sizes are part of the ABI: a change here wants another [`crate::ABI`].
const _: () = {
    assert!(size_of::<IpKey>() == 16);
    assert!(size_of::<Settings>() == 8 + 4 * 14 + 16 + 2 * MAX_PORTS);
    assert!(size_of::<Deny>() == 16);
    assert!(size_of::<Until>() == 8);
    assert!(size_of::<Proxy>() == 4);
    assert!(size_of::<Client>() == 48);
    assert!(size_of::<HalfOpen>() == 16);
    assert!(size_of::<SynKey>() == 24);
    assert!(size_of::<Refused>() == 32);
    assert!(size_of::<TotalKey>() == 4);
    assert!(size_of::<Total>() == 24);
    assert!(size_of::<Bucket>() == 24);
    assert!(size_of::<Event>() == 56);
    assert!(size_of::<RelayKey>() == 20);
    assert!(size_of::<RelayClient>() == 40);
    assert!(size_of::<ServerKey>() == 24);
    assert!(size_of::<Hung>() == 16);
    assert!(SERVER_SIBLINGS < 31);
    assert!(size_of::<Bound>() == 4);
    assert!(size_of::<Counted>() == 16);
    assert!(size_of::<Correction>() == 24);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_the_kernel() {
        for name in map::PINNED.into_iter().chain([map::UNPROVEN, map::BUCKETS, map::NOTED, map::CORRECTIONS]) {
            assert!(name.len() <= 15, "{name}");
        }
    }

    #[test]
    fn only_the_counted_ports_are_protected() {
        let mut ports = [0; MAX_PORTS];
        ports[0] = 25;
        ports[1] = 587;
        let settings = Settings {
            netns_cookie: 1,
            abi: crate::ABI,
            limit: 0,
            prefix_ipv4: 120,
            prefix_ipv6: 64,
            event_rate: 0,
            dry_run: 0,
            steering: 0,
            pass_when_down: 0,
            proxies: 0,
            replies: 0,
            find_servers: 0,
            steer_port: 0,
            steer_uid: 0,
            steer_address: IpKey::from_ipv6([0; 16]),
            port_count: 2,
            ports,
        };
        assert!(settings.protects(25) && settings.protects(587));
        assert!(!settings.protects(0) && !settings.protects(26));
        for place in 0..MAX_PORTS {
            let mut ports = [0; MAX_PORTS];
            ports[place] = 0x8001;
            let settings = Settings { ports, ..settings };
            let protected: Vec<u16> = (0..=u16::MAX).filter(|port| settings.protects(*port)).collect();
            assert_eq!(protected, [0x8001]);
        }
        assert_eq!(settings.client(&IpKey::from_ipv4([192, 0, 2, 7])), IpKey::from_ipv4([192, 0, 2, 0]));
        let ipv6 = IpKey::from_ipv6([0x20, 1, 0xd, 0xb8, 0, 0, 0, 1, 9, 9, 9, 9, 9, 9, 9, 9]);
        assert_eq!(settings.client(&ipv6), ipv6.prefix(64));
    }
}
