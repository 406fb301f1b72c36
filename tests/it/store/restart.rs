//! Guards restarts with `--data`: the server continues with the same seqs, epoch, keys and gaps,
//! and says so when it cannot.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use crate::support::data_dir::{SmallFileSystem, StopOnDrop, start_with_data};
use crate::support::{Response, Server, fresh_path, program, wait_until};

fn run(args: &[&str]) -> Output {
    program().args(args).output().unwrap()
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut names: Vec<_> =
        names.filter(|name| name.extension().is_some_and(|e| e == "log")).collect();
    names.sort();
    names
}

fn epoch(response: &Response) -> String {
    response.next_cursor().split('.').next().unwrap().to_owned()
}

fn keyed(server: &Server, topic: &str, key: &str, body: &str) -> Response {
    let headers = format!("Idempotency-Key: {key}\r\n");
    server.connect().post(&format!("/topics/{topic}"), &headers, body)
}

/// Copies a store as documented: starts over if a segment was removed before it was copied.
fn copy(from: &Path, to: &Path) {
    let copied = || {
        let _ = std::fs::remove_dir_all(to);
        std::fs::create_dir_all(to).unwrap();
        segments(from)
            .iter()
            .all(|segment| std::fs::copy(segment, to.join(segment.file_name().unwrap())).is_ok())
    };
    wait_until("no segment is removed during the copy", copied);
}

#[test]
fn killed_server_restarts_with_the_same_events_seqs_and_epoch() {
    let dir = fresh_path("store-kill");
    let server = start_with_data(&dir, &["--retain-events", "3"]);
    let behind = server.publish("news", "0").next_cursor().to_owned();
    server.publish_many("news", 5);
    let first = keyed(&server, "other", "k", "keyed");
    assert_eq!(first.json()["durable"], true);
    let batch = server.connect().post(
        "/topics/batch",
        "Content-Type: application/x-ndjson\r\nEvent-Type: alert\r\n",
        "{\"a\": 1.50}\n[]\n",
    );
    assert_eq!(batch.status, 201);
    let binary = server.connect().post("/topics/bytes", "Content-Type: image/png\r\n", b"\xff\x00");
    assert_eq!(binary.status, 201);
    assert_eq!(server.connect().send_request("DELETE", "/topics/gone").response().status, 204);
    server.publish("gone", "x");
    let trimmed = server.publish("gone", "y").next_cursor().to_owned();
    assert_eq!(server.connect().send_request("DELETE", "/topics/gone").response().status, 204);
    let all = server.get("/topics/*?wait=0");
    let gap = server.get(&format!("/topics/news?since={behind}&wait=0"));
    assert_eq!(gap.status, 410);
    let topics = server.get("/topics").json();
    drop(server);

    let server = start_with_data(&dir, &["--retain-events", "3"]);
    assert_eq!(server.get("/topics/*?wait=0").json(), all.json());
    assert_eq!(server.get("/topics").json(), topics);
    let again = server.get(&format!("/topics/news?since={behind}&wait=0"));
    assert_eq!((again.status, again.json()), (410, gap.json()), "the same gap as before");
    let next = all.next_cursor();
    assert_eq!(server.get(&format!("/topics/*?since={next}&wait=0")).seqs(), [0; 0]);
    assert_eq!(server.get(&format!("/topics/gone?since={trimmed}&wait=0")).status, 200);
    let repeat = keyed(&server, "other", "k", "keyed");
    let mut expected = first.json();
    expected["duplicate"] = json!(true);
    assert_eq!((repeat.status, repeat.json()), (200, expected));
    assert_eq!(keyed(&server, "other", "k", "something else").status, 422);
    let after = server.publish("news", "after");
    assert_eq!(after.json()["seq"].as_u64(), Some(13));
    assert_eq!(epoch(&after), epoch(&all));
}

#[test]
fn held_poll_is_released_by_a_durable_event() {
    let dir = fresh_path("store-poll");
    let server = start_with_data(&dir, &[]);
    let mut poll = server.hold_poll("/topics/news?since=now&wait=60");
    let published = server.publish("news", "hello").json();
    assert_eq!((&published["released"], &published["durable"]), (&json!(1), &json!(true)));
    assert_eq!(poll.response().data(), ["hello"]);
    assert!(server.metric("store_fsync_seconds_count") >= 1.0);
    assert!(server.metric("store_bytes") > 100.0);
}

#[test]
fn without_sync_only_an_orderly_shutdown_keeps_the_epoch() {
    for sync in ["never", "1h", "10ms"] {
        let dir = fresh_path(&format!("store-sync-{sync}"));
        let mut server = start_with_data(&dir, &["--sync", sync]);
        let published = server.publish("news", "one");
        assert_eq!(published.json()["durable"], false);
        server.signal(15);
        assert!(server.wait().0.success());
        let server = start_with_data(&dir, &["--sync", sync]);
        let second = server.publish("news", "two");
        assert_eq!(epoch(&published), epoch(&second), "{sync}: orderly shutdown");
        drop(server);
        let server = start_with_data(&dir, &["--sync", sync]);
        let gap = server.get(&format!("/topics/news?since={}&wait=0", second.next_cursor()));
        assert_eq!((gap.status, &gap.json()["why"]), (410, &json!("epoch")), "{sync}");
    }
}

#[test]
fn arguments_of_sync_inspect_and_repair_are_checked_first() {
    for (args, says) in [
        (&["--sync", "sometimes"][..], "always, never"),
        (&["--sync", "0"], "at least 1ms"),
        (&["--data", ""], "--data"),
        (&["inspect"], "longpoll inspect DIR"),
        (&["inspect", "--new-epoch", "x"], "longpoll inspect DIR"),
        (&["repair", "a", "b"], "longpoll repair"),
    ] {
        let refused = run(args);
        let message = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(2), "{args:?}: {message}");
        assert!(message.contains(says), "{args:?}: {message}");
    }
    let dir = fresh_path("store-nowhere").join("deeper");
    for args in [&["inspect", dir.to_str().unwrap()][..], &["repair", dir.to_str().unwrap()]] {
        let refused = run(args);
        let message = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{args:?}: {message}");
        assert!(message.contains("deeper"), "{args:?}: {message}");
        assert!(!dir.exists());
    }
}

#[test]
fn second_process_is_refused_while_the_directory_is_in_use() {
    let dir = fresh_path("store-two");
    let server = start_with_data(&dir, &[]);
    let data = dir.to_str().unwrap();
    for args in [&["--listen", "127.0.0.1:0", "--data", data][..], &["repair", data]] {
        let second = run(args);
        let message = String::from_utf8_lossy(&second.stderr).into_owned();
        assert_eq!(second.status.code(), Some(1), "{message}");
        assert!(message.contains(data) && message.contains("another process"), "{message}");
        assert!(second.stdout.is_empty());
    }
    server.publish("news", "still here");
}

#[test]
fn copy_of_a_directory_in_use_is_valid_and_starts_a_new_epoch() {
    let (dir, to) = (fresh_path("store-live"), fresh_path("store-copy"));
    let server = start_with_data(&dir, &["--retain-bytes", "2MiB", "--retain-events", "1000000"]);
    let body = "x".repeat(10_000);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = server.connect();
            while !stop.load(Ordering::Relaxed) {
                assert_eq!(client.post("/topics/news", "", &body).status, 201);
            }
        });
        let _stop = StopOnDrop(&stop);
        wait_until("there are several segments", || server.metric("store_segments") >= 4.0);
        for _ in 0..5 {
            copy(&dir, &to);
            let output = run(&["inspect", to.to_str().unwrap()]);
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success() && text.ends_with("valid\n"), "{text}");
            assert!(text.contains("copied"), "{text}");
        }
    });
    let copied = start_with_data(&to, &["--retain-bytes", "2MiB", "--retain-events", "1000000"]);
    let old = server.get("/topics/news?since=last:1&wait=0");
    assert_ne!(epoch(&copied.get("/topics/news?since=last:1&wait=0")), epoch(&old));
    assert!(copied.metric("retained_events") > 50.0);
    let gap = copied.get(&format!("/topics/news?since={}&wait=0", old.next_cursor()));
    assert_eq!(gap.json()["why"], "epoch");
}

#[test]
fn disk_usage_follows_retention() {
    let dir = fresh_path("store-retention");
    let flags = ["--retain-bytes", "1MiB", "--retain-events", "1000000"];
    let server = start_with_data(&dir, &flags);
    let (mut client, body) = (server.connect(), "y".repeat(8_000));
    // A busy topic, and a quiet one whose few events keep old segments alive.
    let most = 2 * (1 << 20) + 2 * (256 << 10) + 20_000;
    let mut largest = 0;
    for n in 0..1_500 {
        if n % 30 == 0 {
            assert_eq!(client.post("/topics/quiet", "", "small").status, 201);
        }
        assert_eq!(client.post("/topics/busy", "", &body).status, 201);
        let bytes = |path: &PathBuf| std::fs::metadata(path).map_or(0, |m| m.len());
        largest = largest.max(segments(&dir).iter().map(bytes).sum::<u64>());
    }
    assert!(largest < most, "{largest} bytes on disk, allowed are {most}");
    assert!(largest > 1 << 20, "only {largest} bytes on disk");
    let before = server.get("/topics/*?wait=0&limit=1000").json();
    drop(server);
    let server = start_with_data(&dir, &flags);
    assert_eq!(server.get("/topics/*?wait=0&limit=1000").json(), before);
}

#[test]
fn damaged_store_is_refused_with_the_place_and_repair_keeps_the_rest() {
    let dir = fresh_path("store-damage");
    let data = dir.to_str().unwrap();
    let server = start_with_data(&dir, &[]);
    let old = server.publish_many("news", 10);
    drop(server);
    let segment = &segments(&dir)[0];
    let mut bytes = std::fs::read(segment).unwrap();
    let at = bytes.windows(9).position(|w| w == b"\"text\":\"4").unwrap();
    let line = bytes[..at].iter().rposition(|b| *b == b'\n').unwrap() + 1;
    bytes[at + 8] = b'5';
    std::fs::write(segment, &bytes).unwrap();

    let refused = run(&["--listen", "127.0.0.1:0", "--data", data]);
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{message}");
    for part in [segment.to_str().unwrap(), &format!("at byte {line}"), "longpoll inspect"] {
        assert!(message.contains(part), "{part} is not in {message}");
    }
    let output = run(&["inspect", data]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("DAMAGED") && text.contains(&format!("byte {line}")), "{text}");

    let repaired = run(&["repair", data]);
    assert!(repaired.status.success(), "{}", String::from_utf8_lossy(&repaired.stderr));
    let aside: PathBuf = format!("{}.damaged-1", segment.display()).into();
    assert_eq!(std::fs::read(aside).unwrap(), bytes, "the damaged segment is set aside");
    assert!(run(&["inspect", data]).status.success());
    let server = start_with_data(&dir, &[]);
    let response = server.get("/topics/news?wait=0");
    assert_eq!(response.seqs(), [1, 2, 3, 4, 6, 7, 8, 9, 10]);
    assert_ne!(epoch(&response), epoch(&old));
    assert_eq!(server.publish("news", "on").json()["seq"].as_u64(), Some(11));
}

#[test]
fn repair_starts_a_new_epoch_on_request() {
    let dir = fresh_path("store-rollback");
    let data = dir.to_str().unwrap();
    let mut server = start_with_data(&dir, &[]);
    let first = server.publish("news", "one");
    server.signal(15);
    server.wait();
    let repaired = run(&["repair", "--new-epoch", data]);
    assert!(repaired.status.success());
    let server = start_with_data(&dir, &[]);
    let response = server.get("/topics/news?wait=0");
    assert_eq!(response.data(), ["one"]);
    assert_ne!(epoch(&response), epoch(&first));
}

#[test]
fn full_disk_refuses_publishes_until_there_is_space() {
    let Some(disk) = SmallFileSystem::mount("store-full", 1024) else { return };
    let data = disk.0.join("data");
    let server = start_with_data(&data, &[]);
    let before = server.publish("news", "before").next_cursor().to_owned();
    let filler = disk.fill();
    let mut client = server.connect();
    let full = client.post("/topics/news", "Idempotency-Key: k\r\n", "x".repeat(20_000));
    assert_eq!(full.status, 507, "{full:?}");
    assert!(full.detail().contains("No space left"), "{}", full.detail());
    assert_eq!(server.get("/topics/news?wait=0").data(), ["before"]);
    assert!(server.metric("store_failures_total") >= 1.0);
    let health = server.get("/health");
    assert_eq!((health.status, &health.json()["status"]), (200, &json!("ok")));
    assert_eq!(health.json()["store"], "failing");
    assert!(health.json()["store_failure"].as_str().unwrap().contains("No space left"));
    assert_eq!(server.metric("store_failing"), 1.0);
    std::fs::remove_file(&filler).unwrap();
    // The store recovers without a publish.
    wait_until("the store is healthy again", || server.get("/health").json()["store"] == "ok");
    assert_eq!(server.get("/health").json().get("store_failure"), None);
    assert_eq!(server.metric("store_failing"), 0.0);
    let again = client.post("/topics/news", "Idempotency-Key: k\r\n", "x".repeat(20_000));
    assert_eq!(again.status, 201);
    assert_eq!(server.get(&format!("/topics/news?since={before}&wait=0")).seqs(), [2]);
    drop(server);
    let server = start_with_data(&data, &[]);
    assert_eq!(server.get("/topics/news?wait=0").seqs(), [1, 2]);
}
