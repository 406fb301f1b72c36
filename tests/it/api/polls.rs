//! Guards the poll: it is held until a matching event or its deadline, and its answer has the
//! cursor for the next poll.

use std::time::{Duration, Instant};

use crate::support::{Client, Response, Server, wait_until};

const SIGTERM: i32 = 15;

fn seconds(response: &Response) -> f64 {
    response.header("Poll-Wait").expect("a Poll-Wait header").parse().unwrap()
}

/// The head without its `Date`, which may differ by a second.
fn head_without_date(response: &Response) -> Vec<&str> {
    response.head.split("\r\n").filter(|line| !line.starts_with("Date:")).collect()
}

fn poll_preferring(client: &mut Client, target: &str, prefer: &str) {
    client.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nPrefer: {prefer}\r\n\r\n"));
}

#[test]
fn poll_is_released_by_publish() {
    let server = Server::start(&[]);
    let mut poll = server.hold_poll("/topics/news?since=now&wait=60");
    assert!(poll.has_received_nothing());
    let published = server.publish("news", "hello");
    assert_eq!(published.json()["released"], 1);
    let response = poll.response();
    assert_eq!(response.data(), ["hello"]);
    assert_eq!(response.header("Poll-Reason"), Some("data"));
    assert_eq!(response.next_cursor(), published.json()["cursor"]);
}

#[test]
fn poll_without_events_times_out_with_an_empty_page() {
    let server = Server::start(&[]);
    let started = Instant::now();
    let response = server.get("/topics/news?wait=0.05");
    assert!(started.elapsed() >= Duration::from_millis(50));
    assert_eq!(response.status, 200);
    assert_eq!(
        response.json(),
        serde_json::json!({
            "events": [], "next": response.next_cursor(), "more": false, "behind": 0, "reason": "timeout",
        })
    );
    assert_eq!(response.header("Content-Type"), Some("application/json"));
    assert_eq!(response.header("Poll-Reason"), Some("timeout"));
    assert_eq!(response.header("Cache-Control"), Some("no-store, no-transform"));
    assert_eq!(response.header("Transfer-Encoding"), None);
    assert_eq!(seconds(&response), 0.05);
}

#[test]
fn immediate_answer_has_the_same_members_and_no_wait() {
    let server = Server::start(&[]);
    server.publish("news", "hello");
    let response = server.get("/topics/news");
    let json = response.json();
    let mut members: Vec<_> = json.as_object().unwrap().keys().collect();
    members.sort();
    assert_eq!(members, ["behind", "events", "more", "next", "reason"]);
    assert_eq!((&json["more"], &json["behind"]), (&false.into(), &0.into()));
    assert_eq!(json["reason"], "data");
    assert_eq!(json["next"], response.next_cursor());
    assert_eq!(response.header("Poll-Reason"), Some("data"));
    assert_eq!(response.header("Poll-Wait"), None);
    assert_eq!(response.header("Cache-Control"), Some("no-store, no-transform"));
    assert_eq!(response.header("Content-Length"), Some(&*response.body.len().to_string()));
}

#[test]
fn wait_of_zero_is_answered_at_once() {
    let server = Server::start(&["--wait-jitter", "10"]);
    for wait in ["0", "0.0", "000"] {
        let response = server.get(&format!("/topics/news?wait={wait}"));
        assert_eq!((response.status, seconds(&response)), (200, 0.0));
        assert_eq!(response.header("Poll-Reason"), Some("timeout"));
    }
}

#[test]
fn timeout_moves_the_cursor_past_other_topics() {
    let server = Server::start(&[]);
    let before = server.get("/topics/quiet?wait=0").next_cursor().to_owned();
    let busy = server.publish_many("busy", 3);
    for wait in ["0", "0.01"] {
        let response = server.get(&format!("/topics/quiet?since={before}&wait={wait}"));
        assert_eq!(response.json()["reason"], "timeout");
        assert_eq!(response.next_cursor(), busy.next_cursor());
    }
}

#[test]
fn held_poll_ignores_other_topics_and_types_but_its_cursor_moves() {
    let server = Server::start(&[]);
    let mut other = server.hold_poll("/topics/quiet?since=now&wait=60");
    let mut unwanted = server.hold_poll("/topics/busy?since=now&wait=60&type=alert,alarm");
    let mut client = server.connect();
    for query in ["", "?type=notice", "?type=alert2"] {
        let published = client.post(&format!("/topics/busy{query}"), "", "x");
        assert_eq!((published.status, &published.json()["released"]), (201, &0.into()));
    }
    let last = server.publish("quieter", "x");
    assert_eq!(last.json()["released"], 0);
    server.wait_until_held(2);
    assert!(other.has_received_nothing() && unwanted.has_received_nothing());
    server.signal(SIGTERM);
    for poll in [&mut other, &mut unwanted] {
        let response = poll.response();
        assert_eq!(response.json()["reason"], "drain");
        assert_eq!(response.json()["events"], serde_json::json!([]));
        assert_eq!(response.next_cursor(), last.next_cursor());
    }
}

#[test]
fn held_poll_gets_the_requested_type_without_earlier_events() {
    let server = Server::start(&[]);
    let mut poll = server.hold_poll("/topics/news?since=now&wait=60&type=alert");
    server.publish("news", "not this");
    let published = server.connect().post("/topics/news", "Event-Type: alert\r\n", "this");
    assert_eq!(published.status, 201);
    let response = poll.response();
    assert_eq!(response.data(), ["this"]);
    assert_eq!(response.next_cursor(), published.next_cursor());
}

#[test]
fn wait_above_the_maximum_is_clamped() {
    let server = Server::start(&["--max-wait", "50ms"]);
    for query in ["", "?wait=3600", "?wait=0.051", "?wait=99999999999999999999999999"] {
        let response = server.get(&format!("/topics/news{query}"));
        assert_eq!((response.status, seconds(&response)), (200, 0.05), "{query}");
    }
    assert_eq!(seconds(&server.get("/topics/news?wait=0.02")), 0.02);
}

#[test]
fn jitter_shortens_a_wait_by_up_to_a_tenth_and_never_extends_it() {
    let server = Server::start(&["--wait-jitter", "10"]);
    let started = Instant::now();
    let mut polls: Vec<_> = (0..40).map(|_| server.connect()).collect();
    for poll in &mut polls {
        poll.send_request("GET", "/topics/news?wait=0.2");
    }
    let waits: Vec<_> = polls.iter_mut().map(|poll| seconds(&poll.response())).collect();
    assert!(started.elapsed() >= Duration::from_millis(180));
    assert!(waits.iter().all(|wait| (0.18..=0.2).contains(wait)), "{waits:?}");
    assert!(waits.iter().any(|wait| (wait - waits[0]).abs() > 0.001), "no jitter: {waits:?}");
}

#[test]
fn prefer_wait_equals_the_wait_parameter() {
    let server = Server::start(&[]);
    let mut poll = server.connect();
    poll_preferring(&mut poll, "/topics/news", "respond-async, wait=50");
    server.wait_until_held(1);
    server.publish("news", "hello");
    let response = poll.response();
    assert_eq!(response.data(), ["hello"]);
    assert_eq!(response.header("Preference-Applied"), Some("wait=50"));

    poll_preferring(&mut poll, "/topics/other", "wait=0");
    let response = poll.response();
    assert_eq!(response.header("Preference-Applied"), Some("wait=0"));
    assert_eq!(seconds(&response), 0.0);
}

#[test]
fn query_overrides_prefer() {
    let server = Server::start(&[]);
    let mut poll = server.connect();
    poll_preferring(&mut poll, "/topics/news?wait=0", "wait=60");
    let response = poll.response();
    assert_eq!((seconds(&response), response.header("Preference-Applied")), (0.0, None));
}

#[test]
fn invalid_preference_is_ignored() {
    let server = Server::start(&[]);
    server.publish("news", "hello");
    let mut poll = server.connect();
    for prefer in ["wait", "wait=soon", "wait=-1", "handling=lenient", ""] {
        poll_preferring(&mut poll, "/topics/news", prefer);
        let response = poll.response();
        assert_eq!(
            (response.status, response.header("Preference-Applied")),
            (200, None),
            "{prefer}"
        );
    }
}

#[test]
fn head_returns_the_headers_of_a_poll_without_a_wait() {
    let server = Server::start(&[]);
    server.publish("news", "hello");
    let mut client = server.connect();
    for target in
        ["/topics/news?", "/topics/news?format=raw&", "/topics/none?", "/topics/*?limit=0&"]
    {
        let page = client.get(&format!("{target}wait=0"));
        for query in ["wait=0", "wait=60", ""] {
            // Without `wait` a poll waits 25 s, but HEAD never waits.
            let head = client.send_request("HEAD", &format!("{target}{query}")).response_head();
            assert_eq!(head_without_date(&head), head_without_date(&page), "{target}{query}");
        }
    }
    assert_eq!(client.get("/health").status, 200);
}

#[test]
fn head_does_not_apply_a_preferred_wait() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.send("HEAD /topics/news HTTP/1.1\r\nHost: localhost\r\nPrefer: wait=60\r\n\r\n");
    let head = client.response_head();
    assert_eq!((head.status, seconds(&head)), (200, 0.0));
    assert_eq!(head.header("Preference-Applied"), None, "HEAD does not wait");
}

#[test]
fn one_connection_serves_polls_with_every_outcome() {
    let server = Server::start(&[]);
    server.publish("news", "hello");
    let mut client = server.connect();
    let future = format!("{}99", client.get("/topics/news?wait=0").next_cursor());
    for _ in 0..2 {
        assert_eq!(client.get("/topics/none?wait=0").json()["reason"], "timeout");
        assert_eq!(client.get("/topics/none?wait=0.01").json()["reason"], "timeout");
        assert_eq!(client.get("/topics/news").data(), ["hello"]);
        assert_eq!(client.get("/topics/news?format=raw").text(), "hello");
        assert_eq!(client.get("/topics/none?format=raw&wait=0").text(), "");
        assert_eq!(client.get(&format!("/topics/news?since={future}")).status, 410);
        assert_eq!(client.get("/topics/news?limit=0").status, 400);
        assert_eq!(client.send_request("HEAD", "/topics/news").response_head().status, 200);
    }
    client.send_request("GET", "/topics/news?since=now&wait=60");
    server.wait_until_held(1);
    server.publish("news", "more");
    assert_eq!(client.response().data(), ["more"]);
    assert_eq!(client.get("/health").status, 200);
}

#[test]
fn disconnected_poll_releases_its_permit() {
    let server = Server::start(&[]);
    drop(server.hold_poll("/topics/news?since=now&wait=3000"));
    server.wait_until_held(0);
    assert_eq!(server.publish("news", "hello").json()["released"], 0);
}

#[test]
fn half_close_ends_a_held_poll_also_behind_another_request() {
    let server = Server::start(&[]);
    let mut half = server.hold_poll("/topics/news?since=now&wait=3000");
    half.close_write();
    server.wait_until_held(0);
    assert!(half.is_closed());

    let mut half = server.hold_poll("/topics/news?since=now&wait=3000");
    half.send_request("GET", "/health").close_write();
    server.wait_until_held(0);
}

#[test]
fn pipelined_bytes_do_not_end_a_held_poll() {
    let server = Server::start(&[]);
    let mut poll = server.hold_poll("/topics/news?since=now&wait=60");
    poll.send_request("GET", "/health");
    // Longer than the server takes to notice a client that has left.
    drop(server.hold_poll("/topics/other?since=now&wait=3000"));
    server.wait_until_held(1);
    server.publish("news", "hello");
    assert_eq!(poll.response().data(), ["hello"]);
    assert_eq!(poll.response().json()["status"], "ok");
}

#[test]
fn equal_polls_get_the_same_bytes() {
    let server = Server::start(&[]);
    let mut polls: Vec<_> = (0..8).map(|_| server.connect()).collect();
    for poll in &mut polls {
        poll.send_request("GET", "/topics/news?since=now&wait=60");
    }
    server.wait_until_held(8);
    assert_eq!(server.publish("news", "hello").json()["released"], 8);
    let responses: Vec<_> = polls.iter_mut().map(Client::response).collect();
    for response in &responses {
        assert_eq!(head_without_date(response), head_without_date(&responses[0]));
        assert_eq!(response.body, responses[0].body);
    }
    let (one, other) = (server.get("/topics/news"), server.get("/topics/news"));
    assert_eq!(
        (head_without_date(&one), one.body.clone()),
        (head_without_date(&other), other.body.clone())
    );
}

#[test]
fn publish_reports_how_many_held_polls_it_releases() {
    let server = Server::start(&[]);
    let _held: Vec<_> = ["news", "n*", "*", "news,other", "other,ne*", "new*&type=alert", "other"]
        .iter()
        .map(|topics| match topics.split_once('&') {
            Some((topics, query)) => server.hold_poll(&format!("/topics/{topics}?{query}&wait=60")),
            None => server.hold_poll(&format!("/topics/{topics}?wait=60")),
        })
        .collect();
    assert_eq!(server.publish("news", "1").json()["released"], 5);
    assert_eq!(server.publish("news", "2").json()["released"], 0);
    assert_eq!(server.publish("other", "3").json()["released"], 1);
    // Not counted: the poll for alerts was woken by "1" and "2", and may be reading the log just now.
    server.connect().post("/topics/news?type=alert", "", "4");
    server.wait_until_held(0);
}

#[test]
fn publish_counts_a_released_poll_that_selects_its_type() {
    let server = Server::start(&[]);
    let _held = server.hold_poll("/topics/new*?type=alert&wait=60");
    let alert = server.connect().post("/topics/news?type=alert", "", "1");
    assert_eq!(alert.json()["released"], 1);
    server.wait_until_held(0);
}

#[test]
fn held_poll_gets_a_whole_batch_in_one_answer() {
    let server = Server::start(&[]);
    let mut poll = server.hold_poll("/topics/n*?since=now&wait=60");
    let batch = server.connect().post(
        "/topics/news",
        "Content-Type: application/x-ndjson\r\n",
        "1\n2\n3\n",
    );
    assert_eq!(batch.json()["released"], 1);
    assert_eq!(poll.response().data(), [1, 2, 3]);
}

#[test]
fn polls_are_counted_by_reason_and_by_peak() {
    let server = Server::start(&[]);
    let mut polls = [(); 3].map(|()| server.hold_poll("/topics/news?since=now&wait=60"));
    assert_eq!(server.metric("polls_held_peak"), 3.0);
    server.publish("news", "hello");
    for poll in &mut polls {
        poll.response();
    }
    server.get("/topics/none?wait=0");
    drop(server.hold_poll("/topics/none?wait=60"));
    server.wait_until_held(0);
    assert_eq!(server.metric("polls_total{reason=\"data\"}"), 3.0);
    assert_eq!(server.metric("polls_total{reason=\"timeout\"}"), 1.0);
    wait_until("the wake-ups are measured", || server.metric("wake_seconds_count") == 3.0);
    assert_eq!(server.metric("polls_held_peak"), 3.0);
}
