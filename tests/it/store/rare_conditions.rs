//! Guards the store against rare conditions of the disk, the clock and the queue. Each test is one
//! case that the systematic tests of faults do not reach.

use std::collections::VecDeque;

use longpoll::config::SyncPolicy;
use longpoll::cursor::Seq;
use longpoll::log::Appended;
use longpoll::store::error::StoreError;
use longpoll::store::header::{file_name, first_seq};
use longpoll::store::storage::Storage;

use crate::support::disk_faults::Fault;
use crate::support::simulated_disk::SimulatedDisk;
use crate::support::test_store::{RETENTION, TestStore, start_time};

fn segments(storage: &SimulatedDisk) -> Vec<u64> {
    storage.names().iter().filter_map(|name| first_seq(name)).map(Seq::get).collect()
}

#[test]
fn torn_commit_that_was_durable_starts_a_new_epoch() {
    let storage = SimulatedDisk::default();
    let mut store = TestStore::open(&storage, SyncPolicy::Always, start_time()).unwrap();
    store.publish("news", 1, "first", None).unwrap();
    let before = store.view();
    store.publish("news", 1, "seen by all readers", None).unwrap();
    let (epoch, now) = (store.epoch(), store.now);
    drop(store);
    // One bit of the commit, and all of it.
    let name = file_name(Seq::new(1));
    let end = storage.with_file(&name, |bytes| bytes.len());
    let last =
        storage.with_file(&name, |b| b[..end - 1].iter().rposition(|b| *b == b'\n').unwrap() + 1);
    for spoil in [&|bytes: &mut Vec<u8>| bytes[end - 9] ^= 1, &|bytes: &mut Vec<u8>| {
        bytes.truncate(last);
    }] as [&dyn Fn(&mut Vec<u8>); 2]
    {
        let disk = storage.copy();
        disk.with_file(&name, |bytes| spoil(bytes));
        let mut store = TestStore::open(&disk, SyncPolicy::Always, now).unwrap();
        assert_eq!(store.view().events, before.events);
        // Its seq is issued again, and readers may have seen the lost event.
        assert_ne!(store.epoch(), epoch);
        assert!(store.report.new_epoch.is_some());
        let Appended::New(again) = store.publish("news", 1, "other", None).unwrap() else {
            panic!("the publish counted as a repeat")
        };
        assert_eq!(again.seq.get(), 2);
        // The new epoch is reported once.
        let epoch = store.epoch();
        assert_eq!(TestStore::open(&disk, SyncPolicy::Always, now).unwrap().epoch(), epoch);
    }
}

#[test]
fn new_topic_replaces_an_empty_one_while_other_topics_expire() {
    let storage = SimulatedDisk::default();
    let mut store = TestStore::open(&storage, SyncPolicy::Always, start_time()).unwrap();
    // The maximum number of topics, one of them empty, and events that expire one after the other.
    for topic in 0..RETENTION.topics {
        store.publish(&format!("t{topic}"), 1, "x", None).unwrap();
        store.advance_clock(1);
    }
    for _ in 0..4 {
        store.publish("t1", 1, "x", None).unwrap();
        store.advance_clock(1);
    }
    store.advance_clock(RETENTION.age.as_secs() - 8);
    let (command, response) = store.publish_command("new", "k", "y");
    let mut commands = VecDeque::from([command]);
    for _ in 0..3 {
        store.store.group_commit(&mut commands, store.now.at);
        store.advance_clock(1);
    }
    assert!(matches!(response.try_recv(), Ok(Ok(Appended::New(_)))), "the publish is still queued");
}

#[test]
fn unused_segments_are_removed() {
    let run_scenario = |storage: &SimulatedDisk| {
        let mut store = TestStore::open(storage, SyncPolicy::Always, start_time()).unwrap();
        for n in 0..60 {
            while store.publish("news", 1, &format!("{n}{}", "x".repeat(150)), None).is_err() {
                store.advance_clock(1);
            }
            store.advance_clock(1);
        }
        store
    };
    let storage = SimulatedDisk::default();
    run_scenario(&storage);
    let operations = storage.operations();
    for operation in 10..operations - 60 {
        for fault in [Fault::Error, Fault::ShortWrite] {
            let storage = SimulatedDisk::default();
            storage.fail_at(operation, fault);
            let store = run_scenario(&storage);
            let known: Vec<u64> =
                store.store.journal.segments.0.iter().map(|s| s.first.get()).collect();
            assert_eq!(segments(&storage), known, "{fault:?} at {operation}");
            let unfinished = storage.names().into_iter().filter(|name| name.contains(".tmp"));
            assert_eq!(unfinished.count(), 0, "{fault:?} at {operation}");
        }
    }
}

#[test]
fn store_without_its_segments_is_refused() {
    let storage = SimulatedDisk::default();
    let mut store = TestStore::open(&storage, SyncPolicy::Always, start_time()).unwrap();
    assert_eq!(store.report.new_epoch, None, "the first epoch is not reported as new");
    store.publish("news", 1, "x", None).unwrap();
    let now = store.now;
    drop(store);
    Storage::remove(&storage, &file_name(Seq::new(1))).unwrap();
    let refused = TestStore::open(&storage, SyncPolicy::Always, now);
    assert!(matches!(refused, Err(StoreError::Removed)));
    // A damaged mark tells as much.
    storage.with_file("lock", |bytes| bytes.fill(0));
    let refused = TestStore::open(&storage, SyncPolicy::Always, now);
    assert!(matches!(refused, Err(StoreError::Removed)));
    assert_eq!(storage.names(), ["lock"]);
}

#[test]
fn largest_seq_is_damage() {
    // No program has issued this many seqs, but a file may contain one.
    let storage = SimulatedDisk::default();
    let name = file_name(Seq::new(u64::MAX));
    let store =
        TestStore::open(&SimulatedDisk::default(), SyncPolicy::Always, start_time()).unwrap();
    let header = longpoll::store::header::FullHeader {
        next: Seq::new(u64::MAX),
        oldest_segment: Seq::new(u64::MAX),
        ..store.store.journal.header.clone()
    };
    let bytes = longpoll::store::header::encode(&header, &longpoll::log::LogSnapshot::default());
    Storage::create(&storage, &name).unwrap().write_at(&bytes, 0).unwrap();
    match TestStore::open(&storage, SyncPolicy::Always, start_time()) {
        Err(StoreError::Damaged(_)) => {}
        Err(failure) => panic!("{failure}"),
        // The file is not a segment at all.
        Ok(mut store) => {
            store.publish("news", 1, "x", None).unwrap();
            assert_eq!(store.view().events[0].0, 1);
        }
    }
}

#[test]
fn full_disk_is_remembered_until_the_refused_write_would_fit() {
    let storage = SimulatedDisk::default();
    let mut store = TestStore::open(&storage, SyncPolicy::Always, start_time()).unwrap();
    store.publish("news", 1, "before", None).unwrap();
    storage.limit_free_bytes(100);
    assert!(store.publish("news", 1, &"x".repeat(200), None).is_err());
    for _ in 0..3 {
        // Without publishes, the store probes the disk itself.
        store.advance_clock(1);
        store.maintain();
        assert!(store.store.failure().is_some(), "100 free bytes do not suffice");
    }
    storage.limit_free_bytes(1_000_000);
    store.advance_clock(1);
    store.maintain();
    assert!(store.store.failure().is_none(), "the free space is not detected");
    let end = storage.with_file(&file_name(Seq::new(1)), |bytes| bytes.len() as u64);
    assert_eq!(end, store.store.journal.active.end, "the bytes of the probe are left in the file");
    store.publish("news", 1, "after", None).unwrap();
}
