//! What the log remembers of trimmed events: enough to say exactly whether a reader lost any, and
//! usually how many.
//!
//! To trim is to remove one event; a delete of a topic trims each of its events.
//!
//! Whether a reader lost events of a topic follows from one pair of numbers per topic
//! ([`LastTrim`]). How many is known for the last trims of the whole log, which are kept in a list
//! of bounded length ([`TrimHistory`]); for older trims the count is reported as unknown.

use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::cursor::{Seq, TrimCount};
use crate::limits::TRIM_HISTORY_EVENTS;
use crate::names::{Name, insert_sorted};

/// A topic's name, and how far its trims can no longer be counted. Shared by the topic, its events
/// and the trim history, so it outlives the topic for as long as the history mentions it.
#[derive(Debug)]
pub struct TopicMeta {
    pub name: Name,
    /// The highest seq of this topic that has left the [`TrimHistory`]. Accessed under the log's
    /// lock only; atomic because the value is shared.
    uncounted_through: AtomicU64,
}

impl TopicMeta {
    pub fn new(name: Name, uncounted_through: Seq) -> Arc<TopicMeta> {
        let uncounted_through = AtomicU64::new(uncounted_through.get());
        Arc::new(TopicMeta { name, uncounted_through })
    }

    pub fn uncounted_through(&self) -> Seq {
        Seq::new(self.uncounted_through.load(Ordering::Relaxed))
    }

    /// Records that the trim of `seq` has left the history. Takes the maximum: after a restart, the
    /// history may begin with trims that are older than the restored value.
    fn raise_uncounted_through(&self, seq: Seq) {
        let through = seq.max(self.uncounted_through());
        self.uncounted_through.store(through.get(), Ordering::Relaxed);
    }
}

/// The last trim in a topic. The trims in a topic go in seq order, so this pair alone decides
/// whether any event above some seq was trimmed after some other trim.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct LastTrim {
    /// The seq that was trimmed.
    pub seq: Seq,
    /// How many events the whole log had trimmed by then, this one included.
    pub number: TrimCount,
}

impl LastTrim {
    /// Whether a reader that has everything up to `seq`, and knows of the first `trims_seen` trims,
    /// has lost an event of this topic.
    pub fn is_gap(self, seq: Seq, trims_seen: TrimCount) -> bool {
        self.seq > seq && self.number > trims_seen
    }
}

/// The last [`TRIM_HISTORY_EVENTS`] trims of the whole log, oldest first.
#[derive(Default)]
pub struct TrimHistory {
    /// Events trimmed so far. The newest entry of `recent` is the trim with this number, the entry
    /// before it the trim with the number before.
    total: TrimCount,
    /// The highest seq that was ever trimmed.
    highest: Seq,
    recent: VecDeque<(Seq, Arc<TopicMeta>)>,
}

impl TrimHistory {
    /// The history that an earlier run of the program has stored.
    pub fn restored(
        total: TrimCount,
        highest: Seq,
        recent: VecDeque<(Seq, Arc<TopicMeta>)>,
    ) -> TrimHistory {
        TrimHistory { total, highest, recent }
    }

    /// The highest seq that was ever trimmed.
    pub fn highest(&self) -> Seq {
        self.highest
    }

    /// Number of events trimmed so far.
    pub fn total(&self) -> TrimCount {
        self.total
    }

    /// The remembered trims, oldest first.
    pub fn recent(&self) -> impl Iterator<Item = (Seq, &Name)> {
        self.recent.iter().map(|(seq, meta)| (*seq, &meta.name))
    }

    /// Records the trim of an event.
    pub fn record(&mut self, seq: Seq, meta: &Arc<TopicMeta>) -> LastTrim {
        self.total = self.total.next();
        self.highest = self.highest.max(seq);
        if self.recent.len() == TRIM_HISTORY_EVENTS {
            if let Some((seq, meta)) = self.recent.pop_front() {
                meta.raise_uncounted_through(seq);
            }
        }
        self.recent.push_back((seq, Arc::clone(meta)));
        LastTrim { seq, number: self.total }
    }

    /// For each topic in `gaps`, how many of its events above `seq` were trimmed after the first
    /// `trims_seen` trims; `None` if the history no longer goes back far enough, or if the gap is
    /// not the topic's own: it stands for topics that were forgotten. In name order.
    pub fn lost(
        &self,
        gaps: &[&TopicMeta],
        seq: Seq,
        trims_seen: TrimCount,
    ) -> Vec<(Name, Option<NonZeroU64>)> {
        let before_history = self.total.get() - self.recent.len() as u64;
        // Topics are compared by address: 10,000 names would be 10,000 cache misses. A topic that
        // was forgotten has the same name as its successor and another address, but no reader whose
        // losses can be counted has lost any of its events.
        let mut counts: Vec<(*const TopicMeta, u64)> =
            gaps.iter().map(|meta| (std::ptr::from_ref(*meta), 0)).collect();
        counts.sort_unstable();
        let known = trims_seen.get().saturating_sub(before_history) as usize;
        for (_, meta) in self.recent.range(known..).filter(|(trimmed, _)| *trimmed > seq) {
            if let Ok(index) = counts.binary_search_by_key(&Arc::as_ptr(meta), |(meta, _)| *meta) {
                counts[index].1 += 1;
            }
        }
        let mut lost = Vec::with_capacity(gaps.len());
        for meta in gaps {
            let is_exact = meta.uncounted_through() <= seq || trims_seen.get() >= before_history;
            let place = counts.binary_search_by_key(&std::ptr::from_ref(*meta), |(meta, _)| *meta);
            let count = place.ok().filter(|_| is_exact).and_then(|i| NonZeroU64::new(counts[i].1));
            insert_sorted(&mut lost, (meta.name.clone(), count));
        }
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_exact_within_the_history_and_unknown_before_it() {
        let meta = |name| TopicMeta::new(Name::new(name).unwrap(), Seq::ZERO);
        let (quiet, busy) = (meta("quiet"), meta("busy"));
        let mut trims = TrimHistory::default();
        trims.record(Seq::new(1), &quiet);
        trims.record(Seq::new(2), &quiet);
        // One trim more than the history holds: the first trim of the quiet topic leaves it.
        for seq in 3..=TRIM_HISTORY_EVENTS as u64 + 1 {
            trims.record(Seq::new(seq), &busy);
        }
        let lost = |seq, trims_seen| {
            trims
                .lost(&[&*quiet, &*busy], Seq::new(seq), TrimCount::new(trims_seen))
                .into_iter()
                .map(|(_, count)| count.map(NonZeroU64::get))
                .collect::<Vec<_>>()
        };
        let busy_trims = Some(TRIM_HISTORY_EVENTS as u64 - 1);
        assert_eq!(lost(0, 0), [busy_trims, None]);
        assert_eq!(lost(0, 1), [busy_trims, Some(1)]);
        assert_eq!(lost(1, 0), [busy_trims, Some(1)]);
        assert_eq!(lost(10, 20), [Some(TRIM_HISTORY_EVENTS as u64 - 19), None]);
    }
}
