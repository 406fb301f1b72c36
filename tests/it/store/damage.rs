//! Goal: a store that is not as it was written is never believed: whatever byte is wrong and
//! wherever a file ends, either everything is there or the place is named.

use longpoll::config::Sync;
use longpoll::store::header::{file_name, first_seq};
use longpoll::store::scan::Failure;

use crate::support::simulated_disk::SimulatedDisk;
use crate::support::test_store::{LogView, TestStore, scenario, start_time};

/// A small store of several segments, one of them rewritten, that ended as by `kill -9`.
fn small() -> (SimulatedDisk, TestStore) {
    let ram = SimulatedDisk::default();
    let mut shelf = TestStore::open(&ram, Sync::Always, start_time()).unwrap();
    let steps = scenario();
    for step in &steps[..14] {
        shelf.run_step(step).unwrap();
    }
    shelf.publish("quiet", 3, "the last commit", None).unwrap();
    (ram, shelf)
}

fn segments(ram: &SimulatedDisk) -> Vec<String> {
    ram.names().into_iter().filter(|name| first_seq(name).is_some()).collect()
}

/// The log as it was before its last commit.
fn before_last_commit() -> LogView {
    let ram = SimulatedDisk::default();
    let mut shelf = TestStore::open(&ram, Sync::Always, start_time()).unwrap();
    for step in &scenario()[..14] {
        shelf.run_step(step).unwrap();
    }
    shelf.view()
}

/// Where the last commit of the newest segment begins.
fn last_commit(ram: &SimulatedDisk, name: &str) -> usize {
    ram.with_file(name, |bytes| {
        let last = "\"text\":\"the last commit0\"";
        let at = bytes.windows(last.len()).position(|w| w == last.as_bytes()).unwrap();
        bytes[..at].iter().rposition(|b| *b == b'\n').unwrap() + 1
    })
}

#[test]
fn every_byte_that_is_changed_is_noticed_wherever_it_is() {
    let (ram, shelf) = small();
    let names = segments(&ram);
    assert!(names.len() >= 3, "{names:?}");
    let newest = names.last().unwrap();
    let torn = before_last_commit();
    let tail = last_commit(&ram, newest);
    for name in &names {
        let length = ram.with_file(name, |bytes| bytes.len());
        for place in 0..length {
            let bit = place % 8;
            let disk = ram.copy();
            disk.with_file(name, |bytes| bytes[place] ^= 1 << bit);
            let what = format!("{name}, byte {place} of {length}, bit {bit}");
            let may_tear = name == newest && place >= tail;
            match TestStore::open(&disk, Sync::Always, shelf.now) {
                Ok(opened) => {
                    assert!(may_tear && opened.report.torn.is_some(), "{what}: not noticed");
                    assert_eq!(opened.view(), torn, "{what}");
                    // It had been safe, and its seq will be given out again.
                    assert_ne!(opened.epoch(), shelf.epoch(), "{what}");
                }
                Err(Failure::Damaged(damage)) => {
                    assert!(!may_tear, "{what}: refused");
                    assert_eq!(&damage.file, name, "{what}");
                    assert!(damage.at <= place as u64, "{what}: {damage}");
                }
                // One digit of the first line makes another version of it.
                Err(Failure::Newer(why)) => assert!(place < 17 && why.contains(name), "{what}"),
                Err(failure) => panic!("{what}: {failure}"),
            }
        }
    }
}

#[test]
fn every_end_that_a_file_may_have_is_noticed_unless_it_is_a_torn_one() {
    let (ram, shelf) = small();
    let names = segments(&ram);
    let newest = names.last().unwrap();
    let torn = before_last_commit();
    let tail = last_commit(&ram, newest);
    for name in &names {
        let whole = ram.with_file(name, |bytes| bytes.len());
        for length in 0..whole {
            let disk = ram.copy();
            disk.with_file(name, |bytes| bytes.truncate(length));
            let what = format!("{name}, {length} of {whole} bytes");
            let may_tear = name == newest && length >= tail;
            match TestStore::open(&disk, Sync::Always, shelf.now) {
                Ok(opened) => {
                    assert!(may_tear, "{what}: not noticed");
                    assert_eq!(opened.view(), torn, "{what}");
                    assert_eq!(opened.report.torn.is_some(), length > tail, "{what}");
                    // It is cut off, so that it is told once.
                    let again = TestStore::open(&disk, Sync::Always, shelf.now).unwrap();
                    assert!(again.report.torn.is_none() && again.view() == torn, "{what}");
                    assert_eq!(again.epoch(), opened.epoch(), "{what}");
                    assert_ne!(opened.epoch(), shelf.epoch(), "{what}");
                }
                Err(Failure::Damaged(_)) => assert!(!may_tear, "{what}: refused"),
                Err(failure) => panic!("{what}: {failure}"),
            }
        }
    }
}

#[test]
fn a_segment_that_is_gone_is_missed() {
    let (ram, shelf) = small();
    for name in segments(&ram) {
        let disk = ram.copy();
        longpoll::store::disk::Disk::remove(&disk, &name).unwrap();
        let opened = TestStore::open(&disk, Sync::Always, shelf.now);
        assert!(matches!(opened, Err(Failure::Damaged(_))), "{name} was not missed");
    }
}

#[test]
fn the_lock_file_may_say_anything() {
    let (ram, shelf) = small();
    let length = ram.with_file("lock", |bytes| bytes.len());
    assert!(length > 20);
    for place in 0..length {
        let disk = ram.copy();
        disk.with_file("lock", |bytes| bytes[place] ^= 1);
        let opened = TestStore::open(&disk, Sync::Always, shelf.now).unwrap();
        assert_eq!(opened.view(), shelf.view(), "byte {place}");
    }
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let (ram, shelf) = small();
    let newest = segments(&ram).pop().unwrap();
    let disk = ram.copy();
    disk.with_file(&newest, |bytes| bytes.splice(..17, *b"longpoll store 2\n").count());
    let before: Vec<_> =
        disk.names().iter().map(|name| disk.with_file(name, |bytes| bytes.clone())).collect();
    let operations = disk.operations();
    let Err(Failure::Newer(why)) = TestStore::open(&disk, Sync::Always, shelf.now) else {
        panic!("it was opened");
    };
    assert!(why.contains("version 2") && why.contains(&newest), "{why}");
    let after: Vec<_> =
        disk.names().iter().map(|name| disk.with_file(name, |bytes| bytes.clone())).collect();
    assert_eq!(before, after);
    // Syncs change nothing.
    assert!(disk.operations() <= operations + 2);
}

#[test]
fn a_copied_directory_begins_a_new_epoch_and_keeps_its_events() {
    let (ram, shelf) = small();
    let disk = ram.copy();
    let opened =
        TestStore::open_with_identity(&disk, Sync::Always, shelf.now, "elsewhere").unwrap();
    assert_eq!(opened.view().events, shelf.view().events);
    assert_ne!(opened.epoch(), shelf.epoch());
    assert!(opened.report.new_epoch.is_some());
    // It knows itself from then on.
    let again = TestStore::open_with_identity(&disk, Sync::Always, shelf.now, "elsewhere").unwrap();
    assert_eq!(again.epoch(), opened.epoch());
}

#[test]
fn an_emptied_store_goes_on_counting() {
    let ram = SimulatedDisk::default();
    let mut shelf = TestStore::open(&ram, Sync::Always, start_time()).unwrap();
    shelf.publish("news", 5, "x", None).unwrap();
    shelf.advance_clock(100);
    shelf.run_step(&crate::support::test_store::Step::AdvanceClock(0)).unwrap();
    assert_eq!(shelf.view().events, []);
    // Its one segment was dead, and is gone.
    assert_eq!(segments(&ram), [file_name(6)]);
    let epoch = shelf.epoch();
    let mut shelf = TestStore::open(&ram, Sync::Always, shelf.now).unwrap();
    shelf.publish("news", 1, "y", None).unwrap();
    assert_eq!((shelf.view().events[0].0, shelf.epoch()), (6, epoch));
}

#[test]
fn a_copy_which_has_no_lock_file_is_checked_as_well() {
    let (ram, shelf) = small();
    let newest = segments(&ram).pop().unwrap();
    let tail = last_commit(&ram, &newest);
    let (start, end) = ram.with_file(&newest, |bytes| {
        (bytes.iter().position(|b| *b == b'\n').unwrap() + 1, bytes.len())
    });
    for place in (start..end).step_by(3) {
        let disk = ram.copy();
        longpoll::store::disk::Disk::remove(&disk, "lock").unwrap();
        disk.with_file(&newest, |bytes| bytes[place] ^= 4);
        let opened = TestStore::open_with_identity(&disk, Sync::Always, shelf.now, "elsewhere");
        // The line end before the last commit is the one place that only the lock file knows.
        let may_tear = place + 1 >= tail;
        assert_eq!(opened.is_ok(), may_tear, "{newest}, byte {place} of {end}, tail {tail}");
    }
}
