//! The files of a store while it is open: what is appended where, what is safe, and what to do
//! when the disk refuses.
//!
//! After a refusal nothing is believed but what can be read again: a write that failed may have
//! left a part, and a sync that failed may have forgotten what it was to keep. So the file is read
//! back, cut to what counts, and the next commit is tried again only after a pause.

use std::io;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::compact::{CompactedRun, CompactionJob, LiveSet};
use super::error::{IoContext, StoreError};
use super::header::{FullHeader, begin, file_name, temporary_name};
use super::lines::CommitBuffer;
use super::lock::SyncedMark;
use super::record::write_word;
use super::recovery::OpenSettings;
use super::scan::{CommitReader, NextCommit};
use super::segments::{Segment, SegmentList};
use super::storage::{Storage, StorageFile};
use crate::config::SyncPolicy;
use crate::limits::STORE_RETRY_INTERVAL;
use crate::log::{Log, LogSnapshot};
use crate::metrics::StoreMetrics;

/// The files of an open store.
pub struct Journal {
    pub disk: Arc<dyn Storage>,
    pub sync: SyncPolicy,
    /// At which a new segment is begun.
    pub segment_bytes: u64,
    pub segments: SegmentList,
    /// The newest segment's header, and the segment itself.
    pub begun: FullHeader,
    pub active: ActiveSegment,
    /// The lock file, which is told what is safe.
    pub marker: Box<dyn StorageFile>,
    /// Since when something is written that is not synced.
    pub dirty: Option<Instant>,
    /// Set when the disk has refused: until when nothing is tried, and what it said.
    pub refused: Option<(Instant, String)>,
    /// How many bytes it was that it did not take.
    wanted: usize,
    /// A chore is being done.
    pub busy: bool,
    /// Not before this a new segment is begun, because the last try failed.
    pub rotate_after: Option<Instant>,
}

/// The segment that is appended to.
pub struct ActiveSegment {
    pub file: Box<dyn StorageFile>,
    /// Where the state of the log ends and its story begins.
    pub start: u64,
    /// Where the last commit that counts ends.
    pub end: u64,
    /// Up to where the disk has said that it is safe.
    pub synced: u64,
}

impl ActiveSegment {
    /// Begins a segment. It has its name only when it is complete and safe; that the name is safe
    /// too is for the caller to see to, before anything in it counts.
    pub fn begin(
        disk: &dyn Storage,
        begun: &FullHeader,
        snapshot: &LogSnapshot,
    ) -> Result<ActiveSegment, StoreError> {
        let name = file_name(begun.next);
        let temporary = temporary_name(&name);
        let bytes = begin(begun, snapshot);
        let file = disk.create(&temporary).doing("create", &temporary)?;
        let written = file.write_at(&bytes, 0).doing("write", &temporary);
        let synced = written.and_then(|()| file.sync().doing("sync", &temporary));
        let named =
            synced.and_then(|()| disk.rename(&temporary, &name).doing("rename", &temporary));
        if let Err(failure) = named {
            // It may be what fills the disk. If it stays, it goes at the next start.
            let _ = disk.remove(&temporary);
            return Err(failure);
        }
        let end = bytes.len() as u64;
        Ok(ActiveSegment { file, start: end, end, synced: end })
    }
}

impl Journal {
    /// A store's files as they were found or made.
    pub fn new(
        disk: Arc<dyn Storage>,
        settings: &OpenSettings,
        active: ActiveSegment,
        segments: SegmentList,
        begun: FullHeader,
        marker: Box<dyn StorageFile>,
    ) -> Journal {
        Journal {
            disk,
            sync: settings.sync,
            segment_bytes: segment_bytes(begun.retain_bytes),
            segments,
            begun,
            active,
            marker,
            dirty: None,
            refused: None,
            wanted: 0,
            busy: false,
            rotate_after: None,
        }
    }

    /// Writes a commit; it counts when this returns well, and is as safe as `--sync` promises.
    ///
    /// # Errors
    /// When the disk refuses. Then nothing of it counts.
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
        let name = file_name(self.begun.next);
        let mut written = active.file.write_at(&bytes, active.end).doing("write to", &name);
        if written.is_ok() && self.sync == SyncPolicy::Always {
            written = sync(&*active.file, metrics).doing("sync", &name);
        }
        if let Err(failure) = written {
            self.wanted = bytes.len();
            return Err(self.refuse(failure, now, metrics));
        }
        let from = std::mem::replace(&mut active.end, end);
        if self.sync == SyncPolicy::Always {
            active.synced = end;
            self.mark(from);
        } else {
            self.dirty = self.dirty.or(Some(now));
        }
        metrics.commits.add(1);
        self.count(metrics);
        Ok(())
    }

    /// Makes everything so far safe.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn sync(&mut self, now: Instant, metrics: &StoreMetrics) -> Result<(), StoreError> {
        self.recover(now, metrics)?;
        let from = self.active.synced;
        if from < self.active.end {
            let name = file_name(self.begun.next);
            if let Err(failure) = sync(&*self.active.file, metrics).doing("sync", &name) {
                return Err(self.refuse(failure, now, metrics));
            }
            self.active.synced = self.active.end;
            self.mark(from);
        }
        self.dirty = None;
        Ok(())
    }

    /// When [`Journal::sync`] is due.
    pub fn sync_due(&self) -> Option<Instant> {
        let SyncPolicy::Every(time) = self.sync else { return None };
        let due = self.dirty? + time;
        Some(self.refused.as_ref().map_or(due, |(until, _)| due.max(*until)))
    }

    /// Says that the run ends in order.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn close(&mut self, now: Instant, metrics: &StoreMetrics) -> Result<(), StoreError> {
        self.sync(now, metrics)?;
        let mut commit = CommitBuffer::default();
        commit.push(|out| write_word(out, "closed"));
        self.commit(commit, now, metrics)?;
        self.sync(now, metrics)
    }

    /// Tells the lock file that all is safe; the last commit begins there.
    pub fn mark(&self, from: u64) {
        let number = self.begun.number;
        // It only helps to find damage; a disk in trouble says so elsewhere.
        let _ = SyncedMark { number, from, to: self.active.synced }.write(&*self.marker);
    }

    fn refuse(&mut self, failure: StoreError, now: Instant, metrics: &StoreMetrics) -> StoreError {
        metrics.failures.add(1);
        self.refused = Some((now + STORE_RETRY_INTERVAL, failure.to_string()));
        failure
    }

    /// After a refusal nothing is trusted but what can be read again. What does not count is cut
    /// off; and as much as was refused has to fit, or a full disk would be taken for a good one.
    ///
    /// # Errors
    /// When the disk still refuses, or it is too soon to ask.
    pub fn recover(&mut self, now: Instant, metrics: &StoreMetrics) -> Result<(), StoreError> {
        let Some((until, why)) = &self.refused else { return Ok(()) };
        if now < *until {
            return Err(StoreError::Refused(why.clone()));
        }
        if let Err(failure) = self.read_again() {
            return Err(self.refuse(failure, now, metrics));
        }
        self.active.synced = self.active.end;
        self.dirty = None;
        self.refused = None;
        self.wanted = 0;
        Ok(())
    }

    fn read_again(&self) -> Result<(), StoreError> {
        let (name, active) = (file_name(self.begun.next), &self.active);
        active.file.forget();
        let mut commits = CommitReader::open(&name, &*active.file)?;
        while commits.end < active.end {
            match commits.advance()? {
                NextCommit::Commit(_) => {}
                NextCommit::Torn(damage) => return Err(damage),
                NextCommit::End => {
                    return Err(commits.damage(commits.end, "it ends here, and was longer"));
                }
            }
        }
        active.file.write_at(&vec![0; self.wanted], active.end).doing("write to", &name)?;
        active.file.truncate(active.end).doing("cut", &name)?;
        active.file.sync().doing("sync", &name)?;
        self.sync_names()
    }

    fn sync_names(&self) -> Result<(), StoreError> {
        self.disk.sync_names().doing("sync", "the directory")
    }

    /// Whether the newest segment is full.
    pub fn is_full(&self, now: Instant) -> bool {
        let has_events = self.segments.0.last().is_some_and(Segment::has_events);
        has_events
            && self.active.end - self.active.start >= self.segment_bytes
            && self.rotate_after.is_none_or(|after| after <= now)
    }

    /// Whether nothing at all in the store is needed any more.
    pub fn is_dead(&self, now: Instant) -> bool {
        let segments = &self.segments;
        !self.busy
            && segments.0.last().is_some_and(Segment::has_events)
            && segments.dead_in_front(now) == segments.0.len()
    }

    /// Begins a new segment, and says what can be done to the others.
    ///
    /// # Errors
    /// When the disk refuses. Then the newest segment stays what it is.
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
        // Without events it has the name that the new one will have, and is replaced.
        if !kept.0.last().is_some_and(Segment::has_events) {
            kept.0.pop();
        }
        let dead = if self.busy { 0 } else { kept.dead_in_front(now) };
        let kept = kept.0.split_off(dead);
        let next = snapshot.head + 1;
        let begun = FullHeader {
            next,
            first: kept.first().map_or(next, |segment| segment.first),
            number: self.begun.number + 1,
            trims: snapshot.trims,
            forgotten: snapshot.forgotten,
            ..self.begun.clone()
        };
        let active = ActiveSegment::begin(&*self.disk, &begun, &snapshot).inspect_err(|_| {
            metrics.failures.add(1);
        })?;
        self.begun = begun;
        self.active = active;
        self.rotate_after = None;
        self.segments.0 = kept;
        self.segments.0.push(Segment::new(next));
        self.count(metrics);
        if let Err(failure) = self.sync_names() {
            // Nothing is written to it, and no file is removed, before its name is safe.
            return Err(self.refuse(failure, now, metrics));
        }
        self.mark(self.active.start);
        if self.busy {
            return Ok(None);
        }
        self.busy = true;
        Ok(Some(self.chore(&snapshot, now)))
    }

    fn chore(&self, snapshot: &LogSnapshot, now: Instant) -> CompactionJob {
        let rows = &self.segments;
        let runs = rows.worth_rewriting(self.segment_bytes, self.begun.retain_bytes, now);
        let run = |run: std::ops::Range<usize>| {
            let through = rows.0[run.end].first - 1;
            (rows.0[run].iter().map(|segment| segment.first).collect(), through)
        };
        CompactionJob {
            needed: rows.0.iter().map(|segment| segment.first).collect(),
            runs: runs.into_iter().map(run).collect(),
            kept: LiveSet::new(snapshot, SystemTime::now()),
        }
    }

    /// Takes in what a chore has done.
    pub fn done(&mut self, rewritten: Vec<CompactedRun>, metrics: &StoreMetrics) {
        for CompactedRun { from, to } in rewritten {
            metrics.segments_rewritten.add(from.len() as u64);
            self.segments.replace(from.len(), to);
        }
        self.busy = false;
        self.count(metrics);
    }

    /// Shows how large the store is.
    pub fn count(&mut self, metrics: &StoreMetrics) {
        let end = self.active.end;
        if let Some(active) = self.segments.active() {
            active.bytes = end;
        }
        metrics.bytes.set(self.segments.bytes());
        metrics.segments.set(self.segments.0.len() as u64);
    }
}

fn sync(file: &dyn StorageFile, metrics: &StoreMetrics) -> io::Result<()> {
    let begun = Instant::now();
    let synced = file.sync();
    metrics.fsync.observe(begun.elapsed());
    synced
}

/// How large a segment may grow.
#[must_use]
pub fn segment_bytes(retain_bytes: u64) -> u64 {
    use crate::limits::{SEGMENT_BYTES, SEGMENT_SHARE};
    (retain_bytes / SEGMENT_SHARE).clamp(*SEGMENT_BYTES.start(), *SEGMENT_BYTES.end())
}
