//! A counting semaphore that never blocks: a limit on how many of something, or how many bytes of
//! it, exist at once.
//!
//! A permit is acquired before the work and released when dropped, however the work ends: no line of
//! code that releases one can be forgotten.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A limit that all clones share.
#[derive(Clone)]
pub struct Semaphore(Arc<SemaphoreState>);

struct SemaphoreState {
    capacity: usize,
    in_use: AtomicUsize,
}

/// A part of a semaphore's capacity, released when dropped.
pub struct Permit {
    semaphore: Semaphore,
    /// Atomic for [`PermitReleaser`] alone.
    size: AtomicUsize,
}

impl Semaphore {
    #[must_use]
    pub fn new(capacity: usize) -> Semaphore {
        let in_use = AtomicUsize::new(0);
        Semaphore(Arc::new(SemaphoreState { capacity, in_use }))
    }

    /// The size of all permits together; more than the capacity after
    /// [`acquire_over`](Semaphore::acquire_over).
    #[must_use]
    pub fn in_use(&self) -> usize {
        self.0.in_use.load(Ordering::Relaxed)
    }

    #[must_use]
    pub fn capacity(&self) -> usize {
        self.0.capacity
    }

    /// Acquires `size`, or nothing if less is available.
    #[must_use]
    pub fn try_acquire(&self, size: usize) -> Option<Permit> {
        let capacity = self.capacity();
        let add = |in_use: usize| in_use.checked_add(size).filter(|sum| *sum <= capacity);
        self.0
            .in_use
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add)
            .ok()
            .map(|_| self.permit(size))
    }

    /// Acquires `size` even beyond the capacity, for something that exists already and has to be
    /// counted.
    #[must_use]
    pub fn acquire_over(&self, size: usize) -> Permit {
        self.0.in_use.fetch_add(size, Ordering::Relaxed);
        self.permit(size)
    }

    fn permit(&self, size: usize) -> Permit {
        Permit { semaphore: self.clone(), size: AtomicUsize::new(size) }
    }
}

impl Permit {
    /// Adds `more` to the permit and returns true, or returns false if less is available.
    #[must_use]
    pub fn try_grow(&mut self, more: usize) -> bool {
        let Some(mut permit) = self.semaphore.try_acquire(more) else { return false };
        *self.size.get_mut() += std::mem::take(permit.size.get_mut());
        true
    }

    #[must_use]
    pub fn size(&self) -> usize {
        self.size.load(Ordering::Relaxed)
    }

    /// Sets the size to what turned out to be needed, even beyond the capacity.
    pub fn resize(&mut self, size: usize) {
        let in_use = &self.semaphore.0.in_use;
        let before = std::mem::replace(self.size.get_mut(), size);
        if size >= before {
            in_use.fetch_add(size - before, Ordering::Relaxed);
        } else {
            in_use.fetch_sub(before - size, Ordering::Relaxed);
        }
    }

    /// Releases the permit before it is dropped.
    fn release(&self) {
        let size = self.size.swap(0, Ordering::Relaxed);
        self.semaphore.0.in_use.fetch_sub(size, Ordering::Release);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.release();
    }
}

/// A permit that another thread may release early. It is released when its owner drops this, even
/// if a [`PermitReleaser`] still exists.
pub struct OwnedPermit(Arc<Permit>);

/// Releases an [`OwnedPermit`] on behalf of its owner.
pub struct PermitReleaser(Arc<Permit>);

impl OwnedPermit {
    #[must_use]
    pub fn new(permit: Permit) -> OwnedPermit {
        OwnedPermit(Arc::new(permit))
    }

    #[must_use]
    pub fn releaser(&self) -> PermitReleaser {
        PermitReleaser(Arc::clone(&self.0))
    }
}

impl Drop for OwnedPermit {
    fn drop(&mut self) {
        self.0.release();
    }
}

impl PermitReleaser {
    pub fn release(&self) {
        self.0.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropped_permits_are_released() {
        let semaphore = Semaphore::new(10);
        let six = semaphore.try_acquire(6);
        assert!(six.is_some() && semaphore.try_acquire(5).is_none());
        let over = semaphore.acquire_over(5);
        assert_eq!(semaphore.in_use(), 11);
        drop((six, over));
        assert_eq!(semaphore.in_use(), 0);
    }

    #[test]
    fn owned_permit_is_released_once_by_the_first_to_do_so() {
        let semaphore = Semaphore::new(2);
        let [first, second] = [(); 2].map(|()| OwnedPermit::new(semaphore.try_acquire(1).unwrap()));
        let (first_releaser, second_releaser) = (first.releaser(), second.releaser());
        first_releaser.release();
        assert_eq!(semaphore.in_use(), 1);
        drop(second);
        assert_eq!(semaphore.in_use(), 0);
        second_releaser.release();
        drop((first, first_releaser, second_releaser));
        assert_eq!(semaphore.in_use(), 0);
    }
}
