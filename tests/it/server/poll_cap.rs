//! Guards the cap on held polls, `--max-polls`: a poll that has ended counts no more, whether it was
//! answered or its client hung up.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::support::{Client, Server, raise_descriptor_limit, wait_until};

const POLLERS: usize = 16;
const ROUNDS: usize = 2_000;
/// Polls that only wait: with them, the periodic look at all held polls takes longer.
const IDLE: usize = 1_900;

/// Polls again at once after each answer.
fn poll_repeatedly(mut client: Client, topic_and_wait: &str) {
    let mut next = String::from("now");
    for round in 0..ROUNDS {
        let response = client.get(&format!("/topics/{topic_and_wait}&since={next}"));
        assert_eq!(response.status, 200, "round {round}: {response:?}");
        response.next_cursor().clone_into(&mut next);
    }
}

/// Former bug: a poll that its own thread answered counted for as long as the thread that looks for
/// hung-up clients had it in its list, and the next poll of its client was refused.
#[test]
fn client_that_polls_again_at_once_is_never_refused_at_the_cap() {
    raise_descriptor_limit();
    let cap = (IDLE + POLLERS).to_string();
    let server = Server::start(&["--max-connections", "2000", "--max-polls", &cap]);
    let mut idle: Vec<_> = (0..IDLE).map(|_| server.connect()).collect();
    for client in &mut idle {
        client.send_request("GET", "/topics/none?wait=55");
    }
    server.wait_until_held(IDLE);
    let stopped = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = server.connect();
            while !stopped.load(Ordering::Relaxed) {
                client.post("/topics/news", "", "x");
            }
        });
        let pollers: Vec<_> = (0..POLLERS)
            .map(|n| {
                // Half of the polls end at their deadline, half with an event.
                let poll = ["silent?wait=0.001", "news?wait=55"][n % 2];
                let client = server.connect();
                scope.spawn(move || poll_repeatedly(client, poll))
            })
            .collect();
        let ended: Vec<_> = pollers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        stopped.store(true, Ordering::Relaxed);
        assert!(ended.iter().all(Result::is_ok));
    });
}

/// Holds a poll; retries while the only slot is taken.
fn take_slot(server: &Server, target: &str) -> Client {
    let mut client = server.connect();
    wait_until("the slot is free", || {
        client = server.connect();
        client.send_request("GET", target);
        wait_until("the poll is held or refused", || {
            server.metric("polls_held") == 1.0 || !client.has_received_nothing()
        });
        client.has_received_nothing()
    });
    client
}

#[test]
fn slot_of_a_poll_whose_client_hangs_up_is_free_again() {
    let server = Server::start(&["--max-polls", "1"]);
    // Far longer than this test may take: the end of a poll's wait frees no slot.
    let target = "/topics/news?since=now&wait=55";
    for round in 1..=4 {
        let held = take_slot(&server, target);
        assert_eq!(server.get(target).status, 503);
        drop(held);
        wait_until("the hang-up is counted", || {
            server.metric("polls_total{reason=\"hung_up\"}") == f64::from(round)
        });
    }
}
