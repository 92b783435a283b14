//! What gates are given to know.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    ops::Range,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use screen_tests::gate::Settings;
use screen_user::{
    cache::{StateFile, Store},
    config,
    screen::record::{Client, Finding, Grounds, Record, Stamp, Test},
    share::{HostId, Hosts, Key, Version, exchange, form},
};

/// Records that the store takes before they are written; its queue has a bound.
const WRITTEN_AT_ONCE: u32 = 100_000;

/// How long a record is worth keeping after its last pass has ended.
const RETENTION: Duration = Duration::from_secs(7 * 86_400);

/// A client that no other number has.
fn client(number: u32) -> Client {
    // Steps that have no factor in common with the number of places reach all of them, out of order.
    let place = (u64::from(number) * 7_368_787 % (1 << 24)) as u32;
    Client { address: IpAddr::V4(Ipv4Addr::from_bits(0x0b00_0000 + place)), prefix_len: 32 }
}

/// Of a client that has passed every test just now.
fn record() -> Record {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let version = Version::at(u64::try_from(now.as_millis()).unwrap());
    let stamp = Stamp::until(now.as_secs(), Duration::from_secs(7 * 86_400));
    let mut record = Record::default();
    for test in Test::ALL {
        record.set(test, Finding { version, stamp, grounds: Grounds::Taken }, HostId::THIS);
    }
    record
}

/// Has a gate that does not run find so many records in its file.
pub(crate) fn fill(settings: &Settings, host: &str, count: u32) {
    let path = settings.write();
    let cache = config::load_text(&fs::read_to_string(&path).unwrap(), &path, &[]).unwrap().config.cache;
    let opened = Store::open(&cache, StateFile::within(&settings.state()), Arc::new(Hosts::new(host)));
    assert_eq!(opened.complaint, None);
    let record = record();
    for number in 0..count {
        opened.store.remember(client(number), record);
        if number % WRITTEN_AT_ONCE == 0 {
            opened.store.flush();
        }
    }
    opened.store.flush();
    assert_eq!(opened.store.status().lost, 0);
}

/// Records as `mxscreen cache import` takes them.
pub(crate) fn lines(host: &str, numbers: Range<u32>) -> String {
    let hosts = Hosts::new(host);
    let item = form::of_record(&record(), RETENTION, &hosts);
    let mut text = exchange::HEAD.to_owned() + "\n";
    for number in numbers {
        text += &exchange::line(&Key::Record(client(number)), &item, &hosts).unwrap();
        text.push('\n');
    }
    text
}
