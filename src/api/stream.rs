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

use super::deliver::Delivered;
use super::page::{Found, Page, PageKey, Shape, Wire};
use super::params::Params;
use super::poll::since;
use super::{Api, Caller, Waiter, sse};
use crate::access::{Grant, Need};
#[cfg(feature = "websocket")]
use crate::bell::SeatRef;
use crate::bell::{Seat, Woken};
use crate::cursor::{Cursor, Since};
use crate::error::Problem;
use crate::http::{Answer, Field, Head, LAST_CHUNK, Version, chunk};
use crate::limits::{PAGE_EVENTS_DEFAULT, STREAM_SILENCE, STREAM_SILENCE_LEAST};
use crate::line::Line;
use crate::log::{OnGap, Slice};
use crate::metrics::Counter;
use crate::names::{TopicSet, TypeFilter};
use crate::permits::Permit;

/// A stream as it was asked for.
#[derive(Debug)]
pub struct Query {
    key: PageKey,
    wire: Wire,
    /// What comes before its first piece.
    pub(super) opening: Answer,
}

impl Query {
    /// Reads what a WebSocket is asked for.
    ///
    /// # Errors
    /// Names what is wrong, and what is allowed.
    #[cfg(feature = "websocket")]
    pub fn upgrade(topics: &str, head: &Head) -> Result<Query, Problem> {
        let opening = super::socket::opening(head)?;
        Query::over(Wire::WebSocket, opening, topics, head)
    }

    /// Reads a stream's topics, parameters and place. It has no end, no pages and no form to
    /// choose, and tells gaps as they are found: so `wait`, `limit`, `format` and `gap` are unknown.
    ///
    /// # Errors
    /// Names what is wrong, and what is allowed.
    pub fn read(topics: &str, head: &Head) -> Result<Query, Problem> {
        let opening = Answer::bare(200)
            .with("Content-Type", "text/event-stream")
            .with("Cache-Control", "no-store, no-transform")
            // nginx would otherwise wait for more than an event.
            .with("X-Accel-Buffering", "no");
        let (wire, opening) = match head.version {
            Version::Http10 => (Wire::Sse, opening),
            Version::Http11 => (Wire::ChunkedSse, opening.with("Transfer-Encoding", "chunked")),
        };
        Query::over(wire, opening, topics, head)
    }

    fn over(wire: Wire, opening: Answer, topics: &str, head: &Head) -> Result<Query, Problem> {
        let topics = TopicSet::parse(topics).map_err(Problem::bad)?;
        let params = Params::read(head.query(), &["since", "type"])?;
        let asked = params.parsed("since", Since::Start, since)?;
        let last = head.one(Field::LastEventId)?.filter(|id| !id.is_empty());
        let last = last.map(|id| {
            let cursor = id.parse().map(Since::After);
            cursor.map_err(|_| {
                let detail = format!("header Last-Event-ID: {id:?} is no id that this server gave");
                Problem::bad(detail)
            })
        });
        let key = PageKey {
            topics,
            since: last.transpose()?.unwrap_or(asked),
            types: params.parsed("type", TypeFilter::default(), TypeFilter::parse)?,
            limit: PAGE_EVENTS_DEFAULT,
            shape: Shape::Part(wire),
            on_gap: OnGap::Skip,
            preferred: None,
            cors: None,
        };
        Ok(Query { key, wire, opening })
    }

    /// The right that it needs.
    pub fn need(&self) -> Need {
        self.key.need()
    }
}

/// A stream that has begun, and the head that goes before it.
pub enum Begun<'a> {
    /// An answer's body.
    Events(Answer, Stream<'a>),
    /// Frames; and its place among the `WebSocket`s.
    #[cfg(feature = "websocket")]
    Socket(Answer, Stream<'a>, Permit),
}

/// A stream that was begun.
pub struct Stream<'a> {
    api: &'a Api,
    line: Arc<Line>,
    seat: Seat<'a, Waiter, Delivered>,
    key: PageKey,
    wire: Wire,
    grant: Grant,
    silence: Duration,
    /// When the cursor is told, unless something else is before.
    silent_until: Instant,
    /// Given up with its end, before that can be seen.
    permit: Option<Permit>,
}

/// Why a stream ends in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ended {
    Drained,
    Revoked,
    /// Its client has gone.
    HungUp,
}

impl Wire {
    /// Whether a page is all that there is to write, so that a publisher may.
    fn publishers_may_write(self) -> bool {
        matches!(self, Wire::Sse | Wire::ChunkedSse)
    }

    /// What keeps a silent stream alive.
    fn cursor(self, cursor: Cursor) -> Vec<u8> {
        match self {
            Wire::Sse => sse::cursor(cursor),
            Wire::ChunkedSse => chunk(&sse::cursor(cursor)),
            #[cfg(feature = "websocket")]
            Wire::WebSocket => super::socket::ping(cursor),
        }
    }

    /// The last bytes.
    fn end(self, ended: Ended) -> Vec<u8> {
        match (self, ended) {
            (Wire::Sse, Ended::Drained) => sse::retry(),
            (Wire::ChunkedSse, Ended::Drained) => [&*chunk(&sse::retry()), LAST_CHUNK].concat(),
            (Wire::Sse, _) => Vec::new(),
            (Wire::ChunkedSse, _) => LAST_CHUNK.to_vec(),
            #[cfg(feature = "websocket")]
            (Wire::WebSocket, Ended::Drained) => super::socket::close(CloseCode::Away),
            #[cfg(feature = "websocket")]
            (Wire::WebSocket, Ended::Revoked) => super::socket::close(CloseCode::Policy),
            // The conversation has had its last word.
            #[cfg(feature = "websocket")]
            (Wire::WebSocket, Ended::HungUp) => Vec::new(),
        }
    }
}

/// The next part of a stream.
pub enum Piece {
    /// Events, or a gap; a publisher may have begun to write it.
    Page(Delivered),
    /// Something else.
    Own(Vec<u8>),
    /// The end; these are the last bytes.
    End(Vec<u8>),
}

impl Piece {
    /// What of it is to be written yet.
    #[must_use]
    pub fn rest(&self) -> &[u8] {
        match self {
            Piece::Page(Delivered { page, sent }) => &page.bytes()[*sent..],
            Piece::Own(bytes) | Piece::End(bytes) => bytes,
        }
    }

    /// The bytes of all of it.
    #[must_use]
    pub fn length(&self) -> usize {
        match self {
            Piece::Page(Delivered { page, .. }) => page.bytes().len(),
            Piece::Own(bytes) | Piece::End(bytes) => bytes.len(),
        }
    }
}

impl Api {
    /// Begins a stream.
    ///
    /// # Errors
    /// When there is no place for it, or its token has just been taken back.
    pub fn begin(&self, query: Query, caller: &Caller<'_>) -> Result<Begun<'_>, Problem> {
        let Query { key, wire, opening } = query;
        #[cfg(feature = "websocket")]
        let socket = if wire == Wire::WebSocket { Some(self.may_open_socket()?) } else { None };
        let permit = self.may_hold()?;
        let waiter = Waiter {
            line: Arc::clone(caller.line),
            key: key.clone(),
            takes_shared_page: wire.publishers_may_write(),
            grant: caller.grant.clone(),
            permit: Mutex::new(None),
        };
        let seat = self.room.sit(&key.topics, waiter);
        // As for a poll: either this finds out that the token is gone, or it is found sitting.
        self.access.still(caller.grant, || key.need())?;
        self.metrics.streams_begun.add(1);
        let stream = Stream {
            api: self,
            line: Arc::clone(caller.line),
            seat,
            key,
            wire,
            grant: caller.grant.clone(),
            silence: STREAM_SILENCE.min(self.max_wait).max(STREAM_SILENCE_LEAST),
            // A reader without events has a cursor from the beginning.
            silent_until: Instant::now(),
            permit: Some(permit),
        };
        #[cfg(feature = "websocket")]
        if let Some(socket) = socket {
            return Ok(Begun::Socket(opening, stream, socket));
        }
        Ok(Begun::Events(opening, stream))
    }
}

/// Events of a slice, and a gap if one was found, as they go over this wire; and how many.
pub fn part(wire: Wire, slice: &Slice, room: usize) -> (Vec<u8>, usize) {
    match wire {
        Wire::Sse => sse::part(slice, room),
        Wire::ChunkedSse => {
            let (text, taken) = sse::part(slice, room);
            (chunk(&text), taken)
        }
        #[cfg(feature = "websocket")]
        Wire::WebSocket => super::socket::part(slice, room),
    }
}

impl<'a> Stream<'a> {
    /// Its place at the bell, for whoever may find that it has to end.
    #[cfg(feature = "websocket")]
    #[must_use]
    pub fn seat(&self) -> Option<SeatRef<Waiter, Delivered>> {
        self.seat.seen()
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
    pub fn next_piece(&mut self) -> Piece {
        let mut woken = false;
        loop {
            // Looked at each time: a stream that always has something to tell never waits.
            if self.api.shutdown.given() {
                return self.drained();
            } else if self.seat.is_dismissed() {
                return self.dismissed();
            }
            let nothing = match self.api.look(&self.key) {
                Ok(Found::Data(page)) => {
                    if let Some(at) = page.first_at.filter(|_| woken) {
                        self.api.metrics.wake.observe(at.elapsed());
                    }
                    return self.page(Delivered { page, sent: 0 });
                }
                Ok(Found::Nothing(slice)) => slice,
                // It cannot be: gaps are skipped.
                Err(_) => return Piece::End(Vec::new()),
            };
            let cursor = nothing.next(0);
            self.key.since = Since::After(cursor);
            match self.seat.wait(cursor.seq, self.silent_until) {
                Woken::Rung => woken = true,
                Woken::Left(delivered) => return self.page(delivered),
                Woken::Deadline => {
                    self.silent_until = Instant::now() + self.silence;
                    return Piece::Own(self.wire.cursor(cursor));
                }
                Woken::Drained => return self.drained(),
                Woken::Dismissed => return self.dismissed(),
            }
        }
    }

    fn page(&mut self, delivered: Delivered) -> Piece {
        let page: &Page = &delivered.page;
        self.key.since = Since::After(page.next);
        self.silent_until = Instant::now() + self.silence;
        self.api.count_told_gap(page);
        Piece::Page(delivered)
    }

    fn drained(&mut self) -> Piece {
        self.over(&self.api.metrics.streams_drain);
        Piece::End(self.wire.end(Ended::Drained))
    }

    fn dismissed(&mut self) -> Piece {
        let metrics = &self.api.metrics;
        let revoked = self.api.access.still(&self.grant, || self.key.need()).is_err();
        let (ended, count) = if revoked {
            (Ended::Revoked, &metrics.streams_revoked)
        } else {
            (Ended::HungUp, self.gone())
        };
        self.over(count);
        Piece::End(self.wire.end(ended))
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
        if self.line.broke_off() { &metrics.streams_slow } else { &metrics.streams_hung_up }
    }

    fn over(&mut self, count: &Counter) {
        self.permit = None;
        count.add(1);
    }
}
