//! Counted room: how many, or how many bytes, of something may exist at once. Taken before the
//! work, given back when dropped, whatever way the work ends.
//!
//! Every cap in this server is one of these: a counter that cannot go wrong by a forgotten line, as
//! there is no line that gives back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// So much room, shared by all who clone it.
#[derive(Clone)]
pub struct Semaphore(Arc<SemaphoreState>);

struct SemaphoreState {
    most: usize,
    taken: AtomicUsize,
}

/// Some of the room; given back when dropped.
pub struct Permit {
    pool: Semaphore,
    size: usize,
}

impl Semaphore {
    #[must_use]
    pub fn new(most: usize) -> Semaphore {
        let taken = AtomicUsize::new(0);
        Semaphore(Arc::new(SemaphoreState { most, taken }))
    }

    /// How much is taken.
    #[must_use]
    pub fn in_use(&self) -> usize {
        self.0.taken.load(Ordering::Relaxed)
    }

    /// How much there is.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.0.most
    }

    /// Takes `size`, or nothing when there is not so much left.
    #[must_use]
    pub fn try_acquire(&self, size: usize) -> Option<Permit> {
        let most = self.capacity();
        let more = |taken: usize| taken.checked_add(size).filter(|sum| *sum <= most);
        self.0
            .taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .ok()
            .map(|_| Permit { pool: self.clone(), size })
    }

    /// Takes `most`, or what is left of it; nothing when the room is full or more than that.
    #[must_use]
    pub fn acquire_up_to(&self, most: usize) -> Permit {
        let mut size = 0;
        let more = |taken: usize| {
            size = self.capacity().saturating_sub(taken).min(most);
            Some(taken + size)
        };
        // It never fails: there is always some sum, if only the same.
        let _ = self.0.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        Permit { pool: self.clone(), size }
    }

    /// Takes `size` even beyond what there is: for what exists already and has to be counted.
    #[must_use]
    pub fn acquire_over(&self, size: usize) -> Permit {
        self.0.taken.fetch_add(size, Ordering::Relaxed);
        Permit { pool: self.clone(), size }
    }
}

impl Permit {
    /// Takes `more` as well, or nothing when there is not so much left.
    #[must_use]
    pub fn grow(&mut self, more: usize) -> bool {
        let Some(mut permit) = self.pool.try_acquire(more) else { return false };
        self.size += std::mem::take(&mut permit.size);
        true
    }

    /// How much it is.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// Makes it what turned out to be needed, even if that is beyond what there is.
    pub fn resize(&mut self, size: usize) {
        let taken = &self.pool.0.taken;
        if size >= self.size {
            taken.fetch_add(size - self.size, Ordering::Relaxed);
        } else {
            taken.fetch_sub(self.size - size, Ordering::Relaxed);
        }
        self.size = size;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.pool.0.taken.fetch_sub(self.size, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_comes_back_when_dropped() {
        let room = Semaphore::new(10);
        let six = room.try_acquire(6);
        assert!(six.is_some() && room.try_acquire(5).is_none());
        let beyond = room.acquire_over(5);
        assert_eq!(room.in_use(), 11);
        drop((six, beyond));
        assert_eq!(room.in_use(), 0);
    }

    #[test]
    fn of_room_that_is_more_than_full_there_is_nothing_left_to_take() {
        let room = Semaphore::new(10);
        let beyond = room.acquire_over(15);
        let (tell, told) = std::sync::mpsc::channel();
        let other = room.clone();
        // On a thread of its own, so that a taker that waits for room fails the test.
        std::thread::spawn(move || tell.send(other.acquire_up_to(4).size()));
        assert_eq!(told.recv_timeout(std::time::Duration::from_secs(20)), Ok(0));
        drop(beyond);
        let (some, rest) = (room.acquire_up_to(4), room.acquire_up_to(40));
        assert_eq!((some.size(), rest.size()), (4, 6));
        drop((some, rest));
        assert_eq!(room.in_use(), 0);
    }
}
