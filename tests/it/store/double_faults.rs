//! Guards recovery under a second fault: a fault during the recovery from another one costs no more
//! than one fault alone.

use longpoll::config::SyncPolicy;
use longpoll::cursor::Epoch;
use longpoll::log::Timestamp;
use longpoll::store::error::StoreError;

use crate::support::disk_faults::{Fault, SurvivingRenames, SurvivingWrites};
use crate::support::simulated_disk::SimulatedDisk;
use crate::support::test_store::{LogView, Step, TestStore, scenario, start_time};

/// The part of the scenario that is used: batches, keys, all kinds of trims, a compacted segment, a
/// restart.
const STEPS: usize = 16;

fn steps() -> Vec<Step> {
    scenario().into_iter().take(STEPS).collect()
}

/// The state of the log before the steps and after each of them, and the number of operations.
fn run_without_faults() -> (Vec<LogView>, usize) {
    let storage = SimulatedDisk::default();
    let mut store = TestStore::open(&storage, SyncPolicy::Always, start_time()).unwrap();
    let mut views = vec![store.view()];
    for step in steps() {
        store.run_step(&step).unwrap();
        views.push(store.view());
    }
    (views, storage.operations())
}

/// Runs the steps, retrying refused ones, until the power is cut. Returns the number of
/// acknowledged steps and the store.
fn run_with_retries(storage: &SimulatedDisk) -> Option<(usize, TestStore)> {
    let open = |now| (0..3).find_map(|_| TestStore::open(storage, SyncPolicy::Always, now).ok());
    let mut store = open(start_time())?;
    let mut done = 0;
    for step in steps() {
        let mut tries = 0;
        while !storage.is_off() && store.run_step(&step).is_err() {
            assert!(tries < 4, "{step:?} is always refused");
            tries += 1;
            store.advance_clock(1);
            if matches!(step, Step::Reopen) {
                store = open(store.now)?;
            }
        }
        if let (Step::AdvanceClock(_), false) = (&step, storage.is_off()) {
            store.advance_clock(1);
            store.run_step(&Step::AdvanceClock(0)).unwrap();
        }
        if storage.is_off() {
            break;
        }
        done += 1;
    }
    Some((done, store))
}

/// What a store may contain that is opened after the faults.
struct Expected<'v> {
    views: &'v [LogView],
    epoch: Epoch,
    now: Timestamp,
}

impl<'v> Expected<'v> {
    /// After `done` acknowledged steps: without the next step, or with all of it.
    fn after(done: usize, store: &TestStore, views: &'v [LogView]) -> Expected<'v> {
        let views = &views[done..=(done + 1).min(views.len() - 1)];
        Expected { views, epoch: store.epoch(), now: store.now }
    }

    fn check(&self, disk: &SimulatedDisk, case: &str) {
        let store = TestStore::open(disk, SyncPolicy::Always, self.now);
        let store = store.unwrap_or_else(|failure| panic!("{case}: {failure}"));
        let view = store.view();
        assert!(self.views.contains(&view), "{case}: {view:#?}, not {:#?}", self.views);
        assert_eq!(store.epoch(), self.epoch, "{case}");
    }
}

#[test]
fn error_followed_by_another_or_by_a_power_cut_loses_nothing() {
    let (views, operations) = run_without_faults();
    let mut pairs = 0;
    for first in 0..operations {
        for second in first + 1..first + 6 {
            for (fault, worse) in [
                (Fault::Error, Fault::PowerCut),
                (Fault::ShortWrite, Fault::PowerCut),
                (Fault::Error, Fault::Error),
                (Fault::ShortWrite, Fault::ShortWrite),
            ] {
                let storage = SimulatedDisk::default();
                storage.fail_at(first, fault);
                storage.fail_at(second, worse);
                let case = format!("{fault:?} at {first}, {worse:?} at {second}");
                let Some((done, store)) = run_with_retries(&storage) else { continue };
                let expected = Expected::after(done, &store, &views);
                drop(store);
                for writes in [
                    SurvivingWrites::None,
                    SurvivingWrites::All,
                    SurvivingWrites::LastOnly,
                    SurvivingWrites::TornEnd,
                ] {
                    for renames in [
                        SurvivingRenames::None,
                        SurvivingRenames::All,
                        SurvivingRenames::AllButFirst,
                    ] {
                        let disk = storage.after_power_cut(writes, renames);
                        let case = format!("{case}, {writes:?}, {renames:?}, {done} done");
                        expected.check(&disk, &case);
                        pairs += 1;
                    }
                }
            }
        }
    }
    println!("{pairs} pairs of faults");
}

#[test]
fn fault_during_the_recovery_from_a_power_cut_loses_nothing() {
    let (views, operations) = run_without_faults();
    let mut pairs = 0;
    for first in 0..operations {
        let storage = SimulatedDisk::default();
        storage.fail_at(first, Fault::PowerCut);
        let Some((done, store)) = run_with_retries(&storage) else { continue };
        let expected = Expected::after(done, &store, &views);
        drop(store);
        for (writes, renames) in [
            (SurvivingWrites::None, SurvivingRenames::None),
            (SurvivingWrites::All, SurvivingRenames::All),
            (SurvivingWrites::TornStart, SurvivingRenames::All),
            (SurvivingWrites::TornEnd, SurvivingRenames::RemovalsOnly),
        ] {
            let crashed = storage.after_power_cut(writes, renames);
            let recovered = crashed.copy();
            TestStore::open(&recovered, SyncPolicy::Always, expected.now).unwrap();
            for second in 0..recovered.operations() {
                for fault in [Fault::PowerCut, Fault::ShortWrite] {
                    let disk = crashed.copy();
                    disk.fail_at(second, fault);
                    match TestStore::open(&disk, SyncPolicy::Always, expected.now) {
                        Ok(_) | Err(StoreError::Io(_)) => {}
                        Err(failure) => panic!("{fault:?} at {second} of the recovery: {failure}"),
                    }
                    for (writes, renames) in [
                        (SurvivingWrites::None, SurvivingRenames::None),
                        (SurvivingWrites::All, SurvivingRenames::All),
                        (SurvivingWrites::All, SurvivingRenames::AllButFirst),
                        (SurvivingWrites::TornStart, SurvivingRenames::RemovalsOnly),
                    ] {
                        let case =
                            format!("{first}, then {fault:?} at {second}, {writes:?} {renames:?}");
                        let disk = disk.after_power_cut(writes, renames);
                        expected.check(&disk, &case);
                        pairs += 1;
                    }
                }
            }
        }
    }
    println!("{pairs} pairs of faults");
}
