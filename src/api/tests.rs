//! Goal: a poller and a publisher work on a log and wait queues alone, without an `Api`, a
//! configuration, access rules or a server.

use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use super::caller::Caller;
use super::held_poll::{HeldPolls, PendingPoll};
use super::page_reader::PageReader;
use super::poll::Poller;
use super::poll_query::PollQuery;
use super::publish::EventPublisher;
use super::publish_request::PublishRequest;
use super::reply::{Outcome, Reply};
use crate::access::Grant;
use crate::conn::Conn;
use crate::cursor::Epoch;
use crate::http::{HeaderName, Method, RequestHead};
use crate::log::{Fingerprinter, Log, Retention};
use crate::metrics::Metrics;
use crate::problem::{Cause, Problem};
use crate::semaphore::Semaphore;
use crate::shutdown::Shutdown;

struct Parts {
    poller: Poller,
    publisher: EventPublisher,
}

fn parts(max_polls: usize) -> Parts {
    let retention =
        Retention { events: 100, age: Duration::from_secs(60), bytes: 1 << 20, topics: 10 };
    let log = Arc::new(Log::new(Epoch::from_bits(7), retention));
    let reader = Arc::new(PageReader::new(Arc::clone(&log)));
    let waiters = Arc::new(HeldPolls::default());
    let metrics = Arc::new(Metrics::default());
    let shutdown = Shutdown::new().unwrap();
    let poller = Poller {
        reader: Arc::clone(&reader),
        waiters: Arc::clone(&waiters),
        hold_permits: Semaphore::new(max_polls),
        metrics: Arc::clone(&metrics),
        shutdown: shutdown.clone(),
        wait_jitter: 0,
    };
    let publisher = EventPublisher {
        writer: log,
        fingerprints: Fingerprinter(0),
        reader,
        waiters,
        metrics,
        shutdown,
        max_event: 1_000,
        max_topics: 10,
    };
    Parts { poller, publisher }
}

/// A connection, and the client's end of it.
fn connection() -> (Arc<Conn>, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    let conn = Conn::accepted(ours.into(), None, Duration::from_secs(1)).unwrap();
    (Arc::new(conn), theirs)
}

fn caller<'a>(conn: &'a Arc<Conn>, grant: &'a Grant) -> Caller<'a> {
    Caller { conn, takes_shared_page: true, grant }
}

fn poll(poller: &Poller, query: &str, caller: &Caller<'_>) -> Outcome {
    let head = RequestHead::new(Method::Get, "/topics/news", query);
    let query = PollQuery::parse("news", &head, Duration::from_secs(60)).unwrap();
    poller.start(query, caller).unwrap()
}

/// The body of a poll that is answered at once.
fn answered(outcome: Outcome) -> serde_json::Value {
    match outcome {
        Outcome::Reply(Reply::Page(page)) => {
            serde_json::from_slice(&page.bytes()[page.head_length()..]).unwrap()
        }
        _ => panic!("the poll is not answered with a page"),
    }
}

fn pending(outcome: Outcome) -> PendingPoll {
    match outcome {
        Outcome::Hold(pending) => *pending,
        Outcome::Reply(_) => panic!("the poll is answered at once"),
    }
}

fn publish(
    publisher: &EventPublisher,
    key: Option<&str>,
    caller: &Caller<'_>,
) -> serde_json::Value {
    let mut head = RequestHead::new(Method::Post, "/topics/news", "");
    if let Some(key) = key {
        head.append(HeaderName::IdempotencyKey, key);
    }
    let request = PublishRequest::parse("news", &head).unwrap();
    let response = publisher.publish(&request, b"hello".to_vec(), caller).unwrap();
    serde_json::from_slice(response.body_text()).unwrap()
}

#[test]
fn poll_with_an_event_after_its_cursor_is_answered_at_once() {
    let Parts { poller, publisher } = parts(1);
    let (conn, _client) = connection();
    let grant = Grant::default();
    let caller = caller(&conn, &grant);
    let empty = answered(poll(&poller, "wait=0", &caller));
    assert_eq!(
        (empty["reason"].as_str(), &empty["events"][0]["data"]),
        (Some("timeout"), &().into())
    );
    publish(&publisher, None, &caller);
    let page = answered(poll(&poller, "wait=60", &caller));
    assert_eq!(
        (page["reason"].as_str(), page["events"][0]["data"].as_str()),
        (Some("data"), Some("hello"))
    );
}

#[test]
fn publisher_writes_the_response_of_the_poll_that_it_releases() {
    let Parts { poller, publisher } = parts(1);
    let (conn, mut client) = connection();
    let grant = Grant::default();
    let caller = caller(&conn, &grant);
    let pending = pending(poll(&poller, "wait=60", &caller));
    let reply = std::thread::scope(|scope| {
        let held = scope.spawn(|| poller.hold(pending, &caller, &|_| Ok(())));
        while poller.waiters.waiting() == 0 && !held.is_finished() {
            std::thread::yield_now();
        }
        assert_eq!(publish(&publisher, None, &caller)["released"], 1);
        held.join().unwrap().unwrap()
    });
    let Reply::Delivered(delivery) = reply else { panic!("the poll's thread wrote the response") };
    let mut received = vec![0; 10_000];
    let length = client.read(&mut received).unwrap();
    assert_eq!(&received[..length], delivery.page.bytes());
    assert_eq!(delivery.sent, length);
    assert_eq!(poller.hold_permits.in_use(), 0);
}

#[test]
fn repeat_of_a_key_returns_the_first_receipt_and_appends_nothing() {
    let Parts { poller, publisher } = parts(1);
    let (conn, _client) = connection();
    let grant = Grant::default();
    let caller = caller(&conn, &grant);
    let first = publish(&publisher, Some("order-1"), &caller);
    let repeat = publish(&publisher, Some("order-1"), &caller);
    assert_eq!((&repeat["cursor"], &repeat["duplicate"]), (&first["cursor"], &true.into()));
    let page = answered(poll(&poller, "wait=0", &caller));
    assert_eq!(page["events"].as_array().map(Vec::len), Some(1));
}

#[test]
fn poll_beyond_the_limit_is_refused() {
    let Parts { poller, .. } = parts(0);
    let (conn, _client) = connection();
    let grant = Grant::default();
    let caller = caller(&conn, &grant);
    let pending = pending(poll(&poller, "wait=60", &caller));
    let refused = poller.hold(pending, &caller, &|_| Ok(()));
    assert_eq!(refused.err().map(|problem| problem.cause()), Some(Cause::PollCap));
}

#[test]
fn poll_whose_right_was_revoked_before_it_registered_is_refused() {
    let Parts { poller, .. } = parts(1);
    let (conn, _client) = connection();
    let grant = Grant::default();
    let caller = caller(&conn, &grant);
    let pending = pending(poll(&poller, "wait=60", &caller));
    let refused = poller.hold(pending, &caller, &|_| {
        assert_eq!(poller.waiters.handles().len(), 1, "checked after registering");
        Err(Problem::new(Cause::Unauthorized, "revoked"))
    });
    assert_eq!(refused.err().map(|problem| problem.cause()), Some(Cause::Unauthorized));
    assert_eq!((poller.waiters.handles().len(), poller.hold_permits.in_use()), (0, 0));
}

#[test]
fn poll_gives_its_permit_back_before_it_is_answered_even_if_another_thread_looks_at_it() {
    let Parts { poller, .. } = parts(1);
    let (conn, _client) = connection();
    let grant = Grant::default();
    let caller = caller(&conn, &grant);
    let pending = pending(poll(&poller, "wait=60", &caller));
    std::thread::scope(|scope| {
        let held = scope.spawn(|| poller.hold(pending, &caller, &|_| Ok(())));
        while poller.waiters.waiting() == 0 && !held.is_finished() {
            std::thread::yield_now();
        }
        let looked_at = poller.waiters.handles();
        poller.waiters.drain();
        assert!(matches!(held.join().unwrap(), Ok(Reply::Page(_))));
        assert_eq!((looked_at.len(), poller.hold_permits.in_use()), (1, 0));
    });
}
