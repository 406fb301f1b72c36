//! The shutdown signal. It is triggered once and stays triggered.
//!
//! A thread waits either on a lock, where it can check a flag, or in poll(2), where it needs a
//! descriptor that becomes readable. [`Shutdown`] is both. It is never reset, so no thread can miss
//! it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::io::Errno;

/// The shutdown signal, which all clones share: a flag, and a descriptor for poll(2).
#[derive(Clone, Debug)]
pub struct Shutdown(Arc<ShutdownState>);

#[derive(Debug)]
struct ShutdownState {
    is_triggered: AtomicBool,
    /// Readable once the signal is triggered.
    event: OwnedFd,
}

impl Shutdown {
    /// Creates a signal that is not triggered.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn new() -> std::io::Result<Shutdown> {
        let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let is_triggered = AtomicBool::new(false);
        Ok(Shutdown(Arc::new(ShutdownState { is_triggered, event })))
    }

    /// Triggers on SIGINT, SIGTERM and SIGHUP; a second one exits the process at once.
    ///
    /// # Errors
    /// When the operating system refuses the signal handler or its thread.
    pub fn on_signals(&self) -> std::io::Result<()> {
        let shutdown = self.clone();
        let on_signal = move || {
            if shutdown.trigger() {
                std::process::exit(130);
            }
        };
        ctrlc::set_handler(on_signal).map_err(|error| match error {
            ctrlc::Error::System(error) => error,
            // Impossible: this is called once, and the signals exist.
            other => std::io::Error::other(other.to_string()),
        })
    }

    /// Triggers the signal. Returns whether it was triggered before.
    pub fn trigger(&self) -> bool {
        let before = self.0.is_triggered.swap(true, Ordering::SeqCst);
        // The write can fail only when the counter is full; then the descriptor is readable.
        let _ = rustix::io::write(&self.0.event, &1u64.to_ne_bytes());
        before
    }

    #[must_use]
    pub fn is_triggered(&self) -> bool {
        self.0.is_triggered.load(Ordering::SeqCst)
    }

    /// Blocks until the signal is triggered.
    pub fn wait(&self) {
        while !self.is_triggered() {
            let mut event = [PollFd::from_borrowed_fd(self.as_fd(), PollFlags::IN)];
            match rustix::event::poll(&mut event, None) {
                Ok(_) | Err(Errno::INTR) => {}
                // Without poll(2) there is no way left to wait.
                Err(_) => return,
            }
        }
    }

    /// Blocks until the descriptor is ready (true) or the deadline has passed (false).
    ///
    /// # Errors
    /// When the signal is triggered, or when poll(2) fails.
    pub fn wait_for(
        &self,
        descriptor: &PollFd<'_>,
        deadline: Option<Instant>,
    ) -> std::io::Result<bool> {
        loop {
            if self.is_triggered() {
                return Err(std::io::Error::other("shutting down"));
            }
            let timeout = deadline.map(|deadline| {
                let left = deadline.saturating_duration_since(Instant::now());
                Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() }
            });
            let event = PollFd::from_borrowed_fd(self.as_fd(), PollFlags::IN);
            let mut descriptors = [descriptor.clone(), event];
            match rustix::event::poll(&mut descriptors, timeout.as_ref()) {
                Ok(0) => return Ok(false),
                Ok(_) if !descriptors[0].revents().is_empty() => return Ok(true),
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Blocks until the signal is triggered (true) or the deadline has passed (false).
    #[must_use]
    pub fn wait_until(&self, deadline: Instant) -> bool {
        // The awaited descriptor is the signal's own, ready exactly when it is triggered.
        self.wait_for(&PollFd::from_borrowed_fd(self.as_fd(), PollFlags::IN), Some(deadline))
            .unwrap_or(true)
    }
}

impl AsFd for Shutdown {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.event.as_fd()
    }
}
