//! Whatever hosts hear, in whatever order and how often: those that have heard the same know the same.

use std::time::Duration;

use ipnet::IpNet;
use proptest::prelude::*;

use super::*;
use crate::{
    access::runtime::{Entry, Kind, Offence, Origin, RuntimeLists},
    config::{Config, load_text},
    screen::{
        Screen,
        record::{Client, Finding, Grounds, Record, Stamp, Test},
    },
};

/// Something that a host hears of.
#[derive(Debug, Clone)]
enum Word {
    Record(Client, Record),
    Entry(Entry),
    Forget(IpNet, Version),
}

/// What a host says that it knows.
#[derive(Debug, PartialEq)]
struct Known {
    records: Vec<(Client, Vec<Finding>)>,
    entries: Vec<Entry>,
    forgets: Vec<(IpNet, Version)>,
}

/// What a host knows, without its kernel and its store.
struct Host {
    screen: Screen,
    lists: RuntimeLists,
}

impl Host {
    fn hears(&mut self, word: &Word) {
        match word {
            Word::Record(client, record) => drop(self.screen.learn(*client, record)),
            Word::Entry(entry) => {
                if self.screen.forgets().of(entry.net) < entry.version {
                    self.lists.insert(entry.clone());
                }
            }
            Word::Forget(net, version) => {
                self.screen.forget(*net, *version);
                self.lists.forget(*net, *version);
            }
        }
    }

    fn knows(&self) -> Known {
        let findings = |record: Record| Test::ALL.map(|test| record.finding(test)).to_vec();
        let mut records: Vec<_> =
            self.screen.records().into_iter().map(|(client, record)| (client, findings(record))).collect();
        records.sort();
        let mut forgets: Vec<_> = self.screen.forgets().iter().collect();
        forgets.sort();
        Known { records, entries: self.lists.iter().cloned().collect(), forgets }
    }
}

fn net() -> impl Strategy<Value = IpNet> {
    (0..4_u8, prop::sample::select(vec![30_u8, 31, 32]))
        .prop_map(|(last, length)| IpNet::new([192, 0, 2, last].into(), length).unwrap().trunc())
}

fn word() -> impl Strategy<Value = Word> {
    let finding = (1..12_u64, 0..4_u64, prop::sample::select(Grounds::ALL.to_vec()))
        .prop_map(|(version, stamp, grounds)| Finding { version: Version(version), stamp: Stamp(stamp), grounds });
    let record = (0..4_u8, prop::collection::vec((prop::sample::select(Test::ALL.to_vec()), finding), 1..4)).prop_map(
        |(last, findings)| {
            let mut record = Record::default();
            findings.into_iter().for_each(|(test, finding)| record.set(test, finding, HostId::THIS));
            Word::Record(Client { address: [192, 0, 2, last].into(), prefix_len: 32 }, record)
        },
    );
    let kinds = vec![(Kind::Allow, Origin::Operator), (Kind::Deny, Origin::Operator), (Kind::Deny, Origin::Failure)];
    let offence = (0..3_u32, 40..60_u64).prop_map(|(failures, until)| Offence { failures, until });
    let about = (prop::option::of(50..53_u64), "[ab]", prop::option::of(offence));
    let entry = (net(), prop::sample::select(kinds), 1..12_u64, about).prop_map(
        |(net, (kind, origin), version, (until, host, offence))| {
            let version = Version(version);
            Word::Entry(Entry { net, kind, until, reason: String::new(), origin, version, host, offence })
        },
    );
    let forget = (net(), 1..12_u64).prop_map(|(net, version)| Word::Forget(net, Version(version)));
    prop_oneof![3 => record, 3 => entry, 2 => forget]
}

fn config() -> Config {
    load_text("", std::path::Path::new("mxscreen.toml"), &[]).unwrap().config
}

/// A host that has heard `words`.
fn host<'w>(words: impl IntoIterator<Item = &'w Word>) -> Host {
    let mut host = Host { screen: Screen::new(config().policy), lists: RuntimeLists::default() };
    words.into_iter().for_each(|word| host.hears(word));
    host
}

proptest! {
    #[test]
    fn order_and_repetition_make_no_difference(
        (words, other) in prop::collection::vec(word(), 1..12).prop_flat_map(|words| {
            let twice = [words.clone(), words.clone()].concat();
            (Just(words), Just(twice).prop_shuffle())
        })
    ) {
        prop_assert_eq!(host(&words).knows(), host(&other).knows());
    }

    /// A host that has missed words is told what another one knows, as registers, and knows the same then.
    #[test]
    fn what_was_missed_is_made_up_for_by_registers(words in prop::collection::vec(word(), 1..12), missed in any::<u16>()) {
        let hosts = Hosts::new("mx1");
        let all = host(&words);
        let mut late = host(words.iter().enumerate().filter(|(place, _)| missed & 1 << (place % 16) == 0).map(|(_, word)| word));
        let Known { records, entries, forgets } = all.knows();
        for (client, _) in records {
            let item = form::of_record(&all.screen.record(client).unwrap(), Duration::from_secs(60), &hosts);
            let item = Item::from_bytes(&item.to_bytes()).unwrap();
            late.hears(&Word::Record(client, form::to_record(&item, &hosts)));
        }
        for entry in entries {
            let item = Item::from_bytes(&form::of_entry(&entry).unwrap().to_bytes()).unwrap();
            late.hears(&Word::Entry(form::to_entry(&item).unwrap()));
        }
        for (net, version) in forgets {
            late.hears(&Word::Forget(net, form::of_forget(version, "mx1").version()));
        }
        let all = all.knows();
        let late = late.knows();
        prop_assert_eq!(late.entries, all.entries);
        prop_assert_eq!(late.forgets, all.forgets);
        // What is no finding does not travel.
        let found = |records: Vec<(Client, Vec<Finding>)>| -> Vec<(Client, Vec<Finding>)> {
            let plain = |finding: Finding| if finding.version == Version::NONE { Finding::default() } else { finding };
            records.into_iter().map(|(client, findings)| (client, findings.into_iter().map(plain).collect())).collect()
        };
        prop_assert_eq!(found(late.records), found(all.records));
    }
}
