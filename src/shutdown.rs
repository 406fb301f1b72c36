//! The one signal that everything stops by. It is given once and stays given.
//!
//! A thread that waits does it in one of two ways: at a lock, where it can look at a flag, or in
//! poll(2), where it needs something that becomes readable. This is both, and since it is never
//! taken back, nobody can come too late to see it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::io::Errno;

/// A signal to stop, for threads that block in poll(2) as well as for those that only look.
#[derive(Clone, Debug)]
pub struct Shutdown(Arc<Signal>);

#[derive(Debug)]
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

    /// Lets SIGINT, SIGTERM and SIGHUP give it; a second one ends the process at once.
    ///
    /// # Errors
    /// When the operating system refuses it.
    pub fn on_signals(&self) -> std::io::Result<()> {
        let stop = self.clone();
        let on_signal = move || {
            if stop.trigger() {
                std::process::exit(130);
            }
        };
        ctrlc::set_handler(on_signal).map_err(|error| match error {
            ctrlc::Error::System(error) => error,
            // It cannot be: this is called once, and the signals exist.
            other => std::io::Error::other(other.to_string()),
        })
    }

    /// Gives the signal. Says whether it had been given before.
    pub fn trigger(&self) -> bool {
        let before = self.0.given.swap(true, Ordering::SeqCst);
        // It can fail only when the counter is full: then it is readable already.
        let _ = rustix::io::write(&self.0.event, &1u64.to_ne_bytes());
        before
    }

    /// Whether it was given.
    #[must_use]
    pub fn is_triggered(&self) -> bool {
        self.0.given.load(Ordering::SeqCst)
    }

    /// Blocks until it is given.
    pub fn wait(&self) {
        while !self.is_triggered() {
            let mut event = [PollFd::from_borrowed_fd(self.as_fd(), PollFlags::IN)];
            match rustix::event::poll(&mut event, None) {
                Ok(_) | Err(Errno::INTR) => {}
                // Nothing sensible is left to wait for.
                Err(_) => return,
            }
        }
    }

    /// Blocks until the descriptor is ready or the deadline is over, and says which; or until the
    /// signal is given, which is an error.
    ///
    /// # Errors
    /// When the signal is given, or when the descriptor cannot be watched.
    pub fn wait_for(&self, what: &PollFd<'_>, until: Option<Instant>) -> std::io::Result<bool> {
        loop {
            if self.is_triggered() {
                return Err(std::io::Error::other("told to stop"));
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let left = left.map(|left| Timespec {
                tv_sec: left.as_secs() as i64,
                tv_nsec: left.subsec_nanos().into(),
            });
            let stop = PollFd::from_borrowed_fd(self.as_fd(), PollFlags::IN);
            let mut either = [what.clone(), stop];
            match rustix::event::poll(&mut either, left.as_ref()) {
                Ok(0) => return Ok(false),
                Ok(_) if !either[0].revents().is_empty() => return Ok(true),
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Blocks until the deadline, or until the signal is given; says whether it was.
    #[must_use]
    pub fn wait_until(&self, until: Instant) -> bool {
        // What it watches is itself: then it is ready exactly when the signal is given.
        self.wait_for(&PollFd::from_borrowed_fd(self.as_fd(), PollFlags::IN), Some(until))
            .unwrap_or(true)
    }
}

impl AsFd for Shutdown {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.event.as_fd()
    }
}
