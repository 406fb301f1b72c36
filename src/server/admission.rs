//! What happens when all connections are taken: the accept queue and its eviction policy.
//!
//! New connections queue here and not in the kernel, because the server can peek at what they have
//! sent, and prefer those with a request. The decisions, each in one function:
//!
//! - *Which queued connection gets the next permit*: one that has sent a complete request, else part of
//!   one, else nothing, the oldest among equals ([`AdmissionQueue::pop_next`]). So a well-behaved
//!   client passes any number of silent ones.
//! - *Without a permit* ([`Admission::wait_for_permit`]): the connection that has been idle for
//!   longest, and for at least [`IDLE_EVICTION_AGE`], is evicted, one at a time. Idle is one whose next
//!   request has not arrived completely. If none is idle, the queue waits. A connection that has queued for [`QUEUE_TIME`] gets `503`; once no
//!   connection has been idle for that long, new ones get it at once.
//! - *With a full queue* ([`AdmissionQueue::pop_worst`]): the oldest of those that have sent the
//!   least gets `503`, never one that has just arrived or has sent a complete request. If all are
//!   such, none is refused, and further connections wait in the kernel.

use std::collections::VecDeque;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::SocketAddrAny;

use super::head::HeadParser;
use super::lingering_close::LingeringClose;
use super::pool::{AdmittedConn, Eviction, WorkerPool};
use crate::client_limit::{ClientLimiter, ClientPermit};
use crate::conn::Conn;
use crate::http::{BodyFraming, EncodeOptions, Response};
use crate::limits::{EVICTION_GRACE, IDLE_EVICTION_AGE, QUEUED_CONNECTIONS};
use crate::logger::Logger;
use crate::metrics::Metrics;
use crate::problem::{Cause, Problem};
use crate::semaphore::Permit;

/// The time within which a request arrives after its connection; in practice it is there at once.
/// No queued connection is judged before that.
pub const ARRIVAL_TIME: Duration = Duration::from_millis(20);
/// How much of a queued request is peeked at. A longer request counts as partial.
const PEEK_BYTES: usize = 4 << 10;
/// How long a connection may queue.
const QUEUE_TIME: Duration = IDLE_EVICTION_AGE.saturating_add(EVICTION_GRACE);
const ALL_TAKEN: &str = "all connections are held or being answered; try again later";

/// The connections that wait for a permit, oldest first.
#[derive(Default)]
struct AdmissionQueue {
    conns: VecDeque<QueuedConn>,
    /// For peeking at requests.
    scratch: Vec<u8>,
}

struct QueuedConn {
    conn: Conn,
    client_permit: ClientPermit,
    arrived: Instant,
    /// The number of bytes that had arrived at the last peek, and what they were.
    peeked: (u64, RequestProgress),
}

/// How much of its request a queued connection has sent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum RequestProgress {
    Nothing,
    Partial,
    /// A whole request, or one that can be refused as it is.
    Complete,
}

impl QueuedConn {
    fn deadline(&self) -> Instant {
        self.arrived + QUEUE_TIME
    }

    /// Peeks only if more bytes have arrived since the last time: the queue may be long.
    fn progress(&mut self, scratch: &mut Vec<u8>) -> RequestProgress {
        let received = self.conn.unread();
        if received != self.peeked.0 {
            self.peeked = (received, self.peek(scratch));
        }
        self.peeked.1
    }

    fn peek(&self, scratch: &mut Vec<u8>) -> RequestProgress {
        scratch.clear();
        scratch.reserve(PEEK_BYTES);
        match self.conn.peek(scratch) {
            Ok(1..) => match HeadParser::default().read(scratch, usize::MAX) {
                Ok(Some(parsed)) => match parsed.framing {
                    BodyFraming::Sized(length)
                        if (scratch.len() - parsed.length) as u64 >= length =>
                    {
                        RequestProgress::Complete
                    }
                    _ => RequestProgress::Partial,
                },
                Ok(None) => RequestProgress::Partial,
                Err(_) => RequestProgress::Complete,
            },
            // Nothing has arrived yet, or the client is gone.
            Ok(0) | Err(_) => RequestProgress::Nothing,
        }
    }
}

impl AdmissionQueue {
    /// Removes the connection to admit next: a complete request before a partial one before none,
    /// the oldest among equals.
    fn pop_next(&mut self) -> Option<QueuedConn> {
        if self.conns.len() == 1 {
            return self.conns.pop_front();
        }
        let mut best = (RequestProgress::Nothing, 0);
        for (index, queued) in self.conns.iter_mut().enumerate() {
            let progress = queued.progress(&mut self.scratch);
            if progress > best.0 {
                best = (progress, index);
            }
            if progress == RequestProgress::Complete {
                break;
            }
        }
        self.conns.remove(best.1)
    }

    /// Removes the connection to refuse first: no request before a partial one, the oldest among
    /// equals. Never one that has just arrived or has sent a complete request.
    fn pop_worst(&mut self, now: Instant) -> Option<QueuedConn> {
        let mut worst = (RequestProgress::Complete, 0);
        for (index, queued) in self.conns.iter_mut().enumerate() {
            if queued.arrived + ARRIVAL_TIME > now {
                break;
            }
            let progress = queued.progress(&mut self.scratch);
            if progress < worst.0 {
                worst = (progress, index);
            }
            if progress == RequestProgress::Nothing {
                break;
            }
        }
        if worst.0 == RequestProgress::Complete { None } else { self.conns.remove(worst.1) }
    }

    /// Returns a connection to its place in the order of arrival.
    fn put_back(&mut self, queued: QueuedConn) {
        let index = self.conns.partition_point(|other| other.arrived < queued.arrived);
        self.conns.insert(index, queued);
    }
}

/// The accept queue of one listener, and what it needs to admit and to refuse.
pub struct Admission {
    pool: Arc<WorkerPool>,
    clients: ClientLimiter,
    metrics: Arc<Metrics>,
    logger: Logger,
    lingering: LingeringClose,
    idle_timeout: Duration,
    queue: AdmissionQueue,
    /// Until when an evicted connection may still be closing; no other is evicted before.
    evicting_until: Option<Instant>,
    /// Set when no connection is idle, until one is admitted: from then on, new connections are
    /// refused at once.
    saturated_from: Option<Instant>,
    /// Held while connections queue: meanwhile, open connections close after their next response.
    queueing: Option<Permit>,
}

impl Admission {
    pub fn new(
        pool: Arc<WorkerPool>,
        clients: ClientLimiter,
        metrics: Arc<Metrics>,
        logger: Logger,
        lingering: LingeringClose,
        idle_timeout: Duration,
    ) -> Admission {
        Admission {
            pool,
            clients,
            metrics,
            logger,
            lingering,
            idle_timeout,
            queue: AdmissionQueue::default(),
            evicting_until: None,
            saturated_from: None,
            queueing: None,
        }
    }

    /// Becomes readable when a permit is released.
    pub fn permit_released(&self) -> BorrowedFd<'_> {
        self.pool.permit_released()
    }

    pub fn is_full(&self) -> bool {
        self.queue.conns.len() >= QUEUED_CONNECTIONS
    }

    /// Queues a new connection, unless its client has too many.
    pub fn enqueue(&mut self, socket: OwnedFd, peer: Option<SocketAddrAny>) {
        // It fails if the client is already gone: nothing to answer.
        let Ok(conn) = Conn::accepted(socket, peer, self.idle_timeout) else { return };
        self.metrics.connections_accepted.add(1);
        match self.clients.admit_connection(conn.peer()) {
            Ok(client_permit) => {
                let arrived = Instant::now();
                let peeked = (0, RequestProgress::Nothing);
                self.queue.conns.push_back(QueuedConn { conn, client_permit, arrived, peeked });
            }
            Err(problem) => self.refuse(conn, &problem),
        }
    }

    /// Admits queued connections while there are permits, and refuses those that have queued too
    /// long. Returns when to call again if any are left.
    pub fn admit_queued(&mut self) -> Option<Instant> {
        let retry_at = self.admit_all();
        let acceptors = self.pool.queueing_acceptors();
        self.queueing =
            retry_at.and_then(|_| self.queueing.take().or_else(|| acceptors.try_acquire(1)));
        retry_at
    }

    fn admit_all(&mut self) -> Option<Instant> {
        while !self.queue.conns.is_empty() {
            let Some(permit) = self.acquire_permit() else {
                return self.wait_for_permit(ALL_TAKEN);
            };
            let QueuedConn { conn, client_permit, arrived, peeked } = self.queue.pop_next()?;
            match self.pool.admit(AdmittedConn { conn, client_permit, permit }) {
                Ok(()) => {
                    (self.evicting_until, self.saturated_from) = (None, None);
                    self.metrics.connections_peak.raise_to(self.pool.open_connections() as u64);
                }
                Err((AdmittedConn { conn, client_permit, .. }, error)) => {
                    self.queue.put_back(QueuedConn { conn, client_permit, arrived, peeked });
                    // There are permits, so a released one does not help.
                    self.pool.reset_permit_released();
                    return self.wait_for_permit(&format!(
                        "no thread can be started for another connection ({error}); try again later"
                    ));
                }
            }
        }
        None
    }

    fn acquire_permit(&self) -> Option<Permit> {
        self.pool.try_acquire().or_else(|| {
            self.pool.reset_permit_released();
            self.pool.try_acquire()
        })
    }

    /// Evicts an idle connection if there is one, and refuses queued connections whose time is
    /// over, for this reason. Returns when to try again if any are left.
    fn wait_for_permit(&mut self, reason: &str) -> Option<Instant> {
        let now = Instant::now();
        let mut refuse_until = now;
        let retry_at = match self.evicting_until.filter(|until| now < *until) {
            Some(until) => until,
            None => match self.evict_idle() {
                Eviction::Closed => *self.evicting_until.insert(now + EVICTION_GRACE),
                Eviction::PossibleIn(time) => now + time,
                Eviction::NoneIdle => {
                    let saturated_from = self.saturated_from.get_or_insert(now + QUEUE_TIME);
                    if now >= *saturated_from {
                        refuse_until = now + QUEUE_TIME;
                    }
                    // A connection that becomes idle meanwhile cannot be evicted earlier.
                    now + IDLE_EVICTION_AGE
                }
            },
        };
        while self.queue.conns.front().is_some_and(|first| first.deadline() <= refuse_until) {
            let queued = self.queue.conns.pop_front()?;
            self.refuse(queued.conn, &Problem::new(Cause::ConnectionCap, reason));
        }
        self.queue.conns.front().map(|first| first.deadline().min(retry_at))
    }

    fn evict_idle(&self) -> Eviction {
        let eviction = self.pool.evict_idle();
        if eviction == Eviction::Closed {
            self.metrics.connections_evicted.add(1);
        }
        eviction
    }

    /// Refuses one queued connection, if the queue is full, to make space for the next.
    pub fn shrink_full_queue(&mut self, now: Instant) {
        if self.is_full() {
            if let Some(queued) = self.queue.pop_worst(now) {
                self.refuse(queued.conn, &Problem::new(Cause::ConnectionCap, ALL_TAKEN));
            }
        }
    }

    /// Frees a descriptor: closes a queued connection or, if none may be closed, evicts an idle one.
    /// True in the first case: the descriptor is free at once.
    pub fn free_descriptor(&mut self) -> bool {
        // Without a response: the connection would keep its descriptor while it lingers.
        if self.queue.pop_worst(Instant::now()).is_some() {
            return true;
        }
        let _ = self.evict_idle();
        false
    }

    /// Refuses all queued connections, for a drain.
    pub fn refuse_all(&mut self) {
        while let Some(queued) = self.queue.conns.pop_front() {
            let detail = "the server is shutting down";
            self.refuse(queued.conn, &Problem::new(Cause::Draining, detail));
        }
    }

    fn refuse(&self, conn: Conn, problem: &Problem) {
        self.metrics.count_refusal(problem.cause());
        self.logger.refusal(&conn, problem);
        let options = EncodeOptions { include_body: true, close: true, allowed_origin: None };
        // It fits into the empty buffer of a new socket.
        let _ = conn.send_now(&Response::from(problem).encode(options));
        self.lingering.close(Arc::new(conn));
    }
}

#[cfg(test)]
mod tests {
    use super::RequestProgress::{Complete, Nothing, Partial};
    use super::*;
    use crate::config::Config;
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;

    /// A queue of clients that have sent these bytes, oldest first, a millisecond apart.
    fn queue(sent: &[&[u8]], oldest: Instant) -> (AdmissionQueue, Vec<UnixStream>) {
        let limiter = ClientLimiter::new(&Config::default());
        let (mut queue, mut clients) = (AdmissionQueue::default(), Vec::new());
        for (arrived, sent) in (0..).map(|ms| oldest + Duration::from_millis(ms)).zip(sent) {
            let (server_end, mut client) = UnixStream::pair().unwrap();
            client.write_all(sent).unwrap();
            let conn = Conn::accepted(server_end.into(), None, Duration::from_secs(60)).unwrap();
            let client_permit = limiter.admit_connection(None).unwrap();
            let peeked = (0, Nothing);
            queue.conns.push_back(QueuedConn { conn, client_permit, arrived, peeked });
            clients.push(client);
        }
        (queue, clients)
    }

    const REQUEST: &[u8] = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
    const BEGINNING: &[u8] =
        b"POST /topics/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n";

    #[test]
    fn complete_requests_are_admitted_before_partial_and_silent_ones() {
        let (mut queue, _clients) =
            queue(&[b"", BEGINNING, REQUEST, b"no HTTP\r\n", BEGINNING], Instant::now());
        let mut admitted = Vec::new();
        while let Some(mut queued) = queue.pop_next() {
            admitted.push(queued.progress(&mut Vec::new()));
        }
        assert_eq!(admitted, [Complete, Complete, Partial, Partial, Nothing]);
    }

    #[test]
    fn silent_clients_are_refused_first_and_complete_or_new_ones_never() {
        let oldest = Instant::now();
        let now = oldest + Duration::from_secs(1);
        let (mut queue, _clients) = queue(&[REQUEST, BEGINNING, b"", b""], oldest);
        queue.conns[3].arrived = now;
        let mut refused = Vec::new();
        while let Some(mut queued) = queue.pop_worst(now) {
            refused.push(queued.progress(&mut Vec::new()));
        }
        assert_eq!(refused, [Nothing, Partial]);
        assert_eq!(queue.conns.len(), 2);
    }
}
