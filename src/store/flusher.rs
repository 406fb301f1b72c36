//! The flusher: the one thread that writes the store, and the queue that leads to it.
//!
//! One thread writes, so that a hundred publishers that wait at the same time cost one sync instead
//! of a hundred, and a thread that only reads the log never waits for the disk.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError, SendTimeoutError, Sender, bounded};

use super::commit::{Change, CommitResult, PendingPublish, ReplySender, Store};
use super::compact::CompactionJob;
use super::error::StoreError;
use super::lock::DirectoryLock;
use super::startup::OpenedStore;
use crate::config::SyncPolicy;
use crate::limits::{COMMIT_QUEUE, STORE_CLOSE_PAUSE, STORE_CLOSE_TIMEOUT, STORE_RETRY_INTERVAL};
use crate::log::{AppendRequest, Appended, Log, LogWriter, StorageStatus, Timestamp, WriteError};
use crate::logger::Logger;
use crate::metrics::{Metrics, MetricsText};
use crate::names::Name;
use crate::sync::Mutex;
use crate::threads::start;

/// A command for the flusher.
enum FlusherCommand<T> {
    Change(Change<T>),
    /// Trims events that are too old, and does the work that is due without a publish.
    Maintain,
    /// Shuts the store down cleanly. Has no reply: the sender is dropped when that is done.
    Close(ReplySender<()>),
}

/// Changes the log of a store: each change goes through the flusher, and returns after its commit.
pub struct StoreWriter<T> {
    queue: Sender<FlusherCommand<T>>,
    log: Arc<Log<T>>,
    metrics: Arc<Metrics>,
    failure: FailureStatus,
    durable: bool,
}

/// The first error of a failing disk; `None` while it works. The lock is held for moments, and no
/// other lock is taken while it is held.
type FailureStatus = Arc<Mutex<Option<String>>>;

impl<T: Send> StoreWriter<T> {
    /// Queues a change and waits for the reply. If the flusher ends, it drops the queue and with
    /// it the reply's sender, so this returns.
    fn call<A>(
        &self,
        change: impl FnOnce(ReplySender<Result<A, WriteError>>) -> Change<T>,
    ) -> Result<A, WriteError> {
        let (sender, reply) = ReplySender::new();
        let _ = self.queue.send(FlusherCommand::Change(change(sender)));
        reply.recv().unwrap_or_else(|_| Err(WriteError::Storage(SHUT_DOWN.into())))
    }
}

const SHUT_DOWN: &str = "the store has shut down";

impl<T: Send> LogWriter<T> for StoreWriter<T> {
    fn append(
        &self,
        request: AppendRequest<'_, T>,
        now: Timestamp,
    ) -> Result<Appended<T>, WriteError> {
        let AppendRequest { topic, events, key, count } = request;
        let (topic, key) = (topic.clone(), key.cloned());
        self.call(|reply| Change::Publish(PendingPublish { topic, events, key, count, now, reply }))
    }

    fn trim(&self, topic: &Name) -> Result<(), WriteError> {
        self.call(|reply| Change::Trim(topic.clone(), reply))
    }

    fn expire(&self, now: Instant) {
        // Expires keys only: this log has no maximum age, since a trim has to be written first.
        self.log.expire(now);
        // Never waits for a slow disk; if the queue is full, the next call is as good.
        let _ = self.queue.try_send(FlusherCommand::Maintain);
    }

    fn render(&self, page: &mut MetricsText) {
        self.metrics.store.render(page);
        page.gauge(
            "store_failing",
            "1 while publishes are refused because of the store.",
            u8::from(self.failure.lock().is_some()),
        );
    }

    fn storage_status(&self) -> StorageStatus {
        self.failure.lock().clone().map_or(StorageStatus::Ok, StorageStatus::Failing)
    }

    fn is_durable(&self) -> bool {
        self.durable
    }

    fn close(&self) -> Result<(), String> {
        let deadline = Instant::now() + STORE_CLOSE_TIMEOUT;
        let (sender, closed) = ReplySender::new();
        let queued = self.queue.send_deadline(FlusherCommand::Close(sender), deadline);
        if matches!(queued, Err(SendTimeoutError::Timeout(_)))
            || closed.recv_deadline(deadline) == Err(RecvTimeoutError::Timeout)
        {
            let seconds = STORE_CLOSE_TIMEOUT.as_secs();
            return Err(format!("the disk did not answer within {seconds} s"));
        }
        Ok(())
    }
}

impl<T: Send + 'static> OpenedStore<T> {
    /// Starts the flusher. Returns the log, and the writer that changes it.
    ///
    /// # Errors
    /// When the operating system refuses a thread.
    pub fn start(self, logger: &Logger) -> io::Result<(Arc<Log<T>>, StoreWriter<T>)> {
        let OpenedStore { store, mut report, lock, .. } = self;
        let (log, metrics) = (Arc::clone(&store.log), Arc::clone(&store.metrics));
        let durable = store.journal.sync_policy == SyncPolicy::Always;
        let (queue, commands) = bounded(COMMIT_QUEUE);
        let failure = FailureStatus::default();
        let mut flusher = Flusher {
            store,
            commands,
            logger: logger.clone(),
            failure: Arc::clone(&failure),
            rotation_failed: false,
            lock: Arc::new(lock),
        };
        flusher.start_compaction(report.compaction.take());
        start("flusher", Box::new(move || flusher.run()))?;
        Ok((Arc::clone(&log), StoreWriter { queue, log, metrics, failure, durable }))
    }
}

/// The state of the flusher thread.
struct Flusher<T> {
    store: Store<T>,
    commands: Receiver<FlusherCommand<T>>,
    logger: Logger,
    failure: FailureStatus,
    /// A rotation failed, and this was logged.
    rotation_failed: bool,
    /// Shared with compaction threads: no other process may open the directory while one of them
    /// still changes its files.
    lock: Arc<DirectoryLock>,
}

impl<T> Drop for Flusher<T> {
    fn drop(&mut self) {
        // Also after a panic. Dropping `commands` then drops all queued commands and their reply
        // senders, so no caller waits forever.
        *self.failure.lock() = Some(SHUT_DOWN.into());
    }
}

impl<T: Send + 'static> Flusher<T> {
    fn run(mut self) {
        let mut queue = VecDeque::new();
        loop {
            let mut first = None;
            if queue.is_empty() {
                first = match self.store.journal.sync_due() {
                    Some(due) => self.commands.recv_deadline(due).ok(),
                    None => self.commands.recv().ok(),
                };
            }
            let mut maintain = false;
            // Group commit: changes that arrived during the last commit share the next one.
            for command in first.into_iter().chain(self.commands.try_iter()) {
                match command {
                    FlusherCommand::Change(change) => queue.push_back(change),
                    FlusherCommand::Maintain => maintain = true,
                    // Not behind the queue: the server has already waited for its requests.
                    FlusherCommand::Close(closed) => return self.close(closed),
                }
            }
            let mut error = None;
            if maintain || !queue.is_empty() {
                error = self.finish(|store| store.group_commit(&mut queue, Instant::now()));
            }
            if maintain {
                error = error.or(self.finish(|store| store.maintain(Instant::now())));
            }
            let (now, journal) = (Instant::now(), &mut self.store.journal);
            if journal.sync_due().is_some_and(|due| due <= now) {
                error = error.or(journal.sync(now, &self.store.metrics.store).err());
            }
            self.log_failure(error.as_ref());
        }
    }

    /// Calls `work`, and starts the compaction that it returns.
    fn finish(&mut self, work: impl FnOnce(&mut Store<T>) -> CommitResult) -> Option<StoreError> {
        let CommitResult { error, compaction } = work(&mut self.store);
        self.start_compaction(compaction);
        error
    }

    /// Closes the store. The changes that are still queued are refused. A failing disk is tried again
    /// for [`STORE_RETRY_INTERVAL`]: otherwise a refused commit could reappear at the next start.
    fn close(mut self, closed: ReplySender<()>) {
        let deadline = Instant::now() + STORE_RETRY_INTERVAL;
        let Store { journal, metrics, .. } = &mut self.store;
        while let Err(error) = journal.close(Instant::now(), &metrics.store) {
            if Instant::now() >= deadline {
                self.logger.error(format_args!("cannot close the store in order: {error}"));
                break;
            }
            std::thread::sleep(STORE_CLOSE_PAUSE);
        }
        // Releases the lock, which a running compaction keeps, before the caller of `close` is woken.
        drop(self);
        drop(closed);
    }

    /// Logs when the disk starts to fail and when it works again, once each.
    fn log_failure(&mut self, error: Option<&StoreError>) {
        self.log_rotation_failure(error);
        let mut failure = self.failure.lock();
        match (error, &*failure) {
            (Some(error), None) if self.store.failure().is_some() => {
                let text = error.to_string();
                *failure = Some(text.clone());
                drop(failure);
                self.logger.error(format_args!(
                    "store failed: {text}; reads continue, publishes get 507 until this is over"
                ));
            }
            (None, Some(_)) if self.store.failure().is_none() => {
                let text = failure.take().unwrap_or_default();
                drop(failure);
                self.logger.error(format_args!("store works again after: {text}"));
            }
            _ => {}
        }
    }

    /// Logs once that no new segment can be begun. The active segment keeps growing meanwhile.
    fn log_rotation_failure(&mut self, error: Option<&StoreError>) {
        let failed = self.store.journal.rotate_after.is_some();
        // A failure that also refuses publishes is logged as such.
        let failed = failed && self.store.failure().is_none();
        if let (Some(error), true, false) = (error, failed, self.rotation_failed) {
            self.logger.error(format_args!("cannot begin a new segment: {error}"));
        }
        self.rotation_failed = failed;
    }

    /// Runs a compaction job in a thread of its own.
    fn start_compaction(&mut self, job: Option<CompactionJob>) {
        let Some(job) = job else { return };
        let storage = Arc::clone(&self.store.journal.storage);
        let (logger, lock) = (self.logger.clone(), Arc::clone(&self.lock));
        let work = move || {
            let _lock = lock;
            job.run(&*storage, |error| logger.error(format_args!("compaction failed: {error}")));
        };
        // Without a thread the job is dropped, and the next rotation begins another one.
        if let Err(error) = start("compact", Box::new(work)) {
            self.logger.error(format_args!("cannot start a thread for compaction: {error}"));
        }
    }
}
