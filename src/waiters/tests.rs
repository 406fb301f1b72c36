//! Goal: a publish wakes exactly the waiters of its topic, each once.

use super::*;
use std::time::Duration;

fn topics(list: &str) -> TopicSet {
    TopicSet::parse(list).unwrap()
}

fn in_a_minute() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

#[test]
fn queue_remembers_a_notification_that_precedes_the_wait() {
    let waiters = Waiters::<(), ()>::default();
    let waiter = waiters.register(&topics("a"), ());
    drop(waiters.notify(&Name::new("a").unwrap(), Seq::new(5), |()| true));
    assert_eq!(waiter.wait(Seq::new(4), in_a_minute()), Woken::Notified);
    assert_eq!(waiter.wait(Seq::new(5), Instant::now()), Woken::Deadline);
}

#[test]
fn publish_notifies_the_queues_of_its_topic_and_prefixes_only() {
    let waiters = Waiters::<(), ()>::default();
    let registered = ["a.b", "a.*", "*", "x,a.b", "a.", "b*", "a.b.c", "x,y"]
        .map(|list| (list, waiters.register(&topics(list), ())));
    drop(waiters.notify(&Name::new("a.b").unwrap(), Seq::new(1), |()| true));
    let notified: Vec<_> = registered
        .iter()
        .filter(|(_, waiter)| waiter.queue.state.lock().last_notified == Seq::new(1))
        .map(|(list, _)| *list)
        .collect();
    assert_eq!(notified, ["a.b", "a.*", "*", "x,a.b"]);
}

#[test]
fn queue_is_removed_with_its_last_waiter() {
    let waiters = Waiters::<(), ()>::default();
    let registered = ["a", "a", "a,b*", "*"].map(|list| waiters.register(&topics(list), ()));
    assert_eq!(waiters.handles().len(), 4);
    drop(registered);
    assert_eq!(waiters.index.lock().all().len(), 0);
}

#[test]
fn drain_ends_present_and_future_waits() {
    let waiters = Waiters::<(), ()>::default();
    let waiter = waiters.register(&topics("a"), ());
    waiters.drain();
    assert_eq!(waiter.wait(Seq::ZERO, in_a_minute()), Woken::Drained);
    assert_eq!(waiters.register(&topics("b"), ()).wait(Seq::ZERO, in_a_minute()), Woken::Drained);
}

#[test]
fn notification_hides_neither_the_deadline_nor_a_cancellation_nor_a_drain() {
    let waiters = Waiters::<(), ()>::default();
    let waiter = waiters.register(&topics("a"), ());
    drop(waiters.notify(&Name::new("a").unwrap(), Seq::new(1), |()| false));
    assert_eq!(waiter.wait(Seq::ZERO, in_a_minute()), Woken::Notified);
    assert_eq!(waiter.wait(Seq::ZERO, Instant::now()), Woken::Deadline);
    waiters.drain();
    assert_eq!(waiter.wait(Seq::ZERO, in_a_minute()), Woken::Drained);
    waiter.handle().unwrap().cancel();
    assert_eq!(waiter.wait(Seq::ZERO, in_a_minute()), Woken::Cancelled);
}

#[test]
fn cancelled_waiters_of_all_queues_end_their_wait_and_the_others_go_on() {
    let waiters = Waiters::<bool, ()>::default();
    let cancelled = |number: usize| number % 3 != 0;
    std::thread::scope(|scope| {
        for number in 0..90 {
            let list = ["a", "b*", "a,c"][number / 30];
            let waiter = waiters.register(&topics(list), cancelled(number));
            scope.spawn(move || {
                let expected = if cancelled(number) { Woken::Cancelled } else { Woken::Drained };
                assert_eq!(waiter.wait(Seq::ZERO, in_a_minute()), expected);
            });
        }
        cancel_all(waiters.handles().iter().filter(|handle| *handle.payload));
        while waiters.handles().len() > 30 {
            std::thread::yield_now();
        }
        waiters.drain();
    });
}

#[test]
fn each_waiter_is_released_once() {
    let waiters = Arc::new(Waiters::<(), ()>::default());
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let waiters = Arc::clone(&waiters);
            std::thread::spawn(move || {
                waiters.register(&topics("a,b"), ()).wait(Seq::ZERO, in_a_minute())
            })
        })
        .collect();
    let a = Name::new("a").unwrap();
    while waiters.held_for(&a) < 4 {
        std::thread::yield_now();
    }
    assert_eq!(waiters.waiting(), 4);
    assert_eq!(waiters.notify(&a, Seq::new(1), |()| false).count(), 0);
    let released: usize =
        (2..10).map(|seq| waiters.notify(&a, Seq::new(seq), |()| true).count()).sum();
    assert!(released <= 4);
    for thread in threads {
        assert_eq!(thread.join().unwrap(), Woken::Notified);
    }
}

#[test]
fn released_waiter_gets_the_publishers_response_even_after_its_deadline() {
    let waiters = Waiters::<(), &str>::default();
    let waiter = waiters.register(&topics("a"), ());
    let a = Name::new("a").unwrap();
    std::thread::scope(|scope| {
        let deadline = Instant::now() + Duration::from_millis(20);
        let waiting = scope.spawn(move || waiter.wait(Seq::ZERO, deadline));
        while waiters.waiting() < 1 && !waiting.is_finished() {
            std::thread::yield_now();
        }
        let mut released = waiters.notify(&a, Seq::new(1), |()| true);
        // On a slow machine the deadline may pass first; then there is no waiter to release.
        if released.count() == 1 {
            assert_eq!(waiters.waiting(), 0);
            while Instant::now() < deadline {
                std::thread::yield_now();
            }
            released.by_queue().flatten().for_each(|waiter| waiter.delivery = Some("written"));
            drop(released);
            assert_eq!(waiting.join().unwrap(), Woken::Answered("written"));
        }
    });
}
