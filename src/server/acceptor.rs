//! Taking connections in; and what becomes of newcomers while all places are taken.
//!
//! Newcomers queue here, and not in the kernel: there nobody could tell those who have asked
//! something from those who only take up room. Whoever has sent its whole request comes before
//! those that have sent a part of one, and these before the silent ones; that is how a client that
//! behaves well gets past a crowd that does not.

use std::collections::VecDeque;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::net::SocketAddrAny;

use super::head::HeadParser;
use super::lingering_close::LingeringClose;
use super::listener::{self, Accepted, Listener};
use super::pool::{AdmittedConn, Eviction, WorkerPool};
use crate::client_limit::{ClientLimiter, ClientPermit};
use crate::conn::Conn;
use crate::http::{BodyFraming, EncodeOptions, Response};
use crate::limits::{ACCEPT_WAKE_INTERVAL, EVICTION_GRACE, IDLE_EVICTION_AGE, QUEUED_CONNECTIONS};
use crate::logger::{Logger, RateLimited};
use crate::metrics::Metrics;
use crate::problem::{Cause, Problem};
use crate::semaphore::Permit;
use crate::shutdown::Shutdown;

/// One for each listener.
pub struct Acceptor {
    pub listener: Listener,
    pub pool: Arc<WorkerPool>,
    pub metrics: Arc<Metrics>,
    pub logger: Logger,
    pub shutdown: Shutdown,
    pub lingerer: LingeringClose,
    pub clients: ClientLimiter,
    pub idle_timeout: Duration,
    pub failures: RateLimited,
    /// Set at each turn.
    pub turned: Arc<AtomicBool>,
    pub queue: AdmissionQueue,
    /// Kept while newcomers wait: then connections end with the next answer.
    pub crowd: Option<Permit>,
}

/// Those for whom there is no place yet.
#[derive(Default)]
pub struct AdmissionQueue {
    /// In the order of arrival.
    newcomers: VecDeque<QueuedConn>,
    /// Until when nobody else has to give way, as somebody just does.
    closing_until: Option<Instant>,
    /// Until when they queue though all connections are held or being answered. Once that has been
    /// so for long enough the next ones are refused at once.
    jammed_until: Option<Instant>,
    /// For a look at what they have sent.
    scratch: Vec<u8>,
}

struct QueuedConn {
    conn: Conn,
    share: ClientPermit,
    came: Instant,
    /// How many bytes were there at the last look, and what they were.
    seen: (u64, RequestProgress),
}

/// How much of its request a newcomer has sent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum RequestProgress {
    Nothing,
    Some,
    /// All of it, or what can be refused as it is.
    Whole,
}

/// After a failed accept (descriptors gone, memory short) the acceptor rests this long: the cause
/// seldom passes sooner, and the failed connection is still in the queue.
const REST: Duration = Duration::from_millis(50);
/// What a request needs at most to arrive behind its connection; in fact it is there at once. Nobody
/// is judged before that.
const ARRIVING: Duration = Duration::from_millis(20);
/// As much of a newcomer's request is looked at. A longer one counts as a part.
const LOOKED_AT: usize = 4 << 10;
/// So long a newcomer queues.
const QUEUE: Duration = IDLE_EVICTION_AGE.saturating_add(EVICTION_GRACE);
const ALL_TAKEN: &str = "all connections are held or being answered; try again later";

impl QueuedConn {
    /// When its time is over.
    fn until(&self) -> Instant {
        self.came + QUEUE
    }

    /// A crowd may be large, so only what has changed is looked at again.
    fn sent(&mut self, scratch: &mut Vec<u8>) -> RequestProgress {
        let there = self.conn.arrived();
        if there != self.seen.0 {
            self.seen = (there, self.look(scratch));
        }
        self.seen.1
    }

    fn look(&self, scratch: &mut Vec<u8>) -> RequestProgress {
        scratch.clear();
        scratch.reserve(LOOKED_AT);
        match self.conn.peek(scratch) {
            Ok(1..) => match HeadParser::default().read(scratch, usize::MAX) {
                Ok(Some(parsed)) => match parsed.framing {
                    BodyFraming::Sized(length)
                        if (scratch.len() - parsed.length) as u64 >= length =>
                    {
                        RequestProgress::Whole
                    }
                    _ => RequestProgress::Some,
                },
                Ok(None) => RequestProgress::Some,
                Err(_) => RequestProgress::Whole,
            },
            // There is nothing to see yet, or it is gone.
            Ok(0) | Err(_) => RequestProgress::Nothing,
        }
    }
}

impl AdmissionQueue {
    /// Who comes next: of those who have sent the most, the one who came first.
    fn next(&mut self) -> Option<QueuedConn> {
        if self.newcomers.len() == 1 {
            return self.newcomers.pop_front();
        }
        let mut best = (RequestProgress::Nothing, 0);
        for (index, newcomer) in self.newcomers.iter_mut().enumerate() {
            let sent = newcomer.sent(&mut self.scratch);
            if sent > best.0 {
                best = (sent, index);
            }
            if sent == RequestProgress::Whole {
                break;
            }
        }
        self.newcomers.remove(best.1)
    }

    /// Puts somebody back where they were.
    fn put_back(&mut self, newcomer: QueuedConn) {
        let place = self.newcomers.partition_point(|other| other.came < newcomer.came);
        self.newcomers.insert(place, newcomer);
    }

    fn is_full(&self) -> bool {
        self.newcomers.len() >= QUEUED_CONNECTIONS
    }

    /// Takes out whoever is to make room for others: of those who have sent the least, the one who
    /// came first. Nobody who has just come or has sent a whole request.
    fn least(&mut self, now: Instant) -> Option<QueuedConn> {
        let mut least = (RequestProgress::Whole, 0);
        for (index, newcomer) in self.newcomers.iter_mut().enumerate() {
            if newcomer.came + ARRIVING > now {
                break;
            }
            let sent = newcomer.sent(&mut self.scratch);
            if sent < least.0 {
                least = (sent, index);
            }
            if sent == RequestProgress::Nothing {
                break;
            }
        }
        if least.0 == RequestProgress::Whole { None } else { self.newcomers.remove(least.1) }
    }
}

impl Acceptor {
    pub fn run(mut self) {
        let mut look: Option<Instant> = None;
        loop {
            let now = Instant::now();
            self.turned.store(true, Ordering::Relaxed);
            if self.queue.is_full() {
                if let Some(newcomer) = self.queue.least(now) {
                    self.refuse(newcomer.conn, &Problem::new(Cause::ConnectionCap, ALL_TAKEN));
                }
            }
            let given_back = self.pool.given_back();
            let accepted = match look {
                Some(until) if self.queue.is_full() => {
                    listener::wait(&self.shutdown, (given_back, until.min(now + ARRIVING)))
                }
                Some(until) => self.listener.accept(&self.shutdown, (given_back, until)),
                // Nobody waits for what may be given back.
                None => self
                    .listener
                    .accept(&self.shutdown, (self.shutdown.as_fd(), now + ACCEPT_WAKE_INTERVAL)),
            };
            match accepted {
                Accepted::Shutdown => break,
                Accepted::Nobody => {}
                Accepted::Connection(socket, peer) => self.take_in(socket, peer),
                Accepted::Failed(error) => {
                    self.metrics.accept_errors.add(1);
                    if let Some(untold) = self.failures.record(Instant::now()) {
                        let listener = &self.listener;
                        self.logger.error(format_args!(
                            "cannot accept on {listener}: {error} ({untold} times before untold)"
                        ));
                    }
                    self.find_descriptors();
                }
            }
            look = self.let_in();
            let crowd = self.pool.crowds();
            self.crowd = look.and_then(|_| self.crowd.take().or_else(|| crowd.try_acquire(1)));
        }
        while let Some(newcomer) = self.queue.newcomers.pop_front() {
            let detail = "the server is shutting down";
            self.refuse(newcomer.conn, &Problem::new(Cause::Draining, detail));
        }
    }

    /// If descriptors are short, that of somebody who has asked nothing helps most.
    fn find_descriptors(&mut self) {
        // It gets no answer: it would keep its descriptor while it lingers.
        if self.queue.least(Instant::now()).is_none() {
            let _ = self.evict_idle();
            std::thread::sleep(REST);
        }
    }

    fn take_in(&mut self, socket: OwnedFd, peer: Option<SocketAddrAny>) {
        // A client that is gone already fails here; nobody is left to answer.
        let Ok(conn) = Conn::accepted(socket, peer, self.idle_timeout) else { return };
        self.metrics.connections_accepted.add(1);
        match self.clients.admit_connection(conn.peer()) {
            Ok(share) => {
                let came = Instant::now();
                let seen = (0, RequestProgress::Nothing);
                self.queue.newcomers.push_back(QueuedConn { conn, share, came, seen });
            }
            Err(problem) => self.refuse(conn, &problem),
        }
    }

    /// Lets newcomers in as far as there are places, and refuses those whose time is over. Says
    /// when to look again, if any are left.
    fn let_in(&mut self) -> Option<Instant> {
        while !self.queue.newcomers.is_empty() {
            let Some(place) = self.place() else { return self.wait_for_room(ALL_TAKEN) };
            let QueuedConn { conn, share, came, seen } = self.queue.next()?;
            match self.pool.admit(AdmittedConn { conn, share, place }) {
                Ok(()) => {
                    (self.queue.closing_until, self.queue.jammed_until) = (None, None);
                    self.metrics.connections_peak.raise_to(self.pool.open() as u64);
                }
                Err((AdmittedConn { conn, share, .. }, error)) => {
                    self.queue.put_back(QueuedConn { conn, share, came, seen });
                    // There are places, so what was given back is no news.
                    self.pool.hush();
                    return self.wait_for_room(&format!(
                        "no thread can be had for another connection ({error}); try again later"
                    ));
                }
            }
        }
        None
    }

    fn place(&self) -> Option<Permit> {
        self.pool.place().or_else(|| {
            // What is given back from now on will be heard of.
            self.pool.hush();
            self.pool.place()
        })
    }

    /// Has somebody give way, if somebody can. Says when to look again, if newcomers are left.
    fn wait_for_room(&mut self, why: &str) -> Option<Instant> {
        let now = Instant::now();
        let mut refused_until = now;
        let look = match self.queue.closing_until.filter(|until| now < *until) {
            Some(until) => until,
            None => match self.evict_idle() {
                Eviction::Yes => *self.queue.closing_until.insert(now + EVICTION_GRACE),
                Eviction::In(time) => now + time,
                Eviction::No => {
                    let jammed = self.queue.jammed_until.get_or_insert(now + QUEUE);
                    if now >= *jammed {
                        refused_until = now + QUEUE;
                    }
                    // Whoever comes to rest meanwhile need not give way before.
                    now + IDLE_EVICTION_AGE
                }
            },
        };
        while self.queue.newcomers.front().is_some_and(|first| first.until() <= refused_until) {
            let newcomer = self.queue.newcomers.pop_front()?;
            self.refuse(newcomer.conn, &Problem::new(Cause::ConnectionCap, why));
        }
        self.queue.newcomers.front().map(|first| first.until().min(look))
    }

    fn evict_idle(&self) -> Eviction {
        let made = self.pool.evict_idle();
        if made == Eviction::Yes {
            self.metrics.connections_evicted.add(1);
        }
        made
    }

    fn refuse(&self, conn: Conn, problem: &Problem) {
        self.metrics.count_refusal(problem.cause());
        self.logger.refusal(&conn, problem);
        let frame = EncodeOptions { include_body: true, close: true, allowed_origin: None };
        // A new socket's buffer has room for it.
        let _ = conn.send_now(&Response::from(problem).encode(frame));
        self.lingerer.take(Arc::new(conn));
    }
}
