//! The fixed pool: at most one worker for each connection that may be open, started when first
//! needed and then kept; and what the acceptor does when all are taken.
//!
//! *Locks.* `WorkerPool::workers` guards the list of workers, `WorkerSlot::line` the connection that one of
//! them has. The list comes first. Both are held for a few instructions.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;
use rustix::event::{EventfdFlags, eventfd};

use crate::client_limit::ClientPermit;
use crate::conn::Conn;
use crate::limits::{DRAIN_READ_TIMEOUT, IDLE_EVICTION_AGE};
use crate::semaphore::{Permit, Semaphore};
use crate::threads;

/// A connection that was let in, and its places among those that may be.
pub struct AdmittedConn {
    pub conn: Conn,
    /// Its place among those of its client.
    pub share: ClientPermit,
    pub place: Permit,
}

/// What a worker does with a connection.
pub type ServeFn = Arc<dyn Fn(&Arc<Conn>, &WorkerSlot) + Send + Sync>;

/// The workers and the queue to them.
pub struct WorkerPool {
    queue: Sender<AdmittedConn>,
    waiting: Receiver<AdmittedConn>,
    /// Readable when a place was given back since somebody looked.
    given_back: Arc<OwnedFd>,
    places: Semaphore,
    /// Acceptors at which newcomers wait.
    crowds: Semaphore,
    workers: Mutex<Vec<Worker>>,
    started: Instant,
    serve: ServeFn,
}

struct Worker {
    slot: Arc<WorkerSlot>,
    thread: JoinHandle<()>,
}

/// What others may know about a worker's connection. They look again and again, and what they see
/// may be a moment old; so no store here waits until every core knows of it.
pub struct WorkerSlot {
    conn: Mutex<Option<Arc<Conn>>>,
    /// Since when it waits for its next complete request: milliseconds after the pool's start,
    /// plus one. [`BUSY`] or [`GAVE_WAY`] otherwise.
    waiting: AtomicU64,
    /// Some of that request has arrived.
    partial: AtomicBool,
    crowds: Semaphore,
    pool_started: Instant,
}

const BUSY: u64 = 0;
const GAVE_WAY: u64 = u64::MAX;

/// Whether there was something to make room with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Eviction {
    /// A connection gives way; its place will be free in a moment.
    Yes,
    /// One may, but only after so long.
    In(Duration),
    /// All are held or being answered.
    No,
}

impl WorkerSlot {
    /// The wait for the next request begins.
    pub fn wait_begins(&self) {
        self.partial.store(false, Ordering::Release);
        let since = self.pool_started.elapsed().as_millis() as u64 + 1;
        self.waiting.store(since, Ordering::Release);
    }

    /// Some of it is there.
    pub fn request_begins(&self) {
        self.partial.store(true, Ordering::Release);
    }

    /// Whether others wait for a place. Then nobody keeps one from request to request: whoever asks
    /// often enough would never have to give way.
    pub fn is_wanted(&self) -> bool {
        self.crowds.in_use() > 0
    }

    /// All of it is there. False: the connection gave way before, and may not be served.
    #[must_use]
    pub fn request_is_whole(&self) -> bool {
        self.waiting.swap(BUSY, Ordering::AcqRel) != GAVE_WAY
    }

    fn waiting_since(&self) -> Option<u64> {
        Some(self.waiting.load(Ordering::Acquire))
            .filter(|since| !matches!(*since, BUSY | GAVE_WAY))
    }

    /// Closes the connection if it still waits since then.
    fn give_way(&self, since: u64) -> bool {
        // Under the lock, so that the connection that is closed is the one that waits.
        let conn = self.conn.lock();
        let won = self
            .waiting
            .compare_exchange(since, GAVE_WAY, Ordering::AcqRel, Ordering::Acquire)
            .is_ok();
        if let Some(conn) = conn.as_ref().filter(|_| won) {
            conn.close();
        }
        won
    }

    /// Whether a request may be on its way: a part of it is here, or the wait for it has just begun.
    fn may_be_asking(&self) -> bool {
        let waits_from = |since| Duration::from_millis(since) + DRAIN_READ_TIMEOUT;
        let now = self.pool_started.elapsed();
        self.partial.load(Ordering::Acquire)
            || self.waiting_since().is_some_and(|since| waits_from(since) > now)
    }

    /// Lets a connection that waits for a request see the end of its input.
    fn close_read(&self) {
        let conn = self.conn.lock();
        if let Some(conn) = conn.as_ref().filter(|_| self.waiting_since().is_some()) {
            conn.close_read();
        }
    }
}

impl WorkerPool {
    /// A pool with so many places, and no worker yet.
    ///
    /// # Errors
    /// When there is no descriptor left for it.
    pub fn new(places: Semaphore, serve: ServeFn) -> io::Result<WorkerPool> {
        let (queue, waiting) = bounded(places.capacity());
        let given_back = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(WorkerPool {
            queue,
            waiting,
            given_back: Arc::new(given_back),
            places,
            crowds: Semaphore::new(usize::MAX),
            workers: Mutex::new(Vec::new()),
            started: Instant::now(),
            serve,
        })
    }

    /// A place for one more connection, if there is one.
    pub fn place(&self) -> Option<Permit> {
        self.places.try_acquire(1)
    }

    /// Becomes readable when a place is given back, and stays so until it is hushed.
    pub fn given_back(&self) -> BorrowedFd<'_> {
        self.given_back.as_fd()
    }

    /// Forgets what has been given back until now; to be done before a last look for a place.
    pub fn hush(&self) {
        // It fails when there was nothing.
        let _ = rustix::io::read(&self.given_back, &mut [0; 8]);
    }

    /// Hands a connection to a worker, starting one if all are taken. Gives the connection back
    /// when that cannot be done.
    pub fn admit(&self, admitted: AdmittedConn) -> Result<(), (AdmittedConn, io::Error)> {
        if let Err(error) = self.have_enough_workers() {
            return Err((admitted, error));
        }
        // The queue has room for as many as there are places.
        let queued = self.queue.try_send(admitted);
        queued.map_err(|e| (e.into_inner(), io::ErrorKind::WouldBlock.into()))
    }

    fn have_enough_workers(&self) -> io::Result<()> {
        let mut workers = self.workers.lock();
        if workers.len() >= self.places.in_use() {
            return Ok(());
        }
        let slot = Arc::new(WorkerSlot {
            conn: Mutex::new(None),
            waiting: AtomicU64::new(BUSY),
            partial: AtomicBool::new(false),
            crowds: self.crowds.clone(),
            pool_started: self.started,
        });
        let (waiting, serve) = (self.waiting.clone(), Arc::clone(&self.serve));
        let (mine, given_back) = (Arc::clone(&slot), Arc::clone(&self.given_back));
        let thread =
            threads::start("worker", Box::new(move || work(&waiting, &mine, &serve, &given_back)))?;
        workers.push(Worker { slot, thread });
        Ok(())
    }

    /// Closes the connection that has waited longest for its next complete request, if it has
    /// waited long enough.
    pub fn evict_idle(&self) -> Eviction {
        loop {
            let workers = self.workers.lock();
            let waiting = workers
                .iter()
                .filter_map(|worker| Some((worker.slot.waiting_since()?, &worker.slot)));
            let Some((since, slot)) = waiting.min_by_key(|(since, _)| *since) else {
                return Eviction::No;
            };
            let until = Duration::from_millis(since) + IDLE_EVICTION_AGE;
            match until.checked_sub(self.started.elapsed()) {
                Some(left) if !left.is_zero() => return Eviction::In(left),
                _ if slot.give_way(since) => return Eviction::Yes,
                // It has just got its request: look for another.
                _ => {}
            }
        }
    }

    /// Ends the connections that wait for a request, for a drain: those on which none may be on its
    /// way.
    pub fn end_idle(&self) {
        let workers = self.workers.lock();
        let idle = workers.iter().filter(|worker| !worker.slot.may_be_asking());
        idle.for_each(|worker| worker.slot.close_read());
    }

    /// The same, for the others too.
    pub fn end_all_waiting(&self) {
        self.workers.lock().iter().for_each(|worker| worker.slot.close_read());
    }

    /// Of which an acceptor takes one while newcomers wait.
    pub fn crowds(&self) -> &Semaphore {
        &self.crowds
    }

    /// Connections that are open.
    pub fn open(&self) -> usize {
        self.places.in_use()
    }

    /// Ends the workers, which have to be without a connection.
    pub fn finish(self) {
        drop(self.queue);
        for worker in self.workers.into_inner() {
            let _ = worker.thread.join();
        }
    }
}

/// A worker's life: one connection after the other.
fn work(
    waiting: &Receiver<AdmittedConn>,
    slot: &WorkerSlot,
    serve: &ServeFn,
    given_back: &OwnedFd,
) {
    for AdmittedConn { conn, share, place } in waiting {
        let conn = Arc::new(conn);
        *slot.conn.lock() = Some(Arc::clone(&conn));
        // What panics in here is at fault in the door itself; the worker lives on.
        if catch_unwind(AssertUnwindSafe(|| serve(&conn, slot))).is_err() {
            // Another thread may have the line, too, as a WebSocket's has.
            conn.close();
        }
        *slot.conn.lock() = None;
        slot.waiting.store(BUSY, Ordering::Release);
        drop(conn);
        // After the descriptor was closed, so that places count descriptors too.
        drop((share, place));
        // It fails only when it was given back so often that it is readable anyway.
        let _ = rustix::io::write(given_back, &1u64.to_ne_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_worker_that_panics_ends_its_connection_whoever_else_has_it_and_lives_on() {
        let conns = Arc::new(Mutex::new(Vec::new()));
        let others = Arc::clone(&conns);
        let serve: ServeFn = Arc::new(move |conn, _| {
            others.lock().push(Arc::clone(conn));
            std::panic::panic_any(());
        });
        let places = Semaphore::new(1);
        let pool = WorkerPool::new(places.clone(), serve).unwrap();
        let clients = crate::client_limit::ClientLimiter::new(&crate::config::Config::default());
        for round in 1..=3 {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let conn = Conn::accepted(ours.into(), None, Duration::from_secs(60)).unwrap();
            let place = loop {
                if let Some(place) = pool.place() {
                    break place;
                }
            };
            let share = clients.admit_connection(None).unwrap();
            assert!(pool.admit(AdmittedConn { conn, share, place }).is_ok());
            theirs.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            assert_eq!(theirs.read(&mut [0]).unwrap(), 0, "the end");
            assert_eq!(conns.lock().len(), round);
        }
        pool.finish();
    }
}
