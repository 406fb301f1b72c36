//! A store on a simulated disk, driven step by step, without a server or threads.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use longpoll::config::SyncPolicy;
use longpoll::cursor::{Cursor, Epoch, Since};
use longpoll::log::{
    Appended, BodyKind, EventContent, Fingerprinter, GapPolicy, IdempotencyKey, KeyId, Log,
    LogSnapshot, ReadRequest, Retention, Timestamp, WriteError,
};
use longpoll::metrics::Metrics;
use longpoll::names::{Name, TopicSet, TypeFilter};
use longpoll::store::commit::{Change, PendingPublish, ReplySender, Store};
use longpoll::store::error::StoreError;
use longpoll::store::lines::CommitBuffer;
use longpoll::store::recovery::{OpenReport, OpenSettings, open};
use longpoll::store::storage::Storage;

use super::simulated_disk::SimulatedDisk;

/// One step of a test.
#[derive(Clone, Debug)]
pub enum Step {
    /// A batch: topic, number of events, text of the events before their index, idempotency key.
    Publish(&'static str, usize, String, Option<&'static str>),
    Trim(&'static str),
    /// Moves the clock forward by this number of seconds and expires old events.
    AdvanceClock(u64),
    /// Closes the store in order and opens it again.
    Reopen,
}

/// All that a reader can observe of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogView {
    pub events: Vec<(u64, String, String)>,
    pub snapshot: LogSnapshot,
}

/// An open store. Only steps move its clock.
pub struct TestStore {
    pub store: Store<Cursor>,
    pub report: OpenReport,
    pub now: Timestamp,
    pub disk: SimulatedDisk,
    sync: SyncPolicy,
}

pub const RETENTION: Retention =
    Retention { events: 6, age: Duration::from_secs(60), bytes: 2_000, topics: 4 };

impl TestStore {
    pub fn open(
        disk: &SimulatedDisk,
        sync: SyncPolicy,
        now: Timestamp,
    ) -> Result<TestStore, StoreError> {
        TestStore::open_with_identity(disk, sync, now, "here")
    }

    /// Opens the store as a directory with this identity.
    pub fn open_with_identity(
        disk: &SimulatedDisk,
        sync: SyncPolicy,
        now: Timestamp,
        identity: &str,
    ) -> Result<TestStore, StoreError> {
        TestStore::open_with(disk, sync, now, identity, RETENTION)
    }

    pub fn open_with(
        disk: &SimulatedDisk,
        sync: SyncPolicy,
        now: Timestamp,
        identity: &str,
        retention: Retention,
    ) -> Result<TestStore, StoreError> {
        let settings = OpenSettings {
            retention: Some(retention),
            sync_policy: sync,
            identity: identity.to_owned(),
            new_epoch: None,
        };
        let storage: Arc<dyn Storage> = Arc::new(disk.clone());
        let outcome = |cursor, _, _| cursor;
        let (mut store, mut report) =
            open(storage, &settings, &Arc::new(Metrics::default()), outcome, now)?;
        // Small, so that a few steps fill several segments.
        store.journal.segment_bytes = 700;
        let job = report.compaction.take();
        let mut opened = TestStore { store, report, now, disk: disk.clone(), sync };
        opened.run_compaction(job);
        Ok(opened)
    }

    fn run_compaction(&mut self, job: Option<longpoll::store::compact::CompactionJob>) {
        if let Some(job) = job {
            job.run(&self.disk, |_| {});
            self.store.journal.wait_for_compaction(&self.store.metrics.store);
        }
    }

    fn execute(&mut self, change: Change<Cursor>) {
        self.execute_all(&mut VecDeque::from([change]));
    }

    pub fn execute_all(&mut self, changes: &mut VecDeque<Change<Cursor>>) {
        while !changes.is_empty() {
            let result = self.store.group_commit(changes, self.now.at);
            self.run_compaction(result.compaction);
        }
    }

    /// What the flusher does each second, even if no client publishes.
    pub fn maintain(&mut self) {
        let result = self.store.group_commit(&mut VecDeque::new(), self.now.at);
        self.run_compaction(result.compaction);
        let result = self.store.maintain(self.now.at);
        self.run_compaction(result.compaction);
    }

    pub fn idempotency_key(&self, topic: &str, key: &str, text: &str) -> IdempotencyKey<Cursor> {
        let fingerprints = Fingerprinter(self.store.journal.header.secret);
        IdempotencyKey {
            id: KeyId(fingerprints.of(&[topic.as_bytes(), key.as_bytes()])),
            fingerprint: fingerprints.of(&[text.as_bytes()]),
            outcome: Arc::default(),
        }
    }

    pub fn publish(
        &mut self,
        topic: &str,
        count: usize,
        text: &str,
        key: Option<&str>,
    ) -> Result<Appended<Cursor>, WriteError> {
        let (reply, result) = ReplySender::new();
        let events = (0..count).map(|n| EventContent {
            event_type: None,
            kind: BodyKind::Text,
            content_type: None,
            body: format!("{text}{n}").into_bytes().into_boxed_slice(),
        });
        let key = key.map(|key| self.idempotency_key(topic, key, text));
        self.execute(Change::Publish(PendingPublish {
            topic: Name::new(topic).unwrap(),
            events: events.collect(),
            key: key.clone(),
            count: None,
            now: self.now,
            reply,
        }));
        let appended = result.recv().expect("a reply");
        if let (Some(key), Ok(Appended::New(cursor))) = (key, &appended) {
            *key.outcome.lock() = Some(*cursor);
        }
        appended
    }

    /// A publish command with a key, for a queue, and the channel of its result.
    pub fn publish_command(
        &self,
        topic: &str,
        key: &str,
        text: &str,
    ) -> (Change<Cursor>, Receiver<Result<Appended<Cursor>, WriteError>>) {
        let (reply, result) = ReplySender::new();
        let body = text.as_bytes().into();
        let command = Change::Publish(PendingPublish {
            topic: Name::new(topic).unwrap(),
            events: vec![EventContent {
                event_type: None,
                kind: BodyKind::Text,
                content_type: None,
                body,
            }],
            key: Some(self.idempotency_key(topic, key, text)),
            count: None,
            now: self.now,
            reply,
        });
        (command, result)
    }

    /// Executes a step; `Ok` means that it was acknowledged.
    pub fn run_step(&mut self, step: &Step) -> Result<(), WriteError> {
        match step {
            Step::Publish(topic, count, text, key) => {
                self.publish(topic, *count, text, *key).map(|_| ())
            }
            Step::Trim(topic) => {
                let (reply, result) = ReplySender::new();
                self.execute(Change::Trim(Name::new(topic).unwrap(), reply));
                result.recv().expect("a reply")
            }
            Step::AdvanceClock(seconds) => {
                self.advance_clock(*seconds);
                self.maintain();
                Ok(())
            }
            Step::Reopen => {
                // A failing disk shows when the store is opened.
                let _ = self.store.journal.close(self.now.at, &self.store.metrics.store);
                let reopened = TestStore::open(&self.disk, self.sync, self.now);
                *self = reopened.map_err(|failure| WriteError::Storage(failure.to_string()))?;
                Ok(())
            }
        }
    }

    pub fn advance_clock(&mut self, seconds: u64) {
        self.now.at += Duration::from_secs(seconds);
        self.now.wall += Duration::from_secs(seconds);
    }

    pub fn epoch(&self) -> Epoch {
        self.store.log.head().epoch
    }

    pub fn view(&self) -> LogView {
        view(&self.store.log)
    }
}

/// The clocks at the start of a test. The monotonic one is ahead of now, because computing an age
/// subtracts from it.
pub fn start_time() -> Timestamp {
    Timestamp {
        at: Instant::now() + Duration::from_secs(10_000),
        wall: std::time::SystemTime::now(),
    }
}

/// A segment that a later version of the program wrote: its header has another form.
pub fn segment_of_a_newer_version() -> Vec<u8> {
    let mut commit = CommitBuffer::default();
    commit.push(|out| out.extend_from_slice(b"{\"version\":3}"));
    [b"longpoll store 3\n".to_vec(), commit.finish(true)].concat()
}

fn view(log: &Log<Cursor>) -> LogView {
    let (topics, types) = (TopicSet::parse("*").unwrap(), TypeFilter::default());
    let ask = ReadRequest {
        topics: &topics,
        types: &types,
        limit: 1_000,
        bytes: usize::MAX,
        on_gap: GapPolicy::Fail,
    };
    let slice = log.read(&ask, Since::Start).unwrap();
    let event = |event: &Arc<longpoll::log::Event>| {
        let body = String::from_utf8_lossy(&event.content.body).into_owned();
        (event.seq.get(), event.topic().to_string(), body)
    };
    LogView { events: slice.events.iter().map(event).collect(), snapshot: log.snapshot() }
}

/// Steps that cover all operations of a store: batches, keys, trims by count, bytes, age and
/// request, forgotten topics, several segments, rewritten segments, restarts.
pub fn scenario() -> Vec<Step> {
    let publish = |topic, count, text: &str| Step::Publish(topic, count, text.to_owned(), None);
    let keyed = |topic, text: &str, key| Step::Publish(topic, 1, text.to_owned(), Some(key));
    vec![
        publish("quiet", 1, "first"),
        publish("busy", 3, "batch"),
        keyed("busy", "keyed", "k1"),
        publish("busy", 4, "over the count"),
        Step::AdvanceClock(10),
        publish("other", 1, &"x".repeat(300)),
        Step::Trim("busy"),
        publish("busy", 2, "after the trim"),
        keyed("other", "again", "k2"),
        Step::Reopen,
        publish("third", 1, &"y".repeat(500)),
        publish("busy", 1, &"z".repeat(500)),
        Step::Trim("third"),
        publish("fifth", 1, "in place of an empty one"),
        Step::AdvanceClock(55),
        publish("busy", 2, "some have aged"),
        keyed("busy", "last", "k3"),
        Step::Reopen,
        Step::AdvanceClock(70),
        publish("busy", 1, "all have aged"),
        // Leaves segments with few live records, so that compaction merges neighbours.
        publish("quiet", 1, "a"),
        publish("busy", 3, &"d".repeat(150)),
        publish("quiet", 1, "b"),
        publish("busy", 3, &"e".repeat(150)),
        publish("quiet", 1, "c"),
        publish("busy", 3, &"f".repeat(150)),
        publish("busy", 3, &"g".repeat(150)),
        Step::AdvanceClock(70),
        // A batch that fits only as a whole: its first event alone would exceed the byte budget,
        // and the trims for its second event free enough.
        publish("quiet", 1, "q"),
        publish("busy", 1, "s"),
        publish("busy", 1, &"h".repeat(600)),
        publish("busy", 4, "m"),
        publish("busy", 2, &"n".repeat(500)),
    ]
}
