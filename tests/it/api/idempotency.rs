//! Guards idempotency keys: a publish that is repeated with its key appends one event, no matter
//! how often and by how many clients it is repeated.

use std::sync::Barrier;
use std::thread;

use serde_json::{Value, json};

use crate::support::{Client, Response, Server};

/// The number of repeats that are sent at the same moment.
const CONCURRENT: usize = 8;

fn post(client: &mut Client, target: &str, key: &str, headers: &str, body: &str) -> Response {
    let headers = format!("Idempotency-Key: {key}\r\n{headers}");
    client.post(&format!("/topics/{target}"), &headers, body)
}

fn without_duplicate(response: &Response) -> Value {
    let mut json = response.json();
    json.as_object_mut().unwrap().remove("duplicate");
    json
}

#[test]
fn repeat_gets_the_first_receipt_marked_as_a_duplicate() {
    let server = Server::start(&[]);
    let mut poll = server.hold_poll("/topics/news?since=now&wait=60");
    let mut client = server.connect();
    let first = post(&mut client, "news?type=alert", "k-1", "", "hello");
    assert_eq!((first.status, &first.json()["released"]), (201, &json!(1)));
    assert_eq!(first.json().get("duplicate"), None);
    assert_eq!(poll.response().data(), ["hello"]);
    for _ in 0..2 {
        let repeat = post(&mut server.connect(), "news?type=alert", "k-1", "", "hello");
        assert_eq!((repeat.status, &repeat.json()["duplicate"]), (200, &json!(true)));
        assert_eq!(without_duplicate(&repeat), first.json());
        assert_eq!(repeat.next_cursor(), first.next_cursor());
    }
    assert_eq!(server.get("/topics/news?wait=0").seqs(), [1]);
}

#[test]
fn key_with_other_content_is_refused() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    assert_eq!(post(&mut client, "news?type=alert", "k", "", "hello").status, 201);
    for (target, headers, body) in [
        ("news?type=alert", "", "hello!"),
        ("news?type=alert", "", ""),
        ("news?type=alarm", "", "hello"),
        ("news", "", "hello"),
        ("news?type=alert", "Content-Type: image/png\r\n", "hello"),
    ] {
        let response = post(&mut client, target, "k", headers, body);
        assert_eq!(response.status, 422, "{target} {headers} {body}");
        assert!(response.detail().contains("Idempotency-Key"), "{}", response.detail());
    }
    assert_eq!(post(&mut client, "news", "k", "Event-Type: alert\r\n", "hello").status, 200);
    assert_eq!(client.get("/topics/news?wait=0").seqs(), [1]);
}

#[test]
fn keys_are_case_sensitive_and_belong_to_one_topic() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for (topic, key) in [("a", "k"), ("b", "k"), ("a", "K"), ("a", "k k"), ("ak", "k")] {
        assert_eq!(post(&mut client, topic, key, "", "x").status, 201, "{topic} {key}");
    }
    assert_eq!(post(&mut client, "a", "k", "", "x").status, 200);
}

#[test]
fn batch_is_repeated_as_a_whole() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let ndjson = "Content-Type: application/x-ndjson\r\n";
    let first = post(&mut client, "news", "k", ndjson, "1\n2\n");
    let repeat = post(&mut client, "news", "k", ndjson, "1\n2\n");
    assert_eq!((first.status, repeat.status), (201, 200));
    assert_eq!(without_duplicate(&repeat), first.json());
    assert_eq!(repeat.json()["count"], 2);
    assert_eq!(post(&mut client, "news", "k", ndjson, "1\n3\n").status, 422);
    assert_eq!(client.get("/topics/news?wait=0").seqs(), [1, 2]);
}

#[test]
fn key_outlives_its_event() {
    let server = Server::start(&["--retain-events", "1"]);
    let mut client = server.connect();
    let first = post(&mut client, "news", "k", "", "hello");
    server.publish_many("news", 3);
    client.send_request("DELETE", "/topics/news").response();
    let repeat = post(&mut client, "news", "k", "", "hello");
    assert_eq!((repeat.status, repeat.json()["seq"].as_u64()), (200, Some(1)));
    assert_eq!(without_duplicate(&repeat), first.json());
}

#[test]
fn refused_publish_does_not_use_up_its_key() {
    let server = Server::start(&["--max-topics", "1"]);
    let mut client = server.connect();
    let json = "Content-Type: application/json\r\n";
    assert_eq!(post(&mut client, "news", "k", json, "{").status, 400);
    assert_eq!(post(&mut client, "news", "k", json, "{}").status, 201);
    assert_eq!(post(&mut client, "other", "k", "", "x").status, 429);
    client.send_request("DELETE", "/topics/news").response();
    assert_eq!(post(&mut client, "other", "k", "", "y").status, 201);
}

#[test]
fn concurrent_repeats_append_one_event_and_get_one_receipt() {
    let server = Server::start(&[]);
    for round in 0..25 {
        let start = Barrier::new(CONCURRENT);
        let responses: Vec<Response> = thread::scope(|scope| {
            let publishers: Vec<_> = (0..CONCURRENT)
                .map(|_| {
                    scope.spawn(|| {
                        let mut client = server.connect();
                        client.get("/health");
                        start.wait();
                        post(&mut client, "news", &format!("k{round}"), "", "hello")
                    })
                })
                .collect();
            publishers.into_iter().map(|publisher| publisher.join().unwrap()).collect()
        });
        let firsts = responses.iter().filter(|response| response.status == 201).count();
        let repeats = responses.iter().filter(|response| response.status == 200).count();
        assert_eq!((firsts, repeats), (1, CONCURRENT - 1));
        let first = without_duplicate(&responses[0]);
        assert!(responses.iter().all(|response| without_duplicate(response) == first));
        assert_eq!(first["seq"], round + 1);
    }
    assert_eq!(server.metric("publish_repeats_total"), (25 * (CONCURRENT - 1)) as f64);
}

#[test]
fn key_is_1_to_128_printable_ascii_characters_in_one_field() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let longest = "x".repeat(128);
    for good in [&*longest, "a b", "~!\"#$%&'()"] {
        assert_eq!(post(&mut client, "news", good, "", "").status, 201, "{good}");
    }
    for bad in ["", &format!("{longest}x"), "k\u{e9}", "k\u{7f}", "k\r\nIdempotency-Key: k"] {
        let response = post(&mut client, "news", bad, "", "");
        assert_eq!(response.status, 400, "{bad}");
        if response.header("Connection").is_some() {
            client = server.connect();
        }
    }
    assert_eq!(client.get("/topics/news?wait=0").seqs(), [1, 2, 3]);
}
