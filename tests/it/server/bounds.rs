//! Guards that the memory which the server holds for its clients is counted and bounded.

use std::io::Write;
use std::os::unix::net::UnixStream;

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::support::{Server, program, wait_until};

const NDJSON: &str = "Content-Type: application/x-ndjson\r\n";

/// A batch of nearly 1 MiB.
fn large_batch() -> String {
    format!("\"{}\"\n", "x".repeat(1_000)).repeat(1_000)
}

#[test]
fn page_counts_as_in_flight_until_its_last_byte_is_sent_also_on_a_closing_connection() {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("bounds.sock");
    let unix = format!("unix:{}", path.display());
    let mut command = program();
    command.args(["--listen", "127.0.0.1:0", "--listen", &unix, "--log", "error"]);
    let server = Server::spawn(&mut command);
    assert_eq!(server.connect().post("/topics/big", NDJSON, large_batch()).status, 201);
    let before = server.metric("answers_in_flight_bytes");
    // The buffer of a unix socket is smaller than the page, and the clients do not read.
    let readers: Vec<_> = ["", "Connection: close\r\n"]
        .map(|header| {
            let mut reader = UnixStream::connect(&path).unwrap();
            let head =
                format!("GET /topics/big?limit=1000 HTTP/1.1\r\nHost: localhost\r\n{header}\r\n");
            reader.write_all(head.as_bytes()).unwrap();
            reader
        })
        .into();
    // A page is read up to 1 MiB by the log's count, 1,130 bytes an event: 928 events, which are
    // 993,319 bytes as JSON. While a page is rendered, a whole MiB is reserved for it.
    wait_until("both pages are counted", || {
        server.metric("answers_in_flight_bytes") - before > 1_900_000.0
    });
    drop(readers);
    wait_until("the bytes are released", || server.metric("answers_in_flight_bytes") <= before);
}

#[test]
fn requests_pipelined_after_a_large_body_stay_in_the_socket() {
    // One arena, so that memory which glibc keeps after a free does not count.
    let mut command = program();
    command.env("MALLOC_ARENA_MAX", "1").args(["--listen", "127.0.0.1:0", "--log", "error"]);
    let server = Server::spawn(&mut command);
    let before = server.status_number("VmRSS:");
    let batch = large_batch();
    let mut bytes = format!(
        "POST /topics/big HTTP/1.1\r\nHost: localhost\r\n{NDJSON}Content-Length: {}\r\n\r\n{batch}",
        batch.len()
    );
    bytes.push_str("GET /topics/none?wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    // More than one socket buffer holds would block the client, too.
    bytes.push_str(&"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(10_000));
    let mut clients = Vec::new();
    for _ in 0..20 {
        // One after the other, because bodies in reception have a byte budget of their own.
        clients.push(server.connect());
        clients.last_mut().unwrap().send(&bytes);
        server.wait_until_held(clients.len());
    }
    // The events are one batch each, and only the last 1,000 are kept.
    let grown = server.status_number("VmRSS:") - before;
    assert!(grown < 12_000, "{grown} kB for 20 connections");
}

#[test]
fn gap_over_more_topics_than_a_poll_can_name_has_no_counts() {
    let server = Server::start(&[]);
    let start = server.publish("other", "x").next_cursor().to_owned();
    let mut client = server.connect();
    for topic in 0..65 {
        client.post(&format!("/topics/t{topic}"), "", "x");
        client.send_request("DELETE", &format!("/topics/t{topic}")).response();
    }
    let all = server.get(&format!("/topics/*?since={start}"));
    assert_eq!((all.status, &all.json()["lost"]), (410, &serde_json::Value::Null));
    let one = server.get(&format!("/topics/t7?since={start}"));
    assert_eq!((one.status, &one.json()["lost"]["t7"]), (410, &1.into()));
}

#[test]
fn gap_without_later_events_is_reported_as_a_timeout() {
    let server = Server::start(&[]);
    let start = server.publish("other", "x").next_cursor().to_owned();
    server.publish("news", "x");
    server.connect().send_request("DELETE", "/topics/news").response();
    let target = format!("/topics/news?since={start}&gap=skip&wait=60");
    let raw = server.get(&format!("{target}&format=raw"));
    assert_eq!((raw.status, raw.text()), (200, ""));
    assert_eq!(raw.header("Poll-Reason"), Some("timeout"));
    assert!(raw.header("Poll-Gap").is_some());
    let json = server.get(&target).json();
    assert_eq!((&json["reason"], &json["gap"]["lost"]["news"]), (&"timeout".into(), &1.into()));
}

#[test]
fn drain_answers_held_polls_when_descriptors_are_exhausted() {
    let mut server = Server::start(&[]);
    let mut polls = [(); 3].map(|()| server.hold_poll("/topics/news?wait=60"));
    let pid = Pid::from_raw(server.pid() as i32);
    let open = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().count() as u64;
    let limit = Rlimit { current: Some(open), maximum: Some(open) };
    prlimit(pid, Resource::Nofile, limit).unwrap();
    // The acceptor sees this connection again and again and cannot accept it.
    let waiting = server.connect();
    server.signal(15);
    for poll in &mut polls {
        assert_eq!(poll.response().header("Poll-Reason"), Some("drain"));
    }
    assert!(server.wait().0.success());
    drop(waiting);
}

#[test]
fn each_reported_gap_is_counted() {
    let server = Server::start(&["--retain-events", "3"]);
    let start = server.publish("news", "x").next_cursor().to_owned();
    let target = format!("/topics/news?since={start}&wait=60");
    // Equal polls share a rendered page; the gap counts for each of them.
    let mut polls = [(); 2].map(|()| server.hold_poll(&target));
    let batch = "1\n".repeat(5);
    assert_eq!(server.connect().post("/topics/news", NDJSON, batch).json()["released"], 2);
    for poll in &mut polls {
        assert_eq!(poll.response().json()["lost"]["news"], 2);
    }
    for _ in 0..3 {
        assert_eq!(server.get(&format!("{target}&gap=skip")).json()["gap"]["lost"]["news"], 2);
    }
    assert_eq!(server.metric("gaps_total{why=\"trimmed\"}"), 5.0);
    assert_eq!(server.metric("gap_lost_events_total"), 10.0);
}

#[test]
fn poll_gets_one_event_when_responses_in_flight_exceed_their_budget() {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("bounds-full.sock");
    let unix = format!("unix:{}", path.display());
    let mut command = program();
    command.args(["--listen", "127.0.0.1:0", "--listen", &unix, "--log", "error"]);
    let server = Server::spawn(&mut command);
    // JSON needs six bytes for each of these, so that no unix socket's buffer holds the page.
    let event = "\u{1}".repeat(60_000);
    for _ in 0..3 {
        assert_eq!(server.connect().post("/topics/big", "", &event).status, 201);
    }
    server.publish_many("small", 3);
    let mut readers = Vec::new();
    wait_until("the bytes in flight exceed the budget", || {
        let mut reader = UnixStream::connect(&path).unwrap();
        reader.write_all(b"GET /topics/big HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        readers.push(reader);
        assert!(readers.len() < 400, "the bytes in flight are not counted");
        server.metric("answers_in_flight_bytes") > 17_000_000.0
    });
    assert_eq!(server.get("/topics/big").seqs(), [1]);
    assert_eq!(server.get("/topics/small").seqs(), [4]);
    assert_eq!(server.get("/health").status, 200);
    drop(readers);
    wait_until("memory is free", || server.metric("answers_in_flight_bytes") < 1_000_000.0);
    assert_eq!(server.get("/topics/small").seqs(), [4, 5, 6]);
}
