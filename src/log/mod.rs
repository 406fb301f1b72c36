//! The event log: one number line for all topics, under one lock.
//!
//! It promises that a reader who follows `next` sees every kept event of its topics once, in seq
//! order, and is told exactly when one was trimmed before it could. It knows no sockets and no
//! clock (callers pass [`Timestamp`]) and wakes nobody: that is [`crate::waiters`]'s.
//!
//! *Lock.* `Log::state` guards everything here. Nothing is rendered, and no input or output done,
//! while it is held. It comes after an idempotency key's outcome and before nothing.

mod index;
mod event;
mod idempotency;
mod writer;
mod read;
mod restore;
mod topic;
mod trims;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

pub use event::{BodyKind, Event, EventContent, Timestamp, event_cost};
pub use idempotency::{Fingerprinter, IdempotencyKey, SharedOutcome};
pub use read::{Gap, GapPolicy, GapReason, LogSlice, ReadRequest};
pub use restore::{AppendPlan, LogSnapshot, TopicTrims};
pub use trims::LastTrim;
pub use writer::{AppendRequest, LogWriter, StorageStatus, WriteError};

use crate::cursor::{Cursor, Epoch, Seq, Since, TrimCount};
use crate::names::Name;
use idempotency::{IdempotencyTable, KeyLookup};
use index::LogIndex;
use topic::Topic;
use trims::TopicMeta;

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// Events per topic.
    pub events: usize,
    /// Age of an event.
    pub age: Duration,
    /// Bytes in all topics together, as [`Event::cost`] counts them.
    pub bytes: u64,
    /// Topics.
    pub topics: usize,
}

/// The log. `T` is what a publish is answered with, kept for repeats of its key.
pub struct Log<T> {
    state: Mutex<(LogState, IdempotencyTable<T>)>,
    version: AtomicU64,
    retention: Retention,
}

struct LogState {
    epoch: Epoch,
    /// The seq given out last.
    head: Seq,
    topics: BTreeMap<Name, Topic>,
    /// Stands for every topic that was forgotten: the highest of each.
    forgotten: LastTrim,
    index: LogIndex,
}

/// What became of a publish.
pub enum Appended<T> {
    /// It is in the log; this is the cursor of its last event.
    New(Cursor),
    /// The same was published before under its key.
    Duplicate(SharedOutcome<T>),
}

/// Why a publish was refused by the log.
#[derive(Debug, PartialEq, Eq)]
pub enum AppendError {
    /// Its key was used for something else.
    KeyReused,
    /// It would make one topic too many.
    TooManyTopics,
}

/// One topic, for lists.
#[derive(Debug)]
pub struct TopicStatus {
    pub topic: Name,
    pub events: u64,
    pub bytes: u64,
    pub oldest: Option<Seq>,
    pub newest: Option<Seq>,
}

/// `LogTotals`, for metrics.
#[derive(Debug, Default)]
pub struct LogTotals {
    pub topics: usize,
    pub events: u64,
    pub bytes: u64,
    pub head: Seq,
    pub trimmed: TrimCount,
    pub keys: usize,
    pub keys_evicted: u64,
}

/// The log's lock. A panic while it is held would leave a state that nobody may trust, and
/// `parking_lot` does not poison: the process ends instead.
struct LockedLog<'a, T>(MutexGuard<'a, (LogState, IdempotencyTable<T>)>);

impl<T> LockedLog<'_, T> {
    fn log(&mut self) -> &mut LogState {
        &mut self.0.0
    }

    fn keys(&mut self) -> &mut IdempotencyTable<T> {
        &mut self.0.1
    }
}

impl<T> Drop for LockedLog<'_, T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

impl<T> Log<T> {
    #[must_use]
    pub fn new(epoch: Epoch, retention: Retention) -> Log<T> {
        Log {
            state: Mutex::new((LogState::new(epoch), IdempotencyTable::default())),
            version: AtomicU64::new(0),
            retention,
        }
    }

    fn lock(&self) -> LockedLog<'_, T> {
        LockedLog(self.state.lock())
    }

    /// Rises with every change. What was read at a version is still true while it stands.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Called under the lock, so that a reader who holds it reads what belongs together.
    fn changed_if(&self, changed: bool, _: &LockedLog<'_, T>) {
        if changed {
            let version = self.version.load(Ordering::Relaxed);
            self.version.store(version + 1, Ordering::Release);
        }
    }

    /// Appends the drafts with consecutive seqs, all or none, and trims what retention no longer
    /// holds.
    ///
    /// # Errors
    /// When the key was used for something else, or there are too many topics.
    pub fn append(
        &self,
        topic: &Name,
        events: Vec<EventContent>,
        claim: Option<&IdempotencyKey<T>>,
        now: Timestamp,
    ) -> Result<Appended<T>, AppendError> {
        // A topic that is full lets go of as many as it gets.
        let mut trimmed = Vec::with_capacity(events.len());
        self.append_noting(topic, events, claim, now, &mut trimmed)
    }

    /// The same; puts what was trimmed into `trimmed`, so that it is freed after the lock is given
    /// back.
    ///
    /// # Errors
    /// As above.
    pub fn append_noting(
        &self,
        topic: &Name,
        events: Vec<EventContent>,
        claim: Option<&IdempotencyKey<T>>,
        now: Timestamp,
        trimmed: &mut Vec<Arc<Event>>,
    ) -> Result<Appended<T>, AppendError> {
        let mut locked = self.lock();
        if let Some(claim) = claim {
            match locked.keys().look_up(claim, now.at) {
                KeyLookup::New => {}
                KeyLookup::Duplicate(outcome) => return Ok(Appended::Duplicate(outcome)),
                KeyLookup::Conflict => return Err(AppendError::KeyReused),
            }
        }
        let appended = locked.log().append(topic, events, now, &self.retention, trimmed);
        if appended.is_ok() {
            if let Some(claim) = claim {
                locked.keys().take(claim, now.at);
            }
        }
        // A publish that is refused may have trimmed all the same.
        self.changed_if(appended.is_ok() || !trimmed.is_empty(), &locked);
        appended.map(Appended::New)
    }

    /// Reads one slice at one instant.
    ///
    /// # Errors
    /// When events after the cursor are gone and the reader did not ask to skip that.
    pub fn read(&self, ask: &ReadRequest<'_>, since: Since) -> Result<LogSlice, Gap> {
        self.lock().log().read(ask, since, self.version())
    }

    /// `TrimHistory` everything in a topic.
    pub fn trim(&self, topic: &Name) {
        self.trim_noting(topic, &mut Vec::new());
    }

    /// The same; puts what was trimmed into `trimmed`.
    pub fn trim_noting(&self, topic: &Name, trimmed: &mut Vec<Arc<Event>>) {
        let mut locked = self.lock();
        while locked.log().trim_oldest_of(topic, trimmed) {}
        self.changed_if(!trimmed.is_empty(), &locked);
    }

    /// `TrimHistory` what is too old, and forgets old keys.
    pub fn expire(&self, now: Instant) {
        let mut trimmed = Vec::new();
        let mut locked = self.lock();
        locked.keys().expire(now);
        locked.log().trim_aged(now, self.retention.age, &mut trimmed);
        self.changed_if(!trimmed.is_empty(), &locked);
    }

    /// Topics whose names begin with `prefix` and come after `after`, in name order, and the
    /// cursor of the newest event.
    pub fn topics(&self, prefix: &str, after: &str, limit: usize) -> (Vec<TopicStatus>, Cursor) {
        let mut locked = self.lock();
        let log = locked.log();
        let list = log
            .with_prefix(prefix)
            .filter(|topic| *topic.meta.name > *after)
            .take(limit)
            .map(|topic| TopicStatus {
                topic: topic.meta.name.clone(),
                events: topic.len() as u64,
                bytes: topic.bytes(),
                oldest: topic.oldest(),
                newest: topic.newest(),
            })
            .collect();
        (list, log.at(log.head))
    }

    pub fn totals(&self) -> LogTotals {
        let mut locked = self.lock();
        let (keys, keys_evicted) = (locked.keys().len(), locked.keys().evicted());
        let log = locked.log();
        LogTotals {
            topics: log.topics.len(),
            events: log.index.events,
            bytes: log.index.bytes,
            head: log.head,
            trimmed: log.index.trims.total(),
            keys,
            keys_evicted,
        }
    }
}

impl LogState {
    fn new(epoch: Epoch) -> LogState {
        LogState {
            epoch,
            head: Seq::ZERO,
            topics: BTreeMap::new(),
            forgotten: LastTrim::default(),
            index: LogIndex::default(),
        }
    }

    fn at(&self, seq: Seq) -> Cursor {
        Cursor { epoch: self.epoch, seq, trims_seen: None }
    }

    fn append(
        &mut self,
        topic: &Name,
        events: Vec<EventContent>,
        now: Timestamp,
        retention: &Retention,
        trimmed: &mut Vec<Arc<Event>>,
    ) -> Result<Cursor, AppendError> {
        self.trim_aged(now.at, retention.age, trimmed);
        self.make(topic, retention.topics)?;
        let Some(place) = self.topics.get_mut(topic) else {
            return Err(AppendError::TooManyTopics);
        };
        for content in events {
            self.head = self.head.next();
            let event = Event {
                seq: self.head,
                time: now.wall,
                at: now.at,
                meta: Arc::clone(&place.meta),
                content,
            };
            self.index.take_in(place, event);
        }
        while place.len() > retention.events && self.index.trim(place, trimmed) {}
        self.trim_to_bytes(retention.bytes, trimmed);
        Ok(self.at(self.head))
    }

    /// Makes the topic unless it is there, forgetting an empty one for it if need be.
    fn make(&mut self, topic: &Name, most: usize) -> Result<(), AppendError> {
        if self.topics.contains_key(topic) {
            return Ok(());
        }
        if self.topics.len() >= most {
            let (_, name) = self.index.empty.pop_first().ok_or(AppendError::TooManyTopics)?;
            if let Some(gone) = self.topics.remove(&name) {
                self.forgotten.seq = self.forgotten.seq.max(gone.last_trim.seq);
                self.forgotten.number = self.forgotten.number.max(gone.last_trim.number);
            }
        }
        // It may be one that was forgotten: then whatever that had lost, it has lost.
        let meta = TopicMeta::new(topic.clone(), self.forgotten.seq);
        self.topics.insert(topic.clone(), Topic::new(meta, self.forgotten));
        Ok(())
    }

    fn trim_aged(&mut self, now: Instant, age: Duration, trimmed: &mut Vec<Arc<Event>>) {
        let is_aged = |at| now.saturating_duration_since(at) >= age;
        // In the order of the log, which is that of their ages.
        while self.index.oldest_at.is_none_or(is_aged) {
            let Some(oldest) = self.oldest() else { return };
            self.index.oldest_at = Some(oldest.at);
            if is_aged(oldest.at) {
                self.trim_oldest_of(oldest.topic(), trimmed);
            }
        }
    }

    fn trim_to_bytes(&mut self, most: u64, trimmed: &mut Vec<Arc<Event>>) {
        while self.index.bytes > most {
            let Some(oldest) = self.oldest() else { return };
            self.trim_oldest_of(oldest.topic(), trimmed);
        }
    }

    /// The oldest event of the whole log.
    fn oldest(&mut self) -> Option<Arc<Event>> {
        loop {
            let first = self.index.listed.first_entry()?;
            let topic = self.topics.get_mut(first.get())?;
            let oldest = topic.get(0)?;
            if oldest.seq == *first.key() {
                return Some(Arc::clone(oldest));
            }
            first.remove();
            self.index.list(topic);
        }
    }

    fn trim_oldest_of(&mut self, name: &Name, trimmed: &mut Vec<Arc<Event>>) -> bool {
        let topic = self.topics.get_mut(name);
        topic.is_some_and(|topic| self.index.trim(topic, trimmed))
    }
}
