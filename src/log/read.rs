//! Reading the log: the gap test, the merge of several topics, and what the next cursor is.
//!
//! A [`LogSlice`] is what stands after a cursor, read at one instant. From it follows all that an
//! answer says: the events, which are merged from the topics in seq order; how many more there are;
//! and the next cursor, which stands past everything that was looked at, also past what was of no
//! interest, so that it never grows old by other topics' traffic. The gap test never misses a loss,
//! and tells of none that was not, except where a whole topic was forgotten.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Bound;
use std::sync::Arc;

use super::LogState;
use super::event::Event;
use super::topic::Topic;
use super::trims::LastTrim;
use crate::cursor::{Cursor, Epoch, Since};
use crate::limits::{GAP_COUNTED_TOPICS, MAX_PAGE_EVENTS};
use crate::names::{Name, Pattern, TopicSet, TypeFilter};

/// What a reader asks for.
pub struct ReadRequest<'a> {
    pub topics: &'a TopicSet,
    pub types: &'a TypeFilter,
    /// Events at most.
    pub limit: usize,
    /// Stop after the event that reaches so many bytes.
    pub bytes: usize,
    pub on_gap: GapPolicy,
}

/// What to do about events that are gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum GapPolicy {
    Fail,
    Skip,
}

/// Why a reader cannot go on from its cursor as if nothing had happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GapReason {
    /// Events after it were trimmed.
    Trimmed,
    /// It belongs to another life of the log.
    Epoch,
    /// It is beyond the newest event.
    Future,
}

impl GapReason {
    /// As the wire says it.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            GapReason::Trimmed => "trimmed",
            GapReason::Epoch => "epoch",
            GapReason::Future => "future",
        }
    }
}

/// Events between a cursor and what is still kept are lost to its holder.
#[derive(Debug)]
pub struct Gap {
    pub why: GapReason,
    /// Per topic, how many; `None` as a whole or for a topic where it can no longer be known.
    pub lost: Option<Vec<(Name, Option<u64>)>>,
    /// The oldest event still kept for this reader.
    pub oldest: Option<Cursor>,
    /// Where to go on, losing nothing more.
    pub resume: Cursor,
}

/// A reader's position, with `told` filled in.
#[derive(Clone, Copy, Debug)]
struct ReadPosition {
    seq: u64,
    trims_seen: u64,
}

/// Some events, oldest first, and how to go on after any of them.
#[derive(Debug)]
pub struct LogSlice {
    pub events: Vec<Arc<Event>>,
    /// A gap that was skipped.
    pub gap: Option<Gap>,
    /// The log's state that this was read from; see [`super::Log::version`].
    pub version: u64,
    behind: u64,
    head: u64,
    epoch: Epoch,
    /// Highest seq trimmed in a requested topic.
    trimmed_through: u64,
    trims: u64,
}

impl LogSlice {
    /// The cursor of a reader who has taken the first `taken` events.
    #[must_use]
    pub fn next(&self, taken: usize) -> Cursor {
        let seq = match taken.checked_sub(1) {
            _ if self.behind(taken) == 0 => self.head,
            Some(last) => self.events[last].seq,
            // None taken though there are some: before the first of them.
            None => self.events.first().map_or(self.head, |e| e.seq - 1),
        };
        Cursor {
            epoch: self.epoch,
            seq,
            trims_seen: (self.trimmed_through > seq).then_some(self.trims),
        }
    }

    /// Matching events that are kept after the first `taken`.
    #[must_use]
    pub fn behind(&self, taken: usize) -> u64 {
        self.behind + (self.events.len() - taken) as u64
    }
}

impl LogState {
    /// Calls `f` with each requested topic that exists.
    fn requested<'s>(&'s self, topics: &TopicSet, mut f: impl FnMut(&'s Topic)) {
        for pattern in topics.patterns() {
            match pattern {
                Pattern::Topic(name) => self.topics.get(name).into_iter().for_each(&mut f),
                Pattern::Prefix(prefix) => self.with_prefix(prefix).for_each(&mut f),
            }
        }
    }

    /// The topics whose names begin so, in name order.
    pub(super) fn with_prefix<'s>(&'s self, prefix: &str) -> impl Iterator<Item = &'s Topic> {
        let from = (Bound::Included(prefix), Bound::Unbounded);
        let prefix: Box<str> = prefix.into();
        self.topics
            .range::<str, _>(from)
            .take_while(move |(name, _)| name.starts_with(&*prefix))
            .map(|(_, topic)| topic)
    }

    /// Whether a topic that was forgotten may be among those requested: every topic that is not
    /// there may have been, and a prefix always leaves room for one.
    fn may_ask_for_forgotten(&self, topics: &TopicSet) -> bool {
        topics.patterns().iter().any(|pattern| match pattern {
            Pattern::Topic(name) => !self.topics.contains_key(name),
            Pattern::Prefix(_) => true,
        })
    }

    /// One slice, read at one instant.
    pub(super) fn read(
        &self,
        ask: &ReadRequest<'_>,
        since: Since,
        version: u64,
    ) -> Result<LogSlice, Gap> {
        let mut asked = Vec::new();
        self.requested(ask.topics, |topic| asked.push(topic));
        let forgotten = if self.may_ask_for_forgotten(ask.topics) {
            self.forgotten
        } else {
            LastTrim::default()
        };
        let mut position = ReadPosition { seq: 0, trims_seen: self.index.trims.total() };
        let mut why = None;
        match since {
            Since::Start => {}
            Since::Now => position.seq = self.head,
            Since::Last(n) => position.seq = self.before_last(&asked, ask.types, n),
            Since::After(cursor) => {
                position =
                    ReadPosition { seq: cursor.seq, trims_seen: cursor.trims_seen.unwrap_or(0) };
                why = self.check_cursor(&asked, forgotten, cursor, position);
            }
        }
        let gap = why.map(|why| self.gap(why, &asked, forgotten, position));
        let gap = match gap {
            Some(gap) if ask.on_gap == GapPolicy::Fail => return Err(gap),
            Some(gap) => {
                position.seq = gap.resume.seq;
                Some(gap)
            }
            None => None,
        };
        let (events, behind) = collect(&asked, position.seq, ask);
        Ok(LogSlice {
            events,
            gap,
            version,
            behind,
            head: self.head,
            epoch: self.epoch,
            trimmed_through: trimmed_through(&asked, forgotten),
            trims: self.index.trims.total(),
        })
    }

    /// The gap test: exact for every topic that is there, and never silent for one that is not.
    fn check_cursor(
        &self,
        asked: &[&Topic],
        forgotten: LastTrim,
        cursor: Cursor,
        position: ReadPosition,
    ) -> Option<GapReason> {
        if cursor.epoch != self.epoch {
            return Some(GapReason::Epoch);
        }
        if position.seq > self.head || position.trims_seen > self.index.trims.total() {
            return Some(GapReason::Future);
        }
        let gap = asked
            .iter()
            .map(|topic| topic.last_trim)
            .chain([forgotten])
            .any(|trim| trim.is_gap(position.seq, position.trims_seen));
        gap.then_some(GapReason::Trimmed)
    }

    fn gap(
        &self,
        why: GapReason,
        asked: &[&Topic],
        forgotten: LastTrim,
        position: ReadPosition,
    ) -> Gap {
        // A cursor of another life, or from the future, says nothing about this log.
        let seq = if why == GapReason::Trimmed { position.seq } else { 0 };
        let oldest = asked
            .iter()
            .filter_map(|topic| topic.get(topic.index_after(seq)))
            .map(|event| event.seq)
            .min();
        let metas: Vec<_> = asked
            .iter()
            .filter(|topic| topic.last_trim.is_gap(seq, position.trims_seen))
            .map(|topic| &*topic.meta)
            .take(GAP_COUNTED_TOPICS + 1)
            .collect();
        let countable = why == GapReason::Trimmed
            && !forgotten.is_gap(seq, position.trims_seen)
            && metas.len() <= GAP_COUNTED_TOPICS;
        let lost = countable.then(|| self.index.trims.lost(&metas, seq, position.trims_seen));
        let trimmed_through = trimmed_through(asked, forgotten);
        let cursor = |seq| Cursor {
            epoch: self.epoch,
            seq,
            trims_seen: (trimmed_through > seq).then_some(self.index.trims.total()),
        };
        Gap {
            why,
            lost,
            oldest: oldest.map(cursor),
            resume: cursor(oldest.map_or(self.head, |oldest| oldest - 1)),
        }
    }

    /// The seq before the last `n` matching events.
    fn before_last(&self, asked: &[&Topic], types: &TypeFilter, n: u64) -> u64 {
        if n == 0 {
            return self.head;
        }
        if asked.iter().map(|topic| topic.len() as u64).sum::<u64>() <= n {
            return 0;
        }
        // The n largest seqs, smallest of them on top.
        let mut last: BinaryHeap<Reverse<u64>> = BinaryHeap::new();
        for topic in asked {
            for event in
                topic.starting_at(0).rev().filter(|e| types.matches(e.content.event_type.as_ref()))
            {
                if (last.len() as u64) < n {
                    last.push(Reverse(event.seq));
                } else if last.peek().is_some_and(|Reverse(least)| *least < event.seq) {
                    last.pop();
                    last.push(Reverse(event.seq));
                } else {
                    break;
                }
            }
        }
        last.peek().map_or(self.head, |Reverse(least)| least - 1)
    }
}

fn trimmed_through(asked: &[&Topic], forgotten: LastTrim) -> u64 {
    let own = asked.iter().map(|topic| topic.last_trim.seq).max();
    own.unwrap_or(0).max(forgotten.seq)
}

/// The first matching events after `seq`, merged by seq, and how many more there are.
fn collect(asked: &[&Topic], seq: u64, ask: &ReadRequest<'_>) -> (Vec<Arc<Event>>, u64) {
    let wanted = |event: &&Arc<Event>| ask.types.matches(event.content.event_type.as_ref());
    // The next event of each topic that has one, nearest first.
    let mut nearest = BinaryHeap::new();
    let mut ahead = 0;
    for (index, topic) in asked.iter().enumerate() {
        let at = topic.index_after(seq);
        if let Some(event) = topic.get(at) {
            nearest.push(Reverse((event.seq, index, at)));
            ahead += if ask.types.matches_all() {
                topic.len() - at
            } else {
                topic.starting_at(at).filter(wanted).count()
            };
        }
    }
    let mut events = Vec::with_capacity(ahead.min(ask.limit).min(MAX_PAGE_EVENTS));
    let mut bytes = 0;
    while events.len() < ahead.min(ask.limit) && bytes < ask.bytes {
        let Some(Reverse((_, index, at))) = nearest.pop() else { break };
        let topic = asked[index];
        if let Some(event) = topic.get(at).filter(wanted) {
            bytes += event.cost() as usize;
            events.push(Arc::clone(event));
        }
        if let Some(event) = topic.get(at + 1) {
            nearest.push(Reverse((event.seq, index, at + 1)));
        }
    }
    let behind = (ahead - events.len()) as u64;
    (events, behind)
}
