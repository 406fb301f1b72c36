//! A stream: a poll that waits again after each page, on one connection.
//!
//! A stream waits like a held poll and is answered like one, page by page, by the publisher or by
//! its own thread; streams at the same cursor share the pages. A slow reader delays only its own
//! thread, which has one page in memory.

use std::io::{Error, ErrorKind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::query::StreamQuery;
use super::websocket::{WebSocketPermit, WebSocketPermits};
use crate::access::{Access, Grant};
use crate::api::caller::Caller;
use crate::api::framing::{StreamEnd, StreamFraming};
use crate::api::held_poll::{Delivery, HeldPoll};
use crate::api::page::{Lookup, PageKey};
use crate::api::poll::Poller;
use crate::conn::Conn;
use crate::cursor::Since;
use crate::http::Response;
use crate::limits::{MIN_STREAM_HEARTBEAT_INTERVAL, STREAM_HEARTBEAT_INTERVAL};
use crate::metrics::Counter;
use crate::names::TopicSet;
use crate::problem::Problem;
use crate::semaphore::{OwnedPermit, PermitReleaser};
use crate::waiters::{Waiter, WaiterHandle, Woken};

/// What all streams share.
pub struct Streams {
    websockets: WebSocketPermits,
    heartbeat_interval: Duration,
}

/// A stream that has started, and the head of its response.
pub enum StartedStream<'a> {
    /// The body is server-sent events.
    Events(Response, EventStream<'a>),
    /// Frames of a WebSocket follow the head.
    WebSocket(Response, EventStream<'a>, WebSocketPermit),
}

/// A stream that has started.
pub struct EventStream<'a> {
    poller: &'a Poller,
    access: &'a Access,
    conn: Arc<Conn>,
    waiter: Waiter<'a, HeldPoll, Delivery>,
    key: PageKey,
    framing: StreamFraming,
    grant: Grant,
    heartbeat_interval: Duration,
    /// When the next heartbeat is due, unless a page is sent before.
    heartbeat_at: Instant,
    /// The permit among the held polls; dropped before the client can see the stream's end.
    permit: Option<OwnedPermit>,
}

/// The next bytes of a stream.
pub enum StreamPart {
    /// Events, or a gap; a publisher may have begun to write them.
    Page(Delivery),
    Heartbeat(Vec<u8>),
    /// The last bytes.
    End(Vec<u8>),
}

impl StreamPart {
    /// The bytes that are still to be written.
    #[must_use]
    pub fn unsent(&self) -> &[u8] {
        match self {
            StreamPart::Page(Delivery { page, sent }) => &page.bytes()[*sent..],
            StreamPart::Heartbeat(bytes) | StreamPart::End(bytes) => bytes,
        }
    }

    /// The number of bytes, written ones included.
    #[must_use]
    pub fn length(&self) -> usize {
        match self {
            StreamPart::Page(Delivery { page, .. }) => page.bytes().len(),
            StreamPart::Heartbeat(bytes) | StreamPart::End(bytes) => bytes.len(),
        }
    }
}

impl Streams {
    /// `max_wait` is `--max-wait`: it limits the silence between heartbeats, too.
    #[must_use]
    pub fn new(max_wait: Duration) -> Streams {
        let heartbeat_interval =
            STREAM_HEARTBEAT_INTERVAL.min(max_wait).max(MIN_STREAM_HEARTBEAT_INTERVAL);
        Streams { websockets: WebSocketPermits::new(), heartbeat_interval }
    }

    /// Starts a stream.
    ///
    /// # Errors
    /// If too many polls or WebSocket connections are open, or the token was just revoked.
    pub fn open<'a>(
        &self,
        poller: &'a Poller,
        access: &'a Access,
        query: StreamQuery,
        caller: &Caller<'_>,
    ) -> Result<StartedStream<'a>, Problem> {
        let StreamQuery { key, framing, opening } = query;
        let websocket = match framing {
            StreamFraming::WebSocket(framing) => Some(self.websockets.acquire(framing)?),
            StreamFraming::Sse | StreamFraming::ChunkedSse => None,
        };
        let permit = poller.acquire_hold_permit()?;
        let held = HeldPoll {
            conn: Arc::clone(caller.conn),
            key: key.clone(),
            takes_shared_page: framing.publisher_may_write(),
            grant: caller.grant.clone(),
            permit: None,
        };
        let waiter = poller.waiters.register(&key.topics, held);
        // Check again after registering: a revocation either is seen here or wakes this waiter.
        access.recheck(caller.grant, || key.required_right())?;
        poller.metrics.streams_begun.add(1);
        let stream = EventStream {
            poller,
            access,
            conn: Arc::clone(caller.conn),
            waiter,
            key,
            framing,
            grant: caller.grant.clone(),
            heartbeat_interval: self.heartbeat_interval,
            // The first heartbeat is due at once: it gives a client without events its first cursor.
            heartbeat_at: Instant::now(),
            permit: Some(OwnedPermit::new(permit)),
        };
        Ok(match websocket {
            Some(websocket) => StartedStream::WebSocket(opening, stream, websocket),
            None => StartedStream::Events(opening, stream),
        })
    }
}

impl<'a> EventStream<'a> {
    /// The stream's waiter, for a thread that may have to end the stream.
    #[must_use]
    pub fn waiter(&self) -> Option<WaiterHandle<HeldPoll, Delivery>> {
        self.waiter.handle()
    }

    #[must_use]
    pub fn topics(&self) -> &TopicSet {
        &self.key.topics
    }

    /// Waits for the next part.
    // Not inlined, for the same reason as the steps of a poll: the stack of a held request.
    #[inline(never)]
    #[must_use]
    pub fn next_part(&mut self) -> StreamPart {
        let mut was_notified = false;
        loop {
            // Checked in each round: a stream that always has another page never waits.
            if self.poller.shutdown.is_triggered() {
                return self.end_drained();
            } else if self.waiter.is_cancelled() {
                return self.end_cancelled();
            }
            let slice = match self.poller.reader.read(&self.key) {
                Ok(Lookup::Data(page)) => {
                    if let Some(at) = page.first_at.filter(|_| was_notified) {
                        self.poller.metrics.wake.observe(at.elapsed());
                    }
                    return self.page(Delivery { page, sent: 0 });
                }
                Ok(Lookup::Empty(slice)) => slice,
                // Unreachable: the gap policy of streams is to skip.
                Err(_) => return StreamPart::End(Vec::new()),
            };
            let cursor = slice.next(0);
            self.key.since = Since::After(cursor);
            match self.waiter.wait(cursor.seq, self.heartbeat_at) {
                Woken::Notified => was_notified = true,
                Woken::Answered(delivery) => return self.page(delivery),
                Woken::Deadline => {
                    self.heartbeat_at = Instant::now() + self.heartbeat_interval;
                    return StreamPart::Heartbeat(self.framing.heartbeat(cursor));
                }
                Woken::Drained => return self.end_drained(),
                Woken::Cancelled => return self.end_cancelled(),
            }
        }
    }

    fn page(&mut self, delivery: Delivery) -> StreamPart {
        self.key.since = Since::After(delivery.page.next());
        self.heartbeat_at = Instant::now() + self.heartbeat_interval;
        self.poller.count_gap_of(&delivery.page);
        StreamPart::Page(delivery)
    }

    fn end_drained(&mut self) -> StreamPart {
        self.release(&self.poller.metrics.streams_drain);
        StreamPart::End(self.framing.end(StreamEnd::Drained))
    }

    fn end_cancelled(&mut self) -> StreamPart {
        let metrics = &self.poller.metrics;
        let is_revoked = self.access.recheck(&self.grant, || self.key.required_right()).is_err();
        let (end, counter) = if is_revoked {
            (StreamEnd::Revoked, &metrics.streams_revoked)
        } else {
            (StreamEnd::HungUp, self.disconnect_counter())
        };
        self.release(counter);
        StreamPart::End(self.framing.end(end))
    }

    /// Ends the stream because a part could not be written.
    pub fn write_failed(&mut self, error: &Error) {
        self.release(match error.kind() {
            ErrorKind::TimedOut => &self.poller.metrics.streams_slow,
            _ => self.disconnect_counter(),
        });
    }

    /// The counter of a connection that has ended: the client hung up, or it read nothing until the
    /// kernel's time-out.
    fn disconnect_counter(&self) -> &'a Counter {
        let metrics = &self.poller.metrics;
        if self.conn.timed_out_by_kernel() {
            &metrics.streams_slow
        } else {
            &metrics.streams_hung_up
        }
    }

    /// Releases the stream's permit among the held polls; for the thread that writes the last frame
    /// of a WebSocket.
    #[must_use]
    pub fn permit_releaser(&self) -> Option<PermitReleaser> {
        self.permit.as_ref().map(OwnedPermit::releaser)
    }

    fn release(&mut self, counter: &Counter) {
        self.permit = None;
        counter.add(1);
    }
}
