//! The files of a store while it is open: what is appended where, what is safe, and what to do
//! when the disk refuses.
//!
//! After a refusal nothing is believed but what can be read again: a write that failed may have
//! left a part, and a sync that failed may have forgotten what it was to keep. So the file is read
//! back, cut to what counts, and the next commit is tried again only after a pause.

use std::io;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::compact::{Chore, Kept, Rewritten};
use super::disk::{Disk, File};
use super::header::{Begun, begin, file_name, temporary_name};
use super::line::Commit;
use super::lock::Safe;
use super::record::write_word;
use super::recovery::Settings;
use super::scan::{Commits, Doing, Failure, Next};
use super::segments::{Segment, Segments};
use crate::config::Sync;
use crate::limits::STORE_RETRY;
use crate::log::{Log, Snapshot};
use crate::metrics::StoreMetrics;

/// The files of an open store.
pub struct Journal {
    pub disk: Arc<dyn Disk>,
    pub sync: Sync,
    /// At which a new segment is begun.
    pub segment_bytes: u64,
    pub segments: Segments,
    /// The newest segment's header, and the segment itself.
    pub begun: Begun,
    pub active: Active,
    /// The lock file, which is told what is safe.
    pub marker: Box<dyn File>,
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
pub struct Active {
    pub file: Box<dyn File>,
    /// Where the state of the log ends and its story begins.
    pub start: u64,
    /// Where the last commit that counts ends.
    pub end: u64,
    /// Up to where the disk has said that it is safe.
    pub synced: u64,
}

impl Active {
    /// Begins a segment. It has its name only when it is complete and safe; that the name is safe
    /// too is for the caller to see to, before anything in it counts.
    pub fn begin(disk: &dyn Disk, begun: &Begun, snapshot: &Snapshot) -> Result<Active, Failure> {
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
        Ok(Active { file, start: end, end, synced: end })
    }
}

impl Journal {
    /// A store's files as they were found or made.
    pub fn new(
        disk: Arc<dyn Disk>,
        settings: &Settings,
        active: Active,
        segments: Segments,
        begun: Begun,
        marker: Box<dyn File>,
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
        commit: Commit,
        now: Instant,
        metrics: &StoreMetrics,
    ) -> Result<(), Failure> {
        self.recover(now, metrics)?;
        let active = &mut self.active;
        let bytes = commit.finish(active.synced == active.end);
        let end = active.end + bytes.len() as u64;
        let name = file_name(self.begun.next);
        let mut written = active.file.write_at(&bytes, active.end).doing("write to", &name);
        if written.is_ok() && self.sync == Sync::Always {
            written = sync(&*active.file, metrics).doing("sync", &name);
        }
        if let Err(failure) = written {
            self.wanted = bytes.len();
            return Err(self.refuse(failure, now, metrics));
        }
        let from = std::mem::replace(&mut active.end, end);
        if self.sync == Sync::Always {
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
    pub fn sync(&mut self, now: Instant, metrics: &StoreMetrics) -> Result<(), Failure> {
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
        let Sync::Every(time) = self.sync else { return None };
        let due = self.dirty? + time;
        Some(self.refused.as_ref().map_or(due, |(until, _)| due.max(*until)))
    }

    /// Says that the run ends in order.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn close(&mut self, now: Instant, metrics: &StoreMetrics) -> Result<(), Failure> {
        self.sync(now, metrics)?;
        let mut commit = Commit::default();
        commit.push(|out| write_word(out, "closed"));
        self.commit(commit, now, metrics)?;
        self.sync(now, metrics)
    }

    /// Tells the lock file that all is safe; the last commit begins there.
    pub fn mark(&self, from: u64) {
        let number = self.begun.number;
        // It only helps to find damage; a disk in trouble says so elsewhere.
        let _ = Safe { number, from, to: self.active.synced }.write(&*self.marker);
    }

    fn refuse(&mut self, failure: Failure, now: Instant, metrics: &StoreMetrics) -> Failure {
        metrics.failures.add(1);
        self.refused = Some((now + STORE_RETRY, failure.to_string()));
        failure
    }

    /// After a refusal nothing is trusted but what can be read again. What does not count is cut
    /// off; and as much as was refused has to fit, or a full disk would be taken for a good one.
    ///
    /// # Errors
    /// When the disk still refuses, or it is too soon to ask.
    pub fn recover(&mut self, now: Instant, metrics: &StoreMetrics) -> Result<(), Failure> {
        let Some((until, why)) = &self.refused else { return Ok(()) };
        if now < *until {
            return Err(Failure::Refused(why.clone()));
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

    fn read_again(&self) -> Result<(), Failure> {
        let (name, active) = (file_name(self.begun.next), &self.active);
        active.file.forget();
        let mut commits = Commits::open(&name, &*active.file)?;
        while commits.end < active.end {
            match commits.advance()? {
                Next::Commit(_) => {}
                Next::Torn(damage) => return Err(damage),
                Next::End => {
                    return Err(commits.damage(commits.end, "it ends here, and was longer"));
                }
            }
        }
        active.file.write_at(&vec![0; self.wanted], active.end).doing("write to", &name)?;
        active.file.truncate(active.end).doing("cut", &name)?;
        active.file.sync().doing("sync", &name)?;
        self.sync_names()
    }

    fn sync_names(&self) -> Result<(), Failure> {
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
    ) -> Result<Option<Chore>, Failure> {
        self.rotate_after = Some(now + STORE_RETRY);
        self.sync(now, metrics)?;
        let snapshot = log.snapshot();
        let mut kept = Segments(self.segments.0.clone());
        // Without events it has the name that the new one will have, and is replaced.
        if !kept.0.last().is_some_and(Segment::has_events) {
            kept.0.pop();
        }
        let dead = if self.busy { 0 } else { kept.dead_in_front(now) };
        let kept = kept.0.split_off(dead);
        let next = snapshot.head + 1;
        let begun = Begun {
            next,
            first: kept.first().map_or(next, |segment| segment.first),
            number: self.begun.number + 1,
            trims: snapshot.trims,
            forgotten: snapshot.forgotten,
            ..self.begun.clone()
        };
        let active = Active::begin(&*self.disk, &begun, &snapshot).inspect_err(|_| {
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

    fn chore(&self, snapshot: &Snapshot, now: Instant) -> Chore {
        let rows = &self.segments;
        let runs = rows.worth_rewriting(self.segment_bytes, self.begun.retain_bytes, now);
        let run = |run: std::ops::Range<usize>| {
            let through = rows.0[run.end].first - 1;
            (rows.0[run].iter().map(|segment| segment.first).collect(), through)
        };
        Chore {
            needed: rows.0.iter().map(|segment| segment.first).collect(),
            runs: runs.into_iter().map(run).collect(),
            kept: Kept::new(snapshot, SystemTime::now()),
        }
    }

    /// Takes in what a chore has done.
    pub fn done(&mut self, rewritten: Vec<Rewritten>, metrics: &StoreMetrics) {
        for Rewritten { from, to } in rewritten {
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

fn sync(file: &dyn File, metrics: &StoreMetrics) -> io::Result<()> {
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
