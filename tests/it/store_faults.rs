//! Goal: wherever the disk fails or the power goes, what was acknowledged is there, what was not
//! happened either whole or not at all, and a store that was refused something goes on.

use std::collections::VecDeque;

use longpoll::config::SyncPolicy;
use longpoll::log::WriteError;
use longpoll::log::{AppendError, Appended};

use crate::support::{Fault, LEFT, NAMES, Names, Ram, Shelf, Step, View, script, start};

/// What the log was before the script and after each of its steps, and the operations it took.
fn undisturbed(sync: SyncPolicy) -> (Vec<View>, usize) {
    let ram = Ram::default();
    let mut shelf = Shelf::open(&ram, sync, start()).unwrap();
    let mut views = vec![shelf.view()];
    for step in script() {
        shelf.step(&step).unwrap();
        views.push(shelf.view());
    }
    (views, ram.operations())
}

/// Runs the script until the power goes at an operation. Returns how many steps were acknowledged
/// in how many epochs' worth of disk.
fn until_power_cut(
    sync: SyncPolicy,
    operation: usize,
) -> (Ram, usize, Option<longpoll::cursor::Epoch>) {
    let ram = Ram::default();
    ram.fail_at(operation, Fault::PowerCut);
    let Ok(mut shelf) = Shelf::open(&ram, sync, start()) else { return (ram, 0, None) };
    let epoch = shelf.epoch();
    let mut done = 0;
    for step in script() {
        let passed = matches!(step, Step::Pass(_) | Step::Reopen);
        if shelf.step(&step).is_err() || passed && ram.is_off() {
            break;
        }
        done += 1;
    }
    assert!(ram.is_off(), "the script ended before operation {operation}");
    (ram, done, Some(epoch))
}

/// Times in the views do not matter, and the clock of the one that is opened again is later.
fn opened(ram: &Ram, sync: SyncPolicy, done: usize) -> Shelf {
    let mut now = start();
    for step in script().iter().take(done) {
        if let Step::Pass(seconds) = step {
            now.at += std::time::Duration::from_secs(*seconds);
            now.wall += std::time::Duration::from_secs(*seconds);
        }
    }
    Shelf::open(ram, sync, now).unwrap_or_else(|failure| panic!("refused: {failure}"))
}

#[test]
fn what_was_acknowledged_survives_a_power_cut_at_any_operation() {
    let (views, operations) = undisturbed(SyncPolicy::Always);
    assert!(operations > 60, "only {operations} operations");
    for operation in 0..operations {
        let (ram, done, epoch) = until_power_cut(SyncPolicy::Always, operation);
        for left in LEFT {
            for names in NAMES {
                let what = format!("operation {operation}, {left:?}, {names:?}, {done} done");
                let disk = ram.after_power_cut(left, names);
                let mut shelf = opened(&disk, SyncPolicy::Always, done);
                // The step in which it happened was done whole or not at all.
                let view = shelf.view();
                let possible = &views[done..=(done + 1).min(views.len() - 1)];
                assert!(possible.contains(&view), "{what}: {view:#?}, not {possible:#?}");
                if let Some(epoch) = epoch {
                    assert_eq!(shelf.epoch(), epoch, "{what}");
                }
                let next = shelf.view().snapshot.head.get() + 1;
                shelf.publish("busy", 1, "goes on", None).unwrap();
                assert_eq!(shelf.view().events.last().unwrap().0, next, "{what}");
            }
        }
    }
}

#[test]
fn without_a_sync_a_power_cut_begins_a_new_epoch_with_whole_steps_only() {
    for sync in [SyncPolicy::Never, SyncPolicy::Every(std::time::Duration::from_secs(1))] {
        let (views, operations) = undisturbed(sync);
        for operation in 0..operations {
            let (ram, done, epoch) = until_power_cut(sync, operation);
            for left in LEFT {
                for names in NAMES {
                    let what = format!("operation {operation}, {left:?}, {names:?}");
                    let shelf = opened(&ram.after_power_cut(left, names), sync, done);
                    let view = shelf.view();
                    let possible = &views[..=(done + 1).min(views.len() - 1)];
                    assert!(possible.contains(&view), "{what}: {view:#?}");
                    let same = epoch == Some(shelf.epoch());
                    assert!(!same || possible[done..].contains(&view), "{what}: the same epoch");
                }
            }
        }
    }
}

#[test]
fn a_refusal_changes_nothing_and_the_next_try_does_it() {
    let (views, operations) = undisturbed(SyncPolicy::Always);
    for fault in [Fault::Refused, Fault::Short] {
        for operation in 0..operations {
            let ram = Ram::default();
            ram.fail_at(operation, fault);
            let Ok(mut shelf) = Shelf::open(&ram, SyncPolicy::Always, start()) else { continue };
            for (done, step) in script().iter().enumerate() {
                let what = format!("{fault:?} at operation {operation}, step {done}");
                let mut again = shelf.step(step);
                if again.is_err() && matches!(step, Step::Reopen) {
                    // What cannot be opened can be opened later.
                    shelf = Shelf::open(&ram, SyncPolicy::Always, shelf.now).expect(&what);
                    again = Ok(());
                }
                if let Err(refusal) = again {
                    assert!(matches!(refusal, WriteError::Storage(_)), "{what}: {refusal:?}");
                    assert_eq!(shelf.view().events, views[done].events, "{what}");
                    // Seldom enough that a disk in trouble is left in peace.
                    shelf.pass(1);
                    shelf.step(step).unwrap_or_else(|e| panic!("{what}, once more: {e:?}"));
                }
                if let Step::Pass(_) = step {
                    shelf.pass(1);
                    shelf.step(&Step::Pass(0)).unwrap();
                }
                assert_eq!(shelf.view(), views[done + 1], "{what}");
            }
            let (now, view) = (shelf.now, shelf.view());
            drop(shelf);
            for left in LEFT {
                let disk = ram.after_power_cut(left, Names::All);
                let what = format!("{fault:?} at operation {operation}, {left:?}");
                let again = Shelf::open(&disk, SyncPolicy::Always, now);
                let again = again.unwrap_or_else(|failure| panic!("{what}: {failure}"));
                assert_eq!(again.view(), view, "{what}");
            }
        }
    }
}

#[test]
fn a_repeat_that_comes_while_the_first_is_written_is_the_same_event_or_the_first_try() {
    let ram = Ram::default();
    let mut shelf = Shelf::open(&ram, SyncPolicy::Always, start()).unwrap();
    let (first, repeat) = (shelf.wanted("news", "k", "x"), shelf.wanted("news", "k", "x"));
    let other = shelf.wanted("news", "k", "something else");
    let mut wishes = VecDeque::from([first.0, repeat.0, other.0]);
    // Together they wait; the first is written alone, and the others look again.
    shelf.store.group_commit(&mut wishes, shelf.now.at);
    assert!(matches!(first.1.try_recv(), Ok(Ok(Appended::New(_)))));
    assert!(repeat.1.try_recv().is_err() && other.1.try_recv().is_err());
    shelf.store.group_commit(&mut wishes, shelf.now.at);
    assert!(matches!(repeat.1.try_recv(), Ok(Ok(Appended::Duplicate(_)))));
    assert!(matches!(other.1.try_recv(), Ok(Err(WriteError::Rejected(AppendError::KeyReused)))));

    let (first, repeat) = (shelf.wanted("news", "l", "y"), shelf.wanted("news", "l", "y"));
    let mut wishes = VecDeque::from([first.0, repeat.0]);
    ram.fail_at(0, Fault::Short);
    shelf.store.group_commit(&mut wishes, shelf.now.at);
    assert!(matches!(first.1.try_recv(), Ok(Err(WriteError::Storage(_)))));
    shelf.pass(1);
    shelf.store.group_commit(&mut wishes, shelf.now.at);
    assert!(matches!(repeat.1.try_recv(), Ok(Ok(Appended::New(_)))));
    let seqs: Vec<u64> = shelf.view().events.iter().map(|event| event.0).collect();
    assert_eq!(seqs, [1, 2]);
}

#[test]
fn what_a_failed_sync_has_lost_is_not_built_upon() {
    let ram = Ram::default();
    let sync = SyncPolicy::Every(std::time::Duration::from_secs(1));
    let mut shelf = Shelf::open(&ram, sync, start()).unwrap();
    shelf.publish("news", 1, "safe", None).unwrap();
    let (now, metrics) = (shelf.now.at, shelf.store.metrics.clone());
    shelf.store.journal.sync(now, &metrics.store).unwrap();
    shelf.publish("news", 1, "acknowledged before its sync", None).unwrap();
    ram.fail_at(0, Fault::Refused);
    shelf.store.journal.sync(now, &metrics.store).unwrap_err();
    // The disk works again, but it does not have what was written.
    for _ in 0..3 {
        shelf.pass(1);
        let refused = shelf.publish("news", 1, "after", None);
        assert!(matches!(refused, Err(WriteError::Storage(_))), "it goes on over a hole");
    }
    let bodies = |shelf: &Shelf| shelf.view().events.into_iter().map(|e| e.2).collect::<Vec<_>>();
    assert_eq!(bodies(&shelf), ["safe0", "acknowledged before its sync0"], "what it has is served");
    let epoch = shelf.epoch();
    let shelf = Shelf::open(&ram, sync, shelf.now).unwrap();
    assert_eq!(bodies(&shelf), ["safe0"]);
    assert_ne!(shelf.epoch(), epoch, "its seq will be given out again");
}
