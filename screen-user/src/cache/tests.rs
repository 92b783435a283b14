use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use tempfile::{TempDir, tempdir};

use super::{disk::FILE_NAME, *};
use crate::{
    screen::record::{Finding, Grounds, Stamp, Test},
    share::Version,
};

const NOW: u64 = 1_800_000_000;
const DAY: u64 = 86_400;

/// Longer than any test: batches are written when a test says so.
const NEVER: Rhythm = Rhythm { batch: Duration::from_secs(3_600), reopen: Duration::from_secs(3_600) };

fn embedded() -> Cache {
    Cache { backend: CacheBackend::Embedded, retention: Duration::from_secs(7 * DAY), host: "mx1".to_owned() }
}

fn hosts() -> Arc<Hosts> {
    Arc::new(Hosts::new("mx1"))
}

fn on(directory: &Path) -> Box<dyn Disk> {
    Box::new(StateFile::within(directory))
}

/// What a store has, its records read.
struct Found {
    store: Store,
    records: Vec<(Client, Record)>,
    entries: Vec<(String, Vec<u8>)>,
    complaint: Option<String>,
}

fn open(directory: &TempDir) -> Found {
    open_in(directory.path(), &embedded(), NEVER)
}

fn open_in(directory: &Path, config: &Cache, rhythm: Rhythm) -> Found {
    let Opened { store, records: mut kept, entries, mut complaint } =
        Store::open_at(config, on(directory), hosts(), NOW, rhythm);
    let mut records = Vec::new();
    while let Some(part) = kept.wait_next() {
        match part {
            Ok(some) => records.extend(some),
            Err(why) => complaint = Some(why),
        }
    }
    Found { store, records, entries, complaint }
}

fn v4(number: u32) -> Client {
    Client { address: IpAddr::V4(Ipv4Addr::from(number)), prefix_len: 32 }
}

fn v6(text: &str, prefix_len: u8) -> Client {
    Client { address: IpAddr::V6(text.parse().unwrap()), prefix_len }
}

/// A record whose first test's pass ends at `until`.
fn until(until: u64) -> Record {
    Record::of_stamps([Stamp(until), Stamp::DISABLED, Stamp::NEVER, Stamp::NEVER, Stamp::NEVER])
}

fn sorted(mut records: Vec<(Client, Record)>) -> Vec<(Client, Record)> {
    records.sort_by_key(|(client, _)| *client);
    records
}

#[test]
fn keys_and_values_come_back() {
    let mapped = Client { address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 0)), prefix_len: 24 };
    let all = [v4(0), v4(u32::MAX), mapped, v6("::", 0), v6("2001:db8::", 64), v6("2001:db8::1", 128), v6("::", 96)];
    for client in all {
        assert_eq!(codec::client(&codec::key(client)), Some(client), "{client:?}");
    }
    let everybody = Client { address: IpAddr::V4(Ipv4Addr::UNSPECIFIED), prefix_len: 0 };
    assert_eq!(codec::client(&codec::key(everybody)), Some(everybody));
    assert_eq!(codec::client(&[0xff; codec::KEY]), None);

    let hosts = Hosts::new("mx1.example.test");
    let stamps = [0, 1, u64::MAX, NOW, 2].map(Stamp);
    let mut record = Record::of_stamps(stamps);
    let finding = Finding { version: Version::at(NOW), stamp: Stamp(NOW), grounds: Grounds::Postscreen };
    record.set(Test::BareNewline, finding, hosts.id("mx2.example.test"));
    let value = codec::value(&record, &hosts);
    assert_eq!(codec::record(&value, &hosts), Some(record));
    let findings = value.len() - "mx2.example.test".len();
    for length in 0..findings {
        assert_eq!(codec::record(&value[..length], &hosts), None);
    }
    let mut no_grounds = value.clone();
    no_grounds[findings - 1] = u8::MAX;
    assert_eq!(codec::record(&no_grounds, &hosts), None);

    // As a version wrote them that knew stamps alone.
    let alone: Vec<u8> = [1].into_iter().chain(stamps.iter().flat_map(|stamp| stamp.0.to_le_bytes())).collect();
    assert_eq!(codec::record(&alone, &hosts), Some(Record::of_stamps(stamps)));
    assert_eq!(codec::record(&[3; 86], &hosts), None, "a later version");
}

#[test]
fn memory_keeps_nothing() {
    let directory = tempdir().unwrap();
    let config = Cache { backend: CacheBackend::Memory, ..embedded() };
    let opened = Store::open(&config, StateFile::within(directory.path()), hosts());
    opened.store.remember(v4(1), until(NOW));
    opened.store.keep_entry("deny", b"{}".to_vec());
    opened.store.flush();
    assert_eq!(opened.store.status(), StoreStatus::default());
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn what_was_learnt_outlives_the_store() {
    let directory = tempdir().unwrap();
    let opened = open(&directory);
    assert_eq!((opened.records.len(), opened.entries.len(), opened.complaint), (0, 0, None));
    let network = v6("2001:db8::", 64);
    opened.store.remember(v4(1), until(NOW + 5));
    opened.store.remember(v4(2), until(NOW + 5));
    opened.store.remember(network, until(NOW + 6));
    opened.store.remember(v4(1), until(NOW + 7));
    opened.store.forget(v4(2));
    opened.store.keep_entry("a", b"{\"reason\":\"one\"}".to_vec());
    opened.store.keep_entry("b", b"{}".to_vec());
    opened.store.drop_entry("b");
    assert_eq!(opened.store.status().pending, 5, "one change a client and a key");
    drop(opened.store);

    let opened = open(&directory);
    assert_eq!(sorted(opened.records), [(v4(1), until(NOW + 7)), (network, until(NOW + 6))]);
    assert_eq!(opened.entries, [("a".to_owned(), b"{\"reason\":\"one\"}".to_vec())]);
    assert_eq!(opened.complaint, None);
    opened.store.forget(v4(1));
    opened.store.drop_entry("a");
    drop(opened.store);
    let opened = open(&directory);
    assert_eq!((opened.records, opened.entries.len()), (vec![(network, until(NOW + 6))], 0));
}

#[test]
fn a_flush_writes_what_is_queued() {
    let directory = tempdir().unwrap();
    let opened = open(&directory);
    opened.store.remember(v4(1), until(NOW));
    opened.store.flush();
    let status = opened.store.status();
    assert_eq!((status.pending, status.written, status.lost, status.failing), (0, 1, 0, None));
    opened.store.flush();
    assert_eq!(opened.store.status().written, 1, "nothing new");
}

#[test]
fn batches_are_written_by_themselves() {
    let directory = tempdir().unwrap();
    let opened = open_in(directory.path(), &embedded(), Rhythm { batch: Duration::from_millis(1), ..NEVER });
    opened.store.remember(v4(1), until(NOW));
    while opened.store.status().written == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(opened.store.status().pending, 0);
}

#[test]
fn a_killed_gate_loses_the_last_batch_at_most() {
    let directory = tempdir().unwrap();
    let opened = open(&directory);
    opened.store.remember(v4(1), until(NOW));
    opened.store.flush();
    opened.store.remember(v4(2), until(NOW));
    // The file as the disk has it while the process still runs: no clean end.
    let other = tempdir().unwrap();
    fs::copy(directory.path().join(FILE_NAME), other.path().join(FILE_NAME)).unwrap();
    let reopened = open(&other);
    assert_eq!((reopened.records, reopened.complaint), (vec![(v4(1), until(NOW))], None));
}

#[test]
fn records_past_their_retention_leave_the_file() {
    let directory = tempdir().unwrap();
    let opened = open(&directory);
    let edge = NOW - 7 * DAY;
    opened.store.remember(v4(1), until(edge));
    opened.store.remember(v4(2), until(edge - 1));
    opened.store.remember(v4(3), Record::default());
    opened.store.remember(v4(4), Record::of_stamps([edge - 1, NOW, 0, 1, 0].map(Stamp)));
    drop(opened.store);
    let opened = open(&directory);
    let kept: Vec<_> = sorted(opened.records).into_iter().map(|(client, _)| client).collect();
    assert_eq!(kept, [v4(1), v4(4)]);
    drop(opened.store);
    let longer = Cache { retention: Duration::from_secs(70 * DAY), ..embedded() };
    let opened = open_in(directory.path(), &longer, NEVER);
    assert_eq!(opened.records.len(), 2, "they are gone from the file too");
}

#[test]
fn what_is_learnt_of_a_client_while_its_old_record_is_read_stays() {
    let directory = tempdir().unwrap();
    let opened = open(&directory);
    let old = until(NOW - 8 * DAY);
    opened.store.remember(v4(1), old);
    opened.store.remember(v4(2), old);
    drop(opened.store);
    // Its records have been read, and both are found to be old; nothing was written yet.
    let opened = open(&directory);
    assert_eq!(opened.records, []);
    opened.store.remember(v4(2), until(NOW));
    drop(opened.store);
    let (_, unread) = open_unread(&directory);
    assert_eq!(unread, 1, "the other one has left the file");
    assert_eq!(open(&directory).records, [(v4(2), until(NOW))]);
}

/// Opens a store whose records nobody reads; returns how many the file has.
fn open_unread(directory: &TempDir) -> (Store, usize) {
    let Opened { store, records, .. } = Store::open_at(&embedded(), on(directory.path()), hosts(), NOW, NEVER);
    (store, records.len())
}

#[test]
fn records_that_nobody_wants_any_more_stay_in_the_file() {
    let directory = tempdir().unwrap();
    let opened = open(&directory);
    (0..20_000).for_each(|number| opened.store.remember(v4(number), until(NOW)));
    drop(opened.store);
    let Opened { store, mut records, .. } = Store::open_at(&embedded(), on(directory.path()), hosts(), NOW, NEVER);
    assert!(!records.wait_next().unwrap().unwrap().is_empty());
    // The thread waits for somebody to take the next ones.
    drop(records);
    store.remember(v4(0), until(NOW + 1));
    store.close();
    let opened = open(&directory);
    assert_eq!((opened.complaint, opened.records.len()), (None, 20_000));
}

/// A file with a thousand records and an entry.
fn filled() -> (TempDir, Vec<u8>) {
    let directory = tempdir().unwrap();
    let opened = open(&directory);
    for number in 0..1_000 {
        opened.store.remember(v4(number), until(NOW));
    }
    opened.store.keep_entry("deny", b"{}".to_vec());
    drop(opened.store);
    let bytes = fs::read(directory.path().join(FILE_NAME)).unwrap();
    (directory, bytes)
}

/// The gate starts with this file, and what it learns then is kept.
fn survives(bytes: &[u8], what: &str) -> Found {
    let directory = tempdir().unwrap();
    fs::write(directory.path().join(FILE_NAME), bytes).unwrap();
    let opened = open(&directory);
    let known = opened.records.len();
    assert!(known <= 1_000, "{what}");
    assert!(known == 1_000 || opened.complaint.is_some() || bytes.is_empty(), "{what}: lost without a word");
    let newcomer = v4(u32::MAX);
    opened.store.remember(newcomer, until(NOW + 1));
    opened.store.flush();
    assert_eq!(opened.store.status().failing, None, "{what}");
    let Found { store, records, entries, complaint } = opened;
    drop(store);
    let again = open(&directory);
    assert_eq!((again.records.len(), again.complaint), (known + 1, None), "{what}");
    Found { store: again.store, records, entries, complaint }
}

#[test]
fn a_truncated_file_costs_nothing_but_knowledge() {
    let (_directory, bytes) = filled();
    let length = bytes.len();
    for keep in [0, 1, 9, 64, 320, 4_095, 4_096, 5_000, length / 4, length / 2, length - 4_096, length - 1] {
        survives(&bytes[..keep], &format!("{keep} of {length} bytes"));
    }
}

#[test]
fn flipped_bytes_cost_nothing_but_knowledge() {
    let (_directory, bytes) = filled();
    // The same places in every run: a linear congruential generator.
    let mut state = 1_u64;
    for round in 0..40 {
        let mut damaged = bytes.clone();
        for _ in 0..=round % 4 * 20 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // Half of them in the first pages, where the structure is.
            let span = if state & 1 == 0 { damaged.len() } else { 8_192 };
            let place = usize::try_from(state >> 33).unwrap() % span;
            damaged[place] ^= u8::try_from(state >> 24 & 0xff).unwrap() | 1;
        }
        survives(&damaged, &format!("round {round}"));
    }
}

#[test]
fn a_file_of_something_else_is_put_aside_and_few_are_kept() {
    let directory = tempdir().unwrap();
    let path = directory.path().join(FILE_NAME);
    for round in 1..=5 {
        fs::write(&path, format!("this is no database, round {round}").repeat(300)).unwrap();
        let opened = open(&directory);
        let complaint = opened.complaint.unwrap();
        assert!(complaint.contains("put aside as") && complaint.contains("started empty"), "{complaint}");
    }
    let mut names: Vec<_> = fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let aside = [1, 2, 3].map(|number| format!("{FILE_NAME}.damaged-{number}"));
    assert_eq!(names, [&[FILE_NAME.to_owned()], aside.as_slice()].concat());
    let newest = fs::read_to_string(directory.path().join(&aside[2])).unwrap();
    assert!(newest.contains("round 5"), "the highest number is the newest");
}

#[test]
fn a_file_of_another_version_is_put_aside() {
    let directory = tempdir().unwrap();
    let path = directory.path().join(FILE_NAME);
    let database = redb::Database::create(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    let meta: redb::TableDefinition<'_, &str, u64> = redb::TableDefinition::new("meta");
    transaction.open_table(meta).unwrap().insert("format", 99).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let opened = open(&directory);
    assert!(opened.complaint.unwrap().contains("format 99"));
    assert!(directory.path().join(format!("{FILE_NAME}.damaged-1")).exists());
}

#[test]
fn a_file_in_use_is_left_alone() {
    let directory = tempdir().unwrap();
    let first = open(&directory);
    first.store.remember(v4(1), until(NOW));
    first.store.flush();
    let second = open(&directory);
    assert!(second.complaint.unwrap().contains("in use by another process"));
    second.store.remember(v4(2), until(NOW));
    second.store.flush();
    let status = second.store.status();
    assert_eq!((status.pending, status.written), (1, 0));
    assert!(status.failing.unwrap().contains("in use"));
    drop((second.store, first.store));
    assert_eq!(open(&directory).records, [(v4(1), until(NOW))]);
}

#[test]
fn what_could_not_be_written_is_written_later_unless_it_has_changed() {
    let directory = tempdir().unwrap();
    let first = open(&directory);
    first.store.remember(v4(1), until(NOW));
    first.store.flush();
    let second = open_in(directory.path(), &embedded(), Rhythm { reopen: Duration::ZERO, ..NEVER });
    assert_eq!(second.records, []);
    for number in 2..=4 {
        second.store.remember(v4(number), until(NOW));
        second.store.keep_entry(&number.to_string(), b"old".to_vec());
    }
    second.store.flush();
    second.store.remember(v4(2), until(NOW + 1));
    second.store.keep_entry("2", b"new".to_vec());
    second.store.forget(v4(4));
    second.store.drop_entry("4");
    second.store.flush();
    assert_eq!(second.store.status().pending, 6);
    drop(first.store);
    second.store.flush();
    assert_eq!(second.store.status().failing, None);
    drop(second.store);

    let opened = open(&directory);
    let expected = [(v4(1), until(NOW)), (v4(2), until(NOW + 1)), (v4(3), until(NOW))];
    assert_eq!(sorted(opened.records), expected);
    assert_eq!(opened.entries, [("2".to_owned(), b"new".to_vec()), ("3".to_owned(), b"old".to_vec())]);
}

#[test]
fn a_file_that_is_cut_while_it_is_used_is_replaced() {
    for part in [0, 2] {
        let directory = tempdir().unwrap();
        let path = directory.path().join(FILE_NAME);
        let opened = open_in(directory.path(), &embedded(), Rhythm { reopen: Duration::ZERO, ..NEVER });
        (0..5_000).for_each(|number| opened.store.remember(v4(number), until(NOW)));
        opened.store.flush();
        let length = fs::metadata(&path).unwrap().len();
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(length / 4 * part).unwrap();
        // Whatever redb makes of it: an error, a panic, or nothing until the file is read again.
        for round in 1..=3 {
            (0..5_000).for_each(|number| opened.store.remember(v4(number), until(NOW + round)));
            opened.store.flush();
        }
        assert_eq!((opened.store.status().pending, opened.store.status().failing), (0, None));
        drop(opened.store);
        let opened = open(&directory);
        assert!(opened.records.len() == 5_000 || opened.complaint.is_some());
        opened.store.remember(v4(0), until(NOW));
        opened.store.flush();
        assert_eq!(opened.store.status().failing, None);
    }
}

#[test]
fn a_place_that_can_not_be_written_to_stops_nothing() {
    let directory = tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "not a directory").unwrap();
    let below = file.join("state");
    let inside = directory.path().join("state");
    // A directory in the file's place: nobody can open that for writing, root neither.
    fs::create_dir_all(inside.join(FILE_NAME)).unwrap();
    for place in [below, inside] {
        let opened = open_in(&place, &embedded(), NEVER);
        let complaint = opened.complaint.unwrap();
        assert!(complaint.contains("nothing is kept"), "{complaint}");
        opened.store.remember(v4(1), until(NOW));
        opened.store.flush();
        assert_eq!(opened.store.status().failing, Some(complaint));
    }
}

#[test]
fn the_file_is_its_owners_alone() {
    let directory = tempdir().unwrap();
    let deeper = directory.path().join("made/by/us");
    let opened = open_in(&deeper, &embedded(), NEVER);
    assert_eq!(opened.complaint, None);
    let mode = fs::metadata(deeper.join(FILE_NAME)).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "{mode:o}");
}

#[test]
fn the_queue_has_a_bound() {
    let directory = tempdir().unwrap();
    // No file can be opened here, so that nobody empties the queue.
    fs::create_dir(directory.path().join(FILE_NAME)).unwrap();
    let opened = open(&directory);
    let most = u32::try_from(writer::MOST_PENDING).unwrap();
    for number in 0..most + 3 {
        opened.store.remember(v4(number), until(NOW));
    }
    opened.store.remember(v4(0), until(NOW + 1));
    // There is none, and nobody waits for it.
    opened.store.make_room(1);
    // What was taken out to be written is back.
    opened.store.flush();
    let status = opened.store.status();
    assert_eq!((status.pending, status.lost), (writer::MOST_PENDING, 3));
}

#[test]
fn who_waits_for_room_loses_nothing() {
    let directory = tempdir().unwrap();
    let opened = open(&directory);
    let most = u32::try_from(writer::MOST_PENDING).unwrap();
    for number in 0..most + 3 {
        opened.store.make_room(1);
        opened.store.remember(v4(number), until(NOW));
    }
    opened.store.flush();
    let status = opened.store.status();
    assert_eq!((status.pending, status.written, status.lost), (0, u64::from(most) + 3, 0));
}

#[test]
fn a_hundred_thousand_records_are_loaded() {
    let directory = tempdir().unwrap();
    let opened = open(&directory);
    for number in 0..50_000_u32 {
        opened.store.remember(v4(number), until(NOW + u64::from(number)));
        let address = Ipv6Addr::from(u128::from(number) << 64 | 0x2001_0db8 << 96);
        opened.store.remember(Client { address: address.into(), prefix_len: 64 }, until(NOW));
    }
    drop(opened.store);
    let opened = open(&directory);
    assert_eq!(opened.complaint, None);
    let records = sorted(opened.records);
    assert_eq!(records.len(), 100_000);
    for (number, (client, record)) in (0..50_000_u32).zip(&records) {
        assert_eq!((*client, *record), (v4(number), until(NOW + u64::from(number))));
    }
}
