//! Goal: who waits is woken, once, and nobody else.

use super::*;
use std::time::Duration;

fn topics(list: &str) -> TopicSet {
    TopicSet::parse(list).unwrap()
}

fn far() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

#[test]
fn a_bell_remembers_what_was_rung_before_the_wait() {
    let waiters = Waiters::<(), ()>::default();
    let waiter = waiters.register(&topics("a"), ());
    drop(waiters.notify(&Name::new("a").unwrap(), Seq::new(5), |()| true));
    assert_eq!(waiter.wait(Seq::new(4), far()), Woken::Notified);
    assert_eq!(waiter.wait(Seq::new(5), Instant::now()), Woken::Deadline);
}

#[test]
fn a_topic_rings_its_own_bell_and_those_of_its_prefixes_only() {
    let waiters = Waiters::<(), ()>::default();
    let state = ["a.b", "a.*", "*", "x,a.b", "a.", "b*", "a.b.c", "x,y"]
        .map(|list| (list, waiters.register(&topics(list), ())));
    drop(waiters.notify(&Name::new("a.b").unwrap(), Seq::new(1), |()| true));
    let condvar: Vec<_> = state
        .iter()
        .filter(|(_, waiter)| waiter.wait(Seq::new(0), Instant::now()) == Woken::Notified)
        .map(|(list, _)| *list)
        .collect();
    assert_eq!(condvar, ["a.b", "a.*", "*", "x,a.b"]);
}

#[test]
fn bells_are_gone_when_nobody_sits() {
    let waiters = Waiters::<(), ()>::default();
    let state = ["a", "a", "a,b*", "*"].map(|list| waiters.register(&topics(list), ()));
    assert_eq!(waiters.handles().len(), 4);
    drop(state);
    assert_eq!(waiters.index.lock().all().len(), 0);
}

#[test]
fn a_drained_room_holds_nobody() {
    let waiters = Waiters::<(), ()>::default();
    let waiter = waiters.register(&topics("a"), ());
    waiters.drain();
    assert_eq!(waiter.wait(Seq::new(0), far()), Woken::Drained);
    assert_eq!(waiters.register(&topics("b"), ()).wait(Seq::new(0), far()), Woken::Drained);
}

#[test]
fn each_held_poll_is_released_once() {
    let waiters = Arc::new(Waiters::<(), ()>::default());
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let waiters = Arc::clone(&waiters);
            std::thread::spawn(move || {
                waiters.register(&topics("a,b"), ()).wait(Seq::new(0), far())
            })
        })
        .collect();
    let a = Name::new("a").unwrap();
    while waiters.held_for(&a) < 4 {
        std::thread::yield_now();
    }
    assert_eq!(waiters.notify(&a, Seq::new(1), |()| false).count(), 0);
    let released: usize =
        (2..10).map(|seq| waiters.notify(&a, Seq::new(seq), |()| true).count()).sum();
    assert!(released <= 4);
    for thread in threads {
        assert_eq!(thread.join().unwrap(), Woken::Notified);
    }
}

#[test]
fn a_claimed_waiter_gets_what_the_ringer_leaves_even_after_its_deadline() {
    let waiters = Waiters::<(), &str>::default();
    let waiter = waiters.register(&topics("a"), ());
    let a = Name::new("a").unwrap();
    std::thread::scope(|scope| {
        let past_deadline = Instant::now() + Duration::from_millis(20);
        let waits = scope.spawn(move || waiter.wait(Seq::new(0), past_deadline));
        while waiters.waiting() < 1 {
            std::thread::yield_now();
        }
        let mut released = waiters.notify(&a, Seq::new(1), |()| true);
        // The waiter may have given up just before; then there is nobody to claim.
        if released.count() == 1 {
            while Instant::now() < past_deadline {
                std::thread::yield_now();
            }
            released
                .by_queue()
                .flatten()
                .for_each(|released_one| released_one.answer = Some("written"));
            drop(released);
            assert_eq!(waits.join().unwrap(), Woken::Answered("written"));
        }
    });
}
