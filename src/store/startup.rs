//! Opening the store of `--data`: locks the directory, recovers the store, and logs what was found.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::commit::Store;
use super::lock::DirectoryLock;
use super::recovery::{self, OpenReport, OpenSettings};
use super::storage::DiskDirectory;
use crate::config::SyncPolicy;
use crate::cursor::Cursor;
use crate::log::{Fingerprinter, Retention, Timestamp};
use crate::logger::Logger;
use crate::metrics::Metrics;

/// An open store, before its flusher starts.
pub struct OpenedStore<T> {
    pub store: Store<T>,
    pub report: OpenReport,
    pub lock: DirectoryLock,
    directory: PathBuf,
    took: Duration,
}

/// Opens the store in a directory; creates directory and store if needed. `outcome` makes the
/// response for a repeat of a publish of an earlier run: see [`recovery::open`].
///
/// # Errors
/// When another process uses the directory, the disk fails, or the store is damaged. The text names
/// the directory, the file and, for damage, the byte offset.
pub fn open<T>(
    directory: &Path,
    retention: Retention,
    sync_policy: SyncPolicy,
    metrics: &Arc<Metrics>,
    outcome: impl Fn(Cursor, SystemTime, Option<u32>) -> T,
) -> io::Result<OpenedStore<T>> {
    let started = Instant::now();
    let lock = DirectoryLock::acquire(directory).map_err(|error| error.in_directory(directory))?;
    let settings = OpenSettings {
        retention: Some(retention),
        sync_policy,
        identity: lock.identity.clone(),
        new_epoch: None,
    };
    let storage = Arc::new(DiskDirectory::new(directory));
    let opened = recovery::open(storage, &settings, metrics, outcome, Timestamp::read());
    let (store, report) = opened.map_err(|error| error.in_directory(directory))?;
    let took = started.elapsed();
    metrics.store.recovery_micros.set(took.as_micros() as u64);
    if let Some((_, bytes)) = &report.torn {
        metrics.store.torn_bytes.set(*bytes);
    }
    Ok(OpenedStore { store, report, lock, directory: directory.to_owned(), took })
}

impl<T> OpenedStore<T> {
    /// The fingerprints of idempotency keys, made with the store's secret.
    pub fn fingerprints(&self) -> Fingerprinter {
        Fingerprinter(self.store.journal.header.secret)
    }

    /// Logs what opening the store found and did.
    pub fn log_report(&self, logger: &Logger) {
        let directory = self.directory.display();
        if let Some((damage, bytes)) = &self.report.torn {
            logger.info(format_args!(
                "{directory}/{damage}; the end was torn, truncated {bytes} bytes"
            ));
        }
        if let Some(why) = self.report.new_epoch {
            logger.info(format_args!("{directory}: began a new epoch, because {why}"));
        }
        if let Some(step) = self.report.distrusted_step {
            let seconds = step.as_secs();
            logger.warning(format_args!(
                "{directory}: by the clock, the newest event is {seconds} s old, more than \
                 --retain-age; the clock may be wrong, so the event counts as new"
            ));
        }
        let (events, segments) =
            (self.store.log.totals().events, self.store.journal.segments.0.len());
        let ms = self.took.as_millis() as u64;
        logger.info(format_args!(
            "{directory}: {events} events in {segments} segments, read in {ms} ms"
        ));
    }
}
