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
    /// When the disk is nearly full, even after the store was compacted. Until the next try is due,
    /// the disk is not looked at again.
    pub fn make_space<T>(
        &mut self,
        log: &Log<T>,
        bytes: u64,
        now: Instant,
        metrics: &StoreMetrics,
    ) -> Result<(), StoreError> {
        if let Some(low) = self.low_space.as_ref().filter(|low| now < low.retry_at) {
            return Err(StoreError::Io(low.error.clone()));
        }
        let made = match self.has_space(bytes) {
            Ok(false) => self.shrink(log, now, metrics).and_then(|()| self.has_space(bytes)),
            known => known,
        };
        let error = match made {
            Ok(true) => {
                self.low_space = None;
                return Ok(());
            }
            Ok(false) => StoreError::Io(format!(
                "No space left: a commit of {bytes} bytes would leave less than the {} bytes that \
                 the store needs to begin a segment and to compact others",
                self.space_to_shrink()
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
        let free = self.storage.free_bytes().context("look at", "the free space of the disk")?;
        Ok(free >= bytes.saturating_add(self.space_to_shrink()))
    }

    /// The bytes that the next segment's snapshot and the largest compacted segment take, roughly.
    fn space_to_shrink(&self) -> u64 {
        let compacted = self.full_segment_bytes().min(self.segments.bytes());
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
        // Without commits since the last rotation, there is nothing more to remove than then.
        if self.active.end > self.active.start {
            if let Some(job) = self.rotate(log, now, metrics)? {
                let mut failure = Ok(());
                job.run(&*self.storage, |error| failure = Err(error));
                self.wait_for_compaction(metrics);
                failure?;
            }
        }
        Ok(())
    }
}
