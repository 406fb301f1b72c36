//! The files of an open store: appending commits, syncing, and recovering from failed writes.
//!
//! After a failure only what can be read back is trusted: a failed write may have left a part, and
//! after a failed sync the kernel may have dropped pages that it still shows in memory. So the
//! journal drops the page cache, reads the active segment again, truncates it to the last
//! acknowledged commit, and tries the next commit only after a pause. (A torn tail that a crash has
//! left is truncated at the next start, in `recovery.rs`.)

use std::sync::Arc;
use std::time::Instant;

use super::active_segment::ActiveSegment;
use super::compact::RunningCompaction;
use super::error::{IoContext, StoreError};
use super::header::{FullHeader, file_name};
use super::lines::CommitBuffer;
use super::lock::{LOCK_FILE, SyncedMark};
use super::record::write_word;
use super::scan::{CommitReader, NextCommit};
use super::segments::SegmentList;
use super::storage::{Storage, StorageFile};
use crate::config::SyncPolicy;
use crate::limits::STORE_RETRY_INTERVAL;
use crate::metrics::StoreMetrics;

/// The files of an open store.
pub struct Journal {
    pub storage: Arc<dyn Storage>,
    pub sync_policy: SyncPolicy,
    /// Bytes of commits after which a new segment begins.
    pub segment_bytes: u64,
    pub segments: SegmentList,
    /// The header of the active segment.
    pub header: FullHeader,
    pub active: ActiveSegment,
    /// The lock file, which holds the synced mark.
    pub lock_file: Box<dyn StorageFile>,
    /// When the oldest commit that is not synced was written.
    pub unsynced_since: Option<Instant>,
    /// Set while the disk fails.
    pub failing: Option<Failing>,
    /// The compaction job that is running.
    pub(super) compaction: Option<RunningCompaction>,
    /// Set while publishes are refused because the disk is nearly full: see [`super::space`].
    pub low_space: Option<Failing>,
    /// Set after a failed rotation: no new segment begins before this.
    pub rotate_after: Option<Instant>,
}

/// The last failure of the disk. Commits are refused without touching it until `retry_at`.
pub struct Failing {
    pub retry_at: Instant,
    pub error: String,
    /// Bytes of the commit that failed. As many have to fit before the disk is trusted again,
    /// otherwise a full disk would look healthy.
    pub bytes: u64,
}

impl Journal {
    pub fn new(
        storage: Arc<dyn Storage>,
        sync_policy: SyncPolicy,
        active: ActiveSegment,
        segments: SegmentList,
        header: FullHeader,
        lock_file: Box<dyn StorageFile>,
    ) -> Journal {
        use crate::limits::{SEGMENT_BYTES, SEGMENT_SHARE};
        let segment_bytes = header.retain_bytes / SEGMENT_SHARE;
        Journal {
            storage,
            sync_policy,
            segment_bytes: segment_bytes.clamp(*SEGMENT_BYTES.start(), *SEGMENT_BYTES.end()),
            segments,
            header,
            active,
            lock_file,
            unsynced_since: None,
            failing: None,
            compaction: None,
            low_space: None,
            rotate_after: None,
        }
    }

    /// Writes a commit, and syncs it if `--sync always` says so.
    ///
    /// # Errors
    /// When the disk fails. No poll sees the events then, and what was written of them is truncated
    /// at once. Only if that fails too, a crash before the next [`Journal::recover`] may leave a
    /// commit that was refused.
    pub fn commit(
        &mut self,
        commit: CommitBuffer,
        now: Instant,
        metrics: &StoreMetrics,
    ) -> Result<(), StoreError> {
        self.recover(now, metrics)?;
        let active = &self.active;
        let bytes = commit.finish(active.synced == active.end);
        let end = active.end + bytes.len() as u64;
        let name = file_name(self.header.next);
        let mut written = active.file.write_at(&bytes, active.end).context("write to", &name);
        if written.is_ok() && self.sync_policy == SyncPolicy::Always {
            written = self.sync_active(metrics);
        }
        if let Err(error) = written {
            // Truncate now: the process may end before the next attempt, which does this again.
            let _ = self.active.file.truncate(self.active.end);
            return Err(self.fail(error, bytes.len() as u64, now, metrics));
        }
        let active = &mut self.active;
        let start = std::mem::replace(&mut active.end, end);
        if self.sync_policy == SyncPolicy::Always {
            active.synced = end;
            self.write_mark(start);
        } else {
            self.unsynced_since = self.unsynced_since.or(Some(now));
        }
        metrics.commits.add(1);
        self.update_metrics(metrics);
        Ok(())
    }

    /// Syncs all commits.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn sync(&mut self, now: Instant, metrics: &StoreMetrics) -> Result<(), StoreError> {
        self.recover(now, metrics)?;
        let start = self.active.synced;
        if start < self.active.end {
            if let Err(error) = self.sync_active(metrics) {
                return Err(self.fail(error, 0, now, metrics));
            }
            self.active.synced = self.active.end;
            self.write_mark(start);
        }
        self.unsynced_since = None;
        Ok(())
    }

    /// When [`Journal::sync`] is due, with a `--sync` interval.
    pub fn sync_due(&self) -> Option<Instant> {
        let SyncPolicy::Every(interval) = self.sync_policy else { return None };
        let due = self.unsynced_since? + interval;
        Some(self.failing.as_ref().map_or(due, |failing| due.max(failing.retry_at)))
    }

    /// Records a clean shutdown. After a failure the disk is tried again at once.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn close(&mut self, now: Instant, metrics: &StoreMetrics) -> Result<(), StoreError> {
        if let Some(failing) = &mut self.failing {
            failing.retry_at = now;
        }
        self.sync(now, metrics)?;
        let mut commit = CommitBuffer::default();
        commit.push(|out| write_word(out, "closed"));
        self.commit(commit, now, metrics)?;
        self.sync(now, metrics)
    }

    /// Writes to the lock file that everything is synced; `start` is where the last commit begins.
    pub fn write_mark(&self, start: u64) {
        let mark = SyncedMark { segment: self.header.number, start, end: self.active.synced };
        // The mark only helps to detect damage. A failing disk shows in the next commit.
        let _ = mark.write(&*self.lock_file);
    }

    /// Syncs the active segment. Its name is checked after the sync and before any publish in it is
    /// acknowledged, because a restart finds the segment by its name.
    fn sync_active(&self, metrics: &StoreMetrics) -> Result<(), StoreError> {
        let started = Instant::now();
        let synced = self.active.file.sync();
        metrics.fsync.observe(started.elapsed());
        synced.context("sync", &file_name(self.header.next))?;
        self.check_name()
    }

    /// Checks that the active segment's name still leads to the open file: it does not if the
    /// directory or the file was removed or replaced.
    ///
    /// # Errors
    /// When it does not, or the name cannot be looked up.
    pub fn check_name(&self) -> Result<(), StoreError> {
        self.check_named(&file_name(self.header.next), &*self.active.file)
    }

    fn check_named(&self, name: &str, file: &dyn StorageFile) -> Result<(), StoreError> {
        let named = self.storage.file_id(name).context("look at", name)?;
        if named == file.id().context("look at", name)? {
            return Ok(());
        }
        Err(StoreError::Io(format!("{name} was replaced by another file while it was open")))
    }

    /// Checks the names of the active segment and of the lock file.
    ///
    /// # Errors
    /// When one of the files was removed or replaced. Commits are refused then.
    pub fn check_identity(
        &mut self,
        now: Instant,
        metrics: &StoreMetrics,
    ) -> Result<(), StoreError> {
        let checked = self.check_name();
        let checked = checked.and_then(|()| self.check_named(LOCK_FILE, &*self.lock_file));
        checked.map_err(|error| self.fail(error, 0, now, metrics))
    }

    pub(super) fn fail(
        &mut self,
        error: StoreError,
        bytes: u64,
        now: Instant,
        metrics: &StoreMetrics,
    ) -> StoreError {
        metrics.failures.add(1);
        let text = error.to_string();
        self.failing = Some(Failing { retry_at: now + STORE_RETRY_INTERVAL, error: text, bytes });
        error
    }

    /// Verifies and truncates the active segment after a failure; does nothing without one.
    ///
    /// # Errors
    /// When the disk still fails, or the retry is not due yet.
    pub fn recover(&mut self, now: Instant, metrics: &StoreMetrics) -> Result<(), StoreError> {
        let Some(Failing { retry_at, error, bytes }) = &self.failing else { return Ok(()) };
        if now < *retry_at {
            return Err(StoreError::Io(error.clone()));
        }
        let bytes = *bytes;
        if let Err(error) = self.verify_active(bytes) {
            return Err(self.fail(error, bytes, now, metrics));
        }
        self.active.synced = self.active.end;
        self.unsynced_since = None;
        self.failing = None;
        Ok(())
    }

    /// Reads the active segment up to its last acknowledged commit, checks that `bytes` more fit,
    /// and truncates and syncs it.
    fn verify_active(&self, bytes: u64) -> Result<(), StoreError> {
        let (name, active) = (file_name(self.header.next), &self.active);
        active.file.drop_cache();
        let mut commits = CommitReader::open(&name, &*active.file)?;
        while commits.end < active.end {
            match commits.next_commit()? {
                NextCommit::Commit(_) => {}
                NextCommit::Torn(damage) => return Err(damage),
                NextCommit::End => {
                    return Err(commits.damage(commits.end, "acknowledged commits are missing"));
                }
            }
        }
        active.file.write_at(&vec![0; bytes as usize], active.end).context("write to", &name)?;
        active.file.truncate(active.end).context("truncate", &name)?;
        active.file.sync().context("sync", &name)?;
        self.sync_directory()?;
        self.check_name()
    }

    pub(super) fn sync_directory(&self) -> Result<(), StoreError> {
        self.storage.sync_directory().context("sync", "the directory")
    }

    /// Sets the metrics of the store's size.
    pub fn update_metrics(&mut self, metrics: &StoreMetrics) {
        let end = self.active.end;
        if let Some(active) = self.segments.active() {
            active.bytes = end;
        }
        metrics.bytes.set(self.segments.bytes());
        metrics.segments.set(self.segments.0.len() as u64);
    }
}
