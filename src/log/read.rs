//! Reading the log: the gap test, the merge of several topics, and the next cursor.
//!
//! A [`LogSlice`] is what follows a cursor, read at one instant. A response is made from it alone:
//! the events, merged from the topics in seq order; how many more there are; and the next cursor.
//! That cursor is past everything that was read, also past events that the request does not match,
//! so the traffic of other topics and types never makes it fall behind. The gap test never misses a
//! loss, and reports a loss that did not happen only where a whole topic was forgotten.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::num::NonZeroU64;
use std::sync::Arc;

use super::event::Event;
use super::state::LogState;
use super::topic::Topic;
use super::trims::{LastTrim, TopicMeta};
use crate::cursor::{Cursor, Epoch, Seq, Since, TrimCount};
use crate::limits::{GAP_COUNTED_TOPICS, MAX_PAGE_EVENTS};
use crate::names::{Name, Pattern, TopicSet, TypeFilter};

/// What a reader requests.
pub struct ReadRequest<'a> {
    pub topics: &'a TopicSet,
    pub types: &'a TypeFilter,
    /// Maximum number of events.
    pub limit: usize,
    /// The slice ends with the event that reaches this number of bytes.
    pub bytes: usize,
    pub on_gap: GapPolicy,
}

/// What to do if events after the cursor were trimmed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum GapPolicy {
    /// Return the gap as an error.
    Fail,
    /// Read from the oldest kept event, and report the gap in the slice.
    Skip,
}

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
    /// The highest seq that was trimmed in a requested topic.
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

/// A reader's position, with the default for a cursor without `trims_seen` filled in.
#[derive(Clone, Copy, Debug)]
struct ReadPosition {
    seq: Seq,
    trims_seen: TrimCount,
}

/// The topics that a request matches.
struct MatchedTopics<'s> {
    existing: Vec<&'s Topic>,
    /// Stands for the forgotten topics that the request may match; zero if there can be none.
    forgotten: LastTrim,
}

impl MatchedTopics<'_> {
    /// The highest seq that was trimmed in any of the topics.
    fn trimmed_through(&self) -> Seq {
        let existing = self.existing.iter().map(|topic| topic.last_trim.seq).max();
        existing.unwrap_or_default().max(self.forgotten.seq)
    }

    /// The existing topics of which a reader at this position has lost events.
    fn gaps(&self, at: ReadPosition) -> impl Iterator<Item = &TopicMeta> {
        let topics = self.existing.iter();
        let gaps = topics.filter(move |topic| topic.last_trim.is_gap(at.seq, at.trims_seen));
        gaps.map(|topic| &*topic.meta)
    }

    /// Whether a reader at this position may have lost events of a forgotten topic.
    fn has_forgotten_gap(&self, at: ReadPosition) -> bool {
        self.forgotten.is_gap(at.seq, at.trims_seen)
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
        let matched = self.match_topics(request.topics);
        let total_trims = self.index.trims.total();
        let mut position = ReadPosition { seq: Seq::ZERO, trims_seen: total_trims };
        let mut gap_reason = None;
        match since {
            Since::Start => {}
            Since::Now => position.seq = self.head,
            Since::Last(n) => {
                position.seq = self.before_last(&matched.existing, request.types, n);
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
        let (events, behind) = collect(&matched.existing, position.seq, request);
        Ok(LogSlice {
            events,
            gap,
            version,
            behind,
            head: self.head,
            epoch: self.epoch,
            trimmed_through: matched.trimmed_through(),
            total_trims,
        })
    }

    fn match_topics(&self, requested: &TopicSet) -> MatchedTopics<'_> {
        let mut existing = Vec::new();
        // A topic that does not exist may have been forgotten, and a prefix may always match a
        // forgotten topic.
        let mut may_match_forgotten = false;
        for pattern in requested.patterns() {
            match pattern {
                Pattern::Topic(name) => match self.topics.get(name) {
                    Some(topic) => existing.push(topic),
                    None => may_match_forgotten = true,
                },
                Pattern::Prefix(prefix) => {
                    existing.extend(self.topics_with_prefix(prefix));
                    may_match_forgotten = true;
                }
            }
        }
        let forgotten = if may_match_forgotten { self.forgotten } else { LastTrim::default() };
        MatchedTopics { existing, forgotten }
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
        let topics = matched.existing.iter();
        let oldest = topics
            .filter_map(|topic| topic.get(topic.index_after(seq)))
            .map(|event| event.seq)
            .min();
        let lost = if why == GapReason::Trimmed && !matched.has_forgotten_gap(position) {
            let metas: Vec<_> = matched.gaps(position).take(GAP_COUNTED_TOPICS + 1).collect();
            let is_countable = metas.len() <= GAP_COUNTED_TOPICS;
            is_countable.then(|| self.index.trims.lost(&metas, seq, position.trims_seen))
        } else {
            None
        };
        let trimmed_through = matched.trimmed_through();
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

    /// The seq before the last `n` matching events.
    fn before_last(&self, topics: &[&Topic], types: &TypeFilter, n: u64) -> Seq {
        if n == 0 {
            return self.head;
        }
        if topics.iter().map(|topic| topic.len() as u64).sum::<u64>() <= n {
            return Seq::ZERO;
        }
        // The n largest seqs; the smallest of them is on top.
        let mut largest: BinaryHeap<Reverse<Seq>> = BinaryHeap::new();
        for topic in topics {
            let newest_first = topic.starting_at(0).rev();
            for event in newest_first.filter(|event| matches_type(event, types)) {
                if (largest.len() as u64) < n {
                    largest.push(Reverse(event.seq));
                } else if largest.peek().is_some_and(|Reverse(least)| *least < event.seq) {
                    largest.pop();
                    largest.push(Reverse(event.seq));
                } else {
                    break;
                }
            }
        }
        largest.peek().map_or(self.head, |Reverse(least)| least.previous())
    }
}

fn matches_type(event: &Event, types: &TypeFilter) -> bool {
    types.matches(event.content.event_type.as_ref())
}

/// The first matching events after `seq`, merged in seq order, and how many follow them.
fn collect(topics: &[&Topic], seq: Seq, request: &ReadRequest<'_>) -> (Vec<Arc<Event>>, u64) {
    // The next event of each topic that has one; the lowest seq is on top.
    let mut next_events = BinaryHeap::new();
    let mut matching = 0;
    for (topic_index, topic) in topics.iter().enumerate() {
        let event_index = topic.index_after(seq);
        if let Some(event) = topic.get(event_index) {
            next_events.push(Reverse((event.seq, topic_index, event_index)));
            matching += if request.types.matches_all() {
                topic.len() - event_index
            } else {
                let rest = topic.starting_at(event_index);
                rest.filter(|event| matches_type(event, request.types)).count()
            };
        }
    }
    let limit = matching.min(request.limit);
    let mut events = Vec::with_capacity(limit.min(MAX_PAGE_EVENTS));
    let mut bytes = 0;
    while events.len() < limit && bytes < request.bytes {
        let Some(Reverse((_, topic_index, event_index))) = next_events.pop() else { break };
        let topic = topics[topic_index];
        let event = topic.get(event_index);
        if let Some(event) = event.filter(|event| matches_type(event, request.types)) {
            bytes += event.cost() as usize;
            events.push(Arc::clone(event));
        }
        if let Some(event) = topic.get(event_index + 1) {
            next_events.push(Reverse((event.seq, topic_index, event_index + 1)));
        }
    }
    let behind = (matching - events.len()) as u64;
    (events, behind)
}
