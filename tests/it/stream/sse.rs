//! Guards server-sent events: a stream sends the events of the equivalent polls once, in order, as
//! they are published, and a client that reconnects resumes where it was.

use std::thread;

use crate::support::sse::SseReader;
use crate::support::{Client, Server, wait_until};

const SSE: &str = "Accept: text/event-stream\r\n";

/// Sends a request with additional header lines.
fn send_request(client: &mut Client, request: &str, fields: &str) {
    client.send(format!("{request} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n"));
}

#[test]
fn each_event_is_sent_at_once_with_its_cursor_type_and_object() {
    let server = Server::start(&[]);
    let first = server.publish("news", "before").next_cursor().to_owned();
    let mut events = SseReader::open(&server, "/topics/news", "");
    let opening = &events.opening;
    assert_eq!(opening.status, 200);
    assert_eq!(opening.header("Content-Type"), Some("text/event-stream"));
    assert_eq!(opening.header("Transfer-Encoding"), Some("chunked"));
    assert_eq!(opening.header("Cache-Control"), Some("no-store, no-transform"));
    assert_eq!(opening.header("Content-Length"), None);
    let message = events.next();
    assert_eq!((message.id.as_deref(), message.event.as_deref()), (Some(&*first), None));
    assert_eq!(message.json()["data"], "before");
    server.wait_until_held(1);
    let publishes = [
        ("/topics/news?type=alert", "Content-Type: application/json\r\n", "{\n \"a\": 1.10\r\n}"),
        ("/topics/news", "", "two\nlines\r\n and: data: \u{e9}"),
        ("/topics/news", "Content-Type: image/png\r\n", "png"),
    ];
    for (target, fields, body) in publishes {
        // A stream that waits for events is sent this one before the publisher gets its receipt.
        let response = server.connect().post(target, fields, body);
        assert_eq!(
            (response.status, &response.json()["released"]),
            (201, &1.into()),
            "{response:?}"
        );
        let message = events.message();
        let polled = server.get("/topics/news?since=last:1").json()["events"][0].clone();
        assert_eq!(message.json(), polled);
        assert_eq!(message.id.as_deref(), Some(response.next_cursor()));
        assert_eq!(message.event.as_deref(), polled["type"].as_str());
        server.wait_until_held(1);
    }
    let batch = "1\n2\n3\n";
    server.connect().post("/topics/news", "Content-Type: application/x-ndjson\r\n", batch);
    assert_eq!(events.data(3), [1, 2, 3]);
    server.publish("other", "not for this one");
    server.publish("news", "last");
    assert_eq!(events.data(1), ["last"]);
}

#[test]
fn reader_has_a_cursor_before_its_first_event() {
    let server = Server::start(&[]);
    let head = server.publish("news", "before").next_cursor().to_owned();
    let mut events = SseReader::open(&server, "/topics/news?since=now", "");
    let first = events.next();
    assert_eq!((first.id.as_deref(), first.data), (Some(&*head), None));
    events.into_client().reset();
    server.publish("news", "meanwhile");
    let mut again =
        SseReader::open(&server, "/topics/news?since=now", &format!("Last-Event-ID: {head}\r\n"));
    assert_eq!(again.data(1), ["meanwhile"]);
}

#[test]
fn idle_stream_sends_its_cursor_which_passes_other_events() {
    let server = Server::start(&["--max-wait", "1s"]);
    let mut events = SseReader::open(&server, "/topics/news?type=alert", "");
    let first = events.next();
    server.wait_until_held(1);
    let other = server.publish("other", "x").next_cursor().to_owned();
    let untagged = server.publish("news", "x").next_cursor().to_owned();
    assert!(other != untagged && first.id.as_ref() != Some(&other));
    let mut sends_cursor = || {
        let block = events.next();
        assert_eq!(block.data, None);
        block.id.as_ref() == Some(&untagged)
    };
    // On a slow machine an idle cursor may have been sent before the publish.
    assert!((0..100).any(|_| sends_cursor()));
    assert!(sends_cursor());
}

#[test]
fn last_event_id_overrides_since_and_an_empty_one_is_ignored() {
    let server = Server::start(&[]);
    let ids: Vec<String> =
        (0..3).map(|n| server.publish("news", &n.to_string()).next_cursor().to_owned()).collect();
    for (since, id, first) in
        [("start", &*ids[1], "2"), ("now", &ids[0], "1"), (&ids[1], "", "2"), ("last:2", "", "1")]
    {
        let target = format!("/topics/news?since={since}");
        let mut events = SseReader::open(&server, &target, &format!("Last-Event-ID: {id}\r\n"));
        assert_eq!(events.data(1), [first], "{since} {id}");
    }
    // A poll ignores the header.
    let mut poll = server.connect();
    send_request(&mut poll, "GET /topics/news?wait=0", "Last-Event-ID: anything\r\n");
    assert_eq!(poll.response().data(), ["0", "1", "2"]);
}

#[test]
fn client_that_reconnects_repeatedly_gets_each_event_once() {
    const COUNT: usize = 600;
    let server = Server::start(&["--retain-events", "1000"]);
    thread::scope(|scope| {
        let publisher = scope.spawn(|| server.publish_many("news.a", COUNT));
        let readers: Vec<_> = (0..4)
            .map(|reader: usize| {
                let server = &server;
                scope.spawn(move || {
                    let (mut seen, mut id) = (Vec::new(), String::new());
                    let mut connections = 0;
                    while seen.len() < COUNT {
                        connections += 1;
                        let field = format!("Last-Event-ID: {id}\r\n");
                        let mut events = SseReader::open(server, "/topics/news.*", &field);
                        // Some readers reconnect after every few events, others after each one.
                        for _ in 0..(1 + reader * 7).min(COUNT - seen.len()) {
                            seen.extend(events.data(1));
                        }
                        id.clone_from(&events.last_id);
                        events.into_client().reset();
                    }
                    (seen, connections)
                })
            })
            .collect();
        publisher.join().unwrap();
        let all: Vec<_> = (0..COUNT).map(|n| n.to_string()).collect();
        for reader in readers {
            let (seen, connections) = reader.join().unwrap();
            assert_eq!(seen, all);
            assert!(connections >= COUNT / 22);
        }
    });
}

#[test]
fn publish_reaches_all_streams_and_all_polls() {
    let server = Server::start(&[]);
    let mut streams: Vec<_> =
        (0..40).map(|_| SseReader::open(&server, "/topics/news?since=now", "")).collect();
    let mut polls: Vec<_> = (0..20).map(|_| server.connect()).collect();
    for poll in &mut polls {
        poll.send_request("GET", "/topics/news?since=now&wait=3000");
    }
    for n in 0..5 {
        server.wait_until_held(if n == 0 { 60 } else { 40 });
        let response = server.publish("news", &n.to_string());
        assert_eq!(response.json()["released"], if n == 0 { 60 } else { 40 });
        for stream in &mut streams {
            assert_eq!(stream.data(1), [n.to_string()]);
        }
    }
    for poll in &mut polls {
        assert_eq!(poll.response().data(), ["0"]);
    }
}

#[test]
fn gap_is_an_event_and_the_stream_continues() {
    let server = Server::start(&["--retain-events", "2"]);
    let first = server.publish("news", "0").next_cursor().to_owned();
    server.publish_many("news", 5);
    let problem = server.get(&format!("/topics/news?since={first}")).json();
    let mut events = SseReader::open(&server, &format!("/topics/news?since={first}"), "");
    let gap = events.next();
    assert_eq!(gap.event.as_deref(), Some("gap"));
    assert_eq!(gap.id.as_deref(), problem["resume"].as_str());
    let reported = gap.json();
    for member in ["why", "lost", "oldest", "resume"] {
        assert_eq!(reported[member], problem[member], "{member}");
    }
    assert_eq!(
        (&reported["why"], &reported["lost"]),
        (&"trimmed".into(), &serde_json::json!({"news": 3}))
    );
    assert_eq!(events.data(2), ["3", "4"]);
    server.publish("news", "5");
    assert_eq!(events.data(1), ["5"]);
    // The gap is reported once: neither its id nor a later one leads to it again.
    for (id, next) in [(gap.id.unwrap(), "4"), (events.last_id, "6")] {
        server.publish("news", "6");
        let mut again =
            SseReader::open(&server, "/topics/news", &format!("Last-Event-ID: {id}\r\n"));
        if next == "6" {
            assert_eq!(again.data(1), ["6"]);
        } else {
            // Two more events were trimmed since, which is another gap.
            assert_eq!(again.next().event.as_deref(), Some("gap"));
        }
    }
    assert_eq!(server.metric("gaps_total{why=\"trimmed\"}"), 3.0);
    let mut foreign =
        SseReader::open(&server, "/topics/news", "Last-Event-ID: 00000000000000ab.7\r\n");
    assert_eq!(foreign.next().json()["why"], "epoch");
    let empty =
        SseReader::open(&server, "/topics/none", "Last-Event-ID: 00000000000000ab.7\r\n").next();
    assert_eq!((empty.event.as_deref(), &empty.json()["oldest"]), (Some("gap"), &().into()));
}

#[test]
fn unsupported_parameter_of_a_stream_is_refused_by_name() {
    let server = Server::start(&[]);
    for (request, fields, word) in [
        ("GET /topics/news?wait=5", "", "\"wait\"; known here: since, type"),
        ("GET /topics/news?limit=5", "", "\"limit\""),
        ("GET /topics/news?format=json", "", "\"format\""),
        ("GET /topics/news?gap=skip", "", "\"gap\""),
        ("GET /topics/news?since=x", "", "since=x"),
        ("GET /topics/ne%20ws", "", "ne ws"),
        ("GET /topics/news", "Last-Event-ID: 7\r\n", "Last-Event-ID: \"7\""),
        (
            "GET /topics/news",
            "Last-Event-ID: a\r\nLast-Event-ID: a\r\n",
            "Last-Event-ID is repeated",
        ),
    ] {
        let mut client = server.connect();
        send_request(&mut client, request, &format!("{SSE}{fields}"));
        let response = client.response();
        assert_eq!(response.status, 400, "{request}");
        assert!(response.detail().contains(word), "{word}: {}", response.detail());
        // The refusal leaves the connection usable.
        assert_eq!(client.get("/health").status, 200);
    }
}

#[test]
fn only_an_accept_header_for_sse_starts_a_stream() {
    let server = Server::start(&[]);
    server.publish("news", "x");
    for (accept, streams) in [
        ("text/event-stream", true),
        ("TEXT/Event-Stream; charset=utf-8", true),
        ("application/json, text/event-stream;q=0.5", true),
        ("text/event-stream;q=0", false),
        ("text/event-stream; q=0.0, */*", false),
        ("*/*", false),
        ("text/*", false),
        ("text/event-stream-2", false),
    ] {
        let mut client = server.connect();
        send_request(&mut client, "GET /topics/news", &format!("Accept: {accept}\r\n"));
        let response = client.response_head();
        let expected = if streams { "text/event-stream" } else { "application/json" };
        assert_eq!(response.header("Content-Type"), Some(expected), "{accept}");
    }
}

#[test]
fn head_request_gets_the_head_and_its_connection_stays_usable() {
    let server = Server::start(&["--max-polls", "1"]);
    let mut client = server.connect();
    for _ in 0..3 {
        send_request(&mut client, "HEAD /topics/news", SSE);
        let head = client.response_head();
        assert_eq!(head.header("Content-Type"), Some("text/event-stream"), "{head:?}");
        assert_eq!((head.status, head.header("Connection")), (200, None));
    }
    assert_eq!(client.get("/health").status, 200);
    assert_eq!(server.metric("streams_begun_total"), 0.0);
}

#[test]
fn http_1_0_client_gets_a_stream_without_chunks() {
    let mut server = Server::start(&[]);
    let id = server.publish("news", "x").next_cursor().to_owned();
    let mut client = server.connect();
    client.send(format!("GET /topics/news HTTP/1.0\r\n{SSE}\r\n"));
    let head = client.response_head();
    assert_eq!((head.status, head.header("Transfer-Encoding")), (200, None));
    assert_eq!(head.header("Connection"), Some("close"));
    let event = String::from_utf8(client.reader.through(b"\n\n").unwrap()).unwrap();
    let data = event.strip_prefix(&format!("id: {id}\ndata: {{")).expect("the first event");
    assert!(data.ends_with("}\n\n"));
    wait_until("the stream is held", || server.metric("polls_held") == 1.0);
    server.signal(15);
    let rest = String::from_utf8(client.read_to_end()).unwrap();
    let retry = rest.strip_prefix("retry: ").and_then(|rest| rest.strip_suffix("\n\n"));
    assert!(retry.is_some_and(|ms| ms.parse::<u64>().is_ok()), "{rest:?}");
    assert!(server.wait().0.success());
}

#[test]
fn only_pages_of_allowed_origins_may_stream() {
    let server = Server::start(&["--allow-origin", "https://app.example"]);
    let origin = "Origin: https://app.example\r\n";
    let events = SseReader::open(&server, "/topics/news", origin);
    assert_eq!(events.opening.header("Access-Control-Allow-Origin"), Some("https://app.example"));
    let mut foreign = server.connect();
    send_request(
        &mut foreign,
        "GET /topics/news",
        &format!("{SSE}Origin: https://evil.example\r\n"),
    );
    assert_eq!(foreign.response().status, 403);
}
