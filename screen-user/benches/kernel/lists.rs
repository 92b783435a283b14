//! Lists of a million entries: how long they take to load and to change, and floods that they deny; the gate's, nftables' and ipset's.

use anyhow::Result;
use screen_user::config::KernelReply;

use crate::{
    gate::Gate,
    ground::{Ground, HOST},
    rivals::{self, Hook},
    sources::{Kind, address},
    table::Table,
    traffic::{Frame, Sources, Traffic},
};

/// Entries of each list.
const COUNT: u32 = 1_000_000;

/// Measures a list of single addresses and one of prefixes.
pub(crate) fn measure(ground: &Ground, traffic: &mut Traffic, table: &mut Table) -> Result<()> {
    for (kind, name) in [(Kind::Exact, "1,000,000 addresses"), (Kind::Prefixes, "1,000,000 prefixes")] {
        let case = Case {
            kind,
            load: format!("load {name}"),
            update: format!("replace 1 in {} of {name}", rivals::UPDATED),
            random: format!("a denied SYN, {name}, random sources"),
            one: format!("a denied SYN, {name}, one source"),
        };
        case.gate(ground, traffic, table)?;
        case.nothing(ground, traffic, table)?;
        for hook in Hook::ALL {
            case.nftables(hook, ground, traffic, table)?;
        }
        case.ipset(table)?;
    }
    Ok(())
}

/// A list, and what is measured of it.
struct Case {
    kind: Kind,
    load: String,
    update: String,
    random: String,
    one: String,
}

impl Case {
    fn gate(&self, ground: &Ground, traffic: &mut Traffic, table: &mut Table) -> Result<()> {
        // Silent, as the others drop too.
        let gate = Gate::start(KernelReply::Drop, 50, true)?;
        table.add(&self.load, "mxscreen", gate.deny(self.kind, 0..COUNT)?.as_secs_f64(), "s");
        let (told, found) = gate.update(self.kind, COUNT)?;
        table.add(&self.update, "mxscreen, told the differences", told.as_secs_f64(), "s");
        table.add(&self.update, "mxscreen, given the whole list", found.as_secs_f64(), "s");
        self.floods("mxscreen", ground, traffic, table)
    }

    /// What a frame costs before anybody looks at it.
    fn nothing(&self, ground: &Ground, traffic: &mut Traffic, table: &mut Table) -> Result<()> {
        let link = traffic.sink(HOST)?;
        let result = self.floods("an empty program", ground, traffic, table);
        traffic.detach(link)?;
        result
    }

    fn nftables(&self, hook: Hook, ground: &Ground, traffic: &mut Traffic, table: &mut Table) -> Result<()> {
        let who = format!("nftables, {}", hook.name());
        let load = rivals::load_nft(Ground::files(), hook, self.kind, COUNT)?;
        table.add(&self.load, &who, load.as_secs_f64(), "s");
        rivals::guard_nft(hook, self.kind)?;
        self.floods(&who, ground, traffic, table)?;
        rivals::release_nft(hook)?;
        // The sets are the same for all hooks; and what took too long once need not be waited for again.
        if hook == Hook::Netdev && !table.gave_up(&self.update, "nftables") {
            match rivals::update_nft(Ground::files(), hook, self.kind, COUNT)? {
                Some(time) => table.add(&self.update, "nftables", time.as_secs_f64(), "s"),
                None => table.give_up(&self.update, "nftables", rivals::PATIENCE.as_secs_f64(), "s"),
            }
        }
        rivals::forget_nft(hook)
    }

    fn ipset(&self, table: &mut Table) -> Result<()> {
        let Some((load, update)) = rivals::load_ipset(Ground::files(), self.kind, COUNT)? else {
            println!("this kernel has no ipset");
            return Ok(());
        };
        table.add(&self.load, "ipset", load.as_secs_f64(), "s");
        table.add(&self.update, "ipset", update.as_secs_f64(), "s");
        Ok(())
    }

    fn floods(&self, who: &str, ground: &Ground, traffic: &mut Traffic, table: &mut Table) -> Result<()> {
        let syn = Frame::syn(address(self.kind, 0, 0));
        table.add(&self.random, who, traffic.flood(ground, syn, Sources::Of(self.kind, COUNT))?, "ns");
        table.add(&self.one, who, traffic.flood(ground, syn, Sources::One)?, "ns");
        Ok(())
    }
}
