//! Goal: a connection serves for as many requests as it can, and one that has ended is not taken
//! for a server that is gone.

use std::thread::JoinHandle;
use std::time::Duration;

use longpoll::client::{Error, Follow, Message, Publisher, Subscription};
use longpoll::shutdown::Shutdown;

use crate::support::fake_server::{FakeServer, http_response, page_response};

fn subscription(fake: &FakeServer) -> Subscription {
    Subscription::new(fake.url().parse().unwrap(), "news").unwrap()
}

/// Takes so many pages; the first trouble ends it, and is told.
fn follow(fake: &FakeServer, pages: usize) -> JoinHandle<Result<(), String>> {
    let mut subscription = subscription(fake);
    let stop = Shutdown::new().unwrap();
    subscription.stop = Some(stop.clone());
    let (tell, told) = std::sync::mpsc::channel();
    let mut follow = Follow::start(subscription).unwrap().on_trouble(move |error, _| {
        tell.send(error.to_string()).unwrap();
        stop.give();
    });
    std::thread::spawn(move || {
        for _ in 0..pages {
            if follow.page().map_err(|error| error.to_string())?.is_none() {
                return Err(told.recv().unwrap());
            }
        }
        Ok(())
    })
}

/// Publishes so many times; the first trouble panics.
fn publish(fake: &FakeServer, count: usize) -> JoinHandle<()> {
    let publisher = Publisher::new(&fake.url().parse().unwrap()).unwrap();
    let mut publisher = publisher.on_trouble(|error, _| panic!("{error}"));
    std::thread::spawn(move || {
        for _ in 0..count {
            publisher.publish("news", &Message::text("hello")).unwrap();
        }
    })
}

fn receipt() -> String {
    http_response(
        "201 Created",
        "Content-Type: application/json\r\n",
        r#"{"seq":1,"cursor":"e.1"}"#,
    )
}

#[test]
fn one_connection_serves_for_all_requests() {
    let fake = FakeServer::new();
    let done = follow(&fake, 3);
    let mut caller = fake.accept();
    for seq in 1..=3 {
        caller.request();
        caller.send(page_response(&[seq], "e.1", "data"));
    }
    assert_eq!(done.join().unwrap(), Ok(()));
    let done = publish(&fake, 3);
    let mut caller = fake.accept();
    for _ in 1..=3 {
        caller.request();
        caller.send(receipt());
    }
    done.join().unwrap();
}

#[test]
fn a_chunked_answer_leaves_the_connection_to_the_next_request() {
    let fake = FakeServer::new();
    let done = follow(&fake, 2);
    let whole = page_response(&[1], "e.1", "data");
    let body = whole.split_once("\r\n\r\n").unwrap().1;
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked";
    let mut caller = fake.accept();
    caller.request();
    caller.send(format!("{head}\r\n\r\n{:x}\r\n{body}\r\n0\r\nA: b\r\n\r\n", body.len()));
    caller.request();
    caller.send(whole);
    assert_eq!(done.join().unwrap(), Ok(()));
}

#[test]
fn a_connection_that_is_said_to_end_or_says_too_much_is_left() {
    let whole = page_response(&[1], "e.1", "data");
    for last in [
        whole.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"),
        whole.replace("\r\n\r\n", "\r\nConnection: Keep-Alive, Close\r\n\r\n"),
        whole.replace("HTTP/1.1", "HTTP/1.0"),
        whole
            .replace("HTTP/1.1", "HTTP/1.0")
            .replace("\r\n\r\n", "\r\nConnection: keep-alive\r\n\r\n"),
        format!("{whole}\n"),
        format!("{whole}{}", page_response(&[6], "e.6", "data")),
    ] {
        let fake = FakeServer::new();
        let done = follow(&fake, 2);
        let mut first = fake.accept();
        first.request();
        first.send(&last);
        // The first one is still open: it is the client that does not come back to it.
        let request = fake.serve(&whole);
        assert!(request.contains("since=e.1&"), "{last}{request}");
        assert_eq!(done.join().unwrap(), Ok(()), "{last}");
    }
}

#[test]
fn a_connection_that_ended_after_an_answer_is_no_trouble() {
    let fake = FakeServer::new();
    let done = follow(&fake, 3);
    for seq in 1..=3 {
        // Each time the server hangs up and does not say so.
        fake.serve(page_response(&[seq], "e.1", "data"));
    }
    assert_eq!(done.join().unwrap(), Ok(()));
    let done = publish(&fake, 2);
    fake.serve(receipt());
    fake.serve(receipt());
    done.join().unwrap();
}

#[test]
fn a_request_that_met_the_end_of_its_connection_is_sent_again_on_a_new_one() {
    for reset in [false, true] {
        let fake = FakeServer::new();
        let done = follow(&fake, 2);
        let mut first = fake.accept();
        first.request();
        first.send(page_response(&[1], "e.1", "data"));
        let request = first.request();
        if reset {
            first.reset();
        } else {
            drop(first);
        }
        assert_eq!(fake.serve(page_response(&[2], "e.2", "data")), request);
        assert_eq!(done.join().unwrap(), Ok(()));
    }
}

#[test]
fn a_publish_that_met_the_end_of_its_connection_is_sent_again_with_its_key() {
    let fake = FakeServer::new();
    let done = publish(&fake, 2);
    let mut first = fake.accept();
    let before = first.request();
    first.send(receipt());
    let request = first.request();
    drop(first);
    assert_eq!(fake.serve(receipt()), request);
    assert!(request.contains("\r\nIdempotency-Key: ") && request != before, "{before}{request}");
    done.join().unwrap();
}

#[test]
fn it_is_sent_again_but_once_and_only_if_nothing_of_an_answer_came() {
    let second_fails_too = |beginning: &str| {
        let fake = FakeServer::new();
        let done = follow(&fake, 2);
        let mut first = fake.accept();
        first.request();
        first.send(page_response(&[1], "e.1", "data"));
        first.request();
        first.send(beginning);
        drop(first);
        if beginning.is_empty() {
            fake.serve("");
        }
        done.join().unwrap().unwrap_err()
    };
    for beginning in ["", "H", "HTTP/1.1 100 Continue\r\n\r\n"] {
        assert!(second_fails_too(beginning).contains("hangs up"), "{beginning}");
    }
}

#[test]
fn a_refusal_that_came_before_a_request_was_read_is_not_lost() {
    let fake = FakeServer::new();
    let url = fake.url().parse().unwrap();
    let refused = std::thread::spawn(move || {
        // More than what sockets take in by themselves.
        let message = Message::text(vec![b'x'; 64 << 20]);
        let publisher = Publisher::new(&url).unwrap();
        publisher.retry_for(Duration::ZERO).publish("news", &message).unwrap_err()
    });
    let mut caller = fake.accept();
    caller.request_head();
    caller.send(http_response("413 Content Too Large", "", "{\"detail\":\"too large by far\"}"));
    drop(caller);
    let error = refused.join().unwrap();
    assert!(matches!(error, Error::Refused { status: 413, .. }), "{error:?}");
    assert!(error.to_string().contains("too large by far"), "{error}");
}

#[test]
fn the_order_to_stop_ends_the_wait_for_the_rest_of_an_answer() {
    let fake = FakeServer::new();
    let mut subscription = subscription(&fake);
    let stop = Shutdown::new().unwrap();
    subscription.stop = Some(stop.clone());
    let mut follow = Follow::start(subscription).unwrap();
    let reader = std::thread::spawn(move || follow.page().is_ok_and(|page| page.is_none()));
    let mut caller = fake.accept();
    caller.request();
    let whole = page_response(&[1], "e.1", "data");
    caller.send(&whole[..whole.len() - 1]);
    stop.give();
    assert!(reader.join().unwrap());
}

#[test]
fn a_wait_that_no_clock_can_hold_is_as_good_as_a_long_one() {
    let fake = FakeServer::new();
    let mut subscription = subscription(&fake);
    subscription.wait = Duration::MAX;
    let mut follow = Follow::start(subscription).unwrap();
    let reader = std::thread::spawn(move || [1, 2].map(|_| follow.page().unwrap().is_some()));
    let mut caller = fake.accept();
    caller.request();
    caller.send(page_response(&[1], "e.1", "data"));
    let held = caller.request();
    assert!(held.contains("&wait=18446744073709551615"), "{held}");
    caller.send(page_response(&[2], "e.2", "data"));
    assert_eq!(reader.join().unwrap(), [true, true]);
}
