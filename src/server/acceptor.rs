//! The accept loop: one thread for each listener. It queues new connections; [`Admission`] decides
//! about them.

use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::admission::{ARRIVAL_TIME, Admission};
use super::listener::{self, Accepted, Listener};
use crate::limits::ACCEPT_WAKE_INTERVAL;
use crate::logger::{Logger, RateLimited};
use crate::metrics::Metrics;
use crate::shutdown::Shutdown;

/// Accepts the connections of one listener.
pub struct Acceptor {
    pub listener: Listener,
    pub admission: Admission,
    pub metrics: Arc<Metrics>,
    pub logger: Logger,
    pub shutdown: Shutdown,
    pub failures: RateLimited,
    /// Set in each round of the loop, which takes [`ACCEPT_WAKE_INTERVAL`] at most.
    pub heartbeat: Arc<AtomicBool>,
}

/// Pause after a failed accept (descriptors or memory exhausted): the cause seldom passes sooner,
/// and the connection stays in the kernel's queue.
const FAILURE_PAUSE: Duration = Duration::from_millis(50);

impl Acceptor {
    pub fn run(mut self) {
        let mut retry_at: Option<Instant> = None;
        loop {
            let now = Instant::now();
            self.heartbeat.store(true, Ordering::Relaxed);
            self.admission.shrink_full_queue(now);
            let released = self.admission.permit_released();
            let accepted = match retry_at {
                Some(retry_at) if self.admission.is_full() => {
                    listener::wait(&self.shutdown, (released, retry_at.min(now + ARRIVAL_TIME)))
                }
                Some(retry_at) => self.listener.accept(&self.shutdown, (released, retry_at)),
                // The queue is empty: no connection waits for a permit.
                None => self
                    .listener
                    .accept(&self.shutdown, (self.shutdown.as_fd(), now + ACCEPT_WAKE_INTERVAL)),
            };
            match accepted {
                Accepted::Shutdown => break,
                Accepted::Nothing => {}
                Accepted::Connection(socket, peer) => self.admission.enqueue(socket, peer),
                Accepted::Failed(error) => self.recover(error),
            }
            retry_at = self.admission.admit_queued();
        }
        self.admission.refuse_all();
    }

    fn recover(&mut self, error: Errno) {
        self.metrics.accept_errors.add(1);
        if let Some(suppressed) = self.failures.record(Instant::now()) {
            let listener = &self.listener;
            self.logger.error(format_args!(
                "cannot accept on {listener}: {error} ({suppressed} similar errors suppressed)"
            ));
        }
        if !self.admission.free_descriptor() {
            std::thread::sleep(FAILURE_PAUSE);
        }
    }
}
