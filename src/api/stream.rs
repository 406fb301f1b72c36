//! Streams: a poll that goes on. What comes is told as it comes, on one connection.
//!
//! A stream sits at its bell like a held poll and is answered like one, page by page, by the
//! publisher or by its own thread: the pages are shared with all streams at the same cursor. What
//! is different is that it goes back to its seat. A reader that does not read holds up nobody but
//! its own thread, which has one page in hand.

use std::io::{Error, ErrorKind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
#[cfg(feature = "websocket")]
use tungstenite::protocol::frame::coding::CloseCode;

use super::deliver::Delivery;
use super::page::{Lookup, PageKey, PageShape, RenderedPage, StreamFraming};
use super::params::QueryParams;
use super::poll::since;
use super::{Api, Caller, HeldPoll, sse};
use crate::access::{Grant, RequiredRight};
use crate::conn::Conn;
use crate::cursor::{Cursor, Since};
use crate::http::{HeaderName, HttpVersion, LAST_CHUNK, RequestHead, Response, encode_chunk};
use crate::limits::{
    DEFAULT_PAGE_EVENTS, MIN_STREAM_HEARTBEAT_INTERVAL, STREAM_HEARTBEAT_INTERVAL,
};
use crate::log::{GapPolicy, LogSlice};
use crate::metrics::Counter;
use crate::names::{TopicSet, TypeFilter};
use crate::problem::Problem;
use crate::semaphore::Permit;
#[cfg(feature = "websocket")]
use crate::waiters::WaiterHandle;
use crate::waiters::{Waiter, Woken};

/// A stream as it was asked for.
#[derive(Debug)]
pub struct StreamQuery {
    key: PageKey,
    wire: StreamFraming,
    /// What comes before its first piece.
    pub(super) opening: Response,
}

impl StreamQuery {
    /// Reads what a WebSocket is asked for.
    ///
    /// # Errors
    /// Names what is wrong, and what is allowed.
    #[cfg(feature = "websocket")]
    pub fn upgrade(topics: &str, head: &RequestHead) -> Result<StreamQuery, Problem> {
        let opening = super::websocket::opening(head)?;
        StreamQuery::over(StreamFraming::WebSocket, opening, topics, head)
    }

    /// Reads a stream's topics, parameters and place. It has no end, no pages and no form to
    /// choose, and tells gaps as they are found: so `wait`, `limit`, `format` and `gap` are unknown.
    ///
    /// # Errors
    /// Names what is wrong, and what is allowed.
    pub fn read(topics: &str, head: &RequestHead) -> Result<StreamQuery, Problem> {
        let opening = Response::without_body(200)
            .with_header("Content-Type", "text/event-stream")
            .with_header("Cache-Control", "no-store, no-transform")
            // nginx would otherwise wait for more than an event.
            .with_header("X-Accel-Buffering", "no");
        let (wire, opening) = match head.version {
            HttpVersion::Http10 => (StreamFraming::Sse, opening),
            HttpVersion::Http11 => {
                (StreamFraming::ChunkedSse, opening.with_header("Transfer-Encoding", "chunked"))
            }
        };
        StreamQuery::over(wire, opening, topics, head)
    }

    fn over(
        wire: StreamFraming,
        opening: Response,
        topics: &str,
        head: &RequestHead,
    ) -> Result<StreamQuery, Problem> {
        let topics = TopicSet::parse(topics).map_err(Problem::bad_request)?;
        let params = QueryParams::read(head.query(), &["since", "type"])?;
        let asked = params.parsed("since", Since::Start, since)?;
        let last = head.get(HeaderName::LastEventId)?.filter(|id| !id.is_empty());
        let last = last.map(|id| {
            let cursor = id.parse().map(Since::After);
            cursor.map_err(|_| {
                let detail = format!("header Last-Event-ID: {id:?} is no id that this server gave");
                Problem::bad_request(detail)
            })
        });
        let key = PageKey {
            topics,
            since: last.transpose()?.unwrap_or(asked),
            types: params.parsed("type", TypeFilter::default(), TypeFilter::parse)?,
            limit: DEFAULT_PAGE_EVENTS,
            shape: PageShape::Part(wire),
            on_gap: GapPolicy::Skip,
            preferred: None,
            cors: None,
        };
        Ok(StreamQuery { key, wire, opening })
    }

    /// The right that it needs.
    pub fn need(&self) -> RequiredRight {
        self.key.need()
    }
}

/// A stream that has begun, and the head that goes before it.
pub enum StartedStream<'a> {
    /// An answer's body.
    Events(Response, EventStream<'a>),
    /// Frames; and its place among the `WebSocket`s.
    #[cfg(feature = "websocket")]
    Socket(Response, EventStream<'a>, Permit),
}

/// A stream that was begun.
pub struct EventStream<'a> {
    api: &'a Api,
    conn: Arc<Conn>,
    waiter: Waiter<'a, HeldPoll, Delivery>,
    key: PageKey,
    wire: StreamFraming,
    grant: Grant,
    silence: Duration,
    /// When the cursor is told, unless something else is before.
    silent_until: Instant,
    /// Given up with its end, before that can be seen.
    permit: Option<Permit>,
}

/// Why a stream ends in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum StreamEnd {
    Drained,
    Revoked,
    /// Its client has gone.
    HungUp,
}

impl StreamFraming {
    /// Whether a page is all that there is to write, so that a publisher may.
    fn publishers_may_write(self) -> bool {
        matches!(self, StreamFraming::Sse | StreamFraming::ChunkedSse)
    }

    /// What keeps a silent stream alive.
    fn cursor(self, cursor: Cursor) -> Vec<u8> {
        match self {
            StreamFraming::Sse => sse::cursor(cursor),
            StreamFraming::ChunkedSse => encode_chunk(&sse::cursor(cursor)),
            #[cfg(feature = "websocket")]
            StreamFraming::WebSocket => super::websocket::ping(cursor),
        }
    }

    /// The last bytes.
    fn end(self, ended: StreamEnd) -> Vec<u8> {
        match (self, ended) {
            (StreamFraming::Sse, StreamEnd::Drained) => sse::retry(),
            (StreamFraming::ChunkedSse, StreamEnd::Drained) => {
                [&*encode_chunk(&sse::retry()), LAST_CHUNK].concat()
            }
            (StreamFraming::Sse, _) => Vec::new(),
            (StreamFraming::ChunkedSse, _) => LAST_CHUNK.to_vec(),
            #[cfg(feature = "websocket")]
            (StreamFraming::WebSocket, StreamEnd::Drained) => {
                super::websocket::close(CloseCode::Away)
            }
            #[cfg(feature = "websocket")]
            (StreamFraming::WebSocket, StreamEnd::Revoked) => {
                super::websocket::close(CloseCode::Policy)
            }
            // The conversation has had its last word.
            #[cfg(feature = "websocket")]
            (StreamFraming::WebSocket, StreamEnd::HungUp) => Vec::new(),
        }
    }
}

/// The next part of a stream.
pub enum StreamPart {
    /// Events, or a gap; a publisher may have begun to write it.
    Page(Delivery),
    /// Something else.
    Own(Vec<u8>),
    /// The end; these are the last bytes.
    End(Vec<u8>),
}

impl StreamPart {
    /// What of it is to be written yet.
    #[must_use]
    pub fn rest(&self) -> &[u8] {
        match self {
            StreamPart::Page(Delivery { page, sent }) => &page.bytes()[*sent..],
            StreamPart::Own(bytes) | StreamPart::End(bytes) => bytes,
        }
    }

    /// The bytes of all of it.
    #[must_use]
    pub fn length(&self) -> usize {
        match self {
            StreamPart::Page(Delivery { page, .. }) => page.bytes().len(),
            StreamPart::Own(bytes) | StreamPart::End(bytes) => bytes.len(),
        }
    }
}

impl Api {
    /// Begins a stream.
    ///
    /// # Errors
    /// When there is no place for it, or its token has just been taken back.
    pub fn begin(
        &self,
        query: StreamQuery,
        caller: &Caller<'_>,
    ) -> Result<StartedStream<'_>, Problem> {
        let StreamQuery { key, wire, opening } = query;
        #[cfg(feature = "websocket")]
        let socket =
            if wire == StreamFraming::WebSocket { Some(self.may_open_socket()?) } else { None };
        let permit = self.may_hold()?;
        let waiter = HeldPoll {
            conn: Arc::clone(caller.conn),
            key: key.clone(),
            takes_shared_page: wire.publishers_may_write(),
            grant: caller.grant.clone(),
            permit: Mutex::new(None),
        };
        let waiter = self.waiters.register(&key.topics, waiter);
        // As for a poll: either this finds out that the token is gone, or it is found sitting.
        self.access.recheck(caller.grant, || key.need())?;
        self.metrics.streams_begun.add(1);
        let stream = EventStream {
            api: self,
            conn: Arc::clone(caller.conn),
            waiter,
            key,
            wire,
            grant: caller.grant.clone(),
            silence: STREAM_HEARTBEAT_INTERVAL
                .min(self.max_wait)
                .max(MIN_STREAM_HEARTBEAT_INTERVAL),
            // A reader without events has a cursor from the beginning.
            silent_until: Instant::now(),
            permit: Some(permit),
        };
        #[cfg(feature = "websocket")]
        if let Some(socket) = socket {
            return Ok(StartedStream::Socket(opening, stream, socket));
        }
        Ok(StartedStream::Events(opening, stream))
    }
}

/// Events of a slice, and a gap if one was found, as they go over this wire; and how many.
pub fn part(wire: StreamFraming, slice: &LogSlice, room: usize) -> (Vec<u8>, usize) {
    match wire {
        StreamFraming::Sse => sse::part(slice, room),
        StreamFraming::ChunkedSse => {
            let (text, taken) = sse::part(slice, room);
            (encode_chunk(&text), taken)
        }
        #[cfg(feature = "websocket")]
        StreamFraming::WebSocket => super::websocket::part(slice, room),
    }
}

impl<'a> EventStream<'a> {
    /// Its place at the bell, for whoever may find that it has to end.
    #[cfg(feature = "websocket")]
    #[must_use]
    pub fn waiter(&self) -> Option<WaiterHandle<HeldPoll, Delivery>> {
        self.waiter.handle()
    }

    /// The topics that it tells of.
    #[cfg(feature = "websocket")]
    #[must_use]
    pub fn topics(&self) -> &TopicSet {
        &self.key.topics
    }

    /// Waits for the next piece.
    // Not inlined, as the poll's steps.
    #[inline(never)]
    #[must_use]
    pub fn next_piece(&mut self) -> StreamPart {
        let mut woken = false;
        loop {
            // Looked at each time: a stream that always has something to tell never waits.
            if self.api.shutdown.is_triggered() {
                return self.drained();
            } else if self.waiter.is_cancelled() {
                return self.dismissed();
            }
            let nothing = match self.api.look(&self.key) {
                Ok(Lookup::Data(page)) => {
                    if let Some(at) = page.first_at.filter(|_| woken) {
                        self.api.metrics.wake.observe(at.elapsed());
                    }
                    return self.page(Delivery { page, sent: 0 });
                }
                Ok(Lookup::Nothing(slice)) => slice,
                // It cannot be: gaps are skipped.
                Err(_) => return StreamPart::End(Vec::new()),
            };
            let cursor = nothing.next(0);
            self.key.since = Since::After(cursor);
            match self.waiter.wait(cursor.seq, self.silent_until) {
                Woken::Notified => woken = true,
                Woken::Answered(delivered) => return self.page(delivered),
                Woken::Deadline => {
                    self.silent_until = Instant::now() + self.silence;
                    return StreamPart::Own(self.wire.cursor(cursor));
                }
                Woken::Drained => return self.drained(),
                Woken::Cancelled => return self.dismissed(),
            }
        }
    }

    fn page(&mut self, delivered: Delivery) -> StreamPart {
        let page: &RenderedPage = &delivered.page;
        self.key.since = Since::After(page.next);
        self.silent_until = Instant::now() + self.silence;
        self.api.count_told_gap(page);
        StreamPart::Page(delivered)
    }

    fn drained(&mut self) -> StreamPart {
        self.over(&self.api.metrics.streams_drain);
        StreamPart::End(self.wire.end(StreamEnd::Drained))
    }

    fn dismissed(&mut self) -> StreamPart {
        let metrics = &self.api.metrics;
        let revoked = self.api.access.recheck(&self.grant, || self.key.need()).is_err();
        let (ended, count) = if revoked {
            (StreamEnd::Revoked, &metrics.streams_revoked)
        } else {
            (StreamEnd::HungUp, self.gone())
        };
        self.over(count);
        StreamPart::End(self.wire.end(ended))
    }

    /// Counts that a piece could not be written; with that it is over.
    pub fn broke(&mut self, error: &Error) {
        self.over(match error.kind() {
            ErrorKind::TimedOut => &self.api.metrics.streams_slow,
            _ => self.gone(),
        });
    }

    /// As what the end of a connection counts: its client has left, or took nothing for too long.
    fn gone(&self) -> &'a Counter {
        let metrics = &self.api.metrics;
        if self.conn.timed_out_by_kernel() {
            &metrics.streams_slow
        } else {
            &metrics.streams_hung_up
        }
    }

    fn over(&mut self, count: &Counter) {
        self.permit = None;
        count.add(1);
    }
}
