//! The files of an open store: appending commits, syncing, rotating segments, and recovering from
//! failed writes.
//!
//! After a failure only what can be read back is trusted: a failed write may have left a part, and
//! after a failed sync the kernel may have dropped pages that it still shows in memory. So the
//! journal drops the page cache, reads the active segment again, truncates it to the last
//! acknowledged commit, and tries the next commit only after a pause. (A torn tail that a crash has
//! left is truncated at the next start, in `recovery.rs`.)

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::compact::{CompactedRun, CompactionJob, LiveSet};
use super::error::{IoContext, StoreError};
use super::header::{FullHeader, encode, file_name, temporary_name};
use super::lines::CommitBuffer;
use super::lock::SyncedMark;
use super::record::write_word;
use super::scan::{CommitReader, NextCommit};
use super::segments::{Segment, SegmentList};
use super::storage::{Storage, StorageFile};
use crate::config::SyncPolicy;
use crate::limits::STORE_RETRY_INTERVAL;
use crate::log::{Log, LogSnapshot};
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
    /// A compaction job is running.
    pub compacting: bool,
    /// Set after a failed rotation: no new segment begins before this.
    pub rotate_after: Option<Instant>,
}

/// The last failure of the disk. Commits are refused without touching it until `retry_at`.
pub struct Failing {
    pub retry_at: Instant,
    error: String,
    /// Bytes of the commit that failed. As many have to fit before the disk is trusted again,
    /// otherwise a full disk would look healthy.
    bytes: usize,
}

/// The segment that is appended to.
pub struct ActiveSegment {
    pub file: Box<dyn StorageFile>,
    /// Byte offset after the snapshot.
    pub start: u64,
    /// Byte offset after the last acknowledged commit.
    pub end: u64,
    /// Byte offset up to which the disk has confirmed a sync.
    pub synced: u64,
}

impl ActiveSegment {
    /// Creates a segment. Its file gets its name when it is complete and synced. The caller syncs
    /// the directory before it relies on anything in the segment.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn create(
        storage: &dyn Storage,
        header: &FullHeader,
        snapshot: &LogSnapshot,
    ) -> Result<ActiveSegment, StoreError> {
        let name = file_name(header.next);
        let temporary = temporary_name(&name);
        let bytes = encode(header, snapshot);
        let file = storage.create(&temporary).context("create", &temporary)?;
        let written = file.write_at(&bytes, 0).context("write", &temporary);
        let synced = written.and_then(|()| file.sync().context("sync", &temporary));
        let renamed =
            synced.and_then(|()| storage.rename(&temporary, &name).context("rename", &temporary));
        if let Err(error) = renamed {
            // The file may be what fills the disk. If it cannot be removed, the next start tries.
            let _ = storage.remove(&temporary);
            return Err(error);
        }
        let end = bytes.len() as u64;
        Ok(ActiveSegment { file, start: end, end, synced: end })
    }
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
        Journal {
            storage,
            sync_policy,
            segment_bytes: segment_bytes(header.retain_bytes),
            segments,
            header,
            active,
            lock_file,
            unsynced_since: None,
            failing: None,
            compacting: false,
            rotate_after: None,
        }
    }

    /// Writes a commit, and syncs it if `--sync always` says so.
    ///
    /// # Errors
    /// When the disk fails. No poll sees the events then, and the next [`Journal::recover`] removes
    /// them. A crash before that may leave a commit that was written but not synced.
    pub fn commit(
        &mut self,
        commit: CommitBuffer,
        now: Instant,
        metrics: &StoreMetrics,
    ) -> Result<(), StoreError> {
        self.recover(now, metrics)?;
        let active = &mut self.active;
        let bytes = commit.finish(active.synced == active.end);
        let end = active.end + bytes.len() as u64;
        let name = file_name(self.header.next);
        let mut written = active.file.write_at(&bytes, active.end).context("write to", &name);
        if written.is_ok() && self.sync_policy == SyncPolicy::Always {
            written = timed_sync(&*active.file, metrics).context("sync", &name);
        }
        if let Err(error) = written {
            return Err(self.fail(error, bytes.len(), now, metrics));
        }
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
            let name = file_name(self.header.next);
            if let Err(error) = timed_sync(&*self.active.file, metrics).context("sync", &name) {
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

    /// Records a clean shutdown.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn close(&mut self, now: Instant, metrics: &StoreMetrics) -> Result<(), StoreError> {
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

    fn fail(
        &mut self,
        error: StoreError,
        bytes: usize,
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
    fn verify_active(&self, bytes: usize) -> Result<(), StoreError> {
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
        active.file.write_at(&vec![0; bytes], active.end).context("write to", &name)?;
        active.file.truncate(active.end).context("truncate", &name)?;
        active.file.sync().context("sync", &name)?;
        self.sync_directory()
    }

    fn sync_directory(&self) -> Result<(), StoreError> {
        self.storage.sync_directory().context("sync", "the directory")
    }

    /// The active segment is full, and a new one may begin.
    pub fn is_full(&self, now: Instant) -> bool {
        let has_events = self.segments.0.last().is_some_and(Segment::has_events);
        has_events
            && self.active.end - self.active.start >= self.segment_bytes
            && self.rotate_after.is_none_or(|after| after <= now)
    }

    /// Nothing in the whole store is live, so that a new segment can replace all others.
    pub fn is_dead(&self, now: Instant) -> bool {
        let segments = &self.segments;
        !self.compacting
            && segments.0.last().is_some_and(Segment::has_events)
            && segments.dead_prefix(now) == segments.0.len()
    }

    /// Begins a new segment, and returns what can be removed and compacted now, unless a job is
    /// still running.
    ///
    /// # Errors
    /// When the disk fails. The active segment then stays active.
    pub fn rotate<T>(
        &mut self,
        log: &Log<T>,
        now: Instant,
        metrics: &StoreMetrics,
    ) -> Result<Option<CompactionJob>, StoreError> {
        self.rotate_after = Some(now + STORE_RETRY_INTERVAL);
        self.sync(now, metrics)?;
        let snapshot = log.snapshot();
        let mut kept = SegmentList(self.segments.0.clone());
        // An active segment without events has the new segment's name, and is replaced by it.
        if !kept.0.last().is_some_and(Segment::has_events) {
            kept.0.pop();
        }
        // A running job may still replace segments of the list.
        let dead = if self.compacting { 0 } else { kept.dead_prefix(now) };
        let kept = kept.0.split_off(dead);
        let next = snapshot.head.next();
        let header = FullHeader {
            next,
            oldest_segment: kept.first().map_or(next, |segment| segment.first),
            number: self.header.number + 1,
            trims: snapshot.trims,
            forgotten: snapshot.forgotten,
            ..self.header.clone()
        };
        let active = ActiveSegment::create(&*self.storage, &header, &snapshot);
        self.active = active.inspect_err(|_| metrics.failures.add(1))?;
        self.header = header;
        self.rotate_after = None;
        self.segments.0 = kept;
        self.segments.0.push(Segment::new(next));
        self.update_metrics(metrics);
        if let Err(error) = self.sync_directory() {
            // Until the new name is durable, nothing is written to the segment and no file removed.
            return Err(self.fail(error, 0, now, metrics));
        }
        self.write_mark(self.active.start);
        if self.compacting {
            return Ok(None);
        }
        self.compacting = true;
        Ok(Some(self.compaction_job(&snapshot, now)))
    }

    fn compaction_job(&self, snapshot: &LogSnapshot, now: Instant) -> CompactionJob {
        let segments = &self.segments;
        let runs = segments.compaction_runs(self.segment_bytes, self.header.retain_bytes, now);
        let run = |run: Range<usize>| {
            let through = segments.0[run.end].first.previous();
            (segments.0[run].iter().map(|segment| segment.first).collect(), through)
        };
        CompactionJob {
            needed: segments.0.iter().map(|segment| segment.first).collect(),
            runs: runs.into_iter().map(run).collect(),
            live: LiveSet::new(snapshot, SystemTime::now()),
        }
    }

    /// Ends a compaction job: its segments replace their sources.
    pub fn finish_compaction(&mut self, runs: Vec<CompactedRun>, metrics: &StoreMetrics) {
        for CompactedRun { sources, segment } in runs {
            metrics.segments_rewritten.add(sources.len() as u64);
            self.segments.replace(sources.len(), segment);
        }
        self.compacting = false;
        self.update_metrics(metrics);
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

fn timed_sync(file: &dyn StorageFile, metrics: &StoreMetrics) -> io::Result<()> {
    let started = Instant::now();
    let synced = file.sync();
    metrics.fsync.observe(started.elapsed());
    synced
}

/// Bytes of commits after which a new segment begins, for this `--retain-bytes`.
#[must_use]
pub fn segment_bytes(retain_bytes: u64) -> u64 {
    use crate::limits::{SEGMENT_BYTES, SEGMENT_SHARE};
    (retain_bytes / SEGMENT_SHARE).clamp(*SEGMENT_BYTES.start(), *SEGMENT_BYTES.end())
}
