//! Guards held polls in a storm of events that they do not want: each event wakes them, and still
//! each ends when its time comes.
//!
//! A poll that was notified again and again did not look at the clock: it stayed for as long as
//! events came, past its deadline, after its client had hung up, and after its token was revoked.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use longpoll::cursor::Seq;
use longpoll::names::{Name, TopicSet};
use longpoll::waiters::{Waiters, Woken, cancel_all};

use crate::support::storm::during_storm;
use crate::support::tokens::{TokenFile, bearer, new_token};
use crate::support::{Client, Server, TEST_TIMEOUT, wait_until};

const POLLS: usize = 300;

/// Sends polls that no event of the storm releases, with these header lines.
fn send_polls(server: &Server, wait: &str, headers: &str) -> Vec<Client> {
    // Polls of one pattern share a queue; those of several patterns have queues of their own.
    let topics = ["busy", "b*", "busy", "b*", "busy,quiet"].iter().cycle();
    let polls = topics.take(POLLS).map(|topics| {
        let mut client = server.connect();
        client.send(format!(
            "GET /topics/{topics}?since=now&type=wanted&wait={wait} HTTP/1.1\r\n\
             Host: localhost\r\n{headers}\r\n"
        ));
        client
    });
    polls.collect()
}

#[test]
fn poll_ends_at_its_deadline() {
    let server = Server::start(&[]);
    during_storm(&server, "", || {
        for mut poll in send_polls(&server, "1", "") {
            let response = poll.response();
            assert_eq!(response.header("Poll-Reason"), Some("timeout"), "{response:?}");
        }
    });
}

#[test]
fn poll_whose_client_hangs_up_leaves() {
    let server = Server::start(&[]);
    let mut polls = send_polls(&server, "55", "");
    server.wait_until_held(POLLS);
    during_storm(&server, "", || {
        let staying = polls.split_off(POLLS - 1);
        drop(polls);
        wait_until("the polls have left", || {
            server.metric("polls_total{reason=\"hung_up\"}") == (POLLS - 1) as f64
        });
        server.connect().post("/topics/busy?type=wanted", "", "hello");
        assert!(staying.into_iter().all(|mut poll| poll.response().data() == ["hello"]));
    });
    assert_eq!(server.metric("polls_held"), 0.0);
}

#[test]
fn poll_whose_token_is_revoked_leaves() {
    let (reader, root) = (new_token("a", "read", "*"), new_token("root", "admin,publish", "*"));
    let file = TokenFile::new("storm", &format!("{}{}", reader.0, root.0));
    let server = Server::start(&["--tokens", file.path()]);
    let polls = send_polls(&server, "55", &bearer(&reader.1));
    during_storm(&server, &bearer(&root.1), || {
        file.write(&root.0);
        for mut poll in polls {
            assert_eq!(poll.response().status, 401);
        }
    });
}

/// The same without sockets, so that the race is hit always: the next event comes while a poll
/// reads the log.
#[test]
fn waiter_that_is_always_notified_learns_of_everything_else() {
    let waiters = Waiters::<Woken<()>, ()>::default();
    let [log, notified] = [0, 0].map(AtomicU64::new);
    let running = AtomicUsize::new(POLLS);
    let [stopped, given_up] = [false, false].map(AtomicBool::new);
    let poll = |expected: Woken<()>, wait: Duration| {
        let deadline = Instant::now() + wait;
        let waiter = waiters.register(&TopicSet::parse("a").unwrap(), expected);
        let woken = loop {
            let seq = Seq::new(log.load(Ordering::SeqCst));
            while notified.load(Ordering::SeqCst) <= seq.get() {
                thread::yield_now();
            }
            match waiter.wait(seq, deadline) {
                Woken::Notified if !given_up.load(Ordering::Relaxed) => {}
                woken => break woken,
            }
        };
        running.fetch_sub(1, Ordering::Relaxed);
        assert_eq!(woken, expected);
    };
    thread::scope(|scope| {
        for n in 0..POLLS {
            let ends = [
                (Woken::Deadline, Duration::from_millis(100)),
                (Woken::Cancelled, TEST_TIMEOUT),
                (Woken::Drained, TEST_TIMEOUT),
            ];
            let (expected, wait) = ends[n % 3];
            scope.spawn(move || poll(expected, wait));
        }
        for _ in 0..2 {
            scope.spawn(|| {
                let topic = Name::new("a").unwrap();
                while !stopped.load(Ordering::Relaxed) {
                    let seq = log.fetch_add(1, Ordering::SeqCst) + 1;
                    drop(waiters.notify(&topic, Seq::new(seq), |_| false));
                    notified.fetch_max(seq, Ordering::SeqCst);
                }
            });
        }
        let given_up_at = Instant::now() + TEST_TIMEOUT / 2;
        let wait_until_running = |count: usize| {
            while running.load(Ordering::Relaxed) > count {
                if Instant::now() > given_up_at {
                    // Lets the threads end, so that the test can fail.
                    given_up.store(true, Ordering::Relaxed);
                }
                thread::yield_now();
            }
        };
        wait_until_running(POLLS / 3 * 2);
        let handles = waiters.handles();
        cancel_all(handles.iter().filter(|handle| *handle.payload == Woken::Cancelled));
        wait_until_running(POLLS / 3);
        waiters.drain();
        wait_until_running(0);
        stopped.store(true, Ordering::Relaxed);
    });
}
