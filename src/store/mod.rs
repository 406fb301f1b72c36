//! A log that survives: what `--data DIR` adds.
//!
//! # What it promises
//!
//! - With `--sync always` an event is acknowledged, and seen by any poll, only after the disk has
//!   said that it is safe. Whatever was seen is there again after a power cut, under the same seq
//!   and epoch, and so are keys, trims and what topics know of their trims.
//! - With any other `--sync` the same holds after an end in order; after any other end the log
//!   begins a new epoch, since seqs could otherwise repeat.
//! - A torn end is cut off and told. What was safe and is not as it was written is refused.
//!
//! # Who does what
//!
//! ```text
//!   publisher ──► queue ──► flusher: take in what waits ─► write ─► sync ─► change the log ─► answer
//!   publisher ◄──────────────────────────────────────────────────────────────────────────────┘
//!   └─► rings the bell and delivers, as without a store
//! ```
//!
//! One thread, the [flusher], owns the files and is the only one that changes the log. It takes in
//! all who wait, gives them their seqs, and writes them as one [commit]: one sync for all. Only
//! then it appends them to the log, so that no poll sees what a crash could undo. If the disk
//! refuses, nothing of the commit happened: those who wait are told (`507`), the [journal] cuts
//! its file back to what it can read again, and the next publish tries once more. Without a store,
//! publishers append to the log themselves and pay nothing for any of this.
//!
//! # On disk
//!
//! A directory of segments, `NNNN….log`, named for the first seq in each, and a [lock] file. A
//! segment is text: [header], then [lines](mod@line) of checksum, mark and JSON, which say where commits
//! end. The newest one begins with a snapshot of what the log knows beside its events, and goes
//! on with what happened since. So the older ones are needed only for the events that were kept
//! then: they can be deleted, or [rewritten](compact) without what is dead, in any order and at any
//! time after the newest was begun, which happens in a thread of its own.
//!
//! `TrimHistory` are not written down one by one: what `--retain-events` and `--retain-bytes` trim follows
//! from what was appended, and is [done again](replay) in the same order. Deletes, and what has
//! passed its age, are written.
//!
//! # A copy
//!
//! Of a directory in use, taken in the order of the names (`cp DIR/*.log COPY/`), is a valid store:
//! each older segment is at least as full as the newest one expects. It lacks the lock file, and so
//! begins a new epoch.
//!
//! Reading order: [disk], [mod@line], [record], [header], [scan], [lock], [segments], [compact],
//! [journal], [commit], [replay], [recovery], [flusher], [inspect], [repair].

pub mod commit;
pub mod compact;
pub mod storage;
pub mod error;
pub mod flusher;
pub mod header;
pub mod inspect;
pub mod journal;
pub mod lines;
pub mod lock;
pub mod record;
pub mod recovery;
pub mod repair;
pub mod replay;
pub mod scan;
pub mod segments;

use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

pub use flusher::StoreWriter;

use crate::config::SyncPolicy;
use crate::cursor::Cursor;
use crate::log::{Fingerprinter, Retention, Timestamp};
use crate::logger::Logger;
use crate::metrics::Metrics;
use commit::Store;
use error::StoreError;
use lock::DirectoryLock;
use recovery::{OpenReport, OpenSettings};
use storage::DiskDirectory;

/// A store that was opened.
pub struct OpenedStore<T> {
    pub store: Store<T>,
    pub report: StartupReport,
    pub fingerprints: Fingerprinter,
    lock: DirectoryLock,
}

/// What the opening of a store brought to light.
pub struct StartupReport {
    directory: String,
    found: OpenReport,
    events: u64,
    segments: usize,
    took: Duration,
}

/// Opens the store in a directory, or makes one. `outcome` makes the answer for repeats of what was
/// published in an earlier run.
///
/// # Errors
/// When it is in use, the disk fails, or it is damaged: the text names the place.
pub fn open<T>(
    directory: &Path,
    retention: Retention,
    sync: SyncPolicy,
    metrics: &Arc<Metrics>,
    outcome: impl Fn(Cursor, SystemTime, Option<u32>) -> T,
) -> io::Result<OpenedStore<T>> {
    let begun = Instant::now();
    let lock = lock_directory(directory)?;
    let settings = OpenSettings {
        retention: Some(retention),
        sync,
        identity: lock.identity.clone(),
        new_epoch: None,
    };
    let disk = Arc::new(DiskDirectory::new(directory));
    let opened = recovery::open(disk, &settings, metrics, outcome, Timestamp::read());
    let (store, found) = opened.map_err(|failure| in_words(directory, &failure))?;
    let took = begun.elapsed();
    metrics.store.recovery_micros.set(took.as_micros() as u64);
    if let Some((_, bytes)) = &found.torn {
        metrics.store.torn_bytes.set(*bytes);
    }
    let report = StartupReport {
        directory: directory.display().to_string(),
        found,
        events: store.log.totals().events,
        segments: store.journal.segments.0.len(),
        took,
    };
    let fingerprints = Fingerprinter(store.journal.begun.secret);
    Ok(OpenedStore { store, report, fingerprints, lock })
}

impl StartupReport {
    /// Tells whoever runs the server.
    pub fn tell(&self, logger: &Logger) {
        let StartupReport { directory, found, events, segments, took } = self;
        if let Some((damage, bytes)) = &found.torn {
            logger.info(format_args!(
                "{directory}/{damage}: the end was torn, and {bytes} bytes were cut off"
            ));
        }
        if let Some(why) = found.new_epoch {
            logger.info(format_args!("{directory}: a new epoch begins, because {why}"));
        }
        let ms = took.as_millis() as u64;
        logger.info(format_args!(
            "{directory}: {events} events are kept in {segments} segments, read in {ms} ms"
        ));
    }
}

/// Makes the directory if need be, and locks it.
fn lock_directory(directory: &Path) -> io::Result<DirectoryLock> {
    let about = |error: io::Error| {
        io::Error::new(error.kind(), format!("--data {}: {error}", directory.display()))
    };
    if !directory.is_dir() {
        std::fs::DirBuilder::new().mode(0o700).create(directory).map_err(about)?;
        let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = std::fs::File::open(parent.unwrap_or(Path::new(".")));
        parent.and_then(|parent| parent.sync_all()).map_err(about)?;
    }
    DirectoryLock::take(directory).map_err(about)
}

/// A failure as the person who runs the program is to read it.
fn in_words(directory: &Path, failure: &StoreError) -> io::Error {
    let directory = directory.display();
    io::Error::other(match failure {
        StoreError::Newer(why) => format!("{directory}/{why}"),
        StoreError::Io(..) | StoreError::Refused(_) => format!("--data {directory}: {failure}"),
        StoreError::Damaged(damage) => format!(
            "{directory}/{damage}; \"longpoll inspect {directory}\" shows more, and \
             \"longpoll repair {directory}\" keeps what is whole"
        ),
    })
}
