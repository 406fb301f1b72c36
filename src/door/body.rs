//! A request's body while it arrives, and the room that is set aside for it.
//!
//! All bodies together have a fixed room, and each takes of it only what has really come, not what
//! it has announced: so nobody reserves memory by talking big. When the room is full, a body that
//! has been arriving for long gives way to those that want it; a slow sender cannot keep publishers
//! out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::error::{Cause, Problem};
use crate::http::chunked::Sink;
use crate::limits::{CLOSING, GIVE_WAY, SMALL_BODY_BYTES};
use crate::permits::{Permit, Permits};

/// Room for all bodies together. When it is full, one that has been arriving for long gives way.
#[derive(Clone)]
pub struct BodyRoom {
    bytes: Permits,
    wanted: Arc<AtomicBool>,
}

impl BodyRoom {
    /// Room for so many bytes.
    #[must_use]
    pub fn new(bytes: usize) -> BodyRoom {
        BodyRoom { bytes: Permits::new(bytes), wanted: Arc::default() }
    }
}

/// A body, and the room it takes while it exists.
pub struct Body {
    pub bytes: Vec<u8>,
    pub room: Permit,
    shared: BodyRoom,
    begun: Instant,
}

/// Between two looks for room: those who have it look as seldom as that at who wants it.
const LOOK: Duration = Duration::from_millis(5);

impl Body {
    #[must_use]
    pub fn new(shared: &BodyRoom) -> Body {
        let (bytes, room) = (Vec::new(), shared.bytes.count(0));
        Body { bytes, room, shared: shared.clone(), begun: Instant::now() }
    }

    /// Sets room aside for `more` bytes, as they come.
    pub(super) fn reserve(&mut self, more: usize) -> Result<(), Problem> {
        let before = self.bytes.capacity();
        self.bytes.reserve(more);
        let after = self.bytes.capacity();
        // Small ones are part of what a connection costs anyway.
        let counted = after - before.max(SMALL_BODY_BYTES).min(after);
        if counted > 0 && !self.room.grow(counted) && !self.wait_for(counted) {
            return Err(Problem::new(
                Cause::BodyMemory,
                "too many large bodies are being received at once; try again",
            ));
        }
        Ok(())
    }

    /// Has others give way.
    fn wait_for(&mut self, counted: usize) -> bool {
        let until = Instant::now() + GIVE_WAY + CLOSING;
        while Instant::now() < until {
            self.shared.wanted.store(true, Ordering::Relaxed);
            // It is seldom and short: not worth a condition variable.
            std::thread::sleep(LOOK);
            if self.room.grow(counted) {
                return true;
            }
        }
        false
    }

    /// Until when its reader may wait for more of it; less than `deadline` while it has room that
    /// others may want.
    ///
    /// # Errors
    /// When it has to give way now.
    pub(super) fn wait_until(&self, deadline: Instant) -> Result<Instant, Problem> {
        if self.room.size() == 0 {
            return Ok(deadline);
        }
        let now = Instant::now();
        if now >= self.begun + GIVE_WAY && self.shared.wanted.swap(false, Ordering::Relaxed) {
            return Err(Problem::new(
                Cause::BodyMemory,
                "this body took long to arrive, and others needed its room; try again",
            ));
        }
        Ok(deadline.min(now + GIVE_WAY))
    }
}

impl Sink for Body {
    fn size(&self) -> usize {
        self.bytes.len()
    }

    fn add(&mut self, bytes: &[u8]) -> Result<(), Problem> {
        self.reserve(bytes.len())?;
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
}
