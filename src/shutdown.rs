//! The one signal that everything stops by. It is given once and stays given.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, PollFd, PollFlags};
use rustix::io::Errno;

/// A signal to stop, for threads that block in poll(2) as well as for those that only look.
#[derive(Clone)]
pub struct Shutdown(Arc<Signal>);

struct Signal {
    given: AtomicBool,
    /// Readable from when the signal is given.
    event: OwnedFd,
}

impl Shutdown {
    /// A signal that was not given yet.
    ///
    /// # Errors
    /// When there is no descriptor left for it.
    pub fn new() -> std::io::Result<Shutdown> {
        let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let given = AtomicBool::new(false);
        Ok(Shutdown(Arc::new(Signal { given, event })))
    }

    /// Gives the signal. Says whether it had been given before.
    pub fn give(&self) -> bool {
        let before = self.0.given.swap(true, Ordering::SeqCst);
        // It can fail only when the counter is full: then it is readable already.
        let _ = rustix::io::write(&self.0.event, &1u64.to_ne_bytes());
        before
    }

    /// Whether it was given.
    #[must_use]
    pub fn given(&self) -> bool {
        self.0.given.load(Ordering::SeqCst)
    }

    /// Blocks until it is given.
    pub fn wait(&self) {
        while !self.given() {
            let mut event = [PollFd::from_borrowed_fd(self.as_fd(), PollFlags::IN)];
            match rustix::event::poll(&mut event, None) {
                Ok(_) | Err(Errno::INTR) => {}
                // Nothing sensible is left to wait for.
                Err(_) => return,
            }
        }
    }
}

impl AsFd for Shutdown {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.event.as_fd()
    }
}
