//! A store on a disk of its own, without a server or threads: one step at a time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use longpoll::config::SyncPolicy;
use longpoll::cursor::{Cursor, Epoch, Since};
use longpoll::log::{
    Appended, BodyKind, EventContent, Fingerprinter, GapPolicy, IdempotencyKey, Log, LogSnapshot,
    ReadRequest, Retention, Timestamp, WriteError,
};
use longpoll::metrics::Metrics;
use longpoll::names::{Name, TopicSet, TypeFilter};
use longpoll::store::commit::{PendingPublish, ReplySender, Store, StoreCommand};
use longpoll::store::error::StoreError;
use longpoll::store::recovery::{OpenReport, OpenSettings, open};
use longpoll::store::storage::Storage;

use super::Ram;

/// What is to be done to the store.
#[derive(Clone, Debug)]
pub enum Step {
    /// So many events, the first with this text, perhaps under a key.
    Publish(&'static str, usize, String, Option<&'static str>),
    Trim(&'static str),
    /// So much time passes.
    Pass(u64),
    /// Ends in order and opens again.
    Reopen,
}

/// Everything that a reader could find out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    pub events: Vec<(u64, String, String)>,
    pub snapshot: LogSnapshot,
}

/// An open store. Its clock goes only when a step says so.
pub struct Shelf {
    pub store: Store<Cursor>,
    pub report: OpenReport,
    pub now: Timestamp,
    pub ram: Ram,
    sync: SyncPolicy,
}

pub const RETENTION: Retention =
    Retention { events: 6, age: Duration::from_secs(60), bytes: 2_000, topics: 4 };

impl Shelf {
    pub fn open(ram: &Ram, sync: SyncPolicy, now: Timestamp) -> Result<Shelf, StoreError> {
        Shelf::open_as(ram, sync, now, "here")
    }

    /// Opens it as the directory with this identity.
    pub fn open_as(
        ram: &Ram,
        sync: SyncPolicy,
        now: Timestamp,
        identity: &str,
    ) -> Result<Shelf, StoreError> {
        let settings = OpenSettings {
            retention: Some(RETENTION),
            sync_policy: sync,
            identity: identity.to_owned(),
            new_epoch: None,
        };
        let disk: Arc<dyn Storage> = Arc::new(ram.clone());
        let outcome = |cursor, _, _| cursor;
        let (mut store, mut report) =
            open(disk, &settings, &Arc::new(Metrics::default()), outcome, now)?;
        // Small, so that a few steps make several.
        store.journal.segment_bytes = 700;
        let chore = report.compaction.take();
        let mut shelf = Shelf { store, report, now, ram: ram.clone(), sync };
        shelf.tidy(chore);
        Ok(shelf)
    }

    fn tidy(&mut self, chore: Option<longpoll::store::compact::CompactionJob>) {
        if let Some(chore) = chore {
            let done = chore.run(&self.ram, |_| {});
            let mut wishes = VecDeque::from([StoreCommand::Compacted(done)]);
            self.store.group_commit(&mut wishes, self.now.at);
        }
    }

    fn wish(&mut self, wish: StoreCommand<Cursor>) {
        let mut wishes = VecDeque::from([wish]);
        while !wishes.is_empty() {
            let round = self.store.group_commit(&mut wishes, self.now.at);
            self.tidy(round.compaction);
        }
    }

    pub fn claim(&self, topic: &str, key: &str, text: &str) -> IdempotencyKey<Cursor> {
        let prints = Fingerprinter(self.store.journal.header.secret);
        IdempotencyKey {
            id: prints.of(&[topic.as_bytes(), key.as_bytes()]),
            fingerprint: prints.of(&[text.as_bytes()]),
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
        let (answer, answered) = ReplySender::new();
        let events = (0..count).map(|n| EventContent {
            event_type: None,
            kind: BodyKind::Text,
            content_type: None,
            body: format!("{text}{n}").into_bytes().into_boxed_slice(),
        });
        let claim = key.map(|key| self.claim(topic, key, text));
        self.wish(StoreCommand::Publish(PendingPublish {
            topic: Name::new(topic).unwrap(),
            events: events.collect(),
            key: claim.clone(),
            count: None,
            now: self.now,
            reply: answer,
        }));
        let appended = answered.recv().expect("an answer");
        if let (Some(claim), Ok(Appended::New(cursor))) = (claim, &appended) {
            *claim.outcome.lock() = Some(*cursor);
        }
        appended
    }

    /// A publish under a key, to be queued, and where its answer arrives.
    pub fn wanted(
        &self,
        topic: &str,
        key: &str,
        text: &str,
    ) -> (StoreCommand<Cursor>, Receiver<Result<Appended<Cursor>, WriteError>>) {
        let (answer, answered) = ReplySender::new();
        let body = text.as_bytes().into();
        let wish = StoreCommand::Publish(PendingPublish {
            topic: Name::new(topic).unwrap(),
            events: vec![EventContent {
                event_type: None,
                kind: BodyKind::Text,
                content_type: None,
                body,
            }],
            key: Some(self.claim(topic, key, text)),
            count: None,
            now: self.now,
            reply: answer,
        });
        (wish, answered)
    }

    /// Does a step; says whether it was acknowledged.
    pub fn step(&mut self, step: &Step) -> Result<(), WriteError> {
        match step {
            Step::Publish(topic, count, text, key) => {
                self.publish(topic, *count, text, *key).map(|_| ())
            }
            Step::Trim(topic) => {
                let (answer, answered) = ReplySender::new();
                self.wish(StoreCommand::Trim(Name::new(topic).unwrap(), answer));
                answered.recv().expect("an answer")
            }
            Step::Pass(seconds) => {
                self.pass(*seconds);
                self.wish(StoreCommand::Expire);
                Ok(())
            }
            Step::Reopen => {
                let (closed, _wait) = ReplySender::new();
                self.wish(StoreCommand::Close(closed));
                let again = Shelf::open(&self.ram, self.sync, self.now);
                *self = again.map_err(|failure| WriteError::Storage(failure.to_string()))?;
                Ok(())
            }
        }
    }

    pub fn pass(&mut self, seconds: u64) {
        self.now.at += Duration::from_secs(seconds);
        self.now.wall += Duration::from_secs(seconds);
    }

    pub fn epoch(&self) -> Epoch {
        self.store.log.head().epoch
    }

    pub fn view(&self) -> View {
        view(&self.store.log)
    }
}

/// The clocks when a test begins. Ages reach back, so the first one must be able to.
pub fn start() -> Timestamp {
    Timestamp {
        at: Instant::now() + Duration::from_secs(10_000),
        wall: std::time::SystemTime::now(),
    }
}

fn view(log: &Log<Cursor>) -> View {
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
    View { events: slice.events.iter().map(event).collect(), snapshot: log.snapshot() }
}

/// A life in which everything happens that a store has to survive: batches, keys, trims by count,
/// by bytes, by age and by hand, forgotten topics, several segments, rewritten ones, restarts.
pub fn script() -> Vec<Step> {
    let publish = |topic, count, text: &str| Step::Publish(topic, count, text.to_owned(), None);
    let keyed = |topic, text: &str, key| Step::Publish(topic, 1, text.to_owned(), Some(key));
    vec![
        publish("quiet", 1, "first"),
        publish("busy", 3, "batch"),
        keyed("busy", "keyed", "k1"),
        publish("busy", 4, "over the count"),
        Step::Pass(10),
        publish("other", 1, &"x".repeat(300)),
        Step::Trim("busy"),
        publish("busy", 2, "after the trim"),
        keyed("other", "again", "k2"),
        Step::Reopen,
        publish("third", 1, &"y".repeat(500)),
        publish("busy", 1, &"z".repeat(500)),
        Step::Trim("third"),
        publish("fifth", 1, "in place of an empty one"),
        Step::Pass(55),
        publish("busy", 2, "some have aged"),
        keyed("busy", "last", "k3"),
        Step::Reopen,
        Step::Pass(70),
        publish("busy", 1, "all have aged"),
        // Segments of which little is left, so that neighbours become one.
        publish("quiet", 1, "a"),
        publish("busy", 3, &"d".repeat(150)),
        publish("quiet", 1, "b"),
        publish("busy", 3, &"e".repeat(150)),
        publish("quiet", 1, "c"),
        publish("busy", 3, &"f".repeat(150)),
        publish("busy", 3, &"g".repeat(150)),
        Step::Pass(70),
        // A batch that fits only as a whole: what its first event alone would push over the
        // budget, the trims for its second make room for.
        publish("quiet", 1, "q"),
        publish("busy", 1, "s"),
        publish("busy", 1, &"h".repeat(600)),
        publish("busy", 4, "m"),
        publish("busy", 2, &"n".repeat(500)),
    ]
}
