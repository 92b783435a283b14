//! The access list without its order, for tables that have none: those of the kernel.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv6Net};

use super::{
    list::{AccessList, RuleId, Verdict},
    segments::{self, Number},
};

/// Most prefixes that [`AccessList::compile`] yields.
pub const PREFIX_LIMIT: usize = 1_000_000;

/// What an access list says, as disjoint prefixes: each address is in at most one of them, in any order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Compiled {
    /// Clients that the list permits.
    pub permits: Vec<IpNet>,
    /// Clients that the list rejects, and by which rule ([`AccessList::place`]).
    pub rejects: Vec<(IpNet, RuleId)>,
    /// Whether that is all that the list says. If not, the cap was reached: every prefix here is right, but what the list says
    /// of other addresses is known to [`AccessList::decide`] only.
    pub exact: bool,
}

/// The IPv6 form of IPv4 addresses. Nobody comes from there, as clients are known by the IPv4 form; to the kernel's tables the two are
/// the same, so that a rule of one family must not get there as a network of the other.
const MAPPED: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96);

/// A verdict and its rule.
type Answer = (Verdict, Option<RuleId>);

impl AccessList {
    /// What the list says as disjoint prefixes, at most [`PREFIX_LIMIT`] of them.
    #[must_use]
    pub fn compile(&self) -> Compiled {
        self.compile_up_to(PREFIX_LIMIT)
    }

    /// As [`AccessList::compile`], with another limit.
    #[must_use]
    pub fn compile_up_to(&self, limit: usize) -> Compiled {
        let mut out = Compiled { exact: true, ..Compiled::default() };
        let v4: Vec<u32> = self.indices().flat_map(|index| index.v4.edges()).collect();
        self.gather(
            v4,
            |address| IpAddr::V4(Ipv4Addr::from_bits(address)),
            |decision, first, last| {
                out.add(decision, segments::networks_v4(first, last), limit);
            },
        );
        let v6: Vec<u128> = self.indices().flat_map(|index| index.v6.edges()).collect();
        self.gather(
            v6,
            |address| IpAddr::V6(Ipv6Addr::from_bits(address)),
            |decision, first, last| {
                out.add(decision, segments::networks_v6(first, last), limit);
            },
        );
        out
    }

    /// Calls `each` for the longest ranges within which the list gives one and the same answer.
    fn gather<N: Number + Default>(
        &self,
        mut edges: Vec<N>,
        address: impl Fn(N) -> IpAddr,
        mut each: impl FnMut(Answer, N, N),
    ) {
        edges.push(N::default());
        edges.sort_unstable();
        edges.dedup();
        let mut current: Option<(Answer, N)> = None;
        for edge in edges {
            let decision = self.decide_literally(address(edge));
            match current {
                Some((before, _)) if same(before, decision) => {}
                Some((before, first)) => {
                    if let Some(last) = edge.previous() {
                        each(before, first, last);
                    }
                    current = Some((decision, edge));
                }
                None => current = Some((decision, edge)),
            }
        }
        if let Some((decision, first)) = current {
            each(decision, first, N::LAST);
        }
    }
}

/// Whether two answers need not be told apart: which rule it was matters for rejects only.
fn same(a: Answer, b: Answer) -> bool {
    a.0 == b.0 && (a.0 != Verdict::Reject || a.1 == b.1)
}

impl Compiled {
    fn add(&mut self, decision: Answer, networks: impl Iterator<Item = IpNet>, limit: usize) {
        if matches!(decision.0, Verdict::Undecided) {
            return;
        }
        for net in networks.filter(|net| !matches!(net, IpNet::V6(net) if MAPPED.contains(net))) {
            if self.permits.len() + self.rejects.len() >= limit {
                self.exact = false;
                return;
            }
            match decision {
                (Verdict::Permit, _) => self.permits.push(net),
                (Verdict::Reject, Some(rule)) => self.rejects.push((net, rule)),
                (Verdict::Reject, None) | (Verdict::Undecided, _) => {}
            }
        }
    }
}
