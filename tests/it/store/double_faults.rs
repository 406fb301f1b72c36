//! Goal: a fault that comes while a store gets over another one costs no more than one alone.

use longpoll::config::Sync;
use longpoll::store::scan::Failure;

use crate::support::disk_faults::{Fault, SurvivingRenames, SurvivingWrites};
use crate::support::simulated_disk::SimulatedDisk;
use crate::support::test_store::{LogView, Step, TestStore, scenario, start_time};

/// So much of the script: batches, keys, trims of all kinds, a rewritten segment, a restart.
const STEPS: usize = 16;

fn steps() -> Vec<Step> {
    scenario().into_iter().take(STEPS).collect()
}

/// What the log was before the steps and after each of them, and the operations it took.
fn undisturbed() -> (Vec<LogView>, usize) {
    let ram = SimulatedDisk::default();
    let mut shelf = TestStore::open(&ram, Sync::Always, start_time()).unwrap();
    let mut views = vec![shelf.view()];
    for step in steps() {
        shelf.run_step(&step).unwrap();
        views.push(shelf.view());
    }
    (views, ram.operations())
}

/// Goes on with the script, trying again whatever is refused, until the power goes. Returns how many
/// steps were acknowledged, and the shelf.
fn go_on(ram: &SimulatedDisk) -> Option<(usize, TestStore)> {
    let open = |now| (0..3).find_map(|_| TestStore::open(ram, Sync::Always, now).ok());
    let mut shelf = open(start_time())?;
    let mut done = 0;
    for step in steps() {
        let mut tries = 0;
        while !ram.is_off() && shelf.run_step(&step).is_err() {
            assert!(tries < 4, "{step:?} is refused for ever");
            tries += 1;
            shelf.advance_clock(1);
            if matches!(step, Step::Reopen) {
                shelf = open(shelf.now)?;
            }
        }
        if let (Step::AdvanceClock(_), false) = (&step, ram.is_off()) {
            shelf.advance_clock(1);
            shelf.run_step(&Step::AdvanceClock(0)).unwrap();
        }
        if ram.is_off() {
            break;
        }
        done += 1;
    }
    Some((done, shelf))
}

/// What may be there when so many steps were acknowledged: the next one whole, or nothing of it.
fn possible(views: &[LogView], done: usize) -> &[LogView] {
    &views[done..=(done + 1).min(views.len() - 1)]
}

#[test]
fn a_refusal_followed_by_another_or_by_a_power_cut_loses_nothing() {
    let (views, operations) = undisturbed();
    let mut walked = 0;
    for first in 0..operations {
        for second in first + 1..first + 6 {
            for (fault, worse) in [
                (Fault::Error, Fault::PowerCut),
                (Fault::ShortWrite, Fault::PowerCut),
                (Fault::Error, Fault::Error),
                (Fault::ShortWrite, Fault::ShortWrite),
            ] {
                let ram = SimulatedDisk::default();
                ram.fail_at(first, fault);
                ram.fail_at(second, worse);
                let what = format!("{fault:?} at {first}, {worse:?} at {second}");
                let Some((done, shelf)) = go_on(&ram) else { continue };
                let (now, epoch) = (shelf.now, shelf.epoch());
                drop(shelf);
                for left in [
                    SurvivingWrites::None,
                    SurvivingWrites::All,
                    SurvivingWrites::LastOnly,
                    SurvivingWrites::TornEnd,
                ] {
                    for names in [
                        SurvivingRenames::None,
                        SurvivingRenames::All,
                        SurvivingRenames::AllButFirst,
                    ] {
                        let disk = ram.after_power_cut(left, names);
                        let what = format!("{what}, {left:?}, {names:?}, {done} done");
                        let again = TestStore::open(&disk, Sync::Always, now);
                        let again = again.unwrap_or_else(|failure| panic!("{what}: {failure}"));
                        let (view, possible) = (again.view(), possible(&views, done));
                        assert!(possible.contains(&view), "{what}: {view:#?}, not {possible:#?}");
                        assert_eq!(again.epoch(), epoch, "{what}");
                        walked += 1;
                    }
                }
            }
        }
    }
    println!("{walked} pairs of faults");
}

#[test]
fn a_power_cut_or_a_refusal_while_it_starts_after_a_power_cut_loses_nothing() {
    let (views, operations) = undisturbed();
    let mut walked = 0;
    for first in 0..operations {
        let ram = SimulatedDisk::default();
        ram.fail_at(first, Fault::PowerCut);
        let Some((done, shelf)) = go_on(&ram) else { continue };
        let (now, epoch) = (shelf.now, shelf.epoch());
        drop(shelf);
        for (left, names) in [
            (SurvivingWrites::None, SurvivingRenames::None),
            (SurvivingWrites::All, SurvivingRenames::All),
            (SurvivingWrites::TornStart, SurvivingRenames::All),
            (SurvivingWrites::TornEnd, SurvivingRenames::RemovalsOnly),
        ] {
            let begun = ram.after_power_cut(left, names);
            let recovered = begun.copy();
            TestStore::open(&recovered, Sync::Always, now).unwrap();
            for second in 0..recovered.operations() {
                for fault in [Fault::PowerCut, Fault::ShortWrite] {
                    let disk = begun.copy();
                    disk.fail_at(second, fault);
                    match TestStore::open(&disk, Sync::Always, now) {
                        Ok(_) | Err(Failure::Io(_)) => {}
                        Err(failure) => panic!("{fault:?} at {second} of a start: {failure}"),
                    }
                    for (left, names) in [
                        (SurvivingWrites::None, SurvivingRenames::None),
                        (SurvivingWrites::All, SurvivingRenames::All),
                        (SurvivingWrites::All, SurvivingRenames::AllButFirst),
                        (SurvivingWrites::TornStart, SurvivingRenames::RemovalsOnly),
                    ] {
                        let what =
                            format!("{first}, then {fault:?} at {second}, {left:?} {names:?}");
                        let disk = disk.after_power_cut(left, names);
                        let again = TestStore::open(&disk, Sync::Always, now);
                        let again = again.unwrap_or_else(|failure| panic!("{what}: {failure}"));
                        let (view, possible) = (again.view(), possible(&views, done));
                        assert!(possible.contains(&view), "{what}: {view:#?}, not {possible:#?}");
                        assert_eq!(again.epoch(), epoch, "{what}");
                        walked += 1;
                    }
                }
            }
        }
    }
    println!("{walked} pairs of faults");
}
