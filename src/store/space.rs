//! Disk space: a publish is refused before the disk is full, so that the store can always shrink.
//!
//! A store shrinks in two steps that both write first: a new segment begins, and then live records
//! are written again without the dead ones between them. So the bytes that these steps need are
//! kept free. A publish that would use them makes the store shrink at once; if that is not enough,
//! the publish gets `507`. Trims and expiry are written in any case: they make space.

use std::time::Instant;

use super::error::{IoContext as _, StoreError};
use super::journal::{Failing, Journal};
use crate::limits::{STORE_FREE_BYTES, STORE_RETRY_INTERVAL};
use crate::log::Log;
use crate::metrics::StoreMetrics;

impl Journal {
    /// Makes sure that a commit of this size leaves the space free that the store needs to shrink.
    ///
    /// # Errors
    /// When the disk is nearly full, even after the store was compacted. Until the next attempt is due,
    /// a commit that is not smaller is refused at once.
    pub fn make_space<T>(
        &mut self,
        log: &Log<T>,
        bytes: u64,
        now: Instant,
        metrics: &StoreMetrics,
    ) -> Result<(), StoreError> {
        // Within the pause after a refusal, a smaller commit may fit, but the store has just shrunk.
        let refused = self.low_space.as_ref().filter(|low| now < low.retry_at);
        if let Some(low) = refused.filter(|low| bytes >= low.bytes) {
            return Err(StoreError::Io(low.error.clone()));
        }
        let may_shrink = refused.is_none();
        let made = match self.has_space(bytes) {
            Ok(false) if may_shrink => {
                self.shrink(log, now, metrics).and_then(|()| self.has_space(bytes))
            }
            known => known,
        };
        let error = match made {
            Ok(true) => {
                self.low_space = self.low_space.take().filter(|low| low.bytes > bytes);
                return Ok(());
            }
            Ok(false) => StoreError::Io(format!(
                "No space left on the disk for {bytes} bytes; expected {} bytes more, to begin a \
                 segment and to compact others",
                self.space_to_shrink(bytes)
            )),
            Err(error) => error,
        };
        metrics.failures.add(1);
        let text = error.to_string();
        self.low_space = Some(Failing { retry_at: now + STORE_RETRY_INTERVAL, error: text, bytes });
        Err(error)
    }

    /// Looks at the disk again if it was nearly full and the next try is due.
    ///
    /// # Errors
    /// When it still is.
    pub fn check_space<T>(
        &mut self,
        log: &Log<T>,
        now: Instant,
        metrics: &StoreMetrics,
    ) -> Result<(), StoreError> {
        let Some(low) = &self.low_space else { return Ok(()) };
        let bytes = low.bytes;
        self.make_space(log, bytes, now, metrics)
    }

    fn has_space(&self, bytes: u64) -> Result<bool, StoreError> {
        // A segment grows beyond its size only while no other one can be begun.
        let segment = self.active.end - self.active.start;
        if segment > 2 * self.full_segment_bytes().saturating_add(bytes) {
            return Ok(false);
        }
        let free = self.storage.free_bytes().context("look at", "the free space of the disk")?;
        Ok(free >= bytes.saturating_add(self.space_to_shrink(bytes)))
    }

    /// The bytes that the next segment's snapshot and the largest compacted segment take at most,
    /// once a commit of this size is written.
    fn space_to_shrink(&self, commit: u64) -> u64 {
        let largest = self.segments.0.iter().map(|segment| segment.bytes).max();
        let largest = largest.unwrap_or_default().max(self.active.end + commit);
        let compacted = self.full_segment_bytes().max(largest);
        let compacted = compacted.min(self.segments.bytes() + commit);
        self.active.start + compacted + STORE_FREE_BYTES
    }

    /// Begins a new segment, and removes and compacts the others now instead of in the background.
    fn shrink<T>(
        &mut self,
        log: &Log<T>,
        now: Instant,
        metrics: &StoreMetrics,
    ) -> Result<(), StoreError> {
        self.wait_for_compaction(metrics);
        let job = if self.active.end > self.active.start {
            self.rotate(log, now, metrics).or_else(|_| {
                // The history of trims is most of a large snapshot. The disk may have space for the
                // rest, and without a new segment nothing can be removed.
                let mut snapshot = log.snapshot();
                snapshot.forget_history();
                self.rotate_to(&snapshot, log.oldest_key(), now, metrics)
            })?
        } else {
            // An earlier job may have failed. The log is as it was when the active segment began.
            Some(self.begin_compaction(&log.snapshot(), log.oldest_key())?)
        };
        let mut failure = Ok(());
        if let Some(job) = job {
            job.run(&*self.storage, |error| failure = Err(error));
        }
        self.wait_for_compaction(metrics);
        failure
    }
}
