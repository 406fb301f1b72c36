//! Goal: what nobody expects of a disk, a clock or a queue does no harm to a store.

use std::collections::VecDeque;

use longpoll::config::Sync;
use longpoll::log::Appended;
use longpoll::store::commit::Wish;
use longpoll::store::disk::Disk;
use longpoll::store::header::{file_name, first_seq};
use longpoll::store::scan::Failure;

use crate::support::disk_faults::Fault;
use crate::support::simulated_disk::SimulatedDisk;
use crate::support::test_store::{RETENTION, TestStore, start_time};

fn segments(ram: &SimulatedDisk) -> Vec<u64> {
    ram.names().iter().filter_map(|name| first_seq(name)).collect()
}

#[test]
fn what_was_safe_and_is_torn_all_the_same_begins_a_new_epoch() {
    let ram = SimulatedDisk::default();
    let mut shelf = TestStore::open(&ram, Sync::Always, start_time()).unwrap();
    shelf.publish("news", 1, "first", None).unwrap();
    let before = shelf.view();
    shelf.publish("news", 1, "seen by everybody", None).unwrap();
    let (epoch, now) = (shelf.epoch(), shelf.now);
    drop(shelf);
    // A bit of it, and all of it.
    let name = file_name(1);
    let end = ram.with_file(&name, |bytes| bytes.len());
    let last =
        ram.with_file(&name, |b| b[..end - 1].iter().rposition(|b| *b == b'\n').unwrap() + 1);
    for spoil in [&|bytes: &mut Vec<u8>| bytes[end - 9] ^= 1, &|bytes: &mut Vec<u8>| {
        bytes.truncate(last);
    }] as [&dyn Fn(&mut Vec<u8>); 2]
    {
        let disk = ram.copy();
        disk.with_file(&name, |bytes| spoil(bytes));
        let mut shelf = TestStore::open(&disk, Sync::Always, now).unwrap();
        assert_eq!(shelf.view().events, before.events);
        // Its seq will be given out again, and somebody may have seen it.
        assert_ne!(shelf.epoch(), epoch);
        assert!(shelf.report.new_epoch.is_some());
        let Appended::Now(again) = shelf.publish("news", 1, "other", None).unwrap() else {
            panic!("it is no repeat")
        };
        assert_eq!(again.seq, 2);
        // Told once.
        let epoch = shelf.epoch();
        assert_eq!(TestStore::open(&disk, Sync::Always, now).unwrap().epoch(), epoch);
    }
}

#[test]
fn who_needs_the_place_of_an_empty_topic_gets_it_while_others_age() {
    let ram = SimulatedDisk::default();
    let mut shelf = TestStore::open(&ram, Sync::Always, start_time()).unwrap();
    // As many topics as there may be, one of them empty; and events that age one after the other.
    for topic in 0..RETENTION.topics {
        shelf.publish(&format!("t{topic}"), 1, "x", None).unwrap();
        shelf.advance_clock(1);
    }
    for _ in 0..4 {
        shelf.publish("t1", 1, "x", None).unwrap();
        shelf.advance_clock(1);
    }
    shelf.advance_clock(RETENTION.age.as_secs() - 8);
    let (wish, response) = shelf.publish_command("new", "k", "y");
    let mut wishes = VecDeque::from([wish]);
    for _ in 0..3 {
        shelf.store.round(&mut wishes, shelf.now.at);
        shelf.advance_clock(1);
    }
    assert!(matches!(response.try_take(), Some(Ok(Appended::Now(_)))), "it waits and waits");
}

#[test]
fn no_segment_stays_behind_that_nobody_needs_any_more() {
    let life = |ram: &SimulatedDisk| {
        let mut shelf = TestStore::open(ram, Sync::Always, start_time()).unwrap();
        for n in 0..60 {
            while shelf.publish("news", 1, &format!("{n}{}", "x".repeat(150)), None).is_err() {
                shelf.advance_clock(1);
            }
            shelf.advance_clock(1);
        }
        shelf
    };
    let ram = SimulatedDisk::default();
    life(&ram);
    let operations = ram.operations();
    for operation in 10..operations - 60 {
        for fault in [Fault::Error, Fault::ShortWrite] {
            let ram = SimulatedDisk::default();
            ram.fail_at(operation, fault);
            let shelf = life(&ram);
            let known: Vec<u64> = shelf.store.journal.segments.0.iter().map(|s| s.first).collect();
            assert_eq!(segments(&ram), known, "{fault:?} at {operation}");
            let unfinished = ram.names().into_iter().filter(|name| name.contains(".tmp"));
            assert_eq!(unfinished.count(), 0, "{fault:?} at {operation}");
        }
    }
}

#[test]
fn a_store_whose_segments_are_all_gone_says_so() {
    let ram = SimulatedDisk::default();
    let mut shelf = TestStore::open(&ram, Sync::Always, start_time()).unwrap();
    assert_eq!(shelf.report.new_epoch, None, "there never was another");
    shelf.publish("news", 1, "x", None).unwrap();
    let now = shelf.now;
    drop(shelf);
    Disk::remove(&ram, &file_name(1)).unwrap();
    let shelf = TestStore::open(&ram, Sync::Always, now).unwrap();
    assert!(shelf.report.new_epoch.is_some_and(|why| why.contains("gone")));
}

#[test]
fn a_seq_that_cannot_be_counted_on_from_is_damage() {
    // No program has come so far, but a file may say so.
    let ram = SimulatedDisk::default();
    let name = file_name(u64::MAX);
    let shelf = TestStore::open(&SimulatedDisk::default(), Sync::Always, start_time()).unwrap();
    let begun = longpoll::store::header::Begun {
        next: u64::MAX,
        first: u64::MAX,
        ..shelf.store.journal.begun.clone()
    };
    let bytes = longpoll::store::header::begin(&begun, &longpoll::log::Snapshot::default());
    Disk::create(&ram, &name).unwrap().write_at(&bytes, 0).unwrap();
    match TestStore::open(&ram, Sync::Always, start_time()) {
        Err(Failure::Damaged(_)) => {}
        Err(failure) => panic!("{failure}"),
        // Not a segment at all.
        Ok(mut shelf) => {
            shelf.publish("news", 1, "x", None).unwrap();
            assert_eq!(shelf.view().events[0].0, 1);
        }
    }
}

#[test]
fn a_disk_that_is_full_is_known_to_be_until_what_was_refused_would_fit() {
    let ram = SimulatedDisk::default();
    let mut shelf = TestStore::open(&ram, Sync::Always, start_time()).unwrap();
    shelf.publish("news", 1, "before", None).unwrap();
    ram.limit_free_bytes(100);
    assert!(shelf.publish("news", 1, &"x".repeat(200), None).is_err());
    for _ in 0..3 {
        // Nobody publishes, and so the store looks by itself.
        shelf.advance_clock(1);
        shelf.store.round(&mut VecDeque::from([Wish::Expire]), shelf.now.at);
        assert!(shelf.store.journal.refused.is_some(), "it believes in 100 bytes");
    }
    ram.limit_free_bytes(1_000_000);
    shelf.advance_clock(1);
    shelf.store.round(&mut VecDeque::from([Wish::Expire]), shelf.now.at);
    assert!(shelf.store.journal.refused.is_none(), "there is room, and it does not know");
    let end = ram.with_file(&file_name(1), |bytes| bytes.len() as u64);
    assert_eq!(end, shelf.store.journal.active.end, "what it tried with stays behind");
    shelf.publish("news", 1, "after", None).unwrap();
}
