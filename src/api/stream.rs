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

use super::deliver::Delivered;
use super::page::{Found, Page, PageKey, Shape, Wire};
use super::params::Params;
use super::poll::since;
use super::{Api, Caller, Reply, Waiter, sse};
use crate::access::{Grant, Need};
use crate::bell::{Seat, Woken};
use crate::cursor::Since;
use crate::error::Problem;
use crate::http::{Answer, Field, Head, LAST_CHUNK, Version};
use crate::limits::{PAGE_EVENTS_DEFAULT, STREAM_SILENCE, STREAM_SILENCE_LEAST};
use crate::log::OnGap;
use crate::names::{TopicSet, TypeFilter};
use crate::permits::Permit;

/// A stream as it was asked for.
#[derive(Debug)]
pub struct Query {
    key: PageKey,
    wire: Wire,
    /// Whether the head is all that is asked for.
    is_head: bool,
}

/// Whether a request asks for server-sent events: every `EventSource` does, and nothing else by
/// accident.
pub fn is_asked_for(head: &Head) -> bool {
    head.all(Field::Accept).flat_map(|value| value.split(',')).any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let is_it = |name: &str| name.eq_ignore_ascii_case("text/event-stream");
        let refuses = |quality: &str| quality.trim_matches(['0', '.']).is_empty();
        parts.next().is_some_and(is_it)
            && !parts.filter_map(|part| part.strip_prefix("q=")).any(refuses)
    })
}

impl Query {
    /// Reads a stream's topics, parameters and place. It has no end, no pages and no form to
    /// choose, and tells gaps as they are found: so `wait`, `limit`, `format` and `gap` are unknown.
    ///
    /// # Errors
    /// Names what is wrong, and what is allowed.
    pub fn read(topics: &str, head: &Head) -> Result<Query, Problem> {
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
        let wire = match head.version {
            Version::Http10 => Wire::Sse,
            Version::Http11 => Wire::ChunkedSse,
        };
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
        Ok(Query { key, wire, is_head: head.is_head() })
    }

    /// The right that it needs.
    pub fn need(&self) -> Need {
        self.key.need()
    }
}

/// A stream that was begun.
pub struct Stream<'a> {
    api: &'a Api,
    seat: Seat<'a, Waiter, Delivered>,
    key: PageKey,
    wire: Wire,
    grant: Grant,
    silence: Duration,
    /// When the cursor is told, unless something else is before.
    silent_until: Instant,
    _permit: Permit,
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
    pub(super) fn stream(&self, query: Query, caller: &Caller<'_>) -> Result<Reply<'_>, Problem> {
        let Query { key, wire, is_head } = query;
        if is_head {
            return Ok(Reply::Answer(opening(wire)));
        }
        let permit = self.may_hold()?;
        let waiter = Waiter {
            line: Arc::clone(caller.line),
            key: key.clone(),
            takes_shared_page: true,
            grant: caller.grant.clone(),
            permit: Mutex::new(None),
        };
        let seat = self.room.sit(&key.topics, waiter);
        // As for a poll: either this finds out that the token is gone, or it is found sitting.
        self.access.still(caller.grant, || key.need())?;
        self.metrics.streams_begun.add(1);
        Ok(Reply::Stream(Box::new(Stream {
            api: self,
            seat,
            key,
            wire,
            grant: caller.grant.clone(),
            silence: STREAM_SILENCE.min(self.max_wait).max(STREAM_SILENCE_LEAST),
            // A reader without events has a cursor from the beginning.
            silent_until: Instant::now(),
            _permit: permit,
        })))
    }
}

fn opening(wire: Wire) -> Answer {
    let answer = Answer::bare(200)
        .with("Content-Type", "text/event-stream")
        .with("Cache-Control", "no-store, no-transform")
        // nginx would otherwise wait for more than an event.
        .with("X-Accel-Buffering", "no");
    match wire {
        Wire::Sse => answer,
        Wire::ChunkedSse => answer.with("Transfer-Encoding", "chunked"),
    }
}

impl Stream<'_> {
    /// What comes before its first piece.
    #[must_use]
    pub fn opening(&self) -> Answer {
        opening(self.wire)
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
                Err(_) => return self.end(Vec::new()),
            };
            let cursor = nothing.next(0);
            self.key.since = Since::After(cursor);
            match self.seat.wait(cursor.seq, self.silent_until) {
                Woken::Rung => woken = true,
                Woken::Left(delivered) => return self.page(delivered),
                Woken::Deadline => {
                    self.silent_until = Instant::now() + self.silence;
                    return Piece::Own(sse::framed(self.wire, sse::cursor(cursor)));
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

    fn drained(&self) -> Piece {
        self.api.metrics.streams_drain.add(1);
        self.end(sse::framed(self.wire, sse::retry()))
    }

    fn dismissed(&self) -> Piece {
        let metrics = &self.api.metrics;
        match self.api.access.still(&self.grant, || self.key.need()) {
            // Its client has gone.
            Ok(()) => metrics.streams_hung_up.add(1),
            Err(_) => metrics.streams_revoked.add(1),
        }
        self.end(Vec::new())
    }

    fn end(&self, mut last: Vec<u8>) -> Piece {
        if self.wire == Wire::ChunkedSse {
            last.extend_from_slice(LAST_CHUNK);
        }
        Piece::End(last)
    }

    /// Counts that a piece could not be written; with that it is over.
    pub fn broke(&self, error: &Error) {
        let metrics = &self.api.metrics;
        match error.kind() {
            ErrorKind::TimedOut => metrics.streams_slow.add(1),
            _ => metrics.streams_hung_up.add(1),
        }
    }
}
