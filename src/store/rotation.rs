//! Rotation: when a new segment begins, and what can be removed and compacted then.
//!
//! The snapshot of a new segment makes everything before it needless except live events and keys.
//! So each rotation begins a compaction job, unless one is still running. While a job runs, one
//! more segment may be filled; the next rotation waits for the job. The directory stays within the
//! bound that FORMAT.md states, however fast clients publish.

use std::ops::Range;
use std::time::Instant;

use crossbeam_channel::{TryRecvError, bounded};

use super::active_segment::ActiveSegment;
use super::compact::{CompactedRun, CompactionJob, LiveSet, RunningCompaction};
use super::error::{IoContext as _, StoreError};
use super::header::FullHeader;
use super::journal::Journal;
use super::lock::LOCK_FILE;
use super::segments::{Segment, SegmentList};
use crate::cursor::Seq;
use crate::limits::STORE_RETRY_INTERVAL;
use crate::log::{Log, LogSnapshot};
use crate::metrics::StoreMetrics;

impl Journal {
    /// Bytes of commits after which the active segment is full: at least as many as its snapshot
    /// has, so that snapshots take no more than half of what is written.
    pub fn full_segment_bytes(&self) -> u64 {
        self.segment_bytes.max(self.active.start)
    }

    /// The active segment is full, and a new one may begin.
    pub fn is_full(&self, now: Instant) -> bool {
        let has_events = self.segments.0.last().is_some_and(Segment::has_events);
        has_events
            && self.active.end - self.active.start >= self.full_segment_bytes()
            && self.rotate_after.is_none_or(|after| after <= now)
    }

    /// Nothing in the whole store is live, so that a new segment can replace all others.
    pub fn is_dead(&self, oldest_key: Option<Seq>) -> bool {
        let segments = &self.segments;
        self.compaction.is_none()
            && segments.0.last().is_some_and(Segment::has_events)
            && segments.dead_prefix(oldest_key) == segments.0.len()
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
        self.rotate_to(&log.snapshot(), log.oldest_key(), now, metrics)
    }

    /// Begins a new segment with this snapshot of the log.
    ///
    /// # Errors
    /// When the disk fails. The active segment then stays active.
    pub(super) fn rotate_to(
        &mut self,
        snapshot: &LogSnapshot,
        oldest_key: Option<Seq>,
        now: Instant,
        metrics: &StoreMetrics,
    ) -> Result<Option<CompactionJob>, StoreError> {
        self.rotate_after = Some(now + STORE_RETRY_INTERVAL);
        self.sync(now, metrics)?;
        self.check_identity(now, metrics)?;
        self.collect_compaction(metrics);
        let newest = self.segments.0.last().map(|segment| segment.first);
        if self.compaction.as_ref().is_some_and(|running| Some(running.active) != newest) {
            self.wait_for_compaction(metrics);
        }
        let mut kept = SegmentList(self.segments.0.clone());
        // An active segment without events has the new segment's name, and is replaced by it.
        if !kept.0.last().is_some_and(Segment::has_events) {
            kept.0.pop();
        }
        // A running job may still replace segments of the list.
        let dead = if self.compaction.is_some() { 0 } else { kept.dead_prefix(oldest_key) };
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
        let active = ActiveSegment::create(&*self.storage, &header, snapshot);
        self.active = active.inspect_err(|_| metrics.failures.add(1))?;
        self.header = header;
        self.rotate_after = None;
        self.segments.0 = kept;
        let mut segment = Segment::new(next);
        segment.snapshot_bytes = self.active.start;
        self.segments.0.push(segment);
        self.update_metrics(metrics);
        if let Err(error) = self.sync_directory() {
            // Until the new name is durable, nothing is written to the segment and no file removed.
            return Err(self.fail(error, 0, now, metrics));
        }
        self.write_mark(self.active.start);
        let idle = self.compaction.is_none();
        idle.then(|| self.begin_compaction(snapshot, oldest_key)).transpose()
    }

    /// What a compaction job has to do if it begins with the active segment, which has no commits
    /// yet.
    ///
    /// # Errors
    /// When the lock file cannot be examined.
    pub(super) fn begin_compaction(
        &mut self,
        snapshot: &LogSnapshot,
        oldest_key: Option<Seq>,
    ) -> Result<CompactionJob, StoreError> {
        let lock_file = self.lock_file.id().context("look at", LOCK_FILE)?;
        let segments = &self.segments;
        let (max_bytes, retain_bytes) = (self.full_segment_bytes(), self.header.retain_bytes);
        let runs = segments.compaction_runs(max_bytes, retain_bytes, oldest_key);
        let run = |run: Range<usize>| {
            let through = segments.0[run.end].first.previous();
            (segments.0[run].iter().map(|segment| segment.first).collect(), through)
        };
        let runs: Vec<_> = runs.into_iter().map(run).collect();
        let (sender, compacted) = bounded(runs.len());
        self.compaction = Some(RunningCompaction { compacted, active: self.header.next });
        Ok(CompactionJob {
            lock_file,
            needed: segments.0.iter().map(|segment| segment.first).collect(),
            runs,
            live: LiveSet::new(snapshot, oldest_key),
            compacted: sender,
        })
    }

    /// Takes over what the running compaction job has done so far.
    pub fn collect_compaction(&mut self, metrics: &StoreMetrics) {
        let Some(running) = self.compaction.take() else { return };
        loop {
            match running.compacted.try_recv() {
                Ok(run) => self.replace(run, metrics),
                Err(TryRecvError::Empty) => break self.compaction = Some(running),
                Err(TryRecvError::Disconnected) => break,
            }
        }
    }

    /// Waits until the running compaction job has ended.
    pub fn wait_for_compaction(&mut self, metrics: &StoreMetrics) {
        let Some(running) = self.compaction.take() else { return };
        for run in running.compacted {
            self.replace(run, metrics);
        }
    }

    fn replace(&mut self, run: CompactedRun, metrics: &StoreMetrics) {
        let CompactedRun { sources, segment } = run;
        metrics.segments_rewritten.add(sources.len() as u64);
        self.segments.replace(sources.len(), segment);
        self.update_metrics(metrics);
    }
}
