//! Goal: between the look at the log and the wait there is a moment, and nothing falls into it.
//!
//! A race is not argued away: these run it thousands of times, under load.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use longpoll::bell::{Room, Woken};
use longpoll::names::{Name, TopicSet};

use crate::support::{Client, Server, TEST_TIMEOUT, raise_descriptor_limit};

const PUBLISHERS: usize = 8;
const POLLERS: usize = 50;
const EVENTS: usize = 20_000;

/// What a poller saw that it should not have.
#[derive(Default)]
struct Faults {
    lost: AtomicUsize,
    twice: AtomicUsize,
    out_of_order: AtomicUsize,
}

/// Follows `next` from the start to the last event.
fn follow(client: &mut Client, faults: &Faults) {
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
                _ if seq == last => faults.twice.fetch_add(1, Ordering::Relaxed),
                _ if seq < last => faults.out_of_order.fetch_add(1, Ordering::Relaxed),
                _ => faults.lost.fetch_add(seq - last - 1, Ordering::Relaxed),
            };
            last = seq;
        }
        response.next_cursor().clone_into(&mut next);
    }
}

#[test]
fn pollers_under_load_lose_nothing_repeat_nothing_and_keep_the_order() {
    let server = Server::start(&["--retain-events", "100000"]);
    let faults = Faults::default();
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
                follow(&mut client, &faults);
            });
        }
    });
    let Faults { lost, twice, out_of_order } = faults;
    let [lost, twice, out_of_order] = [lost, twice, out_of_order].map(AtomicUsize::into_inner);
    println!("lost {lost}, duplicated {twice}, out of order {out_of_order}");
    assert_eq!((lost, twice, out_of_order), (0, 0, 0));
}

#[test]
fn a_publish_that_races_with_a_poll_is_always_seen_by_it() {
    let server = Server::start(&[]);
    let [mut poller, mut publisher] = [server.connect(), server.connect()];
    let mut next = String::from("now");
    next = poller.get(&format!("/topics/a?since={next}&wait=0")).next_cursor().to_owned();
    for round in 0..5_000 {
        // Both requests are on their way at once; which arrives first is up to the scheduler.
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
fn a_thousand_held_polls_get_the_same_event_from_one_publish() {
    raise_descriptor_limit();
    let server = Server::start(&["--max-connections", "2000"]);
    let mut clients: Vec<_> = (0..1_000).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send_request("GET", "/topics/all?since=now");
    }
    server.wait_until_held(1_000);
    assert_eq!(server.publish("all", "for everyone").json()["released"], 1_000);
    let answers: Vec<_> = clients.iter_mut().map(|client| client.response().body).collect();
    assert!(answers.iter().all(|body| *body == answers[0]));
    assert!(String::from_utf8_lossy(&answers[0]).contains("\"data\":\"for everyone\""));
    server.wait_until_held(0);
}

/// The same race without the sockets around it, so that it is hit often: the poller looks and
/// sits down while the publisher appends and rings.
#[test]
fn a_ring_between_the_look_and_the_wait_is_remembered() {
    const ROUNDS: u64 = 200_000;
    let room = Room::<(), ()>::default();
    let topics = TopicSet::parse("a").unwrap();
    let (log, seen) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let topic = Name::new("a").unwrap();
            for seq in 1..=ROUNDS {
                while seen.load(Ordering::SeqCst) + 1 < seq {
                    std::hint::spin_loop();
                }
                // At random moments, to meet the poller at every point of its way.
                (0..fastrand::u32(..400)).for_each(|_| std::hint::spin_loop());
                log.store(seq, Ordering::SeqCst);
                drop(room.ring(&topic, seq, |()| true));
            }
        });
        for seq in 1..=ROUNDS {
            let seat = room.sit(&topics, ());
            if log.load(Ordering::SeqCst) < seq {
                let deadline = Instant::now() + TEST_TIMEOUT;
                let woken = seat.wait(seq - 1, deadline);
                // A lost wake-up is one that only the deadline makes up for.
                let lost = woken != Woken::Rung || Instant::now() > deadline;
                if lost {
                    // Lets the publisher end, so that the test can fail.
                    seen.store(ROUNDS, Ordering::SeqCst);
                }
                assert!(!lost, "the wake-up of round {seq} was lost");
            }
            seen.store(seq, Ordering::SeqCst);
        }
    });
}
