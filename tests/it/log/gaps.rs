//! Guards the gaps: a reader that lost events gets the exact number of them and a cursor to resume
//! from; a reader that lost none gets no gap.

use serde_json::{Value, json};

use crate::support::{Response, Server, wait_until};

fn cursor_now(server: &Server) -> String {
    server.get("/topics/*?since=now&wait=0").next_cursor().to_owned()
}

fn poll(server: &Server, topics: &str, since: &str) -> Response {
    server.get(&format!("/topics/{topics}?since={since}&limit=1000&wait=0"))
}

/// The gap object of a refusal.
fn gap(response: &Response) -> Value {
    assert_eq!(response.status, 410, "{}", response.text());
    assert!(!response.detail().is_empty());
    let mut json = response.json();
    let problem = json.as_object_mut().unwrap();
    for member in ["title", "status", "detail"] {
        problem.remove(member).expect("a member of every problem");
    }
    json
}

fn seq(cursor: &Value) -> u64 {
    let cursor = cursor.as_str().expect("a cursor");
    cursor.split('.').nth(1).unwrap().parse().unwrap()
}

fn resume(gap: &Value) -> &str {
    gap["resume"].as_str().expect("a cursor")
}

fn batch(server: &Server, topic: &str, events: usize) -> String {
    let body = "0\n".repeat(events);
    let headers = "Content-Type: application/x-ndjson\r\n";
    let response = server.connect().post(&format!("/topics/{topic}"), headers, body);
    assert_eq!(response.status, 201, "{response:?}");
    response.next_cursor().to_owned()
}

#[test]
fn reader_that_fell_behind_gets_the_number_of_lost_events_and_a_resume_cursor() {
    let server = Server::start(&["--retain-events", "3"]);
    server.publish_many("news", 2);
    let behind = cursor_now(&server);
    server.publish_many("news", 8);
    // Events 8, 9 and 10 are kept.
    let refused = server.get(&format!("/topics/news?since={behind}&wait=60"));
    let gap = gap(&refused);
    assert_eq!((&gap["why"], &gap["lost"]), (&json!("trimmed"), &json!({"news": 5})));
    assert_eq!((seq(&gap["oldest"]), seq(&gap["resume"])), (8, 7));
    assert_eq!(poll(&server, "news", resume(&gap)).seqs(), [8, 9, 10]);
    for format in ["ndjson", "raw"] {
        let refused = server.get(&format!("/topics/news?since={behind}&format={format}"));
        assert_eq!(self::gap(&refused), gap, "{format}");
    }
}

#[test]
fn reader_gets_no_gap_for_events_that_it_has_seen() {
    let server = Server::start(&["--retain-events", "3"]);
    server.publish_many("news", 7);
    let cursor = cursor_now(&server);
    // TrimHistory 5, 6 and 7: events that the cursor covers, and none after it.
    server.publish_many("news", 3);
    assert_eq!(poll(&server, "news", &cursor).seqs(), [8, 9, 10]);
    // TrimHistory 8.
    server.publish("news", "x");
    assert_eq!(gap(&poll(&server, "news", &cursor))["lost"], json!({"news": 1}));
    assert_eq!(poll(&server, "other", &cursor).status, 200);
}

#[test]
fn losses_are_counted_per_topic() {
    let server = Server::start(&["--retain-events", "2"]);
    let zero = cursor_now(&server);
    for (topic, events) in [("a", 4), ("b", 3), ("c", 2)] {
        server.publish_many(topic, events);
    }
    for topics in ["a,b,c", "*"] {
        let gap = gap(&poll(&server, topics, &zero));
        assert_eq!(gap["lost"], json!({"a": 2, "b": 1}), "{topics}");
        assert_eq!((seq(&gap["oldest"]), seq(&gap["resume"])), (3, 2));
        assert_eq!(poll(&server, topics, resume(&gap)).seqs(), [3, 4, 6, 7, 8, 9]);
    }
    assert_eq!(gap(&poll(&server, "b", &zero))["lost"], json!({"b": 1}));
    assert_eq!(poll(&server, "c", &zero).seqs(), [8, 9]);
    assert_eq!(server.metric("gaps_total{why=\"trimmed\"}"), 3.0);
    assert_eq!(server.metric("gap_lost_events_total"), 7.0);
}

#[test]
fn losses_are_exact_for_the_last_10_000_trims_and_unknown_before() {
    let server = Server::start(&["--retain-events", "1"]);
    let zero = cursor_now(&server);
    let cursors: Vec<_> = (0..12).map(|_| batch(&server, "news", 1000)).collect();
    assert_eq!(gap(&poll(&server, "news", &cursors[2]))["lost"], json!({"news": 8_999}));
    let lost = gap(&poll(&server, "news", &zero))["lost"].clone();
    assert!(lost.is_null() || lost == json!({"news": null}), "{lost}");
}

#[test]
fn gap_of_a_topic_that_took_a_forgotten_ones_place_has_no_count() {
    let server = Server::start(&["--max-topics", "1"]);
    let start = poll(&server, "b", "now").next_cursor().to_owned();
    server.publish("a", "x");
    assert_eq!(server.connect().send_request("DELETE", "/topics/a").response_head().status, 204);
    server.publish("b", "first");
    // The gap stands for the forgotten topic. Nothing of `b` was lost; a count of 0 would say that
    // there is no gap.
    for topics in ["b", "b*"] {
        let gap = gap(&poll(&server, topics, &start));
        let lost = &gap["lost"];
        assert!(lost.is_null() || *lost == json!({"b": null}), "{topics}: {gap}");
        assert_eq!(poll(&server, "b", resume(&gap)).seqs(), [2]);
    }
    // From here on, every loss is counted.
    let known = cursor_now(&server);
    server.publish("b", "second");
    server.connect().send_request("DELETE", "/topics/b").response_head();
    assert_eq!(gap(&poll(&server, "b", &known))["lost"], json!({"b": 1}));
}

#[test]
fn cursor_of_another_epoch_is_a_gap_at_once() {
    let (server, other) = (Server::start(&[]), Server::start(&[]));
    other.publish_many("news", 3);
    server.publish_many("news", 2);
    let refused = server.get(&format!("/topics/news?since={}&wait=60", cursor_now(&other)));
    let gap = gap(&refused);
    assert_eq!((&gap["why"], &gap["lost"]), (&json!("epoch"), &Value::Null));
    assert_eq!((seq(&gap["oldest"]), seq(&gap["resume"])), (1, 0));
    assert_eq!(poll(&server, "news", resume(&gap)).seqs(), [1, 2]);
}

#[test]
fn cursor_beyond_the_newest_event_is_a_gap_at_once() {
    let server = Server::start(&[]);
    let cursor = cursor_now(&server);
    let future = cursor.replace(".0", ".1");
    let gap = gap(&server.get(&format!("/topics/news?since={future}&wait=60")));
    assert_eq!((&gap["why"], &gap["oldest"]), (&json!("future"), &Value::Null));
    assert_eq!(poll(&server, "news", resume(&gap)).status, 200);
    server.publish("news", "now it exists");
    assert_eq!(poll(&server, "news", &future).status, 200);
}

#[test]
fn gap_skip_returns_the_gap_and_the_events_in_one_answer() {
    let server = Server::start(&["--retain-events", "3"]);
    let zero = cursor_now(&server);
    server.publish_many("news", 8);
    let reported = gap(&poll(&server, "news", &zero));
    let target = format!("/topics/news?since={zero}&gap=skip&wait=60");
    let json = server.get(&target);
    assert_eq!((json.status, json.seqs(), &json.json()["gap"]), (200, vec![6, 7, 8], &reported));
    let ndjson = server.get(&format!("{target}&format=ndjson"));
    assert_eq!((ndjson.status, ndjson.text().lines().count()), (200, 3));
    let raw = server.get(&format!("{target}&format=raw"));
    assert_eq!((raw.status, raw.text()), (200, "5"));
    for response in [&ndjson, &raw] {
        let header = response.header("Poll-Gap").expect("a Poll-Gap header");
        assert_eq!(serde_json::from_str::<Value>(header).unwrap(), reported);
    }
    let next = server.get(&format!("/topics/news?since={}&gap=skip&format=raw", raw.next_cursor()));
    assert_eq!((next.text(), next.header("Poll-Gap")), ("6", None));
}

#[test]
fn gap_skip_reports_every_kind_of_gap_without_a_wait() {
    let (server, other) = (Server::start(&[]), Server::start(&[]));
    server.publish("news", "a");
    for (since, why) in [(cursor_now(&other), "epoch"), (cursor_now(&server) + "9", "future")] {
        let target = format!("/topics/news?since={since}&gap=skip&wait=60");
        let response = server.get(&target);
        assert_eq!((response.seqs(), &response.json()["gap"]["why"]), (vec![1], &json!(why)));
    }
    let zero = format!("{}0", cursor_now(&server).trim_end_matches('1'));
    server.connect().send_request("DELETE", "/topics/news").response();
    let target = format!("/topics/news?since={zero}&gap=skip&wait=60");
    let response = server.get(&target);
    assert_eq!((response.seqs(), &response.json()["gap"]["lost"]), (vec![], &json!({"news": 1})));
    let raw = server.get(&format!("{target}&format=raw"));
    assert!(raw.body.is_empty() && raw.header("Poll-Gap").is_some());
    assert_eq!(poll(&server, "news", raw.next_cursor()).status, 200);
}

#[test]
fn gap_of_a_busy_topic_is_reported_once_and_the_quiet_topic_loses_nothing() {
    let server = Server::start(&["--retain-events", "3"]);
    server.publish_many("quiet", 3);
    let first = server.get("/topics/quiet,busy?limit=1");
    server.publish_many("busy", 10);
    let reported = gap(&poll(&server, "quiet,busy", first.next_cursor()));
    assert_eq!(reported["lost"], json!({"busy": 7}));
    assert_eq!((seq(&reported["oldest"]), seq(&reported["resume"])), (2, 1));
    let (mut since, mut seen) = (resume(&reported).to_owned(), Vec::new());
    while seen.len() < 5 {
        let target = format!("/topics/quiet,busy?since={since}&limit=1&wait=0");
        let page = server.get(&target);
        assert_eq!(page.status, 200, "reported again: {}", page.text());
        seen.extend(page.seqs());
        page.next_cursor().clone_into(&mut since);
    }
    assert_eq!(seen, [2, 3, 11, 12, 13]);
    assert_eq!(since, cursor_now(&server), "a cursor at the head has no count of trims");
}

#[test]
fn events_trimmed_after_a_reported_gap_are_a_new_gap() {
    let server = Server::start(&["--retain-events", "3"]);
    server.publish_many("quiet", 3);
    let first = server.get("/topics/quiet,busy?limit=1");
    server.publish_many("busy", 10);
    let reported = gap(&poll(&server, "quiet,busy", first.next_cursor()));
    // TrimHistory 11 and 12.
    server.publish_many("busy", 2);
    let again = gap(&poll(&server, "quiet,busy", resume(&reported)));
    assert_eq!(again["lost"], json!({"busy": 2}));
    assert_eq!(poll(&server, "quiet,busy", resume(&again)).seqs(), [2, 3, 13, 14, 15]);
    assert_eq!(gap(&poll(&server, "busy", first.next_cursor()))["lost"], json!({"busy": 9}));
}

#[test]
fn reader_from_the_start_gets_no_gap_for_earlier_trims() {
    let server = Server::start(&["--retain-events", "3"]);
    server.publish_many("quiet", 3);
    server.publish_many("busy", 10);
    for since in ["start", "last:2", "last:6"] {
        let first = server.get(&format!("/topics/*?since={since}&limit=1"));
        assert_eq!(first.status, 200);
        let rest = poll(&server, "*", first.next_cursor());
        assert_eq!(rest.status, 200, "{since}: {}", rest.text());
        assert_eq!(rest.seqs().last(), Some(&13));
    }
    // Events that are trimmed later are a gap.
    let first = server.get("/topics/*?limit=1");
    server.publish("busy", "x");
    assert_eq!(gap(&poll(&server, "*", first.next_cursor()))["lost"], json!({"busy": 1}));
}

#[test]
fn deleted_topic_is_a_gap_for_readers_behind_it_and_its_seqs_are_not_reused() {
    let server = Server::start(&[]);
    let zero = cursor_now(&server);
    server.publish_many("news", 3);
    let two = server.get("/topics/news?limit=2").next_cursor().to_owned();
    let head = cursor_now(&server);
    let mut client = server.connect();
    client.send_request("DELETE", "/topics/news");
    let deleted = client.response();
    assert_eq!((deleted.status, deleted.body.len()), (204, 0));
    assert_eq!(client.get("/topics/news?wait=0").seqs(), [0; 0]);
    for (cursor, lost) in [(&zero, 3), (&two, 1)] {
        let gap = gap(&poll(&server, "news", cursor));
        assert_eq!((&gap["lost"], &gap["oldest"]), (&json!({"news": lost}), &Value::Null));
        assert_eq!(poll(&server, "news", resume(&gap)).status, 200);
    }
    assert_eq!(poll(&server, "news", &head).status, 200);
    assert_eq!(server.publish("news", "x").json()["seq"], 4);
    assert_eq!(poll(&server, "news", &head).seqs(), [4]);
    assert_eq!(gap(&poll(&server, "news", &two))["lost"], json!({"news": 1}));
    assert_eq!(client.send_request("DELETE", "/topics/unknown").response().status, 204);
}

#[test]
fn deleted_topic_does_not_release_a_held_poll() {
    let server = Server::start(&[]);
    server.publish_many("news", 3);
    let mut poll = server.hold_poll("/topics/news?since=now&wait=60");
    server.connect().send_request("DELETE", "/topics/news").response();
    server.publish("news", "x");
    assert_eq!(poll.response().seqs(), [4]);
}

#[test]
fn forgotten_topic_never_hides_a_gap() {
    let server = Server::start(&["--max-topics", "2"]);
    let zero = cursor_now(&server);
    server.publish("a", "lost");
    server.publish("b", "kept");
    let delete =
        |topic| server.connect().send_request("DELETE", &format!("/topics/{topic}")).response();
    delete("a");
    server.publish("c", "replaces a");
    let zero_of = |topics| gap(&poll(&server, topics, &zero));
    for topics in ["a", "a,b", "*", "a*"] {
        let gap = zero_of(topics);
        assert_eq!(gap["why"], "trimmed");
        let lost = &gap["lost"];
        assert!(lost.is_null() || lost["a"].is_null() || lost["a"] == 1, "{topics}: {lost}");
    }
    assert_eq!(poll(&server, "b", &zero).seqs(), [2]);
    delete("b");
    server.publish("a", "back again");
    assert_eq!(zero_of("a")["why"], "trimmed");
    let gap = zero_of("a,c");
    assert_eq!(poll(&server, "a,c", resume(&gap)).seqs(), [3, 4]);
}

#[test]
fn byte_budget_trims_the_oldest_event_of_the_whole_log_first() {
    // The budget holds three events of 1,000 bytes, each with 128 bytes of overhead.
    let server = Server::start(&["--max-event", "1000", "--retain-bytes", "3384"]);
    let zero = cursor_now(&server);
    let body = "x".repeat(1000);
    server.publish("quiet", &body);
    server.publish("busy", &body);
    server.publish("busy", &body);
    assert_eq!(poll(&server, "quiet", &zero).seqs(), [1]);
    assert_eq!(server.metric("retained_bytes"), 3384.0);
    server.publish("busy", "");
    assert_eq!(gap(&poll(&server, "quiet", &zero))["lost"], json!({"quiet": 1}));
    assert_eq!(poll(&server, "busy", &zero).seqs(), [2, 3, 4]);
    assert_eq!(server.metric("retained_bytes"), 2384.0);
    // The type and a kept content type count, too: 5, 9 and 128 bytes beside the body.
    let headers = "Content-Type: text/html\r\n";
    let response = server.connect().post("/topics/busy?type=alert", headers, "x".repeat(858));
    assert_eq!(response.status, 201);
    assert_eq!(server.metric("retained_bytes"), 3384.0);
    assert_eq!(poll(&server, "busy", &zero).seqs(), [2, 3, 4, 5]);
    server.publish("other", "");
    assert_eq!(gap(&poll(&server, "busy", &zero))["lost"], json!({"busy": 1}));
}

#[test]
fn events_above_the_maximum_age_are_trimmed() {
    let server = Server::start(&["--retain-age", "50ms"]);
    let zero = cursor_now(&server);
    server.publish_many("news", 2);
    wait_until("the events are trimmed", || server.metric("retained_events") == 0.0);
    assert_eq!(poll(&server, "news", "start").seqs(), [0; 0]);
    assert_eq!(gap(&poll(&server, "news", &zero))["lost"], json!({"news": 2}));
}

#[test]
fn held_poll_gets_no_gap_from_busy_other_topics() {
    let server =
        Server::start(&["--retain-events", "2", "--max-event", "64", "--retain-bytes", "2KiB"]);
    server.publish("quiet", "x");
    let targets = ["quiet", "quiet,other", "qui*"];
    let mut polls =
        targets.map(|topics| server.hold_poll(&format!("/topics/{topics}?since=now&wait=60")));
    for topic in ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"] {
        server.publish_many(topic, 20);
    }
    assert_eq!(server.publish("quiet", "at last").json()["released"], 3);
    for poll in &mut polls {
        let response = poll.response();
        assert_eq!((response.status, response.data()), (200, vec![json!("at last")]));
    }
}
