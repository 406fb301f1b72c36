//! The event log: all topics share one sequence of seqs, and one lock guards them.
//!
//! A reader that follows the `next` cursor sees every kept event of its topics once, in seq order.
//! If events were trimmed before it could read them, its next read reports the gap, once. The log
//! knows no sockets and no clock (callers pass a [`Timestamp`]), and it wakes no thread:
//! [`crate::waiters`] does that.
//!
//! Only this file takes the log's lock. The modules that it lists are plain data structures for one
//! thread at a time; each uses only those before it.
//!
//! *Lock.* `Log::guarded` guards everything here. No input or output happens and nothing is
//! rendered while it is held. A panic under it ends the process: the state may be inconsistent, and
//! nothing could be read or stored correctly from then on. A publisher may hold its idempotency key's outcome when it takes this
//! lock; no other lock is taken under it.

mod trims;
mod event;
mod topic;
mod order;
mod index;
mod state;
mod matching;
mod read;
mod restore;
mod idempotency;
mod writer;

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

pub use event::{BodyKind, Event, EventContent, Timestamp, TrimmedEvents, event_cost};
pub use idempotency::{Fingerprinter, IdempotencyKey, KeyId, SharedOutcome};
pub use matching::{GapPolicy, ReadRequest};
pub use read::{Gap, GapReason, LogSlice, LogVersion};
pub use restore::{LogSnapshot, TopicTrims};
pub use state::{AppendError, Retention, TopicStatus};
pub use trims::LastTrim;
pub use writer::{AppendPlan, AppendRequest, Appended, LogWriter, StorageStatus, WriteError};

use crate::cursor::{Cursor, Epoch, Seq, Since, TrimCount};
use crate::metrics::MetricsText;
use crate::names::Name;
use crate::sync::{Mutex, MutexGuard};
use idempotency::{IdempotencyTable, KeyLookup};
use state::LogState;

/// The log, as all threads share it. `T` is the outcome of a publish, stored for repeats of its
/// idempotency key.
pub struct Log<T> {
    guarded: Mutex<Guarded<T>>,
    version: AtomicU64,
    retention: Retention,
}

struct Guarded<T> {
    log: LogState,
    keys: IdempotencyTable<T>,
}

/// Totals over all topics, for metrics.
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

/// The log's lock, held. A panic while it is held leaves a state that may be inconsistent, and
/// `parking_lot` does not poison a mutex: the process aborts instead.
struct LockedLog<'a, T>(MutexGuard<'a, Guarded<T>>);

impl<T> Deref for LockedLog<'_, T> {
    type Target = Guarded<T>;

    fn deref(&self) -> &Guarded<T> {
        &self.0
    }
}

impl<T> DerefMut for LockedLog<'_, T> {
    fn deref_mut(&mut self) -> &mut Guarded<T> {
        &mut self.0
    }
}

impl<T> Drop for LockedLog<'_, T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

/// What publishers, readers and metrics use.
impl<T> Log<T> {
    #[must_use]
    pub fn new(epoch: Epoch, retention: Retention) -> Log<T> {
        Log::with_state(LogState::new(epoch), retention)
    }

    fn with_state(log: LogState, retention: Retention) -> Log<T> {
        let guarded = Mutex::new(Guarded { log, keys: IdempotencyTable::default() });
        Log { guarded, version: AtomicU64::new(0), retention }
    }

    fn lock(&self) -> LockedLog<'_, T> {
        LockedLog(self.guarded.lock())
    }

    /// The version increases with every change: what was read at a version is true while the
    /// version stays the same.
    pub fn version(&self) -> LogVersion {
        LogVersion::new(self.version.load(Ordering::Acquire))
    }

    /// Takes the lock as proof that it is held: a reader under the lock then gets the version that
    /// belongs to what it reads.
    fn bump_version_if(&self, changed: bool, _: &LockedLog<'_, T>) {
        if changed {
            let version = self.version.load(Ordering::Relaxed);
            self.version.store(version + 1, Ordering::Release);
        }
    }

    /// Appends events with consecutive seqs, all or none, and trims what retention no longer
    /// allows. Events that were trimmed are added to `trimmed`, also after an error.
    ///
    /// # Errors
    /// The key was used for another publish, or there are too many topics.
    pub fn append(
        &self,
        topic: &Name,
        events: Vec<EventContent>,
        key: Option<&IdempotencyKey<T>>,
        now: Timestamp,
        trimmed: &mut TrimmedEvents,
    ) -> Result<Appended<T>, AppendError> {
        let mut locked = self.lock();
        if let Some(key) = key {
            match locked.keys.look_up(key, now.at) {
                KeyLookup::New => {}
                KeyLookup::Duplicate(outcome) => return Ok(Appended::Duplicate(outcome)),
                KeyLookup::Conflict => return Err(AppendError::KeyReused),
            }
        }
        let appended = locked.log.append(topic, events, now, &self.retention, trimmed);
        if let (Ok(cursor), Some(key)) = (&appended, key) {
            locked.keys.insert(key, cursor.seq, now.at);
        }
        // A rejected publish may have trimmed expired events.
        self.bump_version_if(appended.is_ok() || !trimmed.is_empty(), &locked);
        appended.map(Appended::New)
    }

    /// Reads events at one instant.
    ///
    /// # Errors
    /// The reader cannot continue from its cursor, and did not request [`GapPolicy::Skip`].
    pub fn read(&self, request: &ReadRequest<'_>, since: Since) -> Result<LogSlice, Gap> {
        let locked = self.lock();
        locked.log.read(request, since, self.version())
    }

    /// Trims every event of a topic.
    pub fn trim(&self, topic: &Name, trimmed: &mut TrimmedEvents) {
        let mut locked = self.lock();
        while locked.log.trim_oldest_of(topic, trimmed) {}
        self.bump_version_if(!trimmed.is_empty(), &locked);
    }

    /// Trims expired events and drops expired keys.
    pub fn expire(&self, now: Instant) {
        // Declared before the lock, so that the events are freed after it is released.
        let mut trimmed = TrimmedEvents::new();
        let mut locked = self.lock();
        locked.keys.expire(now);
        locked.log.trim_expired(now, self.retention.age, &mut trimmed);
        self.bump_version_if(!trimmed.is_empty(), &locked);
    }

    /// The cursor of the newest event.
    pub fn head(&self) -> Cursor {
        self.lock().log.head_cursor()
    }

    /// At most `limit` topics whose names begin with `prefix` and come after `after`, in name
    /// order, and the cursor of the newest event.
    pub fn topics(&self, prefix: &str, after: &str, limit: usize) -> (Vec<TopicStatus>, Cursor) {
        let locked = self.lock();
        (locked.log.list_topics(prefix, after, limit), locked.log.head_cursor())
    }

    pub fn totals(&self) -> LogTotals {
        let locked = self.lock();
        let Guarded { log, keys } = &*locked;
        LogTotals {
            topics: log.topics.len(),
            events: log.index.events,
            bytes: log.index.bytes,
            head: log.head,
            trimmed: log.index.trims.total(),
            keys: keys.len(),
            keys_evicted: keys.evicted(),
        }
    }
}

/// What a store uses in addition.
impl<T> Log<T> {
    /// What an append would do if there were `additional_topics` more.
    pub fn plan(
        &self,
        topic: &Name,
        key: Option<&IdempotencyKey<T>>,
        now: Instant,
        additional_topics: usize,
    ) -> AppendPlan<T> {
        let mut locked = self.lock();
        if let Some(key) = key {
            match locked.keys.look_up(key, now) {
                KeyLookup::New => {}
                KeyLookup::Duplicate(outcome) => return AppendPlan::Duplicate(outcome),
                KeyLookup::Conflict => return AppendPlan::KeyReused,
            }
        }
        let log = &locked.log;
        if log.topics.contains_key(topic) {
            AppendPlan::Append
        } else if log.topics.len() + additional_topics < self.retention.topics {
            AppendPlan::CreateTopic
        } else if log.index.empty.is_empty() {
            AppendPlan::TooManyTopics
        } else {
            AppendPlan::ReplaceEmptyTopic
        }
    }

    /// Whether a topic has events.
    pub fn has_events(&self, topic: &Name) -> bool {
        self.lock().log.topics.get(topic).is_some_and(|topic| topic.len() > 0)
    }

    /// The newest event of at least this age, if there is one.
    pub fn expired_through(&self, now: Instant, age: Duration) -> Option<Seq> {
        self.lock().log.expired_through(now, age)
    }

    /// Trims every event up to this seq.
    pub fn trim_through(&self, seq: Seq, trimmed: &mut TrimmedEvents) {
        let mut locked = self.lock();
        locked.log.trim_through(seq, trimmed);
        self.bump_version_if(!trimmed.is_empty(), &locked);
    }

    /// The log's state except for its events and keys.
    pub fn snapshot(&self) -> LogSnapshot {
        self.lock().log.snapshot()
    }

    /// A log with the state of a snapshot, without events.
    #[must_use]
    pub fn restored(epoch: Epoch, retention: Retention, snapshot: &LogSnapshot) -> Log<T> {
        Log::with_state(LogState::restored(epoch, snapshot), retention)
    }

    /// Adds an event that is older than the snapshot; call it in seq order. Returns false if the
    /// event had been trimmed by then.
    pub fn load(
        &self,
        topic: &Name,
        seq: Seq,
        time: SystemTime,
        at: Instant,
        content: EventContent,
    ) -> bool {
        self.lock().log.load(topic, seq, time, at, content)
    }

    /// Makes every event older. A restored log learns the age of its newest event last.
    pub fn make_older(&mut self, by: Duration) {
        self.lock().log.make_older(by);
    }

    /// Call this after the last [`Log::load`], before any other change.
    pub fn finish_loading(&self) {
        self.lock().log.finish_loading();
    }

    /// The seq of the oldest remembered idempotency key: the keys of earlier publishes are forgotten.
    pub fn oldest_key(&self) -> Option<Seq> {
        self.lock().keys.oldest()
    }

    /// Inserts a key that an earlier run of the program used for the publish whose last event is
    /// `seq`. Call it in seq order: a later use of a key replaces an earlier one, which had expired.
    pub fn load_key(&self, key: &IdempotencyKey<T>, seq: Seq, at: Instant) {
        self.lock().keys.insert(key, seq, at);
    }

    /// Gives a restored log the epoch and the retention of this run, and trims what the retention
    /// does not allow; expired events are trimmed later, like all others.
    pub fn reconfigure(&mut self, epoch: Epoch, retention: Retention, trimmed: &mut TrimmedEvents) {
        self.retention = retention;
        let mut locked = self.lock();
        locked.log.epoch = epoch;
        locked.log.trim_to_retention(&retention, trimmed);
    }
}

impl<T: Send> LogWriter<T> for Log<T> {
    fn append(
        &self,
        request: AppendRequest<'_, T>,
        now: Timestamp,
    ) -> Result<Appended<T>, WriteError> {
        let AppendRequest { topic, events, key, .. } = request;
        // A full topic trims as many events as it receives.
        let mut trimmed = TrimmedEvents::with_capacity(events.len());
        self.append(topic, events, key, now, &mut trimmed).map_err(WriteError::Rejected)
    }

    fn trim(&self, topic: &Name) -> Result<(), WriteError> {
        self.trim(topic, &mut TrimmedEvents::new());
        Ok(())
    }

    fn expire(&self, now: Instant) {
        self.expire(now);
    }

    fn render(&self, _: &mut MetricsText) {}

    fn storage_status(&self) -> StorageStatus {
        StorageStatus::None
    }

    fn is_durable(&self) -> bool {
        false
    }

    fn close(&self) -> Result<(), String> {
        Ok(())
    }
}
