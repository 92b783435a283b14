//! Records of postscreen's cache, as `postmap -s` prints them (spec 6.1).

use std::net::IpAddr;

use crate::{
    config::ClientPrefix,
    screen::record::{Client, Finding, Grounds, Record, Stamp, Test},
    share::{HostId, Version},
};

/// The key under which postscreen keeps when it has last cleaned up (spec 6.4).
const CLEANUP: &str = "_LAST_CACHE_CLEANUP_COMPLETED_";

/// What a line holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// A client's record.
    Record(Client, Record),
    /// Something of postscreen's own.
    Else,
}

/// What a line of `postmap -s` holds: an address, white space, five stamps. Of addresses in one `prefix` the longest pass of each test will count.
///
/// # Errors
/// It is no such line; the text says why.
pub fn read(line: &str, prefix: ClientPrefix) -> Result<Held, String> {
    let (key, stamps) =
        line.split_once(['\t', ' ']).ok_or("no line of postscreen's cache: an address and its stamps")?;
    // `postmap` writes keys in small letters.
    if key.eq_ignore_ascii_case(CLEANUP) {
        return Ok(Held::Else);
    }
    let address: IpAddr = key.parse().map_err(|_| format!("{key:?} is no address"))?;
    let mut known = [Stamp::NEVER; 5];
    let mut fields = stamps.trim().split(';');
    let mut junk = false;
    for stamp in &mut known {
        *stamp = match fields.next() {
            _ if junk => Stamp::DISABLED,
            Some("") => Stamp::NEVER,
            field => field.and_then(|field| field.parse().ok()).map_or_else(
                || {
                    junk = true;
                    Stamp::DISABLED
                },
                Stamp,
            ),
        };
    }
    let mut record = Record::of_stamps(known);
    for (test, stamp) in Test::ALL.into_iter().zip(known) {
        if stamp.is_pass() {
            // Whatever else is known of the client was learnt later.
            let finding = Finding { version: Version::OLDEST, stamp, grounds: Grounds::Postscreen };
            record.set(test, finding, HostId::THIS);
        }
    }
    if !record.has_pass() {
        return Err("it holds no pass".to_owned());
    }
    Ok(Held::Record(Client::of(address, prefix), record))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFIX: ClientPrefix = ClientPrefix { ipv4: 32, ipv6: 64 };

    fn stamps(line: &str) -> (String, [u64; 5]) {
        match read(line, PREFIX) {
            Ok(Held::Record(client, record)) => (client.net().to_string(), Test::ALL.map(|test| record.stamp(test).0)),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn lines_are_read_as_postscreen_reads_them() {
        let v4 = |stamps| ("192.0.2.1/32".to_owned(), stamps);
        assert_eq!(stamps("192.0.2.1\t1795446974;1;0;0;0"), v4([1_795_446_974, 1, 0, 0, 0]));
        assert_eq!(stamps("192.0.2.1 1795446974;1795446975"), v4([1_795_446_974, 1_795_446_975, 1, 1, 1]));
        assert_eq!(stamps("192.0.2.1\t9;;7;x;8"), v4([9, 0, 7, 1, 1]), "junk spoils what follows");
        assert_eq!(stamps("192.0.2.1\t9;8;7;6;5;4"), v4([9, 8, 7, 6, 5]));
        assert_eq!(stamps("2001:db8::1\t9;1;1;1;1").0, "2001:db8::/64");
    }

    #[test]
    fn what_is_learnt_later_counts_more() {
        let Ok(Held::Record(_, record)) = read("192.0.2.1\t1795446974;1;0;0;0", PREFIX) else { panic!("no record") };
        let finding = record.finding(Test::Pregreet);
        assert_eq!((finding.version, finding.grounds), (Version::OLDEST, Grounds::Postscreen));
        assert_eq!(record.finding(Test::Dnsbl).version, Version::NONE);
    }

    #[test]
    fn other_lines_are_told_apart() {
        assert_eq!(read("_LAST_CACHE_CLEANUP_COMPLETED_\t1795446974", PREFIX), Ok(Held::Else));
        assert_eq!(read("_last_cache_cleanup_completed_\t1795446974", PREFIX), Ok(Held::Else));
        for (line, expected) in
            [("192.0.2.1", "no line"), ("mx.example.test\t9;9;9;9;9", "is no address"), ("192.0.2.1\t0;1", "no pass")]
        {
            let error = read(line, PREFIX).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
