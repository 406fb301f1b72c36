//! Reading the log: the gap test, the merge of several topics, and the next cursor.
//!
//! A [`LogSlice`] is what follows a cursor, read at one instant. A response is made from it alone:
//! the events, merged from the topics in seq order; how many more there are; and the next cursor.
//! That cursor is past everything that was read, also past events that the request does not match,
//! so the traffic of other topics and types never makes it fall behind. The gap test never misses a
//! loss, and reports a loss that did not happen only where a whole topic was forgotten.

use std::num::NonZeroU64;
use std::sync::Arc;

use super::event::Event;
use super::matching::{GapPolicy, MatchedTopics, ReadPosition, ReadRequest};
use super::state::LogState;
use crate::cursor::{Cursor, Epoch, Seq, Since, TrimCount};
use crate::limits::GAP_COUNTED_TOPICS;
use crate::names::Name;

/// Why a reader cannot continue from its cursor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GapReason {
    /// Events after the cursor were trimmed.
    Trimmed,
    /// The cursor belongs to another epoch.
    Epoch,
    /// The cursor is after the newest event.
    Future,
}

impl GapReason {
    /// The value of `why` in a response.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            GapReason::Trimmed => "trimmed",
            GapReason::Epoch => "epoch",
            GapReason::Future => "future",
        }
    }
}

/// A loss of events between a reader's cursor and the oldest event that is kept for it.
#[derive(Debug)]
pub struct Gap {
    pub why: GapReason,
    /// Number of lost events per topic; `None`, for a topic or as a whole, if the number is not
    /// known. It is never 0: where a topic was forgotten, possibly nothing is lost.
    pub lost: Option<Vec<(Name, Option<NonZeroU64>)>>,
    /// The oldest event that is kept for this reader.
    pub oldest: Option<Cursor>,
    /// The cursor from which the reader can continue without losing more.
    pub resume: Cursor,
}

/// Number of changes of the log so far. A type of its own, because it is neither a seq nor a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogVersion(u64);

impl LogVersion {
    pub(super) const fn new(changes: u64) -> LogVersion {
        LogVersion(changes)
    }
}

/// Events, oldest first, and the cursor after any of them.
#[derive(Debug)]
pub struct LogSlice {
    pub events: Vec<Arc<Event>>,
    /// The gap that [`GapPolicy::Skip`] skipped.
    pub gap: Option<Gap>,
    /// The version of the log that this was read from; see [`Log::version`](super::Log::version).
    pub version: LogVersion,
    /// Matching events that are kept after `events`.
    behind: u64,
    head: Seq,
    epoch: Epoch,
    /// The highest seq that was trimmed in a requested topic, if it is after the reader's position.
    trimmed_through: Seq,
    total_trims: TrimCount,
}

impl LogSlice {
    /// The cursor of a reader that has taken the first `taken` events.
    #[must_use]
    pub fn next(&self, taken: usize) -> Cursor {
        let seq = match taken.checked_sub(1) {
            _ if self.behind(taken) == 0 => self.head,
            Some(last) => self.events[last].seq,
            // Nothing is taken although there are events: stay before the first.
            None => self.events.first().map_or(self.head, |first| first.seq.previous()),
        };
        Cursor {
            epoch: self.epoch,
            seq,
            trims_seen: (self.trimmed_through > seq).then_some(self.total_trims),
        }
    }

    /// Number of matching events that are kept after the first `taken`.
    #[must_use]
    pub fn behind(&self, taken: usize) -> u64 {
        self.behind + (self.events.len() - taken) as u64
    }
}

impl LogState {
    /// Reads one slice.
    pub fn read(
        &self,
        request: &ReadRequest<'_>,
        since: Since,
        version: LogVersion,
    ) -> Result<LogSlice, Gap> {
        let matched = MatchedTopics::new(self, request.topics);
        let total_trims = self.index.trims.total();
        let mut position = ReadPosition { seq: Seq::ZERO, trims_seen: total_trims };
        let mut gap_reason = None;
        match since {
            Since::Start => {}
            Since::Now => position.seq = self.head,
            Since::Last(n) => {
                position.seq = matched.before_last(request.types, n);
            }
            Since::After(cursor) => {
                let trims_seen = cursor.trims_seen.unwrap_or_default();
                position = ReadPosition { seq: cursor.seq, trims_seen };
                gap_reason = self.check_cursor(&matched, cursor.epoch, position);
            }
        }
        let gap = match gap_reason.map(|why| self.gap(why, &matched, position)) {
            Some(gap) if request.on_gap == GapPolicy::Fail => return Err(gap),
            Some(gap) => {
                position.seq = gap.resume.seq;
                Some(gap)
            }
            None => None,
        };
        let (events, behind) = matched.collect(position.seq, request);
        Ok(LogSlice {
            events,
            gap,
            version,
            behind,
            head: self.head,
            epoch: self.epoch,
            trimmed_through: matched.trimmed_above(position.seq),
            total_trims,
        })
    }

    /// The gap test: exact for every topic that exists. For a forgotten one it may report a gap
    /// although nothing was lost, but never misses one.
    fn check_cursor(
        &self,
        matched: &MatchedTopics<'_>,
        epoch: Epoch,
        position: ReadPosition,
    ) -> Option<GapReason> {
        if epoch != self.epoch {
            return Some(GapReason::Epoch);
        }
        if position.seq > self.head || position.trims_seen > self.index.trims.total() {
            return Some(GapReason::Future);
        }
        let is_gap = matched.has_forgotten_gap(position) || matched.gaps(position).next().is_some();
        is_gap.then_some(GapReason::Trimmed)
    }

    fn gap(&self, why: GapReason, matched: &MatchedTopics<'_>, position: ReadPosition) -> Gap {
        // The seq of another epoch, or of the future, says nothing about this log.
        let seq = if why == GapReason::Trimmed { position.seq } else { Seq::ZERO };
        let oldest = matched.first_after(seq);
        let lost = if why == GapReason::Trimmed && !matched.has_forgotten_gap(position) {
            let metas: Vec<_> = matched.gaps(position).take(GAP_COUNTED_TOPICS + 1).collect();
            let is_countable = metas.len() <= GAP_COUNTED_TOPICS;
            is_countable.then(|| self.index.trims.lost(&metas, seq, position.trims_seen))
        } else {
            None
        };
        let trimmed_through = matched.trimmed_above(Seq::ZERO);
        let cursor = |seq| Cursor {
            epoch: self.epoch,
            seq,
            trims_seen: (trimmed_through > seq).then_some(self.index.trims.total()),
        };
        Gap {
            why,
            lost,
            oldest: oldest.map(cursor),
            resume: cursor(oldest.map_or(self.head, Seq::previous)),
        }
    }
}
