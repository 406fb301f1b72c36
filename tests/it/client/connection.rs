//! Guards connection reuse in the client: a connection serves as many requests as possible, and a
//! closed one is not mistaken for an unreachable server.

use std::thread::JoinHandle;
use std::time::Duration;

use longpoll::client::{Error, Follow, Message, Publisher, Subscription};
use longpoll::shutdown::Shutdown;

use crate::support::fake_server::{FakeServer, http_response, page_response};

fn subscription(fake: &FakeServer) -> Subscription {
    Subscription::new(fake.url().parse().unwrap(), "news").unwrap()
}

/// Reads `pages` pages on a thread; its result is the first error.
fn follow(fake: &FakeServer, pages: usize) -> JoinHandle<Result<(), String>> {
    let mut subscription = subscription(fake);
    let stop = Shutdown::new().unwrap();
    subscription.shutdown = Some(stop.clone());
    let (sender, errors) = std::sync::mpsc::channel();
    let mut follow = Follow::start(subscription).unwrap().on_retry(move |error, _| {
        sender.send(error.to_string()).unwrap();
        stop.trigger();
    });
    std::thread::spawn(move || {
        for _ in 0..pages {
            if follow.next_page().map_err(|error| error.to_string())?.is_none() {
                return Err(errors.recv().unwrap());
            }
        }
        Ok(())
    })
}

/// Publishes `count` times on a thread; the first error panics.
fn publish(fake: &FakeServer, count: usize) -> JoinHandle<()> {
    let publisher = Publisher::new(&fake.url().parse().unwrap()).unwrap();
    let mut publisher = publisher.on_retry(|error, _| panic!("{error}"));
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
fn one_connection_serves_all_requests() {
    let fake = FakeServer::new();
    let done = follow(&fake, 3);
    let mut connection = fake.accept();
    for seq in 1..=3 {
        connection.request();
        connection.send(page_response(&[seq], "e.1", "data"));
    }
    assert_eq!(done.join().unwrap(), Ok(()));
    let done = publish(&fake, 3);
    let mut connection = fake.accept();
    for _ in 1..=3 {
        connection.request();
        connection.send(receipt());
    }
    done.join().unwrap();
}

#[test]
fn chunked_response_leaves_the_connection_usable() {
    let fake = FakeServer::new();
    let done = follow(&fake, 2);
    let whole = page_response(&[1], "e.1", "data");
    let body = whole.split_once("\r\n\r\n").unwrap().1;
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked";
    let mut connection = fake.accept();
    connection.request();
    connection.send(format!("{head}\r\n\r\n{:x}\r\n{body}\r\n0\r\nA: b\r\n\r\n", body.len()));
    connection.request();
    connection.send(whole);
    assert_eq!(done.join().unwrap(), Ok(()));
}

#[test]
fn connection_with_close_or_with_extra_bytes_is_abandoned() {
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
        // The first connection is still open; the client does not reuse it.
        let request = fake.serve(&whole);
        assert!(request.contains("since=e.1&"), "{last}{request}");
        assert_eq!(done.join().unwrap(), Ok(()), "{last}");
    }
}

#[test]
fn connection_closed_after_a_response_is_no_error() {
    let fake = FakeServer::new();
    let done = follow(&fake, 3);
    for seq in 1..=3 {
        // Each time the server closes the connection without announcing it.
        fake.serve(page_response(&[seq], "e.1", "data"));
    }
    assert_eq!(done.join().unwrap(), Ok(()));
    let done = publish(&fake, 2);
    fake.serve(receipt());
    fake.serve(receipt());
    done.join().unwrap();
}

#[test]
fn request_on_a_closed_connection_is_sent_again_on_a_new_one() {
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
fn publish_on_a_closed_connection_is_sent_again_with_its_key() {
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
fn request_is_sent_again_once_and_only_if_no_byte_of_a_response_arrived() {
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
fn refusal_that_arrives_before_the_request_is_sent_is_not_lost() {
    let fake = FakeServer::new();
    let url = fake.url().parse().unwrap();
    let refused = std::thread::spawn(move || {
        // More than the buffers of the sockets hold.
        let message = Message::text(vec![b'x'; 64 << 20]);
        let publisher = Publisher::new(&url).unwrap();
        publisher.retry_for(Duration::ZERO).publish("news", &message).unwrap_err()
    });
    let mut connection = fake.accept();
    connection.request_head();
    connection.send(http_response(
        "413 Content Too Large",
        "",
        "{\"detail\":\"too large by far\"}",
    ));
    drop(connection);
    let error = refused.join().unwrap();
    assert!(matches!(error, Error::Refused { status: 413, .. }), "{error:?}");
    assert!(error.to_string().contains("too large by far"), "{error}");
}

#[test]
fn stop_ends_the_wait_for_the_rest_of_a_response() {
    let fake = FakeServer::new();
    let mut subscription = subscription(&fake);
    let stop = Shutdown::new().unwrap();
    subscription.shutdown = Some(stop.clone());
    let mut follow = Follow::start(subscription).unwrap();
    let reader = std::thread::spawn(move || follow.next_page().is_ok_and(|page| page.is_none()));
    let mut connection = fake.accept();
    connection.request();
    let whole = page_response(&[1], "e.1", "data");
    connection.send(&whole[..whole.len() - 1]);
    stop.trigger();
    assert!(reader.join().unwrap());
}

#[test]
fn wait_beyond_the_range_of_the_clock_works_as_a_long_one() {
    let fake = FakeServer::new();
    let mut subscription = subscription(&fake);
    subscription.wait = Duration::MAX;
    let mut follow = Follow::start(subscription).unwrap();
    let reader = std::thread::spawn(move || [1, 2].map(|_| follow.next_page().unwrap().is_some()));
    let mut connection = fake.accept();
    connection.request();
    connection.send(page_response(&[1], "e.1", "data"));
    let held = connection.request();
    assert!(held.contains("&wait=18446744073709551615"), "{held}");
    connection.send(page_response(&[2], "e.2", "data"));
    assert_eq!(reader.join().unwrap(), [true, true]);
}
