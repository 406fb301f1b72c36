//! The memory that a page takes of the limit on all responses: counted while the page is rendered,
//! as its buffer grows.
//!
//! So readers that wait for the log reserve nothing, and pages that are rendered at the same time
//! still stay within the limit together, but for one event each.

use crate::semaphore::{Permit, Semaphore};

/// The memory of one page that is being rendered.
pub struct PageMemory {
    permit: Permit,
    ran_out: bool,
}

impl PageMemory {
    /// Memory of a page that has no bytes yet; `responses` limits that of all responses.
    pub fn new(responses: &Semaphore) -> PageMemory {
        PageMemory { permit: responses.acquire_over(0), ran_out: false }
    }

    /// Counts the page with at least this size, or returns false if less is available.
    pub fn cover(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.permit.size());
        let is_covered = more == 0 || self.permit.try_grow(more);
        self.ran_out |= !is_covered;
        is_covered
    }

    /// Whether less was available than the page needed.
    pub fn ran_out(&self) -> bool {
        self.ran_out
    }

    /// The permit of the finished page: for its real size, even beyond the limit.
    pub fn into_permit(mut self, bytes: usize) -> Permit {
        self.permit.resize(bytes);
        self.permit
    }
}
