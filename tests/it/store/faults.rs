//! Guards durability under one fault: wherever the disk fails or the power is cut, acknowledged
//! steps survive, unacknowledged steps happened completely or not at all, and the store stays
//! usable.

use std::collections::VecDeque;

use longpoll::config::SyncPolicy;
use longpoll::log::WriteError;
use longpoll::log::{AppendError, Appended};

use crate::support::disk_faults::{Fault, SurvivingRenames, SurvivingWrites};
use crate::support::simulated_disk::SimulatedDisk;
use crate::support::test_store::Step;
use crate::support::test_store::{LogView, TestStore, scenario, start_time};

/// The state of the log before the scenario and after each step, and the number of operations.
fn run_without_faults(sync: SyncPolicy) -> (Vec<LogView>, usize) {
    let storage = SimulatedDisk::default();
    let mut store = TestStore::open(&storage, sync, start_time()).unwrap();
    let mut views = vec![store.view()];
    for step in scenario() {
        store.run_step(&step).unwrap();
        views.push(store.view());
    }
    (views, storage.operations())
}

/// Runs the scenario until the power is cut at an operation. Returns the disk, the number of
/// acknowledged steps, and the epoch of the store.
fn run_until_power_cut(
    sync: SyncPolicy,
    operation: usize,
) -> (SimulatedDisk, usize, Option<longpoll::cursor::Epoch>) {
    let storage = SimulatedDisk::default();
    storage.fail_at(operation, Fault::PowerCut);
    let Ok(mut store) = TestStore::open(&storage, sync, start_time()) else {
        return (storage, 0, None);
    };
    let epoch = store.epoch();
    let mut done = 0;
    for step in scenario() {
        let passed = matches!(step, Step::AdvanceClock(_) | Step::Reopen);
        if store.run_step(&step).is_err() || passed && storage.is_off() {
            break;
        }
        done += 1;
    }
    assert!(storage.is_off(), "the scenario ended before operation {operation}");
    (storage, done, Some(epoch))
}

/// Opens the store with a clock that is as late as the steps have set it.
fn reopen(storage: &SimulatedDisk, sync: SyncPolicy, done: usize) -> TestStore {
    let mut now = start_time();
    for step in scenario().iter().take(done) {
        if let Step::AdvanceClock(seconds) = step {
            now.at += std::time::Duration::from_secs(*seconds);
            now.wall += std::time::Duration::from_secs(*seconds);
        }
    }
    TestStore::open(storage, sync, now).unwrap_or_else(|failure| panic!("refused: {failure}"))
}

#[test]
fn acknowledged_steps_survive_a_power_cut_at_any_operation() {
    let (views, operations) = run_without_faults(SyncPolicy::Always);
    assert!(operations > 60, "only {operations} operations");
    for operation in 0..operations {
        let (storage, done, epoch) = run_until_power_cut(SyncPolicy::Always, operation);
        for writes in SurvivingWrites::EACH {
            for renames in SurvivingRenames::EACH {
                let case = format!("operation {operation}, {writes:?}, {renames:?}, {done} done");
                let disk = storage.after_power_cut(writes, renames);
                let mut store = reopen(&disk, SyncPolicy::Always, done);
                // The interrupted step happened completely or not at all.
                let view = store.view();
                let possible = &views[done..=(done + 1).min(views.len() - 1)];
                assert!(possible.contains(&view), "{case}: {view:#?}, not {possible:#?}");
                if let Some(epoch) = epoch {
                    assert_eq!(store.epoch(), epoch, "{case}");
                }
                let next = store.view().snapshot.head.get() + 1;
                store.publish("busy", 1, "goes on", None).unwrap();
                assert_eq!(store.view().events.last().unwrap().0, next, "{case}");
            }
        }
    }
}

#[test]
fn power_cut_without_sync_starts_a_new_epoch_with_whole_steps_only() {
    for sync in [SyncPolicy::Never, SyncPolicy::Every(std::time::Duration::from_secs(1))] {
        let (views, operations) = run_without_faults(sync);
        for operation in 0..operations {
            let (storage, done, epoch) = run_until_power_cut(sync, operation);
            for writes in SurvivingWrites::EACH {
                for renames in SurvivingRenames::EACH {
                    let case = format!("operation {operation}, {writes:?}, {renames:?}");
                    let store = reopen(&storage.after_power_cut(writes, renames), sync, done);
                    let view = store.view();
                    let possible = &views[..=(done + 1).min(views.len() - 1)];
                    assert!(possible.contains(&view), "{case}: {view:#?}");
                    let same = epoch == Some(store.epoch());
                    assert!(!same || possible[done..].contains(&view), "{case}: the same epoch");
                }
            }
        }
    }
}

#[test]
fn failed_step_changes_nothing_and_its_retry_succeeds() {
    let (views, operations) = run_without_faults(SyncPolicy::Always);
    for fault in [Fault::Error, Fault::ShortWrite] {
        for operation in 0..operations {
            let storage = SimulatedDisk::default();
            storage.fail_at(operation, fault);
            let Ok(mut store) = TestStore::open(&storage, SyncPolicy::Always, start_time()) else {
                continue;
            };
            for (done, step) in scenario().iter().enumerate() {
                let case = format!("{fault:?} at operation {operation}, step {done}");
                let mut again = store.run_step(step);
                if again.is_err() && matches!(step, Step::Reopen) {
                    // An open that fails succeeds when it is retried.
                    store = TestStore::open(&storage, SyncPolicy::Always, store.now).expect(&case);
                    again = Ok(());
                }
                if let Err(refusal) = again {
                    assert!(matches!(refusal, WriteError::Storage(_)), "{case}: {refusal:?}");
                    assert_eq!(store.view().events, views[done].events, "{case}");
                    // The store retries rarely, so that it does not load a failing disk.
                    store.advance_clock(1);
                    store.run_step(step).unwrap_or_else(|e| panic!("{case}, second retry: {e:?}"));
                }
                if let Step::AdvanceClock(_) = step {
                    store.advance_clock(1);
                    store.run_step(&Step::AdvanceClock(0)).unwrap();
                }
                assert_eq!(store.view(), views[done + 1], "{case}");
            }
            let (now, view) = (store.now, store.view());
            drop(store);
            for writes in SurvivingWrites::EACH {
                let disk = storage.after_power_cut(writes, SurvivingRenames::All);
                let case = format!("{fault:?} at operation {operation}, {writes:?}");
                let again = TestStore::open(&disk, SyncPolicy::Always, now);
                let again = again.unwrap_or_else(|failure| panic!("{case}: {failure}"));
                assert_eq!(again.view(), view, "{case}");
            }
        }
    }
}

#[test]
fn repeat_during_the_first_write_has_the_outcome_of_the_first_publish() {
    let storage = SimulatedDisk::default();
    let mut store = TestStore::open(&storage, SyncPolicy::Always, start_time()).unwrap();
    let (first, repeat) =
        (store.publish_command("news", "k", "x"), store.publish_command("news", "k", "x"));
    let other = store.publish_command("news", "k", "something else");
    let mut commands = VecDeque::from([first.0, repeat.0, other.0]);
    // All three are queued; the first is written alone, then the others look up the key again.
    store.store.group_commit(&mut commands, store.now.at);
    assert!(matches!(first.1.try_recv(), Ok(Ok(Appended::New(_)))));
    assert!(repeat.1.try_recv().is_err() && other.1.try_recv().is_err());
    store.store.group_commit(&mut commands, store.now.at);
    assert!(matches!(repeat.1.try_recv(), Ok(Ok(Appended::Duplicate(_)))));
    assert!(matches!(other.1.try_recv(), Ok(Err(WriteError::Rejected(AppendError::KeyReused)))));

    let (first, repeat) =
        (store.publish_command("news", "l", "y"), store.publish_command("news", "l", "y"));
    let mut commands = VecDeque::from([first.0, repeat.0]);
    storage.fail_at(0, Fault::ShortWrite);
    store.store.group_commit(&mut commands, store.now.at);
    assert!(matches!(first.1.try_recv(), Ok(Err(WriteError::Storage(_)))));
    assert!(matches!(repeat.1.try_recv(), Ok(Err(WriteError::Storage(_)))));
    store.advance_clock(1);
    let next = store.publish_command("news", "l", "y");
    store.store.group_commit(&mut VecDeque::from([next.0]), store.now.at);
    assert!(matches!(next.1.try_recv(), Ok(Ok(Appended::New(_)))));
    let seqs: Vec<u64> = store.view().events.iter().map(|event| event.0).collect();
    assert_eq!(seqs, [1, 2]);
}

#[test]
fn refused_commit_is_gone_after_an_end_in_order_and_after_a_kill() {
    for fault in [Fault::Error, Fault::Refused, Fault::ShortWrite] {
        for operation in 0..2 {
            for closes in [true, false] {
                let case = format!("{fault:?} at operation {operation}, closed in order: {closes}");
                let storage = SimulatedDisk::default();
                let mut store =
                    TestStore::open(&storage, SyncPolicy::Always, start_time()).unwrap();
                store.publish("news", 1, "acknowledged", None).unwrap();
                let (now, metrics) = (store.now, store.store.metrics.clone());
                // The write or the sync fails once; the program ends before the next try is due.
                storage.fail_at(operation, fault);
                assert!(store.publish("news", 1, "refused", None).is_err(), "{case}");
                if closes {
                    store.store.journal.close(now.at, &metrics.store).unwrap();
                }
                drop(store);
                let store = TestStore::open(&storage, SyncPolicy::Always, now).unwrap();
                let bodies: Vec<_> = store.view().events.into_iter().map(|e| e.2).collect();
                assert_eq!(bodies, ["acknowledged0"], "{case}");
            }
        }
    }
}

#[test]
fn store_does_not_append_after_a_failed_sync() {
    let storage = SimulatedDisk::default();
    let sync = SyncPolicy::Every(std::time::Duration::from_secs(1));
    let mut store = TestStore::open(&storage, sync, start_time()).unwrap();
    store.publish("news", 1, "safe", None).unwrap();
    let (now, metrics) = (store.now.at, store.store.metrics.clone());
    store.store.journal.sync(now, &metrics.store).unwrap();
    store.publish("news", 1, "acknowledged before its sync", None).unwrap();
    storage.fail_at(0, Fault::Error);
    store.store.journal.sync(now, &metrics.store).unwrap_err();
    // The disk works again, but it has lost the unsynced writes.
    for _ in 0..3 {
        store.advance_clock(1);
        let refused = store.publish("news", 1, "after", None);
        assert!(matches!(refused, Err(WriteError::Storage(_))), "the store appends after a hole");
    }
    let bodies =
        |store: &TestStore| store.view().events.into_iter().map(|e| e.2).collect::<Vec<_>>();
    assert_eq!(
        bodies(&store),
        ["safe0", "acknowledged before its sync0"],
        "the events in memory are still served"
    );
    let epoch = store.epoch();
    let store = TestStore::open(&storage, sync, store.now).unwrap();
    assert_eq!(bodies(&store), ["safe0"]);
    assert_ne!(store.epoch(), epoch, "the seq is issued again, so that the epoch must be new");
}
