//! Guards the life of a stream: it counts as a held poll and ends when its client leaves or does
//! not read, when its token is revoked, or when the server stops.

use crate::support::sse::SseReader;
use crate::support::tokens::{TokenFile, bearer, new_token};
use crate::support::{Server, wait_until};

/// A number of large texts that together exceed all buffers between server and client.
const LARGE: usize = 400;

fn publish_large(server: &Server, fields: &str) {
    let mut client = server.connect();
    for n in 0..LARGE {
        let response = client.post("/topics/large", fields, format!("{n} {}", "x".repeat(60_000)));
        assert_eq!(response.status, 201, "{response:?}");
    }
}

/// Opens a stream of the large texts; its client does not read yet.
fn open_unread(server: &Server, fields: &str) -> SseReader {
    SseReader::open(server, "/topics/large", fields)
}

/// The number at the start of an event's data.
fn number(data: &serde_json::Value) -> usize {
    data.as_str().unwrap().split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn stream_counts_as_a_held_poll_until_it_ends() {
    let server = Server::start(&["--max-polls", "1"]);
    let mut events = SseReader::open(&server, "/topics/news", "");
    assert!(events.next().id.is_some());
    server.wait_until_held(1);
    let listed = server.publish("other", "x");
    assert_eq!(listed.json()["released"], 0);
    let refused = SseReader::open(&server, "/topics/news", "");
    assert_eq!(refused.opening.status, 503);
    assert!(refused.opening.header("Retry-After").is_some());
    assert_eq!(server.get("/topics/none?wait=20").status, 503);
    // The stream keeps its permit from one event to the next.
    for n in 0..3 {
        server.publish("news", &n.to_string());
        assert_eq!(events.data(1), [n.to_string()]);
        server.wait_until_held(1);
        assert_eq!(server.get("/topics/none?wait=20").status, 503);
    }
    events.into_client().reset();
    server.wait_until_held(0);
    wait_until("the end of the stream is counted", || {
        server.metric("streams_total{reason=\"hung_up\"}") == 1.0
    });
    let mut next = SseReader::open(&server, "/topics/news?since=now", "");
    assert!(next.next().id.is_some());
    assert_eq!(server.metric("streams_begun_total"), 2.0);
}

#[test]
fn half_closed_client_counts_as_gone() {
    let server = Server::start(&[]);
    let mut events = SseReader::open(&server, "/topics/news", "");
    events.next();
    server.wait_until_held(1);
    let mut client = events.into_client();
    client.close_write();
    client.read_to_end();
    server.wait_until_held(0);
    assert_eq!(server.metric("streams_total{reason=\"hung_up\"}"), 1.0);
}

#[test]
fn drain_sends_a_retry_time_and_ends_the_stream() {
    let mut server = Server::start(&[]);
    let mut streams: Vec<_> = ["/topics/news", "/topics/*?type=alert", "/topics/a,b?since=now"]
        .iter()
        .map(|target| SseReader::open(&server, target, ""))
        .collect();
    for stream in &mut streams {
        stream.next();
    }
    server.wait_until_held(3);
    server.signal(15);
    for stream in streams {
        assert_eq!(stream.opening.header("Connection"), Some("close"));
        let (last, regular) = stream.read_to_end();
        let retry = last.and_then(|last| last.retry).expect("a retry");
        assert!((1_000..=5_000).contains(&retry), "{retry}");
        assert!(regular);
    }
    assert_eq!(server.wait().0.code(), Some(0));
}

#[test]
fn drain_does_not_wait_until_a_reader_has_all_events() {
    let mut server = Server::start(&[]);
    publish_large(&server, "");
    let mut events = open_unread(&server, "");
    assert_eq!(number(&events.data(1)[0]), 0);
    server.signal(15);
    let (mut seen, mut last) = (1, None);
    while let Some(message) = events.block() {
        if message.data.is_some() {
            assert_eq!(number(&message.json()["data"]), seen);
            seen += 1;
        }
        last = Some(message);
    }
    assert!(last.unwrap().retry.is_some());
    assert!(seen < LARGE, "the stream ends before the last event");
    assert_eq!(server.wait().0.code(), Some(0));
}

#[test]
fn slow_reader_is_disconnected_delays_nobody_and_can_resume() {
    let server = Server::start(&["--write-timeout", "1s"]);
    let mut other = SseReader::open(&server, "/topics/large", "");
    let mut slow = open_unread(&server, "");
    assert_eq!(slow.opening.status, 200);
    let cut_off = || server.metric("streams_total{reason=\"slow\"}") == 1.0;
    let mut count = 0;
    while !cut_off() {
        // Meanwhile every publish is answered and the other reader gets every event. One event at a
        // time, because the time-out of a reader grows with the bytes that it is sent.
        server.publish("large", &format!("{count} {}", "x".repeat(60_000)));
        assert_eq!(number(&other.data(1)[0]), count);
        count += 1;
        wait_until("the stream waits again or is disconnected", || {
            server.metric("polls_held") == 2.0 || cut_off()
        });
    }
    let all: Vec<usize> = (0..count).collect();
    let mut seen = Vec::new();
    while let Some(message) = slow.block() {
        seen.extend(message.data.is_some().then(|| number(&message.json()["data"])));
    }
    assert!(seen.len() < count, "the stream was disconnected before the end");
    let field = format!("Last-Event-ID: {}\r\n", slow.last_id);
    let mut again = SseReader::open(&server, "/topics/large", &field);
    seen.extend(again.data(count - seen.len()).iter().map(number));
    assert_eq!(seen, all);
    wait_until("no response is in flight", || {
        server.metric("answers_in_flight_bytes") <= (2 << 20).into()
    });
}

#[test]
fn reader_that_never_reads_is_disconnected_even_with_few_bytes() {
    let server = Server::start(&["--write-timeout", "1s"]);
    let mut client = server.connect();
    client.shrink_receive_buffer();
    let mut other = SseReader::open(&server, "/topics/news", "");
    let slow = SseReader::send(client, "/topics/news", "");
    assert_eq!(slow.opening.status, 200);
    // More than the client's buffer holds, and far less than the server's.
    for n in 0..200 {
        server.publish("news", &format!("{n} {}", "x".repeat(1_000)));
        assert_eq!(number(&other.data(1)[0]), n);
    }
    wait_until("the stream is disconnected", || {
        server.metric("streams_total{reason=\"slow\"}") == 1.0
    });
    server.publish("news", "more");
    assert_eq!(other.data(1), ["more"]);
}

#[test]
fn revoked_token_ends_its_streams_and_others_continue() {
    let (a, b) = (new_token("a", "read", "*"), new_token("b", "read", "news"));
    let admin = new_token("root", "admin,publish", "*");
    let file = TokenFile::new("streams", &format!("{}{}{}", a.0, b.0, admin.0));
    let server = Server::start(&["--tokens", file.path()]);
    let root = bearer(&admin.1);
    let held = |count: usize| {
        let mut client = server.connect();
        client.send(format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\n{root}\r\n"));
        client.response().text().contains(&format!("longpoll_polls_held {count}\n"))
    };
    assert_eq!(SseReader::open(&server, "/topics/news", "").opening.status, 401);
    assert_eq!(SseReader::open(&server, "/topics/n*", &bearer(&b.1)).opening.status, 403);
    publish_large(&server, &root);
    let mut first = SseReader::open(&server, "/topics/news", &bearer(&a.1));
    let mut second = SseReader::open(&server, "/topics/news", &bearer(&b.1));
    let mut busy = open_unread(&server, &bearer(&a.1));
    assert!(first.next().id.is_some() && second.next().id.is_some());
    assert_eq!(number(&busy.data(1)[0]), 0);
    wait_until("both streams are held", || held(2));
    file.write(&format!("{}{}", b.0, admin.0));
    let (last, regular) = first.read_to_end();
    assert!(last.is_none_or(|last| last.data.is_none()) && regular);
    assert_eq!(server.connect().post("/topics/news", &root, "hello").status, 201);
    assert_eq!(second.data(1), ["hello"]);
    // This includes the stream that has never waited, because it always had events to send.
    let mut seen = 1;
    while busy.block().is_some() {
        seen += 1;
    }
    assert!(seen < LARGE, "the stream ends before the last event");
    assert_eq!(SseReader::open(&server, "/topics/news", &bearer(&a.1)).opening.status, 401);
}
