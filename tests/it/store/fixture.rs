//! Guards stored files: a store that version 0.1.0 wrote before the modules were renamed opens, with
//! every event, trim and key.
//! `tests/fixtures/store-0.1.0/README.md` says what was published to it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use longpoll::config::SyncPolicy;
use longpoll::cursor::Cursor;
use longpoll::log::Timestamp;
use longpoll::store::recovery::{OpenSettings, open};
use longpoll::store::storage::DiskDirectory;
use serde_json::{Value, json};

use crate::support::{Server, fresh_path, program};

const EPOCH: &str = "e6c93927343c8397";
/// The identity of the directory that the store was written in, as its headers have it.
const IDENTITY: &str = "10117128-1795287082.720563366";

/// A copy of the store.
fn copied(name: &str) -> PathBuf {
    let place = fresh_path(name);
    std::fs::create_dir(&place).unwrap();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/store-0.1.0");
    for entry in std::fs::read_dir(fixture).unwrap() {
        let file = entry.unwrap();
        if file.file_name() != "README.md" {
            std::fs::copy(file.path(), place.join(file.file_name())).unwrap();
        }
    }
    place
}

/// The retained events as the server shows them, without their times.
fn events() -> Vec<Value> {
    vec![
        json!({"seq": 15, "topic": "orders", "type": "created", "data": [3]}),
        json!({"seq": 16, "topic": "orders", "type": "paid", "data": {"id": 4}}),
        json!({"seq": 20, "topic": "bytes", "content_type": "image/png", "data_base64": "/wAK"}),
        json!({"seq": 21, "topic": "text", "data": "he said \"h\u{e9}\"\n\\ \u{2028}"}),
        json!({
            "seq": 22, "topic": "text", "type": "note", "content_type": "text/markdown",
            "data": "plain text",
        }),
        json!({"seq": 23, "topic": "pretty", "data": {"pretty": true}}),
        json!({"seq": 25, "topic": "orders", "data": {"id": 5}}),
        json!({"seq": 26, "topic": "news", "type": "end", "data": "last"}),
        json!({"seq": 27, "topic": "news", "data": {"t": 10}}),
        json!({"seq": 28, "topic": "news", "data": {"t": 11}}),
        json!({"seq": 29, "topic": "news", "data": {"t": 12}}),
        json!({"seq": 30, "topic": "news", "data": {"t": 13}}),
        json!({"seq": 31, "topic": "pairs", "data": "left"}),
        json!({"seq": 32, "topic": "pairs", "data": "right"}),
        json!({
            "seq": 33, "topic": "bytes", "content_type": "application/octet-stream",
            "data_base64": "/g==",
        }),
    ]
}

fn inspect(place: &Path) -> String {
    let output = program().args(["inspect", place.to_str().unwrap()]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn an_old_store_is_served_with_every_event_in_a_new_epoch() {
    let place = copied("store-fixture-served");
    let report = inspect(&place);
    assert!(report.contains(&format!("epoch {EPOCH}, next seq 34; 15 events")), "{report}");
    assert!(report.contains("18 events trimmed") && report.ends_with("valid\n"), "{report}");

    let data = place.to_str().unwrap();
    // The events are older than the default of --retain-age.
    let server = Server::start(&["--data", data, "--retain-age", "876000h"]);
    let answer = server.get("/topics/*?wait=0&limit=1000");
    let mut shown = answer.json()["events"].as_array().unwrap().clone();
    for event in &mut shown {
        let time = event.as_object_mut().unwrap().remove("time").unwrap();
        assert!(time.as_str().unwrap().starts_with("2026-11-21T18:51:2"), "{time}");
    }
    assert_eq!(shown, events());

    // The directory is a copy, so a cursor of the original could mean another event.
    let gap = server.get(&format!("/topics/news?since={EPOCH}.26&wait=0"));
    assert_eq!((gap.status, &gap.json()["why"]), (410, &json!("epoch")));
    assert!(!answer.next_cursor().starts_with(EPOCH));
    assert_eq!(server.publish("news", "new").json()["seq"], 34);
    drop(server);
    assert!(inspect(&place).ends_with("valid\n"));
}

#[test]
fn an_old_store_keeps_its_epoch_trims_and_keys_in_its_own_directory() {
    let place = copied("store-fixture-recovered");
    let settings = OpenSettings {
        retention: None,
        sync_policy: SyncPolicy::Always,
        identity: IDENTITY.to_owned(),
        new_epoch: None,
    };
    // Within the ten minutes for which keys are remembered.
    let wall = humantime::parse_rfc3339("2026-11-21T18:52:00Z").unwrap();
    let now = Timestamp { at: Instant::now(), wall };
    let disk = Arc::new(DiskDirectory::new(&place));
    let outcome = |cursor: Cursor, _, _| cursor;
    let (store, report) = open(disk, &settings, &Arc::default(), outcome, now).unwrap();
    assert!(report.torn.is_none() && report.new_epoch.is_none());
    let head = store.log.head();
    assert_eq!((head.epoch.to_string(), head.seq.get()), (EPOCH.to_owned(), 33));
    let totals = store.log.totals();
    assert_eq!((totals.topics, totals.events, totals.keys), (9, 15, 4));
    // The trims that a gap is counted from, in their order.
    let snapshot = store.log.snapshot();
    let mut trims: Vec<(&str, Vec<u64>)> = Vec::new();
    for (seq, topic) in &snapshot.recent {
        match trims.last_mut() {
            Some((last, seqs)) if *last == &**topic => seqs.push(seq.get()),
            _ => trims.push((topic, vec![seq.get()])),
        }
    }
    let expected = [
        ("news", vec![1, 2]),
        ("bulk", vec![7, 8]),
        ("gone", vec![17, 18]),
        ("bulk", vec![9]),
        ("news", vec![3]),
        ("orders", vec![13]),
        ("bulk", vec![10, 11, 12, 19]),
        ("orders", vec![14]),
        ("news", vec![4, 5, 6]),
        ("drafts", vec![24]),
    ];
    assert_eq!(trims, expected);
    assert_eq!(snapshot.trims.get(), 18);
}
