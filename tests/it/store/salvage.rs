//! Guards what `longpoll repair` keeps: every event whose own line is intact, every topic, and a
//! store that is not damaged. Former bugs: a damaged header brought the default retention (4,000
//! events became 1,000), a damaged last line cost its whole file, and topics without events could
//! neither be used nor replaced.

use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::json;

use crate::support::data_dir::start_with_data;
use crate::support::{Server, fresh_path, program, wait_until};

fn run(args: &[&str]) -> Output {
    program().args(args).output().unwrap()
}

fn repair(directory: &Path) -> String {
    let output = run(&["repair", directory.to_str().unwrap()]);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn only_segment(directory: &Path) -> PathBuf {
    let names = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut segments = names.filter(|name| name.extension().is_some_and(|e| e == "log"));
    let segment = segments.next().unwrap();
    assert_eq!(segments.next(), None, "more than one segment");
    segment
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

fn position(bytes: &[u8], text: &str) -> usize {
    bytes.windows(text.len()).position(|window| window == text.as_bytes()).unwrap()
}

fn publish_batch(server: &Server, topic: &str, count: usize) {
    let lines = (0..count).map(|n| n.to_string()).collect::<Vec<_>>().join("\n");
    let kind = "Content-Type: application/x-ndjson\r\n";
    assert_eq!(server.connect().post(&format!("/topics/{topic}"), kind, lines).status, 201);
}

/// All files of a directory with their content.
fn files(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let names = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        names.map(|name| (name.clone(), std::fs::read(name).unwrap())).collect();
    files.sort();
    files
}

#[test]
fn repair_keeps_every_event_when_the_only_header_is_damaged() {
    let dir = fresh_path("salvage-header");
    let flags = ["--retain-events", "100000"];
    let server = start_with_data(&dir, &flags);
    for _ in 0..4 {
        publish_batch(&server, "news", 1_000);
    }
    assert_eq!(server.metric("retained_events"), 4_000.0);
    drop(server);
    change(&only_segment(&dir), |bytes| {
        let at = position(bytes, "{\"epoch\":");
        bytes[at + 12] ^= 1;
    });
    let report = repair(&dir);
    assert!(report.starts_with("4000 events kept"), "{report}");
    let server = start_with_data(&dir, &flags);
    assert_eq!(server.metric("retained_events"), 4_000.0);
    assert_eq!(server.publish("news", "next").json()["seq"], 4_001);
    drop(server);
    // The next start applies its own retention.
    let server = start_with_data(&dir, &["--retain-events", "10"]);
    assert_eq!(server.metric("retained_events"), 10.0);
}

#[test]
fn repair_keeps_the_lines_of_a_synced_commit_whose_last_line_is_damaged() {
    let dir = fresh_path("salvage-last-line");
    let server = start_with_data(&dir, &[]);
    publish_batch(&server, "news", 240);
    drop(server);
    change(&only_segment(&dir), |bytes| {
        let last = bytes.len() - 3;
        bytes[last] ^= 1;
    });
    let inspected = run(&["inspect", dir.to_str().unwrap()]);
    let text = String::from_utf8(inspected.stdout).unwrap();
    assert!(text.contains("239 events") && text.contains("1 invalid lines"), "{text}");
    let report = repair(&dir);
    assert!(report.starts_with("239 events kept"), "{report}");
    let server = start_with_data(&dir, &[]);
    let response = server.get("/topics/news?wait=0&limit=1000");
    assert_eq!(response.seqs(), (1..=239).collect::<Vec<_>>());
}

#[test]
fn topics_without_events_can_be_published_to_and_replaced_after_a_repair() {
    let dir = fresh_path("salvage-topics");
    let server = start_with_data(&dir, &["--retain-age", "1s", "--max-topics", "4"]);
    for topic in ["a", "b", "c", "d"] {
        let mut client = server.connect();
        // The keys keep the segment, so that all topics expire by one of its records.
        let key = format!("Idempotency-Key: {topic}\r\n");
        assert_eq!(client.post(&format!("/topics/{topic}"), &key, "x").status, 201);
    }
    wait_until("all events have expired", || server.metric("retained_events") == 0.0);
    drop(server);
    change(&only_segment(&dir), |bytes| {
        let at = position(bytes, "{\"epoch\":");
        bytes[at + 12] ^= 1;
    });
    repair(&dir);
    let server = start_with_data(&dir, &["--max-topics", "4"]);
    let topics = |server: &Server| server.get("/topics").json()["topics"].as_array().unwrap().len();
    assert_eq!(topics(&server), 4);
    for names in [["e", "f", "g", "h"], ["a", "b", "c", "d"]] {
        let publish = |name| server.connect().post(&format!("/topics/{name}"), "", "x").status;
        assert_eq!(names.map(publish), [201; 4]);
        assert_eq!(topics(&server), 4);
        for name in names {
            server.connect().send_request("DELETE", &format!("/topics/{name}")).response();
        }
    }
}

#[test]
fn repair_of_a_valid_store_changes_nothing() {
    let dir = fresh_path("salvage-valid");
    let server = start_with_data(&dir, &["--retain-events", "5"]);
    server.publish_many("news", 20);
    let first = server.publish("news", "one").next_cursor().to_owned();
    drop(server);
    let before = files(&dir);
    assert_eq!(repair(&dir), "valid, nothing to do\n");
    assert_eq!(files(&dir), before);
    let server = start_with_data(&dir, &["--retain-events", "5"]);
    assert_eq!(server.get(&format!("/topics/news?since={first}&wait=0")).status, 200);
    drop(server);
    // A torn end is truncated by the next start: that is no damage either.
    change(&only_segment(&dir), |bytes| bytes.extend_from_slice(b"0badc0de + {\"seq\""));
    let before = files(&dir);
    assert_eq!(repair(&dir), "valid, nothing to do\n");
    assert_eq!(files(&dir), before);
}

#[test]
fn flipped_digit_of_the_format_version_is_damage_that_a_repair_mends() {
    let dir = fresh_path("salvage-version");
    let server = start_with_data(&dir, &[]);
    server.publish_many("news", 10);
    drop(server);
    let data = dir.to_str().unwrap();
    change(&only_segment(&dir), |bytes| {
        let digit = position(bytes, "\n") - 1;
        bytes[digit] = b'3';
    });
    let refused = run(&["--listen", "127.0.0.1:0", "--data", data]);
    let message = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{message}");
    assert!(message.contains("longpoll repair"), "{message}");
    repair(&dir);
    let server = start_with_data(&dir, &[]);
    assert_eq!(server.get("/topics/news?wait=0").seqs(), (1..=10).collect::<Vec<_>>());
}

#[test]
fn start_refuses_a_directory_whose_segments_were_deleted() {
    let dir = fresh_path("salvage-deleted");
    let server = start_with_data(&dir, &[]);
    server.publish_many("news", 10);
    drop(server);
    let data = dir.to_str().unwrap();
    std::fs::remove_file(only_segment(&dir)).unwrap();
    let before = files(&dir);
    for args in [&["--listen", "127.0.0.1:0", "--data", data][..], &["repair", data]] {
        let refused = run(args);
        let message = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(1), "{message}");
        for part in [data, "lock", "restore"] {
            assert!(message.contains(part), "{part} is not in {message}");
        }
        assert_eq!(files(&dir), before, "{args:?}");
    }
    let inspected = run(&["inspect", data]);
    assert_eq!(inspected.status.code(), Some(1), "{inspected:?}");
    // Without the lock file the directory is new.
    std::fs::remove_file(dir.join("lock")).unwrap();
    let server = start_with_data(&dir, &[]);
    assert_eq!(server.get("/topics").json()["topics"], json!([]));
}
