//! Guards the repair with random damage to random stores: every event whose own line is intact is
//! kept with its seq, nothing else appears, a server starts, and every topic takes publishes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use longpoll::config::{RepairMode, SyncPolicy};
use longpoll::cursor::Cursor;
use longpoll::log::{Appended, Retention};
use longpoll::store::header::first_seq;
use longpoll::store::repair::repair_storage;

use crate::support::disk_faults::Fault;
use crate::support::simulated_disk::SimulatedDisk;
use crate::support::test_store::{Step, TestStore, scenario, start_time};

/// Keeps everything.
const UNBOUNDED: Retention =
    Retention { events: 1 << 40, age: Duration::MAX, bytes: 1 << 40, topics: 1 << 40 };

/// A small generator of random numbers (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

type Events = Vec<(u64, String, String)>;

/// A store, and every event that it ever acknowledged.
struct History {
    store: TestStore,
    acknowledged: Events,
}

/// Runs a part of the scenario, with steps left out, and at last a batch.
fn random_store(random: &mut Random) -> History {
    let disk = SimulatedDisk::default();
    let mut store = TestStore::open(&disk, SyncPolicy::Always, start_time()).unwrap();
    let mut acknowledged = Events::new();
    let steps = scenario();
    let last = 8 + random.below(steps.len() - 8);
    let end = Step::Publish("quiet", 1 + random.below(4), "the end".to_owned(), None);
    for step in steps[..last].iter().chain([&end]) {
        if random.below(8) == 0 {
            continue;
        }
        let Step::Publish(topic, count, text, key) = step else {
            store.run_step(step).unwrap();
            continue;
        };
        // Without the steps that are left out, there may be too many topics.
        if let Ok(Appended::New(cursor)) = store.publish(topic, *count, text, *key) {
            let event = |n| (cursor.seq.get() + 1 + n - *count as u64, (*topic).to_owned(), n);
            let events = (0..*count as u64).map(event);
            acknowledged.extend(events.map(|(seq, topic, n)| (seq, topic, format!("{text}{n}"))));
        }
    }
    History { store, acknowledged }
}

fn segments(disk: &SimulatedDisk) -> Vec<String> {
    disk.names().into_iter().filter(|name| first_seq(name).is_some()).collect()
}

/// Damages one place of one segment; returns its name, and what was done.
fn damage(disk: &SimulatedDisk, random: &mut Random) -> (String, String) {
    let names = segments(disk);
    let name = &names[random.below(names.len())];
    let kind = random.below(6);
    let what = disk.with_file(name, |bytes| {
        let at = random.below(bytes.len());
        let start = bytes[..at].iter().rposition(|b| *b == b'\n').map_or(0, |before| before + 1);
        let end = bytes[at..].iter().position(|b| *b == b'\n').map_or(bytes.len(), |n| at + n + 1);
        match kind {
            0 | 1 => {
                let bit = random.below(8);
                bytes[at] ^= 1 << bit;
                format!("bit {bit} of byte {at}")
            }
            2 => {
                let bit = random.below(8);
                bytes[end - 1] ^= 1 << bit;
                format!("bit {bit} of byte {}", end - 1)
            }
            3 => {
                bytes[start..end - 1].fill(b'#');
                format!("the line at byte {start}")
            }
            4 => {
                bytes.drain(start..end);
                format!("the line at byte {start} removed")
            }
            _ => {
                bytes.truncate(at);
                format!("truncated to {at} bytes")
            }
        }
    });
    (name.clone(), what)
}

/// The seqs of all events of which a segment has the whole line.
fn intact_lines(disk: &SimulatedDisk, healthy: &SimulatedDisk) -> Vec<u64> {
    let mut intact = Vec::new();
    for name in segments(healthy) {
        let original = healthy.with_file(&name, |bytes| bytes.clone());
        let damaged = disk.with_file(&name, |bytes| bytes.clone());
        for line in original.split_inclusive(|b| *b == b'\n') {
            let text = String::from_utf8_lossy(line);
            let Some((_, rest)) = text.split_once("{\"seq\":") else { continue };
            if contains(&damaged, line) {
                intact.push(rest.split(',').next().unwrap().parse().unwrap());
            }
        }
    }
    intact
}

/// Repairs the store; at random, the power is cut meanwhile, and the repair is run again.
fn repair(disk: &SimulatedDisk, random: &mut Random) -> SimulatedDisk {
    let run = |disk: &SimulatedDisk| {
        let storage = Arc::new(disk.clone());
        let outcome = |cursor, _, _| cursor;
        repair_storage::<Cursor>(storage, "here", RepairMode::Damage, outcome)
    };
    let interrupted = disk.copy();
    interrupted.fail_at(random.below(30), Fault::PowerCut);
    let _ = run(&interrupted);
    let repaired = interrupted.copy();
    run(&repaired).unwrap();
    repaired
}

/// Checks that a server starts on a copy of the disk with every topic that an intact line of the
/// newest snapshot names, and that every topic takes a publish.
fn check_topics(disk: &SimulatedDisk, damaged: &SimulatedDisk, then: &TestStore, case: &str) {
    let mut store = TestStore::open(&disk.copy(), SyncPolicy::Always, then.now)
        .unwrap_or_else(|error| panic!("{case}: {error}"));
    let topics = topics(&store);
    let newest = segments(&then.disk).pop().unwrap();
    for known in then.view().snapshot.topics {
        let line = then.disk.with_file(&newest, |bytes| line_with(bytes, &known.topic));
        let has_line = |bytes: &mut Vec<u8>| line.as_ref().is_some_and(|l| contains(bytes, l));
        if damaged.with_file(&newest, has_line) {
            assert!(topics.contains(&known.topic.to_string()), "{case}: {} is gone", known.topic);
        }
    }
    for topic in topics {
        let published = store.publish(&topic, 1, "after the repair", None);
        assert!(published.is_ok(), "{case}: publish to {topic}: {:?}", published.err());
    }
}

fn topics(store: &TestStore) -> Vec<String> {
    store.view().snapshot.topics.iter().map(|topic| topic.topic.to_string()).collect()
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// The line of the snapshot that names a topic.
fn line_with(bytes: &[u8], topic: &str) -> Option<Vec<u8>> {
    let name = format!("{{\"name\":\"{topic}\"");
    let mut lines = bytes.split_inclusive(|b| *b == b'\n');
    lines.find(|line| contains(line, name.as_bytes())).map(<[u8]>::to_vec)
}

fn events_of(disk: &SimulatedDisk, history: &History, case: &str) -> Events {
    let (disk, now) = (disk.copy(), history.store.now);
    let opened = TestStore::open_with(&disk, SyncPolicy::Always, now, "here", UNBOUNDED);
    opened.unwrap_or_else(|error| panic!("{case}: {error}")).view().events
}

#[test]
fn repair_keeps_every_event_whose_line_is_intact() {
    let (mut events, mut damaged_events) = (0, 0);
    for seed in 1..=600_u64 {
        let random = &mut Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let history = random_store(random);
        let disk = history.store.disk.copy();
        let (file, what) = damage(&disk, random);
        let case = format!("seed {seed}, {file}: {what}");
        let intact = intact_lines(&disk, &history.store.disk);
        let repaired = repair(&disk, random);
        let kept = events_of(&repaired, &history, &case);
        let by_seq: BTreeMap<u64, _> = kept.iter().map(|event| (event.0, event)).collect();
        for event in history.store.view().events {
            if intact.contains(&event.0) {
                assert_eq!(by_seq.get(&event.0), Some(&&event), "{case}");
                events += 1;
            } else {
                damaged_events += 1;
            }
        }
        for event in &kept {
            assert!(history.acknowledged.contains(event), "{case}: {event:?} appeared");
        }
        check_topics(&repaired, &disk, &history.store, &case);
        let newest = segments(&disk).pop().unwrap();
        if newest != file {
            // No other topic than those of the newest segment comes back.
            let opened = TestStore::open(&repaired, SyncPolicy::Always, history.store.now).unwrap();
            for topic in topics(&opened) {
                let is_known = topics(&history.store).contains(&topic);
                let is_named = disk.with_file(&newest, |b| line_with(b, &topic).is_some());
                assert!(is_known || is_named, "{case}: {topic} came back");
            }
        }
    }
    assert!(events > 1_000 && damaged_events > 100, "{events} and {damaged_events}");
}

#[test]
fn repair_does_not_bring_back_what_was_refused() {
    let mut torn = 0;
    for seed in 1..=200_u64 {
        let random = &mut Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let mut history = random_store(random);
        let disk = history.store.disk.clone();
        let newest = segments(&disk).pop().unwrap();
        let length = disk.with_file(&newest, |bytes| bytes.len());
        // The truncation of what was written fails as well.
        disk.fail_at(0, Fault::ShortWrite);
        disk.fail_at(1, Fault::Error);
        assert!(history.store.publish("busy", 6, "refused", None).is_err());
        torn += usize::from(disk.with_file(&newest, |bytes| bytes.len()) > length);
        let disk = disk.copy();
        let names = segments(&disk);
        let name = &names[random.below(names.len())];
        // Damages what was synced, in any line.
        let at = disk.with_file(name, |bytes| {
            let at = random.below(if *name == newest { length } else { bytes.len() });
            bytes[at] ^= 1;
            at
        });
        let case = format!("seed {seed}, {name}, byte {at}");
        let repaired = repair(&disk, random);
        for event in events_of(&repaired, &history, &case) {
            assert!(history.acknowledged.contains(&event), "{case}: {event:?} appeared");
        }
    }
    assert!(torn > 100, "{torn}");
}
