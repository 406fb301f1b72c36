//! Guards the observability: the list of topics, health and metrics show which events are kept, how
//! many polls are held, and in what state the server is.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::{Client, Server};

fn list(server: &Server, query: &str) -> Vec<Value> {
    let response = server.get(&format!("/topics{query}"));
    assert_eq!(response.status, 200, "{response:?}");
    response.json()["topics"].as_array().unwrap().clone()
}

fn names(server: &Server, query: &str) -> Vec<String> {
    let named = |topic: &Value| topic["topic"].as_str().unwrap().to_owned();
    list(server, query).iter().map(named).collect()
}

fn held(server: &Server) -> BTreeMap<String, u64> {
    let topics = list(server, "");
    let pair = |topic: &Value| {
        (topic["topic"].as_str().unwrap().to_owned(), topic["held"].as_u64().unwrap())
    };
    topics.iter().map(pair).collect()
}

#[test]
fn topic_is_listed_with_its_events_and_bytes() {
    let server = Server::start(&[]);
    let empty = server.get("/topics");
    assert_eq!(empty.header("Content-Type"), Some("application/json"));
    let head = empty.json()["head"].as_str().unwrap().to_owned();
    assert_eq!(empty.json(), json!({"topics": [], "head": head}));
    assert!(head.ends_with(".0"));
    server.publish("news", "12345");
    server.publish("other", "");
    let mut client = server.connect();
    client.post("/topics/news?type=alert", "Content-Type: text/html\r\n", "123");
    // An event counts with its body, type and content type, and 128 bytes of overhead.
    assert_eq!(
        list(&server, ""),
        [
            json!({"topic": "news", "events": 2, "bytes": 128 + 5 + 128 + 5 + 9 + 3,
                   "oldest": 1, "newest": 3, "held": 0}),
            json!({"topic": "other", "events": 1, "bytes": 128,
                   "oldest": 2, "newest": 2, "held": 0}),
        ]
    );
}

#[test]
fn head_of_the_list_is_a_valid_cursor() {
    let server = Server::start(&[]);
    let last = server.publish_many("news", 3);
    let head = server.get("/topics").json()["head"].clone();
    assert_eq!(head, last.next_cursor());
    server.publish("other", "x");
    let since = head.as_str().unwrap();
    assert_eq!(server.get(&format!("/topics/*?since={since}&wait=0")).seqs(), [4]);
}

#[test]
fn topic_without_events_has_no_oldest_event() {
    let server = Server::start(&["--retain-events", "2"]);
    server.publish_many("news", 5);
    assert_eq!(
        (&list(&server, "")[0]["oldest"], &list(&server, "")[0]["events"]),
        (&4.into(), &2.into())
    );
    server.connect().send_request("DELETE", "/topics/news").response();
    for topic in list(&server, "") {
        assert_eq!((&topic["events"], &topic["bytes"]), (&0.into(), &0.into()));
        assert_eq!((&topic["oldest"], &topic["newest"]), (&Value::Null, &Value::Null));
    }
}

#[test]
fn list_is_sorted_by_name_and_can_be_read_in_parts() {
    let server = Server::start(&[]);
    for topic in ["b.2", "a", "c", "b.1", "b", "B"] {
        server.publish(topic, "x");
    }
    assert_eq!(names(&server, ""), ["B", "a", "b", "b.1", "b.2", "c"]);
    assert_eq!(names(&server, "?prefix=b"), ["b", "b.1", "b.2"]);
    assert_eq!(names(&server, "?prefix=b."), ["b.1", "b.2"]);
    assert_eq!(names(&server, "?prefix=x"), [""; 0]);
    assert_eq!(names(&server, "?limit=2"), ["B", "a"]);
    assert_eq!(names(&server, "?limit=2&after=a"), ["b", "b.1"]);
    assert_eq!(names(&server, "?after=b.1"), ["b.2", "c"]);
    assert_eq!(names(&server, "?after=bb"), ["c"]);
    assert_eq!(names(&server, "?after=c"), [""; 0]);
    assert_eq!(names(&server, "?prefix=b&after=b&limit=1"), ["b.1"]);
    for bad in ["limit=0", "limit=x", "limit=-1"] {
        let response = server.get(&format!("/topics?{bad}"));
        assert_eq!(response.status, 400);
        assert!(response.detail().contains("limit"));
    }
}

#[test]
fn held_polls_are_counted_for_every_topic_that_releases_them() {
    let server = Server::start(&[]);
    for topic in ["a", "b.1", "b.2"] {
        server.publish(topic, "x");
    }
    let polls: Vec<Client> = ["a", "a,b.1", "b.*,a", "*", "none", "b.2,none"]
        .iter()
        .map(|topics| server.hold_poll(&format!("/topics/{topics}?since=now&wait=60")))
        .collect();
    let expected = [("a", 4), ("b.1", 3), ("b.2", 3)].map(|(topic, n)| (topic.to_owned(), n));
    assert_eq!(held(&server), BTreeMap::from(expected));
    drop(polls);
    server.wait_until_held(0);
    assert!(held(&server).values().all(|held| *held == 0));
}

#[test]
fn health_reports_ok_and_the_version() {
    let server = Server::start(&[]);
    let response = server.get("/health");
    assert_eq!(response.header("Content-Type"), Some("application/json"));
    assert_eq!(response.json(), json!({"status": "ok", "version": env!("CARGO_PKG_VERSION")}));
}

#[test]
fn head_has_the_headers_of_get_and_no_body() {
    let server = Server::start(&[]);
    server.publish("news", "hello");
    let mut client = server.connect();
    for path in ["/topics", "/health", "/metrics"] {
        let page = client.get(path);
        let head = client.send_request("HEAD", path).response_head();
        assert_eq!(head.status, 200);
        assert_eq!(head.header("Content-Type"), page.header("Content-Type"));
        let length: usize = head.header("Content-Length").unwrap().parse().unwrap();
        // The metrics change from one request to the next.
        assert!(length.abs_diff(page.body.len()) < if path == "/metrics" { 100 } else { 1 });
    }
    assert_eq!(client.get("/health").status, 200);
}

#[test]
fn metrics_contain_the_documented_families() {
    let server = Server::start(&[]);
    server.publish("news", "hello");
    for name in [
        "polls_held",
        "polls_held_peak",
        "polls_total{reason=\"data\"}",
        "polls_total{reason=\"timeout\"}",
        "polls_total{reason=\"drain\"}",
        "gaps_total{why=\"trimmed\"}",
        "gaps_total{why=\"epoch\"}",
        "gaps_total{why=\"future\"}",
        "gap_lost_events_total",
        "idempotency_keys_evicted_total",
        "wake_seconds_count",
        "refusals_total{cause=\"poll_cap\"}",
    ] {
        assert_eq!(server.metric(name), 0.0, "{name}");
    }
    assert_eq!(server.metric("publishes_total"), 1.0);
    assert!(server.metric("connections") >= 1.0);
    assert_eq!(server.metric("retained_bytes"), 133.0);
}

/// The samples of a metric family, by name and labels.
type Samples<'a> = Vec<(&'a str, f64)>;

/// Checks the exposition format line by line; returns the type and the samples of each family.
fn families(text: &str) -> BTreeMap<&str, (&str, Samples<'_>)> {
    assert!(text.ends_with('\n'));
    let mut families: BTreeMap<&str, (&str, Samples)> = BTreeMap::new();
    let (mut helped, mut current) = ("", "");
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            helped = help.split_once(' ').expect("a name and a text").0;
        } else if let Some(of_type) = line.strip_prefix("# TYPE ") {
            let (name, kind) = of_type.split_once(' ').expect("a name and a type");
            assert_eq!(name, helped, "HELP precedes TYPE");
            assert!(families.insert(name, (kind, Vec::new())).is_none(), "{name} is repeated");
            current = name;
        } else {
            let (sample, value) = line.rsplit_once(' ').expect("a sample and its value");
            assert!(sample.starts_with(current) && sample.starts_with("longpoll_"), "{line}");
            let samples = &mut families.get_mut(current).expect("a type before its samples").1;
            assert!(samples.iter().all(|(known, _)| *known != sample), "{sample} is repeated");
            samples.push((sample, value.parse().unwrap()));
        }
    }
    families
}

#[test]
fn metrics_are_well_formed() {
    let server = Server::start(&[]);
    let mut poll = server.hold_poll("/topics/news?since=now&wait=60");
    server.publish("news", "hello");
    poll.response();
    let response = server.get("/metrics");
    let content_type = response.header("Content-Type").unwrap();
    assert!(content_type.starts_with("text/plain; version=0.0.4"), "{content_type}");
    for (name, (kind, samples)) in families(response.text()) {
        assert!(!samples.is_empty(), "{name}");
        let bare = |(sample, _): &(&str, f64)| sample.split('{').next() == Some(name);
        match kind {
            "counter" => assert!(name.ends_with("_total") && samples.iter().all(bare), "{name}"),
            "gauge" => assert!(!name.ends_with("_total") && samples.iter().all(bare), "{name}"),
            "histogram" => {
                let (buckets, ends) = samples.split_at(samples.len() - 2);
                assert!(buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{samples:?}");
                let bound = |(sample, _): &(&str, f64)| {
                    let le = sample.split('"').nth(1).expect("a bound");
                    le.replace("+Inf", "inf").parse::<f64>().unwrap()
                };
                assert!(buckets.windows(2).all(|pair| bound(&pair[0]) < bound(&pair[1])));
                assert_eq!(bound(buckets.last().unwrap()), f64::INFINITY);
                assert_eq!(ends[0].0, format!("{name}_sum"));
                assert_eq!(ends[1], (&*format!("{name}_count"), buckets.last().unwrap().1));
                assert!(ends[0].1 > 0.0 && ends[1].1 == 1.0, "{ends:?}");
            }
            _ => panic!("{name} is a {kind}"),
        }
    }
}
