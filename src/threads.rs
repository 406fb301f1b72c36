//! Starting threads, and handing them what they work on.
//!
//! Every thread has the same small stack, because a held poll is a thread and thousands are held. A
//! [`Mailbox`] is bounded, like everything that one side fills and the other empties: who posts
//! into a full one is told, and never waits.
//!
//! *Lock.* A mailbox has one, held for a push or a pop; nothing is locked under it.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use crate::limits::THREAD_STACK_BYTES;

/// Starts a thread. It takes a box, because each kind of closure that is handed to std itself
/// puts another kilobyte and a half into the binary.
///
/// # Errors
/// When the operating system refuses it.
pub fn start(name: &str, work: Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>> {
    Builder::new().name(name.into()).stack_size(THREAD_STACK_BYTES).spawn(work)
}

/// A bounded queue to a thread. Cheap to clone.
///
/// It is here beside the channel that leads to the workers because that one comes with three
/// others inside, and puts ten kilobytes into the binary for each type that it carries.
pub struct Mailbox<T>(Arc<Shared<T>>);

struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    most: usize,
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
    /// An empty one, for at most so many items.
    #[must_use]
    pub fn new(most: usize) -> Mailbox<T> {
        let state = Mutex::new(State { items: VecDeque::new(), closed: false });
        Mailbox(Arc::new(Shared { state, changed: Condvar::new(), most }))
    }

    /// Hands an item over, never waiting. False: it is full or closed, and the item is dropped.
    pub fn post(&self, item: T) -> bool {
        let mut state = self.0.state.lock();
        if state.closed || state.items.len() >= self.0.most {
            return false;
        }
        state.items.push_back(item);
        drop(state);
        self.0.changed.notify_one();
        true
    }

    /// Closes it: what is in it can still be taken, and nothing more be posted.
    pub fn close(&self) {
        self.0.state.lock().closed = true;
        self.0.changed.notify_all();
    }

    /// The oldest item, if there is one.
    pub fn try_take(&self) -> Option<T> {
        self.0.state.lock().items.pop_front()
    }

    /// Waits for an item; none comes any more once it is closed and empty.
    pub fn take(&self) -> Option<T> {
        let mut state = self.0.state.lock();
        while state.items.is_empty() && !state.closed {
            self.0.changed.wait(&mut state);
        }
        state.items.pop_front()
    }

    /// The same, but until `deadline` at the latest.
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
    fn what_is_posted_is_taken_in_order_up_to_the_bound() {
        let mailbox = Mailbox::new(2);
        assert!(mailbox.post('a') && mailbox.post('b'));
        assert!(!mailbox.post('c'), "it is full");
        assert_eq!(
            (mailbox.take(), mailbox.try_take(), mailbox.try_take()),
            (Some('a'), Some('b'), None)
        );
        assert!(mailbox.post('d'), "there is room again");
    }

    #[test]
    fn what_is_in_a_closed_mailbox_is_still_taken() {
        let mailbox = Mailbox::new(2);
        assert!(mailbox.post('a'));
        mailbox.close();
        assert!(!mailbox.post('b'));
        assert_eq!((mailbox.take(), mailbox.take()), (Some('a'), None));
        assert_eq!(mailbox.take_by(Instant::now() + std::time::Duration::from_secs(60)), None);
    }

    #[test]
    fn a_thread_that_waits_hears_of_an_item_and_of_the_end() {
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
        assert!(Instant::now() < deadline, "the end was not heard of");
        thread.join().unwrap();
    }

    #[test]
    fn who_waits_until_a_deadline_gets_nothing_then() {
        let mailbox = Mailbox::<()>::new(1);
        assert_eq!(mailbox.take_by(Instant::now()), None);
        assert!(mailbox.post(()));
        assert_eq!(mailbox.take_by(Instant::now()), Some(()));
    }
}
