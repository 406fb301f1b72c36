//! A request's body while it arrives, and the room that is set aside for it.
//!
//! All bodies together have a fixed room, and each takes of it only what has really come, not what
//! it has announced: so nobody reserves memory by talking big. When the room is full, a body that
//! has been arriving for long gives way to those that want it; a slow sender cannot keep publishers
//! out.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::http::chunked::BodySink;
use crate::limits::{EVICTION_GRACE, IDLE_EVICTION_AGE, SMALL_BODY_BYTES};
use crate::problem::{Cause, Problem};
use crate::semaphore::{Permit, Semaphore};

/// Room for all bodies together. When it is full, one that has been arriving for long gives way.
pub struct BodyBudget {
    bytes: Semaphore,
    wanted: AtomicBool,
}

impl BodyBudget {
    /// Room for so many bytes.
    #[must_use]
    pub fn new(bytes: usize) -> BodyBudget {
        BodyBudget { bytes: Semaphore::new(bytes), wanted: AtomicBool::new(false) }
    }
}

/// A body, and the room it takes while it exists.
pub struct RequestBody<'a> {
    pub bytes: Vec<u8>,
    /// Small ones take none: they are part of what a connection costs anyway.
    room: Option<Permit>,
    shared: &'a BodyBudget,
}

/// Between two looks for room: those who have it look as seldom as that at who wants it.
const LOOK: Duration = Duration::from_millis(5);

impl<'a> RequestBody<'a> {
    #[must_use]
    pub fn new(shared: &'a BodyBudget) -> RequestBody<'a> {
        RequestBody { bytes: Vec::new(), room: None, shared }
    }

    /// The body, and its room, which is to be kept for as long as it is in memory.
    #[must_use]
    pub fn into_parts(self) -> (Vec<u8>, Option<Permit>) {
        (self.bytes, self.room)
    }

    /// Sets room aside for `more` bytes, as they come.
    pub(super) fn reserve(&mut self, more: usize) -> Result<(), Problem> {
        let before = self.bytes.capacity();
        self.bytes.reserve(more);
        let after = self.bytes.capacity();
        let counted = after - before.max(SMALL_BODY_BYTES).min(after);
        if counted > 0 && !self.grow(counted) && !self.wait_for(counted) {
            return Err(Problem::new(
                Cause::BodyMemory,
                "too many large bodies are being received at once; try again",
            ));
        }
        Ok(())
    }

    fn grow(&mut self, more: usize) -> bool {
        match &mut self.room {
            Some(room) => room.try_grow(more),
            none => {
                *none = self.shared.bytes.try_acquire(more);
                none.is_some()
            }
        }
    }

    /// Has others give way.
    fn wait_for(&mut self, counted: usize) -> bool {
        let until = Instant::now() + IDLE_EVICTION_AGE + EVICTION_GRACE;
        while Instant::now() < until {
            self.shared.wanted.store(true, Ordering::Relaxed);
            // It is seldom and short: not worth a condition variable.
            std::thread::sleep(LOOK);
            if self.grow(counted) {
                return true;
            }
        }
        false
    }

    /// Until when its reader, who waits since `begun`, may wait for more of it; less than
    /// `deadline` while it has room that others may want.
    ///
    /// # Errors
    /// When it has to give way now.
    pub(super) fn wait_until(&self, begun: Instant, deadline: Instant) -> Result<Instant, Problem> {
        if self.room.is_none() {
            return Ok(deadline);
        }
        let now = Instant::now();
        if now >= begun + IDLE_EVICTION_AGE && self.shared.wanted.swap(false, Ordering::Relaxed) {
            return Err(Problem::new(
                Cause::BodyMemory,
                "this body took long to arrive, and others needed its room; try again",
            ));
        }
        Ok(deadline.min(now + IDLE_EVICTION_AGE))
    }
}

impl BodySink for RequestBody<'_> {
    fn size(&self) -> usize {
        self.bytes.len()
    }

    fn push_bytes(&mut self, bytes: &[u8]) -> Result<(), Problem> {
        self.reserve(bytes.len())?;
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
}
