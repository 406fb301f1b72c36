//! Guards against lost wake-ups: an event that is published between a poll's check of the log and
//! its wait must release the poll.
//!
//! These tests run the race thousands of times under load instead of arguing that it cannot happen.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use longpoll::cursor::Seq;
use longpoll::names::{Name, TopicSet};
use longpoll::waiters::{Waiters, Woken};

use crate::support::{Client, Server, TEST_TIMEOUT, raise_descriptor_limit};

const PUBLISHERS: usize = 8;
const POLLERS: usize = 50;
const EVENTS: usize = 20_000;

/// Violations that the pollers observe.
#[derive(Default)]
struct Violations {
    lost: AtomicUsize,
    twice: AtomicUsize,
    out_of_order: AtomicUsize,
}

/// Polls from the start to the last event, along `next`.
fn follow(client: &mut Client, violations: &Violations) {
    let mut next = String::from("start");
    let mut last = 0;
    while last < EVENTS {
        let target = format!("/topics/race?format=ndjson&limit=1000&since={next}");
        let response = client.get(&target);
        assert_eq!(response.status, 200, "{response:?}");
        for line in response.text().lines() {
            let digits = line.strip_prefix("{\"seq\":").and_then(|rest| rest.split_once(','));
            let seq: usize = digits.expect("an event").0.parse().unwrap();
            match seq {
                _ if seq == last => violations.twice.fetch_add(1, Ordering::Relaxed),
                _ if seq < last => violations.out_of_order.fetch_add(1, Ordering::Relaxed),
                _ => violations.lost.fetch_add(seq - last - 1, Ordering::Relaxed),
            };
            last = seq;
        }
        response.next_cursor().clone_into(&mut next);
    }
}

#[test]
fn pollers_under_load_get_each_event_once_in_order() {
    let server = Server::start(&["--retain-events", "100000"]);
    let violations = Violations::default();
    let published = AtomicUsize::new(0);
    let start = Barrier::new(PUBLISHERS + POLLERS);
    std::thread::scope(|scope| {
        for _ in 0..PUBLISHERS {
            scope.spawn(|| {
                let mut client = server.connect();
                start.wait();
                while published.fetch_add(1, Ordering::Relaxed) < EVENTS {
                    assert_eq!(client.post("/topics/race", "", "x").status, 201);
                }
            });
        }
        for _ in 0..POLLERS {
            scope.spawn(|| {
                let mut client = server.connect();
                start.wait();
                follow(&mut client, &violations);
            });
        }
    });
    let Violations { lost, twice, out_of_order } = violations;
    let [lost, twice, out_of_order] = [lost, twice, out_of_order].map(AtomicUsize::into_inner);
    println!("lost {lost}, duplicated {twice}, out of order {out_of_order}");
    assert_eq!((lost, twice, out_of_order), (0, 0, 0));
}

#[test]
fn poll_sees_a_publish_that_races_with_it() {
    let server = Server::start(&[]);
    let [mut poller, mut publisher] = [server.connect(), server.connect()];
    let mut next = String::from("now");
    next = poller.get(&format!("/topics/a?since={next}&wait=0")).next_cursor().to_owned();
    for round in 0..5_000 {
        // Both requests are in flight; the scheduler decides which one is handled first.
        poller.send_request("GET", &format!("/topics/a?since={next}&wait=55"));
        let release = publisher.post("/topics/a", "", round.to_string());
        let response = poller.response();
        assert_eq!(response.data(), [round.to_string()], "round {round}");
        assert_eq!(response.next_cursor(), release.json()["cursor"]);
        next = response.next_cursor().to_owned();
    }
}

#[test]
fn every_connection_of_a_burst_is_answered_while_all_stay_open() {
    raise_descriptor_limit();
    let server = Server::start(&["--max-connections", "2000"]);
    for burst in 0..3 {
        let mut clients: Vec<_> = (0..1_000).map(|_| server.connect()).collect();
        for client in &mut clients {
            client.send_request("GET", "/health");
        }
        for client in &mut clients {
            assert_eq!(client.response().status, 200, "burst {burst}");
        }
    }
}

#[test]
fn thousand_held_polls_get_the_same_event_from_one_publish() {
    raise_descriptor_limit();
    let server = Server::start(&["--max-connections", "2000"]);
    let mut clients: Vec<_> = (0..1_000).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send_request("GET", "/topics/all?since=now");
    }
    server.wait_until_held(1_000);
    assert_eq!(server.publish("all", "for everyone").json()["released"], 1_000);
    let bodies: Vec<_> = clients.iter_mut().map(|client| client.response().body).collect();
    assert!(bodies.iter().all(|body| *body == bodies[0]));
    assert!(String::from_utf8_lossy(&bodies[0]).contains("\"data\":\"for everyone\""));
    server.wait_until_held(0);
}

/// The same race without sockets, so that it is hit often: the poller checks and registers while
/// the publisher appends and notifies.
#[test]
fn notify_between_the_check_and_the_wait_is_not_lost() {
    const ROUNDS: u64 = 200_000;
    let waiters = Waiters::<(), ()>::default();
    let topics = TopicSet::parse("a").unwrap();
    let (log, seen) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let topic = Name::new("a").unwrap();
            for seq in 1..=ROUNDS {
                while seen.load(Ordering::SeqCst) + 1 < seq {
                    std::hint::spin_loop();
                }
                // A random delay, so that the notify meets the poller at every point of its code.
                (0..fastrand::u32(..400)).for_each(|_| std::hint::spin_loop());
                log.store(seq, Ordering::SeqCst);
                drop(waiters.notify(&topic, Seq::new(seq), |()| true));
            }
        });
        for seq in 1..=ROUNDS {
            let waiter = waiters.register(&topics, ());
            if log.load(Ordering::SeqCst) < seq {
                let deadline = Instant::now() + TEST_TIMEOUT;
                let woken = waiter.wait(Seq::new(seq - 1), deadline);
                // A lost wake-up shows as a wait that only the deadline ends.
                let lost = woken != Woken::Notified || Instant::now() > deadline;
                if lost {
                    // Lets the publisher finish, so that the test can fail.
                    seen.store(ROUNDS, Ordering::SeqCst);
                }
                assert!(!lost, "the wake-up of round {seq} was lost");
            }
            seen.store(seq, Ordering::SeqCst);
        }
    });
}
