//! Goal: what nobody expects of a disk, a clock or a queue does no harm to a store.

use std::collections::VecDeque;

use longpoll::config::SyncPolicy;
use longpoll::cursor::Seq;
use longpoll::log::Appended;
use longpoll::store::commit::StoreCommand;
use longpoll::store::error::StoreError;
use longpoll::store::header::{file_name, first_seq};
use longpoll::store::storage::Storage;

use crate::support::{Fault, RETENTION, Ram, Shelf, start};

fn segments(ram: &Ram) -> Vec<u64> {
    ram.names().iter().filter_map(|name| first_seq(name)).map(Seq::get).collect()
}

#[test]
fn what_was_safe_and_is_torn_all_the_same_begins_a_new_epoch() {
    let ram = Ram::default();
    let mut shelf = Shelf::open(&ram, SyncPolicy::Always, start()).unwrap();
    shelf.publish("news", 1, "first", None).unwrap();
    let before = shelf.view();
    shelf.publish("news", 1, "seen by everybody", None).unwrap();
    let (epoch, now) = (shelf.epoch(), shelf.now);
    drop(shelf);
    // A bit of it, and all of it.
    let name = file_name(Seq::new(1));
    let end = ram.with(&name, |bytes| bytes.len());
    let last = ram.with(&name, |b| b[..end - 1].iter().rposition(|b| *b == b'\n').unwrap() + 1);
    for spoil in [&|bytes: &mut Vec<u8>| bytes[end - 9] ^= 1, &|bytes: &mut Vec<u8>| {
        bytes.truncate(last);
    }] as [&dyn Fn(&mut Vec<u8>); 2]
    {
        let disk = ram.copy();
        disk.with(&name, |bytes| spoil(bytes));
        let mut shelf = Shelf::open(&disk, SyncPolicy::Always, now).unwrap();
        assert_eq!(shelf.view().events, before.events);
        // Its seq will be given out again, and somebody may have seen it.
        assert_ne!(shelf.epoch(), epoch);
        assert!(shelf.report.new_epoch.is_some());
        let Appended::New(again) = shelf.publish("news", 1, "other", None).unwrap() else {
            panic!("it is no repeat")
        };
        assert_eq!(again.seq.get(), 2);
        // Told once.
        let epoch = shelf.epoch();
        assert_eq!(Shelf::open(&disk, SyncPolicy::Always, now).unwrap().epoch(), epoch);
    }
}

#[test]
fn who_needs_the_place_of_an_empty_topic_gets_it_while_others_age() {
    let ram = Ram::default();
    let mut shelf = Shelf::open(&ram, SyncPolicy::Always, start()).unwrap();
    // As many topics as there may be, one of them empty; and events that age one after the other.
    for topic in 0..RETENTION.topics {
        shelf.publish(&format!("t{topic}"), 1, "x", None).unwrap();
        shelf.pass(1);
    }
    for _ in 0..4 {
        shelf.publish("t1", 1, "x", None).unwrap();
        shelf.pass(1);
    }
    shelf.pass(RETENTION.age.as_secs() - 8);
    let (wish, answer) = shelf.wanted("new", "k", "y");
    let mut wishes = VecDeque::from([wish]);
    for _ in 0..3 {
        shelf.store.group_commit(&mut wishes, shelf.now.at);
        shelf.pass(1);
    }
    assert!(matches!(answer.try_recv(), Ok(Ok(Appended::New(_)))), "it waits and waits");
}

#[test]
fn no_segment_stays_behind_that_nobody_needs_any_more() {
    let life = |ram: &Ram| {
        let mut shelf = Shelf::open(ram, SyncPolicy::Always, start()).unwrap();
        for n in 0..60 {
            while shelf.publish("news", 1, &format!("{n}{}", "x".repeat(150)), None).is_err() {
                shelf.pass(1);
            }
            shelf.pass(1);
        }
        shelf
    };
    let ram = Ram::default();
    life(&ram);
    let operations = ram.operations();
    for operation in 10..operations - 60 {
        for fault in [Fault::Refused, Fault::Short] {
            let ram = Ram::default();
            ram.fail_at(operation, fault);
            let shelf = life(&ram);
            let known: Vec<u64> =
                shelf.store.journal.segments.0.iter().map(|s| s.first.get()).collect();
            assert_eq!(segments(&ram), known, "{fault:?} at {operation}");
            let unfinished = ram.names().into_iter().filter(|name| name.contains(".tmp"));
            assert_eq!(unfinished.count(), 0, "{fault:?} at {operation}");
        }
    }
}

#[test]
fn a_store_whose_segments_are_all_gone_says_so() {
    let ram = Ram::default();
    let mut shelf = Shelf::open(&ram, SyncPolicy::Always, start()).unwrap();
    assert_eq!(shelf.report.new_epoch, None, "there never was another");
    shelf.publish("news", 1, "x", None).unwrap();
    let now = shelf.now;
    drop(shelf);
    Storage::remove(&ram, &file_name(Seq::new(1))).unwrap();
    let shelf = Shelf::open(&ram, SyncPolicy::Always, now).unwrap();
    assert!(shelf.report.new_epoch.is_some_and(|why| why.contains("gone")));
}

#[test]
fn a_seq_that_cannot_be_counted_on_from_is_damage() {
    // No program has come so far, but a file may say so.
    let ram = Ram::default();
    let name = file_name(Seq::new(u64::MAX));
    let shelf = Shelf::open(&Ram::default(), SyncPolicy::Always, start()).unwrap();
    let begun = longpoll::store::header::FullHeader {
        next: Seq::new(u64::MAX),
        oldest_segment: Seq::new(u64::MAX),
        ..shelf.store.journal.header.clone()
    };
    let bytes = longpoll::store::header::encode(&begun, &longpoll::log::LogSnapshot::default());
    Storage::create(&ram, &name).unwrap().write_at(&bytes, 0).unwrap();
    match Shelf::open(&ram, SyncPolicy::Always, start()) {
        Err(StoreError::Damaged(_)) => {}
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
    let ram = Ram::default();
    let mut shelf = Shelf::open(&ram, SyncPolicy::Always, start()).unwrap();
    shelf.publish("news", 1, "before", None).unwrap();
    ram.fill_up(100);
    assert!(shelf.publish("news", 1, &"x".repeat(200), None).is_err());
    for _ in 0..3 {
        // Nobody publishes, and so the store looks by itself.
        shelf.pass(1);
        shelf.store.group_commit(&mut VecDeque::from([StoreCommand::Expire]), shelf.now.at);
        assert!(shelf.store.journal.failing.is_some(), "it believes in 100 bytes");
    }
    ram.fill_up(1_000_000);
    shelf.pass(1);
    shelf.store.group_commit(&mut VecDeque::from([StoreCommand::Expire]), shelf.now.at);
    assert!(shelf.store.journal.failing.is_none(), "there is room, and it does not know");
    let end = ram.with(&file_name(Seq::new(1)), |bytes| bytes.len() as u64);
    assert_eq!(end, shelf.store.journal.active.end, "what it tried with stays behind");
    shelf.publish("news", 1, "after", None).unwrap();
}
