//! The worker pool: at most one worker thread for each connection that may be open, started when
//! first needed and then kept.
//!
//! *Locks.* [`WorkerPool::workers`] guards the list of workers, `WorkerSlot::conn` the connection
//! that one worker serves. The list's lock may be held when a slot's is taken; nothing is locked
//! under a slot's. Both are held for a few instructions, the list's also while a thread starts.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use rustix::event::{EventfdFlags, eventfd};

use crate::client_limit::ClientPermit;
use crate::conn::Conn;
use crate::limits::{DRAIN_READ_TIMEOUT, IDLE_EVICTION_AGE};
use crate::semaphore::{Permit, Semaphore};
use crate::sync::Mutex;
use crate::threads;

/// A connection with its permits: the client's own, and one of `--max-connections`.
pub struct AdmittedConn {
    pub conn: Conn,
    pub client_permit: ClientPermit,
    pub permit: Permit,
}

/// What a worker does with a connection.
pub type ServeFn = Arc<dyn Fn(&Arc<Conn>, &WorkerSlot) + Send + Sync>;

/// The workers and the queue to them.
pub struct WorkerPool {
    sender: Sender<AdmittedConn>,
    receiver: Receiver<AdmittedConn>,
    /// Readable after a permit was released, until it is reset.
    permit_released: Arc<OwnedFd>,
    permits: Semaphore,
    /// Counts the acceptors that have queued connections.
    queueing_acceptors: Semaphore,
    workers: Mutex<Vec<Worker>>,
    started: Instant,
    serve: ServeFn,
}

struct Worker {
    slot: Arc<WorkerSlot>,
    thread: JoinHandle<()>,
}

/// What other threads may know about a worker's connection. They read it repeatedly and may see a
/// state that is a moment old, so no store here waits until every core knows of it.
pub struct WorkerSlot {
    conn: Mutex<Option<Arc<Conn>>>,
    /// Since when the connection waits for its next complete request: milliseconds after the
    /// pool's start, plus one. [`BUSY`] or [`EVICTED`] otherwise.
    idle_since: AtomicU64,
    /// Whether a part of that request has arrived.
    has_partial_request: AtomicBool,
    queueing_acceptors: Semaphore,
    pool_started: Instant,
}

const BUSY: u64 = 0;
const EVICTED: u64 = u64::MAX;

/// The result of an attempt to evict an idle connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Eviction {
    /// A connection was closed; its permit is released in a moment.
    Closed,
    /// The connection that has been idle longest may be evicted after this time.
    PossibleIn(Duration),
    /// All connections are held or being answered.
    NoneIdle,
}

impl WorkerSlot {
    /// The connection starts to wait for its next request.
    pub fn set_idle(&self) {
        self.has_partial_request.store(false, Ordering::Release);
        let since = self.pool_started.elapsed().as_millis() as u64 + 1;
        self.idle_since.store(since, Ordering::Release);
    }

    /// The first bytes of the request have arrived.
    pub fn set_partial_request(&self) {
        self.has_partial_request.store(true, Ordering::Release);
    }

    /// The request is complete. False: the connection was evicted before, and must not be served.
    #[must_use]
    pub fn set_busy(&self) -> bool {
        self.idle_since.swap(BUSY, Ordering::AcqRel) != EVICTED
    }

    /// Whether other connections wait for a permit. Then each connection closes after one response:
    /// a client that sends requests often enough would never become idle.
    pub fn has_queued_connections(&self) -> bool {
        self.queueing_acceptors.in_use() > 0
    }

    fn idle_since(&self) -> Option<u64> {
        Some(self.idle_since.load(Ordering::Acquire))
            .filter(|since| !matches!(*since, BUSY | EVICTED))
    }

    /// Closes the connection if it has been idle since then without a break.
    fn evict(&self, since: u64) -> bool {
        // Under the lock, so that the connection that is closed is the one that is idle.
        let conn = self.conn.lock();
        let was_idle = self
            .idle_since
            .compare_exchange(since, EVICTED, Ordering::AcqRel, Ordering::Acquire)
            .is_ok();
        if let Some(conn) = conn.as_ref().filter(|_| was_idle) {
            conn.close();
        }
        was_idle
    }

    /// Whether a request may be on its way: a part of it has arrived, or the connection has just
    /// become idle.
    fn may_receive_request(&self) -> bool {
        let expected_until = |since| Duration::from_millis(since) + DRAIN_READ_TIMEOUT;
        let now = self.pool_started.elapsed();
        self.has_partial_request.load(Ordering::Acquire)
            || self.idle_since().is_some_and(|since| expected_until(since) > now)
    }

    /// Ends the input of a connection that is idle.
    fn close_idle(&self) {
        let conn = self.conn.lock();
        if let Some(conn) = conn.as_ref().filter(|_| self.idle_since().is_some()) {
            conn.close_read();
        }
    }
}

impl WorkerPool {
    /// A pool for as many connections as there are permits, without workers yet.
    ///
    /// # Errors
    /// When there is no descriptor left for it.
    pub fn new(permits: Semaphore, serve: ServeFn) -> io::Result<WorkerPool> {
        let (sender, receiver) = bounded(permits.capacity());
        let permit_released = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(WorkerPool {
            sender,
            receiver,
            permit_released: Arc::new(permit_released),
            permits,
            queueing_acceptors: Semaphore::new(usize::MAX),
            workers: Mutex::new(Vec::new()),
            started: Instant::now(),
            serve,
        })
    }

    /// A permit for one more connection, if there is one.
    pub fn try_acquire(&self) -> Option<Permit> {
        self.permits.try_acquire(1)
    }

    /// Becomes readable when a permit is released, and stays so until it is reset.
    pub fn permit_released(&self) -> BorrowedFd<'_> {
        self.permit_released.as_fd()
    }

    /// Makes [`permit_released`](Self::permit_released) unreadable. A caller that waits for it
    /// resets first, then tries to acquire: no release in between is missed.
    pub fn reset_permit_released(&self) {
        // It fails if no permit was released.
        let _ = rustix::io::read(&self.permit_released, &mut [0; 8]);
    }

    /// Hands a connection to a worker, starting one if all are busy.
    ///
    /// # Errors
    /// When no thread can be started; the connection is returned.
    pub fn admit(&self, admitted: AdmittedConn) -> Result<(), (AdmittedConn, io::Error)> {
        if let Err(error) = self.ensure_enough_workers() {
            return Err((admitted, error));
        }
        // The queue is never full: its capacity is the number of permits.
        let queued = self.sender.try_send(admitted);
        queued.map_err(|e| (e.into_inner(), io::ErrorKind::WouldBlock.into()))
    }

    fn ensure_enough_workers(&self) -> io::Result<()> {
        let mut workers = self.workers.lock();
        if workers.len() >= self.permits.in_use() {
            return Ok(());
        }
        let slot = Arc::new(WorkerSlot {
            conn: Mutex::new(None),
            idle_since: AtomicU64::new(BUSY),
            has_partial_request: AtomicBool::new(false),
            queueing_acceptors: self.queueing_acceptors.clone(),
            pool_started: self.started,
        });
        let (receiver, serve) = (self.receiver.clone(), Arc::clone(&self.serve));
        let (own_slot, released) = (Arc::clone(&slot), Arc::clone(&self.permit_released));
        let run = move || run_worker(&receiver, &own_slot, &serve, &released);
        let thread = threads::start("worker", Box::new(run))?;
        workers.push(Worker { slot, thread });
        Ok(())
    }

    /// Closes the connection that has waited longest for its next complete request, if it has
    /// waited for [`IDLE_EVICTION_AGE`].
    pub fn evict_idle(&self) -> Eviction {
        loop {
            let workers = self.workers.lock();
            let idle =
                workers.iter().filter_map(|worker| Some((worker.slot.idle_since()?, &worker.slot)));
            let Some((since, slot)) = idle.min_by_key(|(since, _)| *since) else {
                return Eviction::NoneIdle;
            };
            let evictable_at = Duration::from_millis(since) + IDLE_EVICTION_AGE;
            match evictable_at.checked_sub(self.started.elapsed()) {
                Some(left) if !left.is_zero() => return Eviction::PossibleIn(left),
                _ if slot.evict(since) => return Eviction::Closed,
                // Its request has just arrived: look for another connection.
                _ => {}
            }
        }
    }

    /// For a drain: ends the input of the idle connections on which no request may be on its way.
    pub fn close_idle(&self) {
        let workers = self.workers.lock();
        let idle = workers.iter().filter(|worker| !worker.slot.may_receive_request());
        idle.for_each(|worker| worker.slot.close_idle());
    }

    /// For a drain: ends the input of all idle connections, also of those with a partial request.
    pub fn close_all_idle(&self) {
        self.workers.lock().iter().for_each(|worker| worker.slot.close_idle());
    }

    /// An acceptor holds one permit of this while it has queued connections.
    pub fn queueing_acceptors(&self) -> &Semaphore {
        &self.queueing_acceptors
    }

    /// The number of open connections.
    pub fn open_connections(&self) -> usize {
        self.permits.in_use()
    }

    /// Ends the workers. To be called when no connection is open.
    pub fn finish(self) {
        drop(self.sender);
        for worker in self.workers.into_inner() {
            let _ = worker.thread.join();
        }
    }
}

/// Serves one connection after the other.
fn run_worker(
    receiver: &Receiver<AdmittedConn>,
    slot: &WorkerSlot,
    serve: &ServeFn,
    permit_released: &OwnedFd,
) {
    for AdmittedConn { conn, client_permit, permit } in receiver {
        let conn = Arc::new(conn);
        *slot.conn.lock() = Some(Arc::clone(&conn));
        // A panic in a handler was caught before; one that arrives here is a fault of the server
        // module, and costs the connection, not the worker.
        if catch_unwind(AssertUnwindSafe(|| serve(&conn, slot))).is_err() {
            // Dropping it may not close it: a WebSocket's reader shares the connection.
            conn.close();
        }
        *slot.conn.lock() = None;
        slot.idle_since.store(BUSY, Ordering::Release);
        drop(conn);
        // After the descriptor is closed, so that permits count descriptors, too.
        drop((client_permit, permit));
        // It fails only if the counter is full: then it is readable anyway.
        let _ = rustix::io::write(permit_released, &1u64.to_ne_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;
    use std::os::unix::net::UnixStream;

    #[test]
    fn worker_survives_a_panic_and_closes_the_connection_even_if_shared() {
        let conns = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&conns);
        let serve: ServeFn = Arc::new(move |conn, _| {
            shared.lock().push(Arc::clone(conn));
            std::panic::panic_any(());
        });
        let pool = WorkerPool::new(Semaphore::new(1), serve).unwrap();
        let clients = crate::client_limit::ClientLimiter::new(&crate::config::Config::default());
        for round in 1..=3 {
            let (server_end, mut client_end) = UnixStream::pair().unwrap();
            let conn = Conn::accepted(server_end.into(), None, Duration::from_secs(60)).unwrap();
            let permit = loop {
                if let Some(permit) = pool.try_acquire() {
                    break permit;
                }
            };
            let client_permit = clients.admit_connection(None).unwrap();
            assert!(pool.admit(AdmittedConn { conn, client_permit, permit }).is_ok());
            client_end.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            assert_eq!(client_end.read(&mut [0]).unwrap(), 0, "the connection is closed");
            assert_eq!(conns.lock().len(), round);
        }
        pool.finish();
    }
}
