//! Starting threads, and queues to them.
//!
//! Every thread has the same small stack, because each held poll occupies a thread, and thousands
//! are held. A [`Mailbox`] is bounded, like every queue here: posting into a full one fails and
//! never blocks.
//!
//! *Lock.* `Shared::state` guards the items of a mailbox and whether it is closed. It is held for a
//! push or a pop; nothing is locked under it.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Instant;

use crate::sync::{Condvar, Mutex};

use crate::limits::THREAD_STACK_BYTES;

/// Starts a thread. The work is boxed because each type of closure that std's function takes adds a
/// kilobyte and a half to the binary.
///
/// # Errors
/// When the operating system refuses the thread.
pub fn start(name: &str, work: Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>> {
    Builder::new().name(name.into()).stack_size(THREAD_STACK_BYTES).spawn(work)
}

/// The error of a program that cannot start because a thread was refused.
pub fn too_few(error: &io::Error) -> io::Error {
    io::Error::other(format!("the system allows too few threads: {error}"))
}

/// A bounded queue to a thread. Cheap to clone.
///
/// It exists beside `crossbeam_channel` because that crate adds ten kilobytes to the binary for each
/// type of item.
pub struct Mailbox<T>(Arc<Shared<T>>);

struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    capacity: usize,
}

struct State<T> {
    /// Oldest first.
    items: VecDeque<T>,
    closed: bool,
}

impl<T> Clone for Mailbox<T> {
    fn clone(&self) -> Mailbox<T> {
        Mailbox(Arc::clone(&self.0))
    }
}

impl<T> Mailbox<T> {
    /// An empty mailbox for at most `capacity` items.
    #[must_use]
    pub fn new(capacity: usize) -> Mailbox<T> {
        let state = Mutex::new(State { items: VecDeque::new(), closed: false });
        Mailbox(Arc::new(Shared { state, changed: Condvar::new(), capacity }))
    }

    /// Adds an item without blocking. False: the mailbox is full or closed, and the item is dropped.
    pub fn post(&self, item: T) -> bool {
        let mut state = self.0.state.lock();
        if state.closed || state.items.len() >= self.0.capacity {
            return false;
        }
        state.items.push_back(item);
        drop(state);
        self.0.changed.notify_one();
        true
    }

    /// Closes the mailbox: its items can still be taken, but none be posted.
    pub fn close(&self) {
        self.0.state.lock().closed = true;
        self.0.changed.notify_all();
    }

    /// Takes the oldest item, if there is one.
    pub fn try_take(&self) -> Option<T> {
        self.0.state.lock().items.pop_front()
    }

    /// Takes the oldest item, waiting for one. `None` once the mailbox is closed and empty.
    pub fn take(&self) -> Option<T> {
        let mut state = self.0.state.lock();
        while state.items.is_empty() && !state.closed {
            self.0.changed.wait(&mut state);
        }
        state.items.pop_front()
    }

    /// As [`take`](Self::take), but waits until `deadline` at most.
    pub fn take_by(&self, deadline: Instant) -> Option<T> {
        let mut state = self.0.state.lock();
        let mut late = false;
        while state.items.is_empty() && !state.closed && !late {
            late = self.0.changed.wait_until(&mut state, deadline).timed_out();
        }
        state.items.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_taken_in_order_and_a_full_mailbox_refuses_more() {
        let mailbox = Mailbox::new(2);
        assert!(mailbox.post('a') && mailbox.post('b'));
        assert!(!mailbox.post('c'), "the mailbox is full");
        assert_eq!(
            (mailbox.take(), mailbox.try_take(), mailbox.try_take()),
            (Some('a'), Some('b'), None)
        );
        assert!(mailbox.post('d'), "there is space again");
    }

    #[test]
    fn items_of_a_closed_mailbox_are_still_taken() {
        let mailbox = Mailbox::new(2);
        assert!(mailbox.post('a'));
        mailbox.close();
        assert!(!mailbox.post('b'));
        assert_eq!((mailbox.take(), mailbox.take()), (Some('a'), None));
        assert_eq!(mailbox.take_by(Instant::now() + std::time::Duration::from_secs(60)), None);
    }

    #[test]
    fn waiting_thread_is_woken_by_an_item_and_by_closing() {
        let (there, back) = (Mailbox::new(1), Mailbox::new(1));
        let (taken, answered) = (there.clone(), back.clone());
        let echo = move || {
            while let Some(item) = taken.take() {
                assert!(answered.post(item));
            }
            answered.close();
        };
        let thread = start("echo", Box::new(echo)).unwrap();
        let deadline = Instant::now() + std::time::Duration::from_secs(20);
        for item in 0..100 {
            assert!(there.post(item));
            assert_eq!(back.take_by(deadline), Some(item));
        }
        there.close();
        assert_eq!(back.take_by(deadline), None);
        assert!(Instant::now() < deadline, "closing did not wake the thread");
        thread.join().unwrap();
    }

    #[test]
    fn take_by_returns_nothing_at_its_deadline() {
        let mailbox = Mailbox::<()>::new(1);
        assert_eq!(mailbox.take_by(Instant::now()), None);
        assert!(mailbox.post(()));
        assert_eq!(mailbox.take_by(Instant::now()), Some(()));
    }
}
