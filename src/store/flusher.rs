//! The thread that writes for all, and the way to it.
//!
//! One thread writes, so that a hundred publishers who wait at the same time cost one sync, not a
//! hundred; and nobody who only reads the log ever waits for the disk.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use super::OpenedStore;
use super::commit::{PendingPublish, ReplySender, Store, StoreCommand};
use super::compact::CompactionJob;
use super::error::StoreError;
use super::lock::DirectoryLock;
use crate::config::SyncPolicy;
use crate::limits::COMMIT_QUEUE;
use crate::log::{AppendRequest, Appended, Log, LogWriter, StorageStatus, Timestamp, WriteError};
use crate::logger::Logger;
use crate::metrics::{Metrics, MetricsText};
use crate::names::Name;
use crate::threads::{Mailbox, start};

/// How the log of a store is changed: by the flusher, after the disk.
pub struct StoreWriter<T> {
    flusher: Mailbox<StoreCommand<T>>,
    log: Arc<Log<T>>,
    metrics: Arc<Metrics>,
    trouble: FailureStatus,
    durable: bool,
}

/// What the disk said first, while it refuses. A lock that is held for moments, under no other.
type FailureStatus = Arc<Mutex<Option<String>>>;

impl<T: Send> LogWriter<T> for StoreWriter<T> {
    fn append(
        &self,
        handed: AppendRequest<'_, T>,
        now: Timestamp,
    ) -> Result<Appended<T>, WriteError> {
        let AppendRequest { topic, events, key: claim, count } = handed;
        let (answer, answered) = ReplySender::new();
        let (topic, claim) = (topic.clone(), claim.cloned());
        self.flusher.post(StoreCommand::Publish(PendingPublish {
            topic,
            events,
            claim,
            count,
            now,
            answer,
        }));
        answered.take().unwrap_or_else(|| Err(stopped()))
    }

    fn trim(&self, topic: &Name) -> Result<(), WriteError> {
        let (answer, answered) = ReplySender::new();
        self.flusher.post(StoreCommand::Trim(topic.clone(), answer));
        answered.take().unwrap_or_else(|| Err(stopped()))
    }

    fn expire(&self, now: Instant) {
        // Only keys: events are never too old for this log, but for its store.
        self.log.expire(now);
        self.flusher.post(StoreCommand::Expire);
    }

    fn render(&self, page: &mut MetricsText) {
        self.metrics.store.render(page);
        page.gauge(
            "store_failing",
            "1 while publishes are refused because of the store.",
            u8::from(self.trouble.lock().is_some()),
        );
    }

    fn storage_status(&self) -> StorageStatus {
        self.trouble.lock().clone().map_or(StorageStatus::Ok, StorageStatus::Failing)
    }

    fn is_durable(&self) -> bool {
        self.durable
    }

    fn close(&self) {
        let (closed, wait) = ReplySender::new();
        self.flusher.post(StoreCommand::Close(closed));
        let _ = wait.take();
    }
}

fn stopped() -> WriteError {
    WriteError::Storage("the store has ended".into())
}

impl<T: Send + 'static> OpenedStore<T> {
    /// Starts the flusher. Returns the log, and the way to change it.
    ///
    /// # Errors
    /// When the operating system refuses a thread.
    pub fn start(self, logger: &Logger) -> io::Result<(Arc<Log<T>>, StoreWriter<T>)> {
        let OpenedStore { store, mut report, lock, .. } = self;
        let (log, metrics) = (Arc::clone(&store.log), Arc::clone(&store.metrics));
        let durable = store.journal.sync == SyncPolicy::Always;
        let queue = Mailbox::new(COMMIT_QUEUE);
        let trouble = FailureStatus::default();
        let mut flusher = Flusher {
            store,
            queue: queue.clone(),
            logger: logger.clone(),
            trouble: Arc::clone(&trouble),
            stuck: false,
            lock: Arc::new(lock),
        };
        flusher.start(report.found.chore.take());
        start("flusher", Box::new(move || flusher.run()))?;
        Ok((Arc::clone(&log), StoreWriter { flusher: queue, log, metrics, trouble, durable }))
    }
}

/// The thread.
struct Flusher<T> {
    store: Store<T>,
    queue: Mailbox<StoreCommand<T>>,
    logger: Logger,
    trouble: FailureStatus,
    /// No new segment could be begun; told once.
    stuck: bool,
    /// Given back when the thread ends, and whoever does a chore for it: another process must not
    /// find its files being changed.
    lock: Arc<DirectoryLock>,
}

impl<T> Drop for Flusher<T> {
    fn drop(&mut self) {
        // However it ends, nobody waits for it in vain.
        self.queue.close();
        *self.trouble.lock() = Some("the store has ended".into());
        while self.queue.try_take().is_some() {}
    }
}

impl<T: Send + 'static> Flusher<T> {
    fn run(mut self) {
        let mut wishes = VecDeque::new();
        loop {
            if wishes.is_empty() {
                wishes.extend(match self.store.journal.sync_due() {
                    Some(due) => self.queue.take_by(due),
                    None => self.queue.take(),
                });
            }
            // What came while the last commit was written goes with this one.
            while let Some(wish) = self.queue.try_take() {
                wishes.push_back(wish);
            }
            let mut failure = None;
            if !wishes.is_empty() {
                let round = self.store.round(&mut wishes, Instant::now());
                failure = round.failure;
                self.start(round.chore);
                if !round.closed.is_empty() {
                    self.note(failure.as_ref());
                    // Its lock first: who waits for the end may go on to open it again.
                    drop(self);
                    return;
                }
            }
            let (now, journal) = (Instant::now(), &mut self.store.journal);
            if journal.sync_due().is_some_and(|due| due <= now) {
                failure = failure.or(journal.sync(now, &self.store.metrics.store).err());
            }
            self.note(failure.as_ref());
        }
    }

    /// Says when trouble begins and when it is over, once each.
    fn note(&mut self, failure: Option<&StoreError>) {
        self.note_stuck(failure);
        let mut trouble = self.trouble.lock();
        match (failure, &*trouble) {
            (Some(failure), None) if self.store.journal.refused.is_some() => {
                let said = failure.to_string();
                *trouble = Some(said.clone());
                drop(trouble);
                self.logger.error(format_args!(
                    "the store takes nothing: {said}; what it has is served, publishes get 507"
                ));
            }
            (None, Some(_)) if self.store.journal.refused.is_none() => {
                let said = trouble.take().unwrap_or_default();
                drop(trouble);
                self.logger.error(format_args!(
                    "the store works again, after: {said}; what it had was read again and is whole"
                ));
            }
            _ => {}
        }
    }

    /// The same for a new segment that cannot be begun: then the old one grows on.
    fn note_stuck(&mut self, failure: Option<&StoreError>) {
        let stuck = self.store.journal.rotate_after.is_some();
        if let (Some(failure), true, false) = (failure, stuck, self.stuck) {
            self.logger.error(format_args!("no new segment can be begun: {failure}"));
        }
        self.stuck = stuck;
    }

    /// Has a chore done by a thread of its own.
    fn start(&mut self, chore: Option<CompactionJob>) {
        let Some(chore) = chore else { return };
        let disk = Arc::clone(&self.store.journal.disk);
        let (back, logger) = (self.queue.clone(), self.logger.clone());
        let lock = Arc::clone(&self.lock);
        let work = move || {
            let _locked = lock;
            let failed =
                |failure| logger.error(format_args!("a segment stays as it is: {failure}"));
            back.post(StoreCommand::Done(chore.run(&*disk, failed)));
        };
        if start("compact", Box::new(work)).is_err() {
            self.store.journal.done(Vec::new(), &self.store.metrics.store);
        }
    }
}
