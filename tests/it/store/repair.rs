//! Guards the repair: a repair that is interrupted anywhere is completed by the next one. Every
//! intact record is kept once, and no damaged part is set aside twice.

use std::collections::BTreeMap;
use std::sync::Arc;

use longpoll::config::{RepairMode, SyncPolicy};
use longpoll::cursor::{Cursor, Epoch};
use longpoll::log::Appended;
use longpoll::store::error::StoreError;
use longpoll::store::header::first_seq;
use longpoll::store::repair::repair_storage;
use longpoll::store::storage::Storage;

use crate::support::disk_faults::{Fault, SurvivingRenames, SurvivingWrites};
use crate::support::simulated_disk::SimulatedDisk;
use crate::support::test_store::{TestStore, scenario, segment_of_a_newer_version, start_time};

/// A small store of several segments, one of them compacted, as a `kill -9` leaves it.
fn small_store() -> (SimulatedDisk, TestStore) {
    let storage = SimulatedDisk::default();
    let mut store = TestStore::open(&storage, SyncPolicy::Always, start_time()).unwrap();
    for step in &scenario()[..14] {
        store.run_step(step).unwrap();
    }
    store.publish("quiet", 2, "before the last commit", Some("k9")).unwrap();
    store.publish("quiet", 1, "the last commit", None).unwrap();
    (storage, store)
}

fn segments(storage: &SimulatedDisk) -> Vec<String> {
    storage.names().into_iter().filter(|name| first_seq(name).is_some()).collect()
}

/// The damaged parts that were set aside, by file name.
fn set_aside_files(storage: &SimulatedDisk) -> BTreeMap<String, Vec<u8>> {
    let names = storage.names().into_iter().filter(|name| name.contains(".damaged"));
    names.map(|name| (name.clone(), storage.with_file(&name, |bytes| bytes.clone()))).collect()
}

fn repair(storage: &SimulatedDisk, asked: RepairMode) -> Result<(), StoreError> {
    let disk: Arc<dyn Storage> = Arc::new(storage.clone());
    repair_storage::<Cursor>(disk, "here", asked, |cursor, _, _| cursor).map(|_| ())
}

/// All of a store that its readers and publishers can observe.
#[derive(Debug, PartialEq)]
struct Kept {
    events: Vec<(u64, String, String)>,
    trimmed_through: BTreeMap<String, u64>,
    knows_key: bool,
}

/// Opens a copy of the disk as a server does.
fn kept(storage: &SimulatedDisk, then: &TestStore) -> Result<(Kept, Epoch), StoreError> {
    let storage = storage.copy();
    let mut store = TestStore::open(&storage, SyncPolicy::Always, then.now)?;
    let (view, epoch) = (store.view(), store.epoch());
    let trims = view.snapshot.topics.iter();
    let trimmed_through = trims.map(|t| (t.topic.to_string(), t.last.seq.get())).collect();
    let again = store.publish("quiet", 2, "before the last commit", Some("k9")).unwrap();
    let knows_key = matches!(again, Appended::Duplicate(_));
    Ok((Kept { events: view.events, trimmed_through, knows_key }, epoch))
}

/// Ways to damage a store: which byte of which segment, counted from the end.
fn damages(names: &[String]) -> Vec<(&'static str, Vec<(String, usize)>)> {
    let (first, newest) = (names[0].clone(), names[names.len() - 1].clone());
    let everywhere = (1..100).map(|n| (newest.clone(), n * 20));
    vec![
        ("all of the newest segment", everywhere.collect()),
        ("an old segment", vec![(first.clone(), 40)]),
        ("the header of an old segment", vec![(first.clone(), usize::MAX)]),
        ("the end of the newest segment", vec![(newest.clone(), 3)]),
        ("the middle of the newest segment", vec![(newest.clone(), 300)]),
        ("the header of the newest segment", vec![(newest.clone(), usize::MAX)]),
        ("all of these", vec![(first, 40), (newest.clone(), 3), (newest, usize::MAX)]),
    ]
}

fn damage(storage: &SimulatedDisk, positions: &[(String, usize)]) {
    for (name, from_end) in positions {
        storage.with_file(name, |bytes| {
            let position = bytes.len().checked_sub(*from_end);
            // The header is the second line.
            let header = bytes.iter().position(|b| *b == b'\n').unwrap() + 20;
            bytes[position.filter(|position| *position > 20).unwrap_or(header)] ^= 1;
        });
    }
}

/// The states in which a fault may leave the disk.
fn states_after(fault: Fault) -> Vec<(SurvivingWrites, SurvivingRenames)> {
    match fault {
        Fault::PowerCut => SurvivingWrites::EACH
            .into_iter()
            .flat_map(|l| SurvivingRenames::EACH.map(|n| (l, n)))
            .collect(),
        _ => vec![(SurvivingWrites::All, SurvivingRenames::All)],
    }
}

#[test]
fn interrupted_repair_is_completed_by_the_next_one() {
    let (storage, store) = small_store();
    let names = segments(&storage);
    assert!(names.len() >= 3, "{names:?}");
    let before = store.view().events;
    let mut interruptions = 0;
    for (damage_name, positions) in damages(&names) {
        let damaged = storage.copy();
        damage(&damaged, &positions);
        let uninterrupted = damaged.copy();
        let operations_before = uninterrupted.operations();
        repair(&uninterrupted, RepairMode::Damage).unwrap_or_else(|e| panic!("{damage_name}: {e}"));
        let operations = uninterrupted.operations() - operations_before;
        let (expected, epoch) = kept(&uninterrupted, &store).unwrap();
        assert_ne!(epoch, store.epoch());
        let seqs: Vec<u64> = expected.events.iter().map(|event| event.0).collect();
        assert!(seqs.is_sorted_by(|a, b| a < b), "{damage_name}: {seqs:?}");
        let lost = before.iter().filter(|event| !expected.events.contains(event)).count();
        assert!(lost <= positions.len(), "{damage_name}: {lost} events were lost");
        let set_aside = set_aside_files(&uninterrupted);
        let mut files: Vec<&String> = positions.iter().map(|(name, _)| name).collect();
        files.dedup();
        assert_eq!(set_aside.len(), files.len(), "{damage_name}");
        for operation in 0..operations {
            for fault in [Fault::PowerCut, Fault::Error, Fault::ShortWrite] {
                let disk = damaged.copy();
                disk.fail_at(operation, fault);
                let was_interrupted = repair(&disk, RepairMode::Damage).is_err();
                for (writes, renames) in states_after(fault) {
                    let case =
                        format!("{damage_name}, {fault:?} at {operation}, {writes:?}, {renames:?}");
                    let disk = disk.after_power_cut(writes, renames);
                    match kept(&disk, &store) {
                        // If a server opens the store as it is, no event is missing.
                        Ok((half, _)) => assert_eq!(half.events, expected.events, "{case}"),
                        Err(failure) => {
                            assert!(was_interrupted, "{case}: the repair succeeded, but {failure}");
                        }
                    }
                    repair(&disk, RepairMode::Damage)
                        .unwrap_or_else(|failure| panic!("{case}: {failure}"));
                    let (again, epoch) = kept(&disk, &store).unwrap();
                    assert_eq!(again, expected, "{case}");
                    assert_ne!(epoch, store.epoch(), "{case}");
                    assert_eq!(set_aside_files(&disk), set_aside, "{case}");
                    interruptions += 1;
                }
            }
        }
    }
    println!("{interruptions} interruptions of a repair");
}

#[test]
fn interrupted_new_epoch_is_started_by_the_next_try() {
    let (storage, store) = small_store();
    let uninterrupted = storage.copy();
    repair(&uninterrupted, RepairMode::NewEpoch).unwrap();
    let (expected, epoch) = kept(&uninterrupted, &store).unwrap();
    assert_ne!(epoch, store.epoch());
    assert_eq!(expected.events, store.view().events);
    assert!(expected.knows_key);
    for operation in 0..uninterrupted.operations() {
        for fault in [Fault::PowerCut, Fault::Error, Fault::ShortWrite] {
            let disk = storage.copy();
            disk.fail_at(operation, fault);
            let succeeded = repair(&disk, RepairMode::NewEpoch).is_ok();
            for (writes, renames) in states_after(fault) {
                let case = format!("{fault:?} at {operation}, {writes:?}, {renames:?}");
                let disk = disk.after_power_cut(writes, renames);
                let (half, epoch) = kept(&disk, &store).unwrap_or_else(|e| panic!("{case}: {e}"));
                assert_eq!(half, expected, "{case}");
                assert!(
                    !succeeded || epoch != store.epoch(),
                    "{case}: the repair reported success"
                );
                repair(&disk, RepairMode::NewEpoch).unwrap();
                let (again, epoch) = kept(&disk, &store).unwrap();
                assert_eq!(again, expected, "{case}");
                assert_ne!(epoch, store.epoch(), "{case}");
                assert!(set_aside_files(&disk).is_empty(), "{case}");
            }
        }
    }
}

#[test]
fn lock_file_does_not_prevent_a_repair() {
    let (storage, store) = small_store();
    let names = segments(&storage);
    // The newest segment is gone, which is recorded in the lock file alone.
    Storage::remove(&storage, names.last().unwrap()).unwrap();
    assert!(matches!(
        TestStore::open(&storage, SyncPolicy::Always, store.now),
        Err(StoreError::Damaged(_))
    ));
    repair(&storage, RepairMode::Damage).unwrap();
    let (kept, epoch) = kept(&storage, &store).unwrap();
    assert!(!kept.events.is_empty());
    assert_ne!(epoch, store.epoch());
}

#[test]
fn store_of_a_newer_version_is_not_repaired() {
    let (storage, _) = small_store();
    for name in segments(&storage) {
        let disk = storage.copy();
        disk.with_file(&name, |bytes| *bytes = segment_of_a_newer_version());
        let files =
            || disk.names().iter().map(|n| disk.with_file(n, |b| b.clone())).collect::<Vec<_>>();
        let before = files();
        let refused = repair(&disk, RepairMode::Damage).unwrap_err();
        assert!(refused.to_string().contains("newer longpoll"), "{refused}");
        assert!(refused.to_string().contains(&name), "{refused}");
        assert_eq!(files(), before);
    }
}

#[test]
fn leftover_of_a_compacted_segment_does_not_affect_a_repair() {
    let storage = SimulatedDisk::default();
    let mut store = TestStore::open(&storage, SyncPolicy::Always, start_time()).unwrap();
    let mut leftovers = 0;
    for step in scenario() {
        let before: BTreeMap<_, _> = segments(&storage)
            .into_iter()
            .map(|n| (n.clone(), storage.with_file(&n, |b| b.clone())))
            .collect();
        store.run_step(&step).unwrap();
        let now = segments(&storage);
        let oldest = first_seq(&now[0]);
        let behind = |name: &&String| !now.contains(name) && first_seq(name) > oldest;
        for name in before.keys().filter(behind) {
            let disk = storage.copy();
            let mut bytes = before[name].clone();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            Storage::create(&disk, name).unwrap().write_at(&bytes, 0).unwrap();
            let expected = store.view().events;
            assert_eq!(kept(&disk, &store).unwrap().0.events, expected, "{name}");
            repair(&disk, RepairMode::Damage).unwrap();
            assert_eq!(kept(&disk, &store).unwrap().0.events, expected, "{name}");
            assert!(set_aside_files(&disk).is_empty(), "{name}");
            leftovers += 1;
        }
    }
    assert!(leftovers > 0, "no segment was merged with its neighbour");
}
