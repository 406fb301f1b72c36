//! A request's body while it arrives, and the room that is set aside for it.

use crate::error::{Cause, Problem};
use crate::limits::SMALL_BODY_BYTES;
use crate::permits::{Permit, Permits};

/// A body, and the room it takes while it exists.
pub struct Body {
    pub bytes: Vec<u8>,
    pub room: Permit,
}

impl Body {
    #[must_use]
    pub fn new(room: &Permits) -> Body {
        Body { bytes: Vec::new(), room: room.count(0) }
    }

    /// Sets room aside for `more` bytes, as they come.
    pub(super) fn reserve(&mut self, more: usize) -> Result<(), Problem> {
        let before = self.bytes.capacity();
        self.bytes.reserve(more);
        let after = self.bytes.capacity();
        // Small ones are part of what a connection costs anyway.
        let counted = after - before.max(SMALL_BODY_BYTES).min(after);
        if counted > 0 && !self.room.grow(counted) {
            return Err(Problem::new(
                Cause::BodyMemory,
                "too many large bodies are being received at once; try again",
            ));
        }
        Ok(())
    }

    /// Adds bytes.
    pub fn extend(&mut self, bytes: &[u8]) -> Result<(), Problem> {
        self.reserve(bytes.len())?;
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
}
