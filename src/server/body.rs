//! A request's body while it arrives, and the memory budget that all bodies share.
//!
//! A body takes from the budget what has arrived, not what it has announced, so a client cannot
//! reserve memory by announcing a large body. When the budget is used up, a body that has been
//! arriving for at least [`IDLE_EVICTION_AGE`] is refused in favour of new ones: a slow sender cannot keep
//! publishers out.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::http::chunked::BodySink;
use crate::limits::{EVICTION_GRACE, IDLE_EVICTION_AGE, SMALL_BODY_BYTES};
use crate::problem::{Cause, Problem};
use crate::semaphore::{Permit, Semaphore};

/// The memory budget of all request bodies together.
pub struct BodyBudget {
    bytes: Semaphore,
    /// Whether a body waits for memory that others hold.
    is_contended: AtomicBool,
}

impl BodyBudget {
    /// A budget of `bytes`.
    #[must_use]
    pub fn new(bytes: usize) -> BodyBudget {
        BodyBudget { bytes: Semaphore::new(bytes), is_contended: AtomicBool::new(false) }
    }
}

/// A body, with the memory that it holds of the budget.
pub struct RequestBody<'a> {
    pub bytes: Vec<u8>,
    /// `None` for a small body, which is part of the connection's own overhead.
    permit: Option<Permit>,
    budget: &'a BodyBudget,
}

/// Time between two attempts to get memory. The bodies that hold it check for contention far less
/// often, each [`IDLE_EVICTION_AGE`].
const RETRY: Duration = Duration::from_millis(5);

impl<'a> RequestBody<'a> {
    #[must_use]
    pub fn new(budget: &'a BodyBudget) -> RequestBody<'a> {
        RequestBody { bytes: Vec::new(), permit: None, budget }
    }

    /// The body and its permit, which has to live as long as the bytes.
    #[must_use]
    pub fn into_parts(self) -> (Vec<u8>, Option<Permit>) {
        (self.bytes, self.permit)
    }

    /// Reserves memory for `more` bytes, waiting for other bodies to release theirs if needed.
    ///
    /// # Errors
    /// `503` when there is no memory within [`IDLE_EVICTION_AGE`] plus [`EVICTION_GRACE`].
    pub(super) fn reserve(&mut self, more: usize) -> Result<(), Problem> {
        let before = self.bytes.capacity();
        self.bytes.reserve(more);
        let after = self.bytes.capacity();
        let counted = after - before.max(SMALL_BODY_BYTES).min(after);
        if counted > 0 && !self.try_grow(counted) && !self.grow_by_contending(counted) {
            return Err(Problem::new(
                Cause::BodyMemory,
                "too many large bodies are being received at once; try again",
            ));
        }
        Ok(())
    }

    fn try_grow(&mut self, more: usize) -> bool {
        match &mut self.permit {
            Some(permit) => permit.try_grow(more),
            none => {
                *none = self.budget.bytes.try_acquire(more);
                none.is_some()
            }
        }
    }

    /// Signals contention, so that a body which has been arriving for long releases its memory.
    fn grow_by_contending(&mut self, counted: usize) -> bool {
        let deadline = Instant::now() + IDLE_EVICTION_AGE + EVICTION_GRACE;
        while Instant::now() < deadline {
            self.budget.is_contended.store(true, Ordering::Relaxed);
            // Contention is rare and short: not worth a condition variable.
            std::thread::sleep(RETRY);
            if self.try_grow(counted) {
                return true;
            }
        }
        false
    }

    /// Until when the next read of a body that has been arriving since `started` may wait: at most
    /// `deadline`, and less while the body holds memory that others may need.
    ///
    /// # Errors
    /// `503` when this body has to release its memory now.
    pub(super) fn read_deadline(
        &self,
        started: Instant,
        deadline: Instant,
    ) -> Result<Instant, Problem> {
        if self.permit.is_none() {
            return Ok(deadline);
        }
        let now = Instant::now();
        if now >= started + IDLE_EVICTION_AGE
            && self.budget.is_contended.swap(false, Ordering::Relaxed)
        {
            return Err(Problem::new(
                Cause::BodyMemory,
                "this body took long to arrive, and others needed its memory; try again",
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
