//! What a reader requests, and the topics and events of the log that match it.
//!
//! A read costs what it returns, not what the log keeps: `*` is read from the log's order, a few
//! topics from their own events, and a prefix from whichever is shorter. A reader at the end of the
//! log, as nearly all are, looks at no topic at all.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use super::event::Event;
use super::state::LogState;
use super::topic::Topic;
use super::trims::{LastTrim, TopicMeta};
use crate::cursor::{Seq, TrimCount};
use crate::limits::MAX_PAGE_EVENTS;
use crate::names::{Pattern, TopicSet, TypeFilter};

/// Events up to which a read of a prefix looks at all that follow the cursor. Beyond it, it looks
/// at each topic of the prefix.
const SCANNED_EVENTS: usize = 256;

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

/// A reader's position, with the default for a cursor without `trims_seen` filled in.
#[derive(Clone, Copy, Debug)]
pub struct ReadPosition {
    pub seq: Seq,
    pub trims_seen: TrimCount,
}

/// The topics that a request matches.
pub struct MatchedTopics<'s> {
    log: &'s LogState,
    requested: &'s TopicSet,
    /// Stands for the forgotten topics that the request may match; zero if there can be none.
    forgotten: LastTrim,
}

impl<'s> MatchedTopics<'s> {
    pub fn new(log: &'s LogState, requested: &'s TopicSet) -> MatchedTopics<'s> {
        // A topic that does not exist may have been forgotten, and a prefix may always match a
        // forgotten topic.
        let may_be_forgotten = |pattern: &Pattern| match pattern {
            Pattern::Topic(name) => !log.topics.contains_key(name),
            Pattern::Prefix(_) => true,
        };
        let forgotten = requested.patterns().iter().any(may_be_forgotten).then_some(log.forgotten);
        MatchedTopics { log, requested, forgotten: forgotten.unwrap_or_default() }
    }

    /// The existing topics.
    fn existing(&self) -> impl Iterator<Item = &'s Topic> {
        let log = self.log;
        self.requested.patterns().iter().flat_map(move |pattern| {
            let (topic, prefix) = match pattern {
                Pattern::Topic(name) => (log.topics.get(name), None),
                Pattern::Prefix(prefix) => (None, Some(log.topics_with_prefix(prefix))),
            };
            topic.into_iter().chain(prefix.into_iter().flatten())
        })
    }

    /// The highest seq that was trimmed in any of the topics, if it is higher than `seq`. Otherwise
    /// any seq up to `seq`: a reader at the end of the log, as nearly all are, costs no look at the
    /// topics.
    pub fn trimmed_above(&self, seq: Seq) -> Seq {
        let highest = self.log.index.trims.highest();
        if highest <= seq || self.requested.matches_all() {
            return highest;
        }
        let existing = self.existing().map(|topic| topic.last_trim.seq).max();
        existing.unwrap_or_default().max(self.forgotten.seq)
    }

    /// The existing topics of which a reader at this position has lost events.
    pub fn gaps(&self, at: ReadPosition) -> impl Iterator<Item = &'s TopicMeta> {
        let trims = &self.log.index.trims;
        let may_have_gap =
            LastTrim { seq: trims.highest(), number: trims.total() }.is_gap(at.seq, at.trims_seen);
        let topics = may_have_gap.then(|| self.existing()).into_iter().flatten();
        let gaps = topics.filter(move |topic| topic.last_trim.is_gap(at.seq, at.trims_seen));
        gaps.map(|topic| &*topic.meta)
    }

    /// Whether a reader at this position may have lost events of a forgotten topic.
    pub fn has_forgotten_gap(&self, at: ReadPosition) -> bool {
        self.forgotten.is_gap(at.seq, at.trims_seen)
    }

    /// The seq of the first event after `seq`.
    pub fn first_after(&self, seq: Seq) -> Option<Seq> {
        if self.requested.matches_all() {
            return self.log.index.order.after(seq).next().map(|event| event.seq);
        }
        let first = |topic: &Topic| topic.get(topic.index_after(seq)).map(|event| event.seq);
        self.existing().filter_map(first).min()
    }

    /// The seq before the last `n` events of these types.
    pub fn before_last(&self, types: &TypeFilter, n: u64) -> Seq {
        let count = usize::try_from(n).unwrap_or(usize::MAX);
        if n == 0 {
            return self.log.head;
        } else if self.requested.matches_all() && types.matches_all() {
            return self.log.index.order.before_last(count).unwrap_or(Seq::ZERO);
        }
        if self.existing().map(|topic| topic.len() as u64).sum::<u64>() <= n {
            return Seq::ZERO;
        }
        if let ([Pattern::Topic(name)], true) = (self.requested.patterns(), types.matches_all()) {
            let before = |topic: &Topic| Some(topic.get(topic.len().checked_sub(count + 1)?)?.seq);
            return self.log.topics.get(name).and_then(before).unwrap_or(Seq::ZERO);
        }
        // The n largest seqs; the smallest of them is on top.
        let mut largest: BinaryHeap<Reverse<Seq>> = BinaryHeap::new();
        for topic in self.existing() {
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
        largest.peek().map_or(self.log.head, |Reverse(least)| least.previous())
    }

    /// The first matching events after `seq`, in seq order, and how many follow them.
    pub fn collect(&self, seq: Seq, request: &ReadRequest<'_>) -> (Vec<Arc<Event>>, u64) {
        let order = &self.log.index.order;
        let has_prefix = self.requested.patterns().iter().any(Pattern::is_prefix);
        let all = self.requested.matches_all() && request.types.matches_all();
        let in_order = all || has_prefix && order.count_after(seq) <= SCANNED_EVENTS;
        if !in_order {
            return collect_by_topic(&self.existing().collect::<Vec<_>>(), seq, request);
        }
        let matches = |event: &&Arc<Event>| {
            all || self.requested.matches(event.topic()) && matches_type(event, request.types)
        };
        let mut matching = order.after(seq).filter(matches);
        let (mut events, mut bytes) = (Vec::new(), 0);
        while events.len() < request.limit && bytes < request.bytes {
            let Some(event) = matching.next() else { return (events, 0) };
            bytes += event.cost() as usize;
            events.push(Arc::clone(event));
        }
        let behind = if all { order.count_after(seq) - events.len() } else { matching.count() };
        (events, behind as u64)
    }
}

fn matches_type(event: &Event, types: &TypeFilter) -> bool {
    types.matches(event.content.event_type.as_ref())
}

/// The same as [`MatchedTopics::collect`], from the topics' own events.
fn collect_by_topic(
    topics: &[&Topic],
    seq: Seq,
    request: &ReadRequest<'_>,
) -> (Vec<Arc<Event>>, u64) {
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
