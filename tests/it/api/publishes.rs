//! Guards the publish: an acknowledged event is in the log once, exactly as it was sent; a refused
//! one leaves nothing.

use std::collections::BTreeSet;
use std::sync::Barrier;
use std::thread;

use serde_json::{Value, json};

use crate::support::{Response, Server};

const JSON: &str = "Content-Type: application/json\r\n";
const NDJSON: &str = "Content-Type: application/x-ndjson\r\n";

fn post(server: &Server, headers: &str, body: impl AsRef<[u8]>) -> Response {
    server.connect().post("/topics/news", headers, body)
}

fn events(server: &Server) -> Vec<Value> {
    let page = server.get("/topics/news?wait=0&limit=1000").json();
    page["events"].as_array().unwrap().clone()
}

fn raw(server: &Server) -> Response {
    server.get("/topics/news?since=last:1&format=raw&wait=0")
}

#[test]
fn publish_is_acknowledged_with_seq_cursor_and_time() {
    let server = Server::start(&[]);
    let response = post(&server, "", "hello");
    assert_eq!(response.status, 201);
    assert_eq!(response.header("Content-Type"), Some("application/json"));
    let event = &events(&server)[0];
    assert_eq!(
        response.json(),
        json!({
            "topic": "news", "seq": 1, "cursor": response.next_cursor(), "time": event["time"],
            "released": 0, "durable": false,
        })
    );
    assert!(response.next_cursor().ends_with(".1"));
    let page = server.get(&format!("/topics/news?since={}&wait=0", response.next_cursor()));
    assert_eq!(page.seqs(), [0; 0]);
}

#[test]
fn seqs_increase_by_one_over_all_topics() {
    let server = Server::start(&[]);
    let seqs = ["a", "b", "a", "c"].map(|topic| server.publish(topic, "x").json()["seq"].clone());
    assert_eq!(seqs, [1, 2, 3, 4]);
}

#[test]
fn json_body_must_be_one_value() {
    let server = Server::start(&[]);
    for content_type in
        ["application/json", "application/ld+json", "APPLICATION/JSON;charset=utf-8"]
    {
        let headers = format!("Content-Type: {content_type}\r\n");
        for bad in
            ["", "{", "1 2", "{'a':1}", "[1,]", "nul", "NaN", "01", "+1", "\"\\ud800\"", "1e999"]
        {
            let response = post(&server, &headers, bad);
            assert_eq!(response.status, 400, "{bad}");
            assert!(response.detail().contains("JSON"), "{}", response.detail());
        }
        assert_eq!(post(&server, &headers, b"\"\xff\"").status, 400);
    }
    assert_eq!(events(&server), [] as [Value; 0]);
    for good in ["0", " null ", "\"\\ud83d\\ude00\"", "{}", "[]", "-1.5e3", "\r\n true\n"] {
        assert_eq!(post(&server, JSON, good).status, 201, "{good}");
    }
    assert_eq!(events(&server).len(), 7);
}

#[test]
fn json_keeps_its_digits_and_the_order_of_its_members() {
    let server = Server::start(&[]);
    let body = r#"{"z":1.10,"a":123456789012345678901234567890,"z":-0,"e":1E+2,"u":"\u00e9\/"}"#;
    post(&server, JSON, body);
    assert!(server.get("/topics/news").text().contains(&format!("\"data\":{body}")));
    assert!(server.get("/topics/news?format=ndjson").text().contains(body));
    assert_eq!(raw(&server).text(), body);
}

#[test]
fn json_with_line_breaks_is_one_line_in_ndjson_and_unchanged_in_raw() {
    let server = Server::start(&[]);
    let body = "{\r\n  \"a\": [\n1,\r2],\n  \"b\": \"x\\ny\"\n}\n";
    assert_eq!(post(&server, JSON, body).status, 201);
    let page = server.get("/topics/news?format=ndjson");
    assert_eq!(page.text().matches(['\n', '\r']).count(), 1);
    let event: Value = serde_json::from_str(page.text()).unwrap();
    assert_eq!(event["data"], json!({"a": [1, 2], "b": "x\ny"}));
    assert_eq!(raw(&server).text(), body);
}

#[test]
fn deep_json_is_accepted_or_refused_and_never_crashes_the_server() {
    let server = Server::start(&[]);
    let nested =
        |open: &str, close: &str, depth| format!("{}0{}", open.repeat(depth), close.repeat(depth));
    for (depth, status) in
        [(100, 201), (120, 201), (121, 400), (129, 400), (1_000, 400), (10_000, 400)]
    {
        for body in [nested("[", "]", depth), nested("{\"a\":", "}", depth)] {
            for headers in [JSON, NDJSON] {
                let response = post(&server, headers, &body);
                assert_eq!(response.status, status, "{depth} deep");
                assert!(
                    status == 201 || response.detail().contains("JSON"),
                    "{}",
                    response.detail()
                );
            }
        }
    }
    assert_eq!(events(&server).len(), 8);
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn text_and_bytes_are_returned_unchanged() {
    let server = Server::start(&[]);
    let every_byte: Vec<u8> = (0..=255).collect();
    for headers in [
        "",
        "Content-Type: text/plain\r\n",
        "Content-Type: application/octet-stream\r\n",
        "Content-Type: application/x-www-form-urlencoded\r\n",
        "Content-Type: image/png\r\n",
    ] {
        for body in [&every_byte[..], b"a\r\n\r\nb", b"%41+&=", b" \n", b""] {
            assert_eq!(post(&server, headers, body).status, 201);
            assert_eq!(raw(&server).body, body, "{headers}");
        }
    }
}

#[test]
fn empty_body_is_an_event_with_empty_text() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.send("POST /topics/news HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(client.response().status, 201);
    assert_eq!(post(&server, "", "").status, 201);
    let data: Vec<_> = events(&server).iter().map(|event| event["data"].clone()).collect();
    assert_eq!(data, ["", ""]);
}

#[test]
fn type_is_set_by_query_by_header_or_by_both_if_equal() {
    let server = Server::start(&[]);
    for (query, headers, tag) in [
        ("", "", Value::Null),
        ("?type=alert", "", json!("alert")),
        ("", "Event-Type: alert.A_1~-\r\n", json!("alert.A_1~-")),
        ("?type=alert", "event-type: alert\r\n", json!("alert")),
        ("?type=%61lert", "", json!("alert")),
    ] {
        let response = server.connect().post(&format!("/topics/news{query}"), headers, "x");
        assert_eq!(response.status, 201);
        assert_eq!(events(&server).last().unwrap()["type"], tag, "{query} {headers}");
    }
    let too_long = format!("?type={}", "x".repeat(129));
    for (query, headers) in [
        ("?type=alert", "Event-Type: alarm\r\n"),
        ("?type=", ""),
        ("?type=a,b", ""),
        ("?type=a%20b", ""),
        ("", "Event-Type: a b\r\n"),
        ("", "Event-Type: a\r\nEvent-Type: a\r\n"),
        (&too_long, ""),
    ] {
        let response = server.connect().post(&format!("/topics/news{query}"), headers, "x");
        assert_eq!(response.status, 400, "{query} {headers}");
        assert!(response.detail().to_ascii_lowercase().contains("type"), "{}", response.detail());
    }
    assert_eq!(events(&server).len(), 5);
}

#[test]
fn batch_has_one_event_per_line_with_consecutive_seqs() {
    let server = Server::start(&[]);
    server.publish("other", "x");
    let body = "\n{\"a\":1}\r\n\n  \n[2]\n\"three\"";
    let response = server.connect().post("/topics/news?type=alert", NDJSON, body);
    assert_eq!(response.status, 201);
    assert_eq!((&response.json()["count"], &response.json()["seq"]), (&json!(3), &json!(4)));
    assert_eq!(response.json()["cursor"], response.next_cursor());
    assert!(response.next_cursor().ends_with(".4"));
    let events = events(&server);
    let shown = |name: &str| events.iter().map(|e| e[name].clone()).collect::<Vec<_>>();
    assert_eq!(shown("data"), [json!({"a": 1}), json!([2]), json!("three")]);
    assert_eq!(shown("seq"), [2, 3, 4]);
    assert_eq!(shown("type"), ["alert", "alert", "alert"]);
}

#[test]
fn batch_with_a_bad_line_appends_nothing_and_names_the_line() {
    let server = Server::start(&["--max-event", "100"]);
    let long = format!("1\n2\n\"{}\"\n", "x".repeat(99));
    for (body, status, line) in [
        ("1\n{\n3\n", 400, "2"),
        ("1\n2\n3 4", 400, "3"),
        ("1\n\n\nx", 400, "4"),
        (&*long, 413, "3"),
    ] {
        let response = post(&server, NDJSON, body);
        assert_eq!(response.status, status, "{body}");
        assert!(response.detail().contains(&format!("line {line}")), "{}", response.detail());
    }
    assert_eq!(post(&server, NDJSON, format!("\"{}\"", "x".repeat(98))).status, 201);
    assert_eq!(events(&server)[0]["seq"], 1);
}

#[test]
fn batch_has_at_most_1000_events_and_1_mebibyte() {
    let server = Server::start(&[]);
    assert_eq!(post(&server, NDJSON, "1\n".repeat(1001)).status, 413);
    let line = format!("\"{}\"\n", "x".repeat((1 << 14) - 3));
    let mebibyte = line.repeat(64);
    assert_eq!(mebibyte.len(), 1 << 20);
    assert_eq!(post(&server, NDJSON, format!("{mebibyte} ")).status, 413);
    assert_eq!(events(&server), [] as [Value; 0]);
    assert_eq!(post(&server, NDJSON, &mebibyte).json()["seq"], 64);
    let thousand = post(&server, NDJSON, "1\n".repeat(1000) + "\n\n");
    assert_eq!((thousand.status, &thousand.json()["count"]), (201, &json!(1000)));
}

#[test]
fn batches_of_concurrent_publishers_do_not_interleave() {
    let server = Server::start(&[]);
    thread::scope(|scope| {
        for publisher in 0..8 {
            let server = &server;
            scope.spawn(move || {
                let mut client = server.connect();
                let body = format!("{publisher}\n").repeat(10);
                for _ in 0..10 {
                    assert_eq!(client.post("/topics/news", NDJSON, &body).status, 201);
                }
            });
        }
    });
    let events = events(&server);
    assert_eq!(events.len(), 800);
    for (at, batch) in events.chunks(10).enumerate() {
        assert!(batch.iter().all(|event| event["data"] == batch[0]["data"]), "{batch:?}");
        assert_eq!(batch[0]["seq"], 10 * at + 1);
    }
}

#[test]
fn event_may_have_the_maximum_size_and_no_byte_more() {
    let server = Server::start(&["--max-event", "1KiB"]);
    assert_eq!(post(&server, "", [b'x'; 1024]).status, 201);
    let response = post(&server, "", [b'x'; 1025]);
    assert_eq!(response.status, 413);
    let detail = response.detail();
    assert!(detail.contains("1025") && detail.contains("1024"), "{detail}");
    assert_eq!(events(&server).len(), 1);
}

#[test]
fn too_large_body_is_refused_before_it_is_sent() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.send("POST /topics/news HTTP/1.1\r\nHost: localhost\r\nContent-Length: 65537\r\n\r\n");
    assert_eq!(client.response().status, 413);
    let mut client = server.connect();
    let length = "99999999999999999999999";
    client.send(format!(
        "POST /topics/news HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
    ));
    assert_eq!(client.response().status, 413);
    let mut client = server.connect();
    let chunked = "Transfer-Encoding: chunked\r\n\r\nFFFF\r\n";
    client.send(format!("POST /topics/news HTTP/1.1\r\nHost: localhost\r\n{chunked}"));
    client.send(vec![b'x'; 65535]).send("\r\n2\r\n");
    assert_eq!(client.response().status, 413);
}

#[test]
fn batch_releases_and_counts_each_held_poll_once() {
    let server = Server::start(&[]);
    let _polls = [(); 2].map(|()| server.hold_poll("/topics/news?wait=60"));
    assert_eq!(post(&server, NDJSON, "1\n2\n3\n").json()["released"], 2);
    assert_eq!(server.metric("publishes_total"), 1.0);
    assert_eq!(server.metric("events_published_total"), 3.0);
}

#[test]
fn concurrent_publishers_get_every_seq_once() {
    let server = Server::start(&[]);
    let seqs: Vec<u64> = thread::scope(|scope| {
        let publishers: Vec<_> = (0..8)
            .map(|publisher| {
                let mut client = server.connect();
                scope.spawn(move || {
                    let target = format!("/topics/t{publisher}");
                    (0..50)
                        .map(|_| client.post(&target, "", "x").json()["seq"].as_u64().unwrap())
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        publishers.into_iter().flat_map(|publisher| publisher.join().unwrap()).collect()
    });
    assert_eq!(seqs.len(), 400);
    assert_eq!(seqs.into_iter().collect::<BTreeSet<_>>(), (1..=400).collect());
}

#[test]
fn concurrent_publishers_are_all_answered() {
    let server = Server::start(&[]);
    let start = Barrier::new(16);
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                start.wait();
                assert_eq!(post(&server, "", "x").status, 201);
            });
        }
    });
    assert_eq!(events(&server).len(), 16);
}

#[test]
fn publish_names_exactly_one_topic() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for bad in ["a,b", "a*", "*", "a/b", "a%20b", "%2A", ""] {
        let response = client.post(&format!("/topics/{bad}"), "", "");
        assert_eq!(response.status, 400, "{bad}");
        assert!(response.detail().contains("topic"), "{}", response.detail());
    }
    let longest = "x".repeat(128);
    assert_eq!(client.post(&format!("/topics/{longest}"), "", "").status, 201);
    assert_eq!(client.post(&format!("/topics/{longest}x"), "", "").status, 400);
    assert_eq!(client.post("/topics/n%65ws", "", "").json()["topic"], "news");
}
