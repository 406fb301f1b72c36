//! Guards damage detection: with any byte changed and any file truncated anywhere, a store either
//! opens with all its events or names the damaged place.

use std::time::SystemTime;

use longpoll::config::SyncPolicy;
use longpoll::cursor::Seq;
use longpoll::log::{BodyKind, EventContent, LastTrim, LogSnapshot, TopicTrims};
use longpoll::store::compact::{LiveSet, SegmentWriter};
use longpoll::store::error::StoreError;
use longpoll::store::header::{file_name, first_seq};
use longpoll::store::record::{Record, StoredEvent};
use longpoll::store::scan::read_sealed;

use crate::support::simulated_disk::SimulatedDisk;
use crate::support::test_store::{
    LogView, TestStore, scenario, segment_of_a_newer_version, start_time,
};

/// A small store of several segments, one of them compacted, as a `kill -9` leaves it.
fn small_store() -> (SimulatedDisk, TestStore) {
    let storage = SimulatedDisk::default();
    let mut store = TestStore::open(&storage, SyncPolicy::Always, start_time()).unwrap();
    let steps = scenario();
    for step in &steps[..14] {
        store.run_step(step).unwrap();
    }
    store.publish("quiet", 3, "the last commit", None).unwrap();
    (storage, store)
}

fn segments(storage: &SimulatedDisk) -> Vec<String> {
    storage.names().into_iter().filter(|name| first_seq(name).is_some()).collect()
}

/// The state of the log before its last commit.
fn before_last_commit() -> LogView {
    let storage = SimulatedDisk::default();
    let mut store = TestStore::open(&storage, SyncPolicy::Always, start_time()).unwrap();
    for step in &scenario()[..14] {
        store.run_step(step).unwrap();
    }
    store.view()
}

/// The offset of the last commit in the newest segment.
fn last_commit(storage: &SimulatedDisk, name: &str) -> usize {
    storage.with_file(name, |bytes| {
        let last = "\"text\":\"the last commit0\"";
        let at = bytes.windows(last.len()).position(|w| w == last.as_bytes()).unwrap();
        bytes[..at].iter().rposition(|b| *b == b'\n').unwrap() + 1
    })
}

#[test]
fn every_changed_byte_is_detected() {
    let (storage, store) = small_store();
    let names = segments(&storage);
    assert!(names.len() >= 3, "{names:?}");
    let newest = names.last().unwrap();
    let torn = before_last_commit();
    let tail = last_commit(&storage, newest);
    for name in &names {
        let length = storage.with_file(name, |bytes| bytes.len());
        for position in 0..length {
            let bit = position % 8;
            let disk = storage.copy();
            disk.with_file(name, |bytes| bytes[position] ^= 1 << bit);
            let case = format!("{name}, byte {position} of {length}, bit {bit}");
            let may_tear = name == newest && position >= tail;
            match TestStore::open(&disk, SyncPolicy::Always, store.now) {
                Ok(opened) => {
                    assert!(may_tear && opened.report.torn.is_some(), "{case}: not detected");
                    assert_eq!(opened.view(), torn, "{case}");
                    // The commit had been durable, and its seq is issued again: this takes a new
                    // epoch.
                    assert_ne!(opened.epoch(), store.epoch(), "{case}");
                }
                Err(StoreError::Damaged(damage)) => {
                    assert!(!may_tear, "{case}: refused");
                    assert_eq!(&damage.file, name, "{case}");
                    assert!(damage.at <= position as u64, "{case}: {damage}");
                }
                Err(failure) => panic!("{case}: {failure}"),
            }
        }
    }
}

#[test]
fn every_truncation_is_detected_unless_it_is_a_torn_commit() {
    let (storage, store) = small_store();
    let names = segments(&storage);
    let newest = names.last().unwrap();
    let torn = before_last_commit();
    let tail = last_commit(&storage, newest);
    for name in &names {
        let whole = storage.with_file(name, |bytes| bytes.len());
        for length in 0..whole {
            let disk = storage.copy();
            disk.with_file(name, |bytes| bytes.truncate(length));
            let case = format!("{name}, {length} of {whole} bytes");
            let may_tear = name == newest && length >= tail;
            match TestStore::open(&disk, SyncPolicy::Always, store.now) {
                Ok(opened) => {
                    assert!(may_tear, "{case}: not detected");
                    assert_eq!(opened.view(), torn, "{case}");
                    assert_eq!(opened.report.torn.is_some(), length > tail, "{case}");
                    // The torn commit is truncated, so that it is reported once.
                    let again = TestStore::open(&disk, SyncPolicy::Always, store.now).unwrap();
                    assert!(again.report.torn.is_none() && again.view() == torn, "{case}");
                    assert_eq!(again.epoch(), opened.epoch(), "{case}");
                    assert_ne!(opened.epoch(), store.epoch(), "{case}");
                }
                Err(StoreError::Damaged(_)) => assert!(!may_tear, "{case}: refused"),
                Err(failure) => panic!("{case}: {failure}"),
            }
        }
    }
}

#[test]
fn missing_segment_is_detected() {
    let (storage, store) = small_store();
    for name in segments(&storage) {
        let disk = storage.copy();
        longpoll::store::storage::Storage::remove(&disk, &name).unwrap();
        let opened = TestStore::open(&disk, SyncPolicy::Always, store.now);
        assert!(
            matches!(opened, Err(StoreError::Damaged(_))),
            "the loss of {name} is not detected"
        );
    }
}

/// Writes a compacted segment of ten large events, which takes several commits.
fn large_compacted_segment(disk: &SimulatedDisk) -> String {
    let topic = longpoll::names::Name::new("news").unwrap();
    let trims = TopicTrims {
        topic: topic.clone(),
        last: LastTrim::default(),
        uncounted_through: Seq::ZERO,
    };
    let snapshot = LogSnapshot { topics: vec![trims], ..LogSnapshot::default() };
    let live = LiveSet::new(&snapshot, None);
    let mut output = SegmentWriter::create(disk, Seq::new(1), Seq::new(10), &live).unwrap();
    for seq in 1..=10 {
        let content = EventContent {
            event_type: None,
            kind: BodyKind::Text,
            content_type: None,
            body: vec![b'x'; 20_000].into_boxed_slice(),
        };
        output.add(Record::Event(StoredEvent {
            seq: Seq::new(seq),
            topic: topic.clone(),
            time: SystemTime::UNIX_EPOCH,
            batch: 1,
            key: None,
            content,
        }));
    }
    output.finish(disk).unwrap();
    file_name(Seq::new(1))
}

#[test]
fn compacted_segment_that_lost_its_last_commits_is_detected() {
    let storage = SimulatedDisk::default();
    let name = large_compacted_segment(&storage);
    let read = |disk: &SimulatedDisk| {
        let mut events = 0;
        read_sealed(disk, Seq::new(1), &mut |record| {
            events += usize::from(matches!(record, Record::Event(_)));
        })
        .map(|_| events)
    };
    assert_eq!(read(&storage).unwrap(), 10);
    let bytes = storage.with_file(&name, |bytes| bytes.clone());
    let mut cuts = 0;
    let mut end = 0;
    for line in bytes.split_inclusive(|b| *b == b'\n') {
        end += line.len();
        // A line whose mark is a full stop ends a commit. Everything after it is cut off.
        if line.get(9) == Some(&b'.') && end < bytes.len() {
            let disk = storage.copy();
            disk.with_file(&name, |bytes| bytes.truncate(end));
            assert!(matches!(read(&disk), Err(StoreError::Damaged(_))), "cut at byte {end}");
            cuts += 1;
        }
    }
    assert!(cuts >= 2, "the segment has only {cuts} commits before the last one");
}

#[test]
fn damaged_lock_file_does_not_prevent_opening() {
    let (storage, store) = small_store();
    let length = storage.with_file("lock", |bytes| bytes.len());
    assert!(length > 20);
    for position in 0..length {
        let disk = storage.copy();
        disk.with_file("lock", |bytes| bytes[position] ^= 1);
        let opened = TestStore::open(&disk, SyncPolicy::Always, store.now).unwrap();
        assert_eq!(opened.view(), store.view(), "byte {position}");
    }
}

#[test]
fn newer_format_is_refused_and_not_changed() {
    let (storage, store) = small_store();
    let newest = segments(&storage).pop().unwrap();
    let disk = storage.copy();
    disk.with_file(&newest, |bytes| *bytes = segment_of_a_newer_version());
    let before: Vec<_> =
        disk.names().iter().map(|name| disk.with_file(name, |bytes| bytes.clone())).collect();
    let operations = disk.operations();
    let Err(StoreError::Newer(why)) = TestStore::open(&disk, SyncPolicy::Always, store.now) else {
        panic!("a newer format was opened");
    };
    assert!(why.contains("version 3") && why.contains(&newest), "{why}");
    let after: Vec<_> =
        disk.names().iter().map(|name| disk.with_file(name, |bytes| bytes.clone())).collect();
    assert_eq!(before, after);
    // Only syncs happened, which change nothing.
    assert!(disk.operations() <= operations + 2);
}

#[test]
fn copied_directory_starts_a_new_epoch_and_keeps_its_events() {
    let (storage, store) = small_store();
    let disk = storage.copy();
    let opened =
        TestStore::open_with_identity(&disk, SyncPolicy::Always, store.now, "elsewhere").unwrap();
    assert_eq!(opened.view().events, store.view().events);
    assert_ne!(opened.epoch(), store.epoch());
    assert!(opened.report.new_epoch.is_some());
    // The copy keeps its own identity from then on.
    let again =
        TestStore::open_with_identity(&disk, SyncPolicy::Always, store.now, "elsewhere").unwrap();
    assert_eq!(again.epoch(), opened.epoch());
}

#[test]
fn emptied_store_continues_its_seqs() {
    let storage = SimulatedDisk::default();
    let mut store = TestStore::open(&storage, SyncPolicy::Always, start_time()).unwrap();
    store.publish("news", 5, "x", None).unwrap();
    store.advance_clock(100);
    store.run_step(&crate::support::test_store::Step::AdvanceClock(0)).unwrap();
    assert_eq!(store.view().events, []);
    // The only segment had no live records and is removed.
    assert_eq!(segments(&storage), [file_name(Seq::new(6))]);
    let epoch = store.epoch();
    let mut store = TestStore::open(&storage, SyncPolicy::Always, store.now).unwrap();
    store.publish("news", 1, "y", None).unwrap();
    assert_eq!((store.view().events[0].0, store.epoch()), (6, epoch));
}

#[test]
fn copy_without_a_lock_file_is_checked_as_well() {
    let (storage, store) = small_store();
    let newest = segments(&storage).pop().unwrap();
    let tail = last_commit(&storage, &newest);
    let (start, end) = storage.with_file(&newest, |bytes| {
        (bytes.iter().position(|b| *b == b'\n').unwrap() + 1, bytes.len())
    });
    for position in (start..end).step_by(3) {
        let disk = storage.copy();
        longpoll::store::storage::Storage::remove(&disk, "lock").unwrap();
        disk.with_file(&newest, |bytes| bytes[position] ^= 4);
        let opened =
            TestStore::open_with_identity(&disk, SyncPolicy::Always, store.now, "elsewhere");
        // Without the lock file, a change of the line end before the last commit looks like a
        // torn commit.
        let may_tear = position + 1 >= tail;
        assert_eq!(opened.is_ok(), may_tear, "{newest}, byte {position} of {end}, tail {tail}");
    }
}
