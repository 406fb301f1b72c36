//! Goal: a repair that is cut short anywhere is finished by the next one: every record that is whole
//! is kept, once, and nothing is set aside twice.

use std::collections::BTreeMap;
use std::sync::Arc;

use longpoll::config::{RepairMode, SyncPolicy};
use longpoll::cursor::{Cursor, Epoch};
use longpoll::log::Appended;
use longpoll::store::error::StoreError;
use longpoll::store::header::first_seq;
use longpoll::store::repair::repair_storage;
use longpoll::store::storage::Storage;

use crate::support::{Fault, LEFT, Left, NAMES, Names, Ram, Shelf, script, start};

/// A small store of several segments, one of them rewritten, that ended as by `kill -9`.
fn small() -> (Ram, Shelf) {
    let ram = Ram::default();
    let mut shelf = Shelf::open(&ram, SyncPolicy::Always, start()).unwrap();
    for step in &script()[..14] {
        shelf.step(step).unwrap();
    }
    shelf.publish("quiet", 2, "before the last commit", Some("k9")).unwrap();
    shelf.publish("quiet", 1, "the last commit", None).unwrap();
    (ram, shelf)
}

fn segments(ram: &Ram) -> Vec<String> {
    ram.names().into_iter().filter(|name| first_seq(name).is_some()).collect()
}

/// What was set aside.
fn aside(ram: &Ram) -> BTreeMap<String, Vec<u8>> {
    let names = ram.names().into_iter().filter(|name| name.contains(".damaged"));
    names.map(|name| (name.clone(), ram.with(&name, |bytes| bytes.clone()))).collect()
}

fn repair(ram: &Ram, asked: RepairMode) -> Result<(), StoreError> {
    let disk: Arc<dyn Storage> = Arc::new(ram.clone());
    repair_storage::<Cursor>(disk, "here", asked, |cursor, _, _| cursor).map(|_| ())
}

/// Everything that a store has that matters to its readers and publishers.
#[derive(Debug, PartialEq)]
struct Kept {
    events: Vec<(u64, String, String)>,
    trimmed_through: BTreeMap<String, u64>,
    knows_key: bool,
}

/// Opens it as a server would.
fn kept(ram: &Ram, then: &Shelf) -> Result<(Kept, Epoch), StoreError> {
    let ram = ram.copy();
    let mut shelf = Shelf::open(&ram, SyncPolicy::Always, then.now)?;
    let (view, epoch) = (shelf.view(), shelf.epoch());
    let trims = view.snapshot.topics.iter();
    let trimmed_through = trims.map(|t| (t.topic.to_string(), t.last.seq.get())).collect();
    let again = shelf.publish("quiet", 2, "before the last commit", Some("k9")).unwrap();
    let knows_key = matches!(again, Appended::Duplicate(_));
    Ok((Kept { events: view.events, trimmed_through, knows_key }, epoch))
}

/// Ways in which a store can be damaged: which byte of which segment, counted from the end.
fn damages(names: &[String]) -> Vec<(&'static str, Vec<(String, usize)>)> {
    let (first, newest) = (names[0].clone(), names[names.len() - 1].clone());
    let everywhere = (1..100).map(|n| (newest.clone(), n * 20));
    vec![
        ("all of the newest", everywhere.collect()),
        ("an old segment", vec![(first.clone(), 40)]),
        ("the header of an old segment", vec![(first.clone(), usize::MAX)]),
        ("the end of the newest", vec![(newest.clone(), 3)]),
        ("the middle of the newest", vec![(newest.clone(), 300)]),
        ("the header of the newest", vec![(newest.clone(), usize::MAX)]),
        ("all of these", vec![(first, 40), (newest.clone(), 3), (newest, usize::MAX)]),
    ]
}

fn damage(ram: &Ram, places: &[(String, usize)]) {
    for (name, from_end) in places {
        ram.with(name, |bytes| {
            let place = bytes.len().checked_sub(*from_end);
            // The header is the second line.
            let header = bytes.iter().position(|b| *b == b'\n').unwrap() + 20;
            bytes[place.filter(|place| *place > 20).unwrap_or(header)] ^= 1;
        });
    }
}

/// In which states a disk may be found after a fault.
fn remains(fault: Fault) -> Vec<(Left, Names)> {
    match fault {
        Fault::PowerCut => LEFT.into_iter().flat_map(|l| NAMES.map(|n| (l, n))).collect(),
        _ => vec![(Left::All, Names::All)],
    }
}

#[test]
fn a_repair_that_is_cut_short_anywhere_is_finished_by_the_next_one() {
    let (ram, shelf) = small();
    let names = segments(&ram);
    assert!(names.len() >= 3, "{names:?}");
    let before = shelf.view().events;
    let mut walked = 0;
    for (which, places) in damages(&names) {
        let damaged = ram.copy();
        damage(&damaged, &places);
        let undisturbed = damaged.copy();
        let begun = undisturbed.operations();
        repair(&undisturbed, RepairMode::Damage).unwrap_or_else(|e| panic!("{which}: {e}"));
        let operations = undisturbed.operations() - begun;
        let (expected, epoch) = kept(&undisturbed, &shelf).unwrap();
        assert_ne!(epoch, shelf.epoch());
        let seqs: Vec<u64> = expected.events.iter().map(|event| event.0).collect();
        assert!(seqs.is_sorted_by(|a, b| a < b), "{which}: {seqs:?}");
        let lost = before.iter().filter(|event| !expected.events.contains(event)).count();
        assert!(lost <= places.len(), "{which}: {lost} were lost");
        let set_aside = aside(&undisturbed);
        let mut files: Vec<&String> = places.iter().map(|(name, _)| name).collect();
        files.dedup();
        assert_eq!(set_aside.len(), files.len(), "{which}");
        for operation in 0..operations {
            for fault in [Fault::PowerCut, Fault::Refused, Fault::Short] {
                let disk = damaged.copy();
                disk.fail_at(operation, fault);
                let cut_short = repair(&disk, RepairMode::Damage).is_err();
                for (left, names) in remains(fault) {
                    let what = format!("{which}, {fault:?} at {operation}, {left:?}, {names:?}");
                    let disk = disk.after_power_cut(left, names);
                    match kept(&disk, &shelf) {
                        // A server would go on with it as it is: then nothing is missing.
                        Ok((half, _)) => assert_eq!(half.events, expected.events, "{what}"),
                        Err(failure) => assert!(cut_short, "{what}: all was well, but {failure}"),
                    }
                    repair(&disk, RepairMode::Damage)
                        .unwrap_or_else(|failure| panic!("{what}: {failure}"));
                    let (again, epoch) = kept(&disk, &shelf).unwrap();
                    assert_eq!(again, expected, "{what}");
                    assert_ne!(epoch, shelf.epoch(), "{what}");
                    assert_eq!(aside(&disk), set_aside, "{what}");
                    walked += 1;
                }
            }
        }
    }
    println!("{walked} ways to cut a repair short");
}

#[test]
fn a_new_epoch_that_is_cut_short_anywhere_is_begun_by_the_next_try() {
    let (ram, shelf) = small();
    let undisturbed = ram.copy();
    repair(&undisturbed, RepairMode::NewEpoch).unwrap();
    let (expected, epoch) = kept(&undisturbed, &shelf).unwrap();
    assert_ne!(epoch, shelf.epoch());
    assert_eq!(expected.events, shelf.view().events);
    assert!(expected.knows_key);
    for operation in 0..undisturbed.operations() {
        for fault in [Fault::PowerCut, Fault::Refused, Fault::Short] {
            let disk = ram.copy();
            disk.fail_at(operation, fault);
            let told = repair(&disk, RepairMode::NewEpoch).is_ok();
            for (left, names) in remains(fault) {
                let what = format!("{fault:?} at {operation}, {left:?}, {names:?}");
                let disk = disk.after_power_cut(left, names);
                let (half, epoch) = kept(&disk, &shelf).unwrap_or_else(|e| panic!("{what}: {e}"));
                assert_eq!(half, expected, "{what}");
                assert!(!told || epoch != shelf.epoch(), "{what}: it said that all is well");
                repair(&disk, RepairMode::NewEpoch).unwrap();
                let (again, epoch) = kept(&disk, &shelf).unwrap();
                assert_eq!(again, expected, "{what}");
                assert_ne!(epoch, shelf.epoch(), "{what}");
                assert!(aside(&disk).is_empty(), "{what}");
            }
        }
    }
}

#[test]
fn what_the_lock_file_knows_does_not_keep_a_store_from_being_repaired() {
    let (ram, shelf) = small();
    let names = segments(&ram);
    // The newest segment is gone, which only the lock file and the header of no other know.
    Storage::remove(&ram, names.last().unwrap()).unwrap();
    assert!(matches!(
        Shelf::open(&ram, SyncPolicy::Always, shelf.now),
        Err(StoreError::Damaged(_))
    ));
    repair(&ram, RepairMode::Damage).unwrap();
    let (kept, epoch) = kept(&ram, &shelf).unwrap();
    assert!(!kept.events.is_empty());
    assert_ne!(epoch, shelf.epoch());
}

#[test]
fn a_store_of_a_newer_program_is_not_repaired() {
    let (ram, _) = small();
    for name in segments(&ram) {
        let disk = ram.copy();
        disk.with(&name, |bytes| bytes.splice(..17, *b"longpoll store 2\n").count());
        let files = || disk.names().iter().map(|n| disk.with(n, |b| b.clone())).collect::<Vec<_>>();
        let before = files();
        let refused = repair(&disk, RepairMode::Damage).unwrap_err();
        assert!(refused.to_string().contains("newer longpoll"), "{refused}");
        assert!(refused.to_string().contains(&name), "{refused}");
        assert_eq!(files(), before);
    }
}

#[test]
fn a_segment_that_was_rewritten_and_stayed_behind_is_no_matter_for_a_repair() {
    let ram = Ram::default();
    let mut shelf = Shelf::open(&ram, SyncPolicy::Always, start()).unwrap();
    let mut tried = 0;
    for step in script() {
        let before: BTreeMap<_, _> =
            segments(&ram).into_iter().map(|n| (n.clone(), ram.with(&n, |b| b.clone()))).collect();
        shelf.step(&step).unwrap();
        let now = segments(&ram);
        let oldest = first_seq(&now[0]);
        let behind = |name: &&String| !now.contains(name) && first_seq(name) > oldest;
        for name in before.keys().filter(behind) {
            let disk = ram.copy();
            let mut bytes = before[name].clone();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            Storage::create(&disk, name).unwrap().write_at(&bytes, 0).unwrap();
            let expected = shelf.view().events;
            assert_eq!(kept(&disk, &shelf).unwrap().0.events, expected, "{name}");
            repair(&disk, RepairMode::Damage).unwrap();
            assert_eq!(kept(&disk, &shelf).unwrap().0.events, expected, "{name}");
            assert!(aside(&disk).is_empty(), "{name}");
            tried += 1;
        }
    }
    assert!(tried > 0, "no segment became one with its neighbour");
}
