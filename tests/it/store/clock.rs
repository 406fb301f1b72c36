//! Guards the ages of recovered events and keys: a start trims nothing because of a clock that is
//! wrong, and counts an ordinary time without a server. Former bugs: a start with a clock far ahead
//! trimmed everything, and one event with a time in the future made all later ones young again.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use longpoll::config::SyncPolicy;
use longpoll::log::{Appended, Timestamp};

use crate::support::simulated_disk::SimulatedDisk;
use crate::support::test_store::{RETENTION, Step, TestStore, start_time};
use crate::support::{Server, fresh_path, program, wait_until};

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// A store with one event every ten seconds, the last of them now, with a key.
fn store_with_ages() -> TestStore {
    let disk = SimulatedDisk::default();
    let mut store = TestStore::open(&disk, SyncPolicy::Always, start_time()).unwrap();
    for text in ["a", "b", "c", "d"] {
        store.publish("news", 1, text, None).unwrap();
        store.advance_clock(10);
    }
    store.publish("news", 1, "keyed", Some("k")).unwrap();
    store
}

/// Starts the store again at this time, and expires old events.
fn restarted(store: &TestStore, now: Timestamp) -> TestStore {
    let mut store = TestStore::open(&store.disk.copy(), SyncPolicy::Always, now).unwrap();
    expire_after(&mut store, 0);
    store
}

fn texts(store: &TestStore) -> Vec<String> {
    store.view().events.into_iter().map(|event| event.2).collect()
}

fn expire_after(store: &mut TestStore, seconds: u64) -> Vec<String> {
    store.run_step(&Step::AdvanceClock(seconds)).unwrap();
    // Of two commits in a row, only one expires events.
    store.run_step(&Step::AdvanceClock(0)).unwrap();
    texts(store)
}

const ALL: [&str; 5] = ["a0", "b0", "c0", "d0", "keyed0"];

#[test]
fn start_with_a_clock_far_ahead_or_at_1970_trims_nothing() {
    let store = store_with_ages();
    let monotonic = store.now.at + Duration::from_secs(1);
    for wall in [
        store.now.wall + 10 * YEAR,
        store.now.wall + RETENTION.age,
        store.now.wall - Duration::from_secs(5),
        std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(30),
    ] {
        let mut store = restarted(&store, Timestamp { at: monotonic, wall });
        assert_eq!(texts(&store), ALL);
        let repeat = store.publish("news", 1, "keyed", Some("k")).unwrap();
        assert!(matches!(repeat, Appended::Duplicate(_)), "the key is forgotten");
        // The newest event counts as new, and the others are as much older as they were.
        assert_eq!(expire_after(&mut store, 19), ALL);
        assert_eq!(expire_after(&mut store, 2), ALL[1..]);
        assert_eq!(expire_after(&mut store, 38), ALL[4..]);
        assert_eq!(expire_after(&mut store, 2), [""; 0]);
    }
}

#[test]
fn time_without_a_server_counts_for_ages_and_keys() {
    let mut store = store_with_ages();
    store.advance_clock(25);
    let mut later = restarted(&store, store.now);
    assert_eq!(texts(&later), ALL[1..]);
    assert_eq!(expire_after(&mut later, 34), ALL[4..]);
    let repeat = later.publish("news", 1, "keyed", Some("k")).unwrap();
    assert!(matches!(repeat, Appended::Duplicate(_)));
    // 59 s after the publish; the key is remembered for 600 s.
    later.advance_clock(540);
    let mut again = restarted(&later, later.now);
    let repeat = again.publish("news", 1, "keyed", Some("k")).unwrap();
    assert!(matches!(repeat, Appended::Duplicate(_)));
    again.advance_clock(2);
    let repeat = again.publish("news", 1, "keyed", Some("k")).unwrap();
    assert!(matches!(repeat, Appended::New(_)), "the key outlived its time");
}

#[test]
fn step_of_the_clock_while_the_server_runs_changes_no_age() {
    for wall in [start_time().wall + 10 * YEAR, std::time::SystemTime::UNIX_EPOCH] {
        let mut store = store_with_ages();
        store.now.wall = wall;
        assert_eq!(expire_after(&mut store, 19), ALL);
        assert_eq!(expire_after(&mut store, 2), ALL[1..]);
        let repeat = store.publish("news", 1, "keyed", Some("k")).unwrap();
        assert!(matches!(repeat, Appended::Duplicate(_)), "the key is forgotten");
    }
}

#[test]
fn event_with_a_wrong_time_does_not_change_the_age_of_others() {
    for wrong in [start_time().wall + 10 * YEAR, std::time::SystemTime::UNIX_EPOCH] {
        let disk = SimulatedDisk::default();
        let mut store = TestStore::open(&disk, SyncPolicy::Always, start_time()).unwrap();
        let right = store.now.wall;
        store.now.wall = wrong;
        store.publish("news", 1, "a", None).unwrap();
        store.now.wall = right;
        for text in ["b", "c", "d"] {
            store.publish("news", 1, text, None).unwrap();
            store.advance_clock(10);
        }
        store.publish("news", 1, "keyed", None).unwrap();
        let mut store = restarted(&store, store.now);
        assert_eq!(expire_after(&mut store, 29), ALL);
        assert_eq!(expire_after(&mut store, 2), ALL[2..]);
        assert_eq!(expire_after(&mut store, 10), ALL[3..]);
    }
}

#[test]
fn events_of_a_wrong_clock_do_not_age_those_before() {
    let mut store = store_with_ages();
    // The server runs with a clock that is ten years ahead, and is restarted with it.
    store.now.wall += 10 * YEAR;
    store = restarted(&store, store.now);
    store.publish("other", 1, "new", None).unwrap();
    let mut store = restarted(&store, store.now);
    assert_eq!(texts(&store), ["a0", "b0", "c0", "d0", "keyed0", "new0"]);
    assert_eq!(expire_after(&mut store, 21), ["b0", "c0", "d0", "keyed0", "new0"]);
}

#[test]
fn server_says_that_it_does_not_trust_the_clock() {
    // The events of this store are older than an hour, unless the clock is wrong.
    let place = fresh_path("clock-old-store");
    std::fs::create_dir(&place).unwrap();
    let stored = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/store-0.1.0");
    for entry in std::fs::read_dir(stored).unwrap() {
        let file = entry.unwrap();
        if file.file_name() != "README.md" {
            std::fs::copy(file.path(), place.join(file.file_name())).unwrap();
        }
    }
    let mut command = program();
    command.args(["--listen", "127.0.0.1:0", "--retain-age", "1h", "--data"]).arg(&place);
    let mut server = Server::spawn(command.stderr(Stdio::piped()));
    let ticks = |server: &Server| server.metric("store_commits_total");
    wait_until("the server answers", || ticks(&server) >= 0.0);
    assert_eq!(server.get("/topics/*?wait=0&limit=1000").seqs().len(), 15);
    let stderr = server.stderr();
    server.signal(15);
    assert!(server.wait().0.success());
    let log = std::io::read_to_string(stderr).unwrap();
    assert!(log.contains("newest event") && log.contains("--retain-age"), "{log}");
}

#[test]
fn key_that_had_expired_before_its_next_use_is_not_restored_in_its_place() {
    let disk = SimulatedDisk::default();
    let mut store = TestStore::open(&disk, SyncPolicy::Always, start_time()).unwrap();
    assert!(store.publish("news", 1, "first", Some("k")).is_ok());
    store.advance_clock(700);
    assert!(matches!(store.publish("news", 1, "second", Some("k")), Ok(Appended::New(_))));
    store.advance_clock(5);
    let mut store = TestStore::open(&disk, SyncPolicy::Always, store.now).unwrap();
    // The publisher has lost the response, and repeats its request.
    assert!(matches!(store.publish("news", 1, "second", Some("k")), Ok(Appended::Duplicate(_))));
}

#[test]
fn key_expires_also_while_nothing_is_published_and_no_server_runs() {
    let disk = SimulatedDisk::default();
    let mut store = TestStore::open(&disk, SyncPolicy::Always, start_time()).unwrap();
    assert!(store.publish("news", 1, "daily", Some("k")).is_ok());
    store.advance_clock(24 * 3_600);
    let mut store = TestStore::open(&disk, SyncPolicy::Always, store.now).unwrap();
    assert!(matches!(store.publish("news", 1, "daily", Some("k")), Ok(Appended::New(_))));
}
