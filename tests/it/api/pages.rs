//! Guards the pages: a poll's answer holds exactly the requested events, in order, in the requested
//! format.

use serde_json::{Value, json};

use crate::support::{Client, Response, Server};

/// Publishes `a` 1, `b.x` 2, `b.y` 3, `a` 4, `c` 5, `b.x` 6; the even ones are alerts.
fn publish_six_events(server: &Server) {
    for (index, topic) in ["a", "b.x", "b.y", "a", "c", "b.x"].iter().enumerate() {
        let seq = index + 1;
        let query = if seq % 2 == 0 { "?type=alert" } else { "" };
        let response =
            server.connect().post(&format!("/topics/{topic}{query}"), "", format!("e{seq}"));
        assert_eq!(response.json()["seq"], seq);
    }
}

fn publish_as(client: &mut Client, content_type: &str, body: impl AsRef<[u8]>) -> Response {
    let response =
        client.post("/topics/news", &format!("Content-Type: {content_type}\r\n"), body.as_ref());
    assert_eq!(response.status, 201, "{response:?}");
    response
}

fn lines(response: &Response) -> Vec<Value> {
    response.text().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn since_takes_start_now_last_and_a_cursor() {
    let server = Server::start(&[]);
    publish_six_events(&server);
    let second = server.get("/topics/*?limit=2").next_cursor().to_owned();
    for (query, seqs) in [
        ("", &[1, 2, 3, 4, 5, 6][..]),
        ("since=start&", &[1, 2, 3, 4, 5, 6]),
        ("since=now&", &[]),
        ("since=last:2&", &[5, 6]),
        ("since=last:0&", &[]),
        ("since=last:99999999999&", &[1, 2, 3, 4, 5, 6]),
        (&format!("since={second}&"), &[3, 4, 5, 6]),
    ] {
        assert_eq!(server.get(&format!("/topics/*?{query}wait=0")).seqs(), seqs, "{query}");
    }
}

#[test]
fn last_counts_matching_events_of_all_requested_topics_together() {
    let server = Server::start(&[]);
    publish_six_events(&server);
    for (target, seqs) in [
        ("a,b.*?since=last:2", &[4, 6][..]),
        ("a,b.*?since=last:3", &[3, 4, 6]),
        ("a?since=last:1", &[4]),
        ("*?since=last:2&type=alert", &[4, 6]),
        ("a,c?since=last:2&type=alert", &[4]),
        ("a,b.x?since=last:1&type=alert", &[6]),
        ("*?since=last:3&limit=2", &[4, 5]),
    ] {
        assert_eq!(server.get(&format!("/topics/{target}&wait=0")).seqs(), seqs, "{target}");
    }
}

#[test]
fn pages_report_the_rest_and_lead_through_all_events() {
    let server = Server::start(&[]);
    publish_six_events(&server);
    let mut since = String::from("start");
    for (seqs, behind) in [([1, 2], 4), ([3, 4], 2), ([5, 6], 0)] {
        let page = server.get(&format!("/topics/*?since={since}&limit=2&wait=0"));
        assert_eq!(page.seqs(), seqs);
        assert_eq!(page.json()["behind"], behind);
        assert_eq!(page.json()["more"], behind > 0);
        page.next_cursor().clone_into(&mut since);
    }
    let end = server.get(&format!("/topics/*?since={since}&wait=0"));
    assert_eq!((end.json()["reason"].as_str(), end.next_cursor()), (Some("timeout"), &*since));
}

#[test]
fn page_holds_a_hundred_events_by_default() {
    let server = Server::start(&["--retain-events", "2000"]);
    let batch = "0\n".repeat(1000);
    let mut client = server.connect();
    publish_as(&mut client, "application/x-ndjson", &batch);
    publish_as(&mut client, "application/x-ndjson", &batch);
    assert_eq!(client.get("/topics/news").seqs().len(), 100);
    assert_eq!(client.get("/topics/news?limit=1").seqs(), [1]);
    let page = client.get("/topics/news?limit=1000");
    assert_eq!(page.seqs().len(), 1000);
    assert_eq!(page.json()["behind"], 1000);
}

#[test]
fn topics_and_prefixes_are_merged_in_seq_order() {
    let server = Server::start(&[]);
    publish_six_events(&server);
    for (topics, seqs) in [
        ("a,c", &[1, 4, 5][..]),
        ("c,a", &[1, 4, 5]),
        ("b.*", &[2, 3, 6]),
        ("b.*,a", &[1, 2, 3, 4, 6]),
        ("b.x,b.*,b*,b.x", &[2, 3, 6]),
        ("*,a", &[1, 2, 3, 4, 5, 6]),
        ("none,c,no*", &[5]),
        ("b", &[]),
        // The list is decoded once and then split.
        ("a%2Cc", &[1, 4, 5]),
        ("b.%2A", &[2, 3, 6]),
        ("%62%2e%78", &[2, 6]),
    ] {
        assert_eq!(server.get(&format!("/topics/{topics}?wait=0")).seqs(), seqs, "{topics}");
    }
}

#[test]
fn type_filter_keeps_named_types_and_moves_past_the_rest() {
    let server = Server::start(&[]);
    publish_six_events(&server);
    let last = server.connect().post("/topics/a?type=note", "", "e7");
    for (query, seqs, behind) in [
        ("type=alert", &[2, 4, 6][..], 0),
        ("type=note,alert", &[2, 4, 6, 7], 0),
        ("type=alert&limit=2", &[2, 4], 1),
        ("type=note", &[7], 0),
    ] {
        let page = server.get(&format!("/topics/*?{query}&wait=0"));
        assert_eq!((page.seqs(), &page.json()["behind"]), (seqs.to_vec(), &behind.into()));
        if behind == 0 {
            assert_eq!(
                page.next_cursor(),
                last.next_cursor(),
                "{query}: the cursor is at the head"
            );
        }
    }
    let nothing = server.get("/topics/*?type=none&wait=0");
    assert_eq!((nothing.seqs(), nothing.next_cursor()), (vec![], last.next_cursor()));
    let page = server.get("/topics/*?type=alert&limit=2&wait=0");
    let rest = server.get(&format!("/topics/*?type=alert&since={}&wait=0", page.next_cursor()));
    assert_eq!(rest.seqs(), [6]);
}

#[test]
fn event_has_its_seq_topic_time_type_and_data() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let published = client.post("/topics/news?type=alert", "", "hello");
    let page = client.get("/topics/news");
    let time = published.json()["time"].as_str().unwrap().to_owned();
    assert_eq!(
        page.json()["events"],
        json!([{"seq": 1, "topic": "news", "time": time, "type": "alert", "data": "hello"}])
    );
    let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, "0000-00-00T00:00:00.000Z");
}

#[test]
fn data_is_a_json_value_a_text_or_base64() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let bodies: [(&str, &[u8], Value); 11] = [
        ("application/json", b"{\"t\":[21.5,null]}", json!({"data": {"t": [21.5, null]}})),
        ("Application/JSON; charset=utf-8", b"7", json!({"data": 7})),
        ("application/ld+json", b"[]", json!({"data": []})),
        ("text/plain", "h\u{e9}\n\"\u{1}".as_bytes(), json!({"data": "h\u{e9}\n\"\u{1}"})),
        ("text/plain; charset=utf-8", b"t", json!({"data": "t"})),
        ("application/x-www-form-urlencoded", b"a=b&c", json!({"data": "a=b&c"})),
        ("text/plain", b"\xff\x00", json!({"data_base64": "/wA="})),
        ("text/html", b"<p>", json!({"data": "<p>", "content_type": "text/html"})),
        ("image/png", b"\x89PNG", json!({"data_base64": "iVBORw==", "content_type": "image/png"})),
        ("application/xml", b"<a/>", json!({"data": "<a/>", "content_type": "application/xml"})),
        ("text/csv", b"", json!({"data": "", "content_type": "text/csv"})),
    ];
    for (content_type, body, shown) in bodies {
        let seq = publish_as(&mut client, content_type, body).json()["seq"].clone();
        let page = client.get("/topics/news?since=last:1");
        let event = &page.json()["events"][0];
        let of_data: Value = event
            .as_object()
            .unwrap()
            .iter()
            .filter(|(name, _)| !["seq", "topic", "time"].contains(&name.as_str()))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        assert_eq!((&of_data, &event["seq"]), (&shown, &seq), "{content_type}");
    }
}

#[test]
fn ndjson_has_one_event_per_line_and_the_cursor_in_the_header() {
    let server = Server::start(&[]);
    publish_six_events(&server);
    let json = server.get("/topics/*?limit=4");
    let page = server.get("/topics/*?limit=4&format=ndjson");
    assert_eq!(page.header("Content-Type"), Some("application/x-ndjson"));
    assert_eq!(page.header("Poll-Reason"), Some("data"));
    assert_eq!(lines(&page), *json.json()["events"].as_array().unwrap());
    assert!(page.text().ends_with('\n'));
    assert_eq!(page.next_cursor(), json.next_cursor());
    let rest = server.get(&format!("/topics/*?since={}&format=ndjson", page.next_cursor()));
    assert_eq!(lines(&rest).iter().map(|e| e["seq"].clone()).collect::<Vec<_>>(), [5, 6]);
    let end = server.get(&format!("/topics/*?since={}&format=ndjson&wait=0", rest.next_cursor()));
    assert_eq!((end.status, end.text(), end.next_cursor()), (200, "", rest.next_cursor()));
    assert_eq!(end.header("Poll-Reason"), Some("timeout"));
}

#[test]
fn raw_is_the_bytes_of_one_event_with_its_content_type() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let bodies: [(&str, &[u8], &str); 5] = [
        ("text/plain", b"hello\r\n", "text/plain; charset=utf-8"),
        ("application/json", b" {\n \"a\" : 1.10 }\n", "application/json"),
        ("text/html", b"<script>alert(1)</script>", "text/html"),
        ("image/png", b"\x89PNG\r\n\x00\xff", "image/png"),
        ("application/hal+json", b"{}", "application/hal+json"),
    ];
    for (content_type, body, _) in bodies {
        publish_as(&mut client, content_type, body);
    }
    let mut since = String::from("start");
    for (_, body, content_type) in bodies {
        // `format=raw` returns one event, also with a larger limit.
        let response = client.get(&format!("/topics/news?since={since}&format=raw&limit=9"));
        assert_eq!((response.status, &*response.body), (200, body));
        assert_eq!(response.header("Content-Type"), Some(content_type));
        assert_eq!(response.header("Content-Security-Policy"), Some("sandbox"));
        assert_eq!(response.header("X-Content-Type-Options"), Some("nosniff"));
        assert_eq!(response.header("Poll-Reason"), Some("data"));
        response.next_cursor().clone_into(&mut since);
    }
    let end = client.get(&format!("/topics/news?since={since}&format=raw&wait=0"));
    assert_eq!((end.status, end.text(), end.next_cursor()), (200, "", &*since));
    assert_eq!(end.header("Poll-Reason"), Some("timeout"));
    assert_eq!(end.header("Content-Security-Policy"), Some("sandbox"));
}

#[test]
fn raw_distinguishes_text_from_bytes_without_a_content_type() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.post("/topics/news", "", "h\u{e9}");
    let response = client.get("/topics/news?format=raw");
    assert_eq!(response.header("Content-Type"), Some("text/plain; charset=utf-8"));
    client.post("/topics/bytes", "", b"\xff\xfe");
    let response = client.get("/topics/bytes?format=raw");
    assert_eq!((&*response.body, response.status), (b"\xff\xfe" as &[u8], 200));
    assert_ne!(response.header("Content-Type"), Some("text/plain; charset=utf-8"));
}

#[test]
fn page_ends_at_one_mebibyte_and_the_next_ones_have_the_rest() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let body = "x".repeat(60_000);
    for _ in 0..40 {
        publish_as(&mut client, "text/plain", &body);
    }
    for format in ["json", "ndjson"] {
        let (mut since, mut seen) = (String::from("start"), 0);
        while seen < 40 {
            let page =
                client.get(&format!("/topics/news?since={since}&format={format}&limit=1000"));
            assert!(page.body.len() <= 1 << 20, "{} bytes", page.body.len());
            // A page before the last one is not much smaller than the limit, either.
            seen += page.text().matches("\"seq\"").count();
            assert!(page.body.len() > 900_000 || seen == 40, "{} bytes", page.body.len());
            if format == "json" {
                assert_eq!(page.json()["behind"], 40 - seen);
                assert_eq!(page.json()["more"], seen < 40);
            }
            page.next_cursor().clone_into(&mut since);
        }
    }
}

#[test]
fn page_holds_one_event_even_if_it_exceeds_the_page_size() {
    let server = Server::start(&["--max-event", "300000"]);
    let mut client = server.connect();
    // Each byte takes six bytes in JSON.
    publish_as(&mut client, "text/plain", vec![1; 300_000]);
    publish_as(&mut client, "text/plain", "small");
    let page = client.get("/topics/news");
    assert_eq!((page.seqs(), &page.json()["behind"]), (vec![1], &json!(1)));
    assert_eq!(page.data()[0].as_str().map(str::len), Some(300_000));
    let rest = client.get(&format!("/topics/news?since={}", page.next_cursor()));
    assert_eq!(rest.data(), ["small"]);
}

#[test]
fn invalid_topic_lists_are_refused_and_64_topics_are_accepted() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let named: Vec<_> = (0..65).map(|n| format!("t{n}")).collect();
    let longest = "x".repeat(128);
    for good in [&*named[..64].join(","), &longest, &format!("{longest}*"), "A-Z.a_z~09"] {
        assert_eq!(client.get(&format!("/topics/{good}?wait=0")).status, 200, "{good}");
    }
    for bad in [&*named.join(","), "a,,b", "a,", ",", "a*b", "**", "a%20b", "a/b", "%C3%A9", ""] {
        let response = client.get(&format!("/topics/{bad}?wait=0"));
        assert_eq!(response.status, 400, "{bad}");
        assert!(response.detail().contains("topic"), "{}", response.detail());
    }
    assert_eq!(client.get(&format!("/topics/{longest}x?wait=0")).status, 400);
}
