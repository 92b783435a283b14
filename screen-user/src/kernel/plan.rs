//! What the kernel half is asked to do.

use std::{net::SocketAddr, path::PathBuf};

use ipnet::IpNet;
use screen_common::{
    ABI,
    abi::{
        FIND_ALL, FIND_NEW, FIND_NONE, MAX_PORTS, REPLY_DENIED, REPLY_LIMITED, STEER_ALL, STEER_NOBODY,
        STEER_STRANGERS, Settings,
    },
    address::{IpKey, MAPPED_BITS},
};

use super::{KernelError, prefix::key_of};
use crate::config::{ClientPrefix, Config, KernelReply, Layout, ScreenerDown, Steer, XdpMode};

/// What the kernel half is asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The protected ports, 1 to 16 of them.
    pub ports: Vec<u16>,
    /// Interfaces that XDP attaches to; empty: those with a global address.
    pub interfaces: Vec<String>,
    /// How XDP attaches.
    pub xdp: XdpMode,
    /// Who owns the protected port.
    pub layout: Layout,
    /// Whether known-good clients reach the mail server in the kernel.
    pub steer: Steer,
    /// Layout front: the mail server's listener for known-good clients; none: they meet the screener like everybody.
    pub steer_to: Option<SocketAddr>,
    /// The user, besides root, whose listeners are taken for the mail server's.
    pub steer_uid: u32,
    /// Unknown clients while no screener listens.
    pub on_screener_down: ScreenerDown,
    /// Connections of one client; 0: no limit.
    pub limit: u32,
    /// What counts as one client.
    pub client_prefix: ClientPrefix,
    /// Sources whose connections begin with a PROXY header, 4,096 at most. They are never judged as clients, and never meet the mail
    /// server directly.
    pub proxies: Vec<IpNet>,
    /// What a deny-listed client gets.
    pub deny_reply: KernelReply,
    /// What a client over its limit gets.
    pub limit_reply: KernelReply,
    /// Decide, count and report, but turn nobody away.
    pub dry_run: bool,
    /// Where maps and links are pinned, below a BPF file system.
    pub pin_path: PathBuf,
    /// Events a second, for each reason on each processor.
    pub event_rate: u32,
    /// Debug messages of the programs, through aya-log to tracing. They cost time on every SYN.
    pub debug: bool,
}

impl Plan {
    /// The events that one reason may make on one processor in a second, unless a plan says otherwise.
    pub const EVENT_RATE: u32 = 500;

    /// The plan of a configuration.
    #[must_use]
    pub fn from_config(config: &Config) -> Self {
        Self {
            ports: config.ports.clone(),
            interfaces: config.kernel.interfaces.clone(),
            xdp: config.kernel.xdp,
            layout: config.layout,
            steer: config.kernel.steer,
            steer_to: config.forward.steer_to,
            steer_uid: config.forward.steer_uid,
            on_screener_down: config.kernel.on_screener_down,
            limit: config.policy.limits.client_connections,
            client_prefix: config.policy.limits.client_prefix,
            proxies: config.proxy_protocol.from.clone(),
            deny_reply: config.kernel.deny_reply,
            limit_reply: config.kernel.limit_reply,
            dry_run: config.policy.dry_run,
            pin_path: config.kernel.pin_path.clone(),
            event_rate: Self::EVENT_RATE,
            debug: tracing::enabled!(target: "mxscreen_kernel", tracing::Level::DEBUG),
        }
    }

    /// What the programs decide by.
    pub(super) fn settings(&self, netns_cookie: u64, finds_servers: bool) -> Result<Settings, KernelError> {
        if self.ports.is_empty() || self.ports.len() > MAX_PORTS {
            return Err(KernelError::Plan(format!(
                "{} protected ports; it must be 1 to {MAX_PORTS}",
                self.ports.len()
            )));
        }
        if self.client_prefix.ipv4 > 32 || self.client_prefix.ipv6 > 128 {
            return Err(KernelError::Plan(format!(
                "client prefixes /{} and /{} are longer than addresses",
                self.client_prefix.ipv4, self.client_prefix.ipv6
            )));
        }
        let mut ports = [0; MAX_PORTS];
        for (place, port) in ports.iter_mut().zip(&self.ports) {
            *place = *port;
        }
        Ok(Settings {
            netns_cookie,
            abi: ABI,
            limit: self.limit,
            prefix_ipv4: u32::from(MAPPED_BITS + self.client_prefix.ipv4),
            prefix_ipv6: u32::from(self.client_prefix.ipv6),
            event_rate: self.event_rate,
            dry_run: u32::from(self.dry_run),
            steering: match (self.layout, self.steer) {
                (Layout::Front, _) if self.steer_to.is_none() => STEER_NOBODY,
                (Layout::Front, Steer::Off) => STEER_NOBODY,
                (Layout::Front, Steer::Auto | Steer::On) => STEER_ALL,
                (Layout::InPlace, Steer::Off) => STEER_STRANGERS,
                (Layout::InPlace, Steer::Auto | Steer::On) => STEER_ALL,
            },
            pass_when_down: u32::from(self.on_screener_down == ScreenerDown::Pass || self.dry_run),
            proxies: u32::from(!self.proxies.is_empty()),
            replies: [(self.deny_reply, REPLY_DENIED), (self.limit_reply, REPLY_LIMITED)]
                .into_iter()
                .filter_map(|(reply, bit)| (reply == KernelReply::Reject).then_some(bit))
                .sum(),
            find_servers: match (finds_servers, self.layout) {
                (true, _) => FIND_ALL,
                (false, Layout::Front) => FIND_NEW,
                (false, Layout::InPlace) => FIND_NONE,
            },
            steer_port: self.steer_to.map_or(0, |address| u32::from(address.port())),
            steer_uid: self.steer_uid,
            steer_address: match self.steer_to.map(|address| address.ip().to_canonical()) {
                Some(address) if !address.is_unspecified() => key_of(address),
                _ => IpKey::from_ipv6([0; 16]),
            },
            port_count: self.ports.len() as u32,
            ports,
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::kernel) fn plan() -> Plan {
        Plan {
            ports: vec![25],
            interfaces: Vec::new(),
            xdp: XdpMode::Auto,
            layout: Layout::InPlace,
            steer: Steer::Auto,
            steer_to: None,
            steer_uid: 0,
            on_screener_down: ScreenerDown::Refuse,
            limit: 50,
            client_prefix: ClientPrefix { ipv4: 32, ipv6: 64 },
            proxies: Vec::new(),
            deny_reply: KernelReply::Drop,
            limit_reply: KernelReply::Drop,
            dry_run: false,
            pin_path: PathBuf::from("/sys/fs/bpf/mxscreen"),
            event_rate: Plan::EVENT_RATE,
            debug: false,
        }
    }

    #[test]
    fn settings_say_what_the_plan_says() {
        let settings = plan().settings(7, true).unwrap();
        assert_eq!((settings.prefix_ipv4, settings.prefix_ipv6, settings.limit), (128, 64, 50));
        assert_eq!((settings.netns_cookie, settings.steering, settings.pass_when_down), (7, STEER_ALL, 0));
        assert!(settings.protects(25) && !settings.protects(0));
        let front = Plan { layout: Layout::Front, ..plan() };
        assert_eq!(front.settings(7, true).unwrap().steering, STEER_NOBODY);
        let dry = Plan { dry_run: true, ..plan() }.settings(7, true).unwrap();
        assert_eq!((dry.dry_run, dry.pass_when_down), (1, 1), "nobody is refused, not even while no screener listens");
    }

    #[test]
    fn impossible_plans_are_refused() {
        for bad in [
            Plan { ports: Vec::new(), ..plan() },
            Plan { ports: vec![25; MAX_PORTS + 1], ..plan() },
            Plan { client_prefix: ClientPrefix { ipv4: 33, ipv6: 64 }, ..plan() },
        ] {
            assert_eq!(bad.settings(1, true).unwrap_err().exit_code(), 64);
        }
    }
}
