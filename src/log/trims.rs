//! What the log remembers of events that it has let go: enough to say exactly whether a reader
//! lost any, and how many.
//!
//! Whether: one pair of numbers for each topic says that ([`LastTrim`]). How many: that is known
//! for the last trims of the whole log, in a list of bounded length; beyond it the answer is
//! "unknown", never a guess.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::limits::TRIM_HISTORY_EVENTS;
use crate::names::{Name, insert_sorted};

/// A topic's name, and how far its trims can no longer be counted. Events and remembered trims
/// share it, so that it outlives the topic itself for as long as anyone needs it.
#[derive(Debug)]
pub struct TopicMeta {
    pub name: Name,
    /// The highest seq of this topic's trims that [`TrimHistory`] has let go. Written and read under
    /// the log's lock only; atomic because it is shared.
    uncounted_through: AtomicU64,
}

impl TopicMeta {
    pub fn new(name: Name, uncounted_through: u64) -> Arc<TopicMeta> {
        let uncounted_through = AtomicU64::new(uncounted_through);
        Arc::new(TopicMeta { name, uncounted_through })
    }

    pub fn uncounted_through(&self) -> u64 {
        self.uncounted_through.load(Ordering::Relaxed)
    }

    /// Lets a trim go. What is remembered from before a restart may be older than what was known
    /// to be uncounted then.
    fn uncount_through(&self, seq: u64) {
        self.uncounted_through.store(seq.max(self.uncounted_through()), Ordering::Relaxed);
    }
}

/// The last trim in a topic. `TrimHistory` in a topic go in seq order, so this alone decides whether any
/// of its events above some seq were trimmed after some point.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct LastTrim {
    /// The seq that was trimmed.
    pub seq: u64,
    /// How many events the whole log had trimmed then, this one included.
    pub number: u64,
}

impl LastTrim {
    /// Whether a reader who has everything up to `seq`, and was told of the first `told` trims,
    /// has lost an event here.
    pub fn is_gap(self, seq: u64, trims_seen: u64) -> bool {
        self.seq > seq && self.number > trims_seen
    }
}

/// The last [`TRIM_HISTORY_EVENTS`] trims of the whole log, oldest first.
#[derive(Default)]
pub struct TrimHistory {
    /// Events ever trimmed. The newest entry of `recent` has this number, the one before it one less.
    total: u64,
    recent: VecDeque<(u64, Arc<TopicMeta>)>,
}

impl TrimHistory {
    /// Events ever trimmed.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Remembers that this event was trimmed.
    pub fn note(&mut self, seq: u64, meta: &Arc<TopicMeta>) -> LastTrim {
        self.total += 1;
        if self.recent.len() == TRIM_HISTORY_EVENTS {
            if let Some((seq, meta)) = self.recent.pop_front() {
                meta.uncount_through(seq);
            }
        }
        self.recent.push_back((seq, Arc::clone(meta)));
        LastTrim { seq, number: self.total }
    }

    /// What an earlier run of the program remembered.
    pub fn restored(total: u64, recent: VecDeque<(u64, Arc<TopicMeta>)>) -> TrimHistory {
        TrimHistory { total, recent }
    }

    /// The trims that are remembered one by one, oldest first.
    pub fn recent(&self) -> impl Iterator<Item = (u64, &Name)> {
        self.recent.iter().map(|(seq, meta)| (*seq, &meta.name))
    }

    /// Per topic in `gaps`: how many of its events above `seq` were trimmed after the first
    /// `told` trims; `None` where that can no longer be known. In name order.
    pub fn lost(&self, gaps: &[&TopicMeta], seq: u64, trims_seen: u64) -> Vec<(Name, Option<u64>)> {
        let forgotten = self.total - self.recent.len() as u64;
        let mut lost = Vec::with_capacity(gaps.len());
        for meta in gaps {
            let uncounted = meta.uncounted_through();
            let exact = uncounted <= seq || trims_seen >= forgotten;
            insert_sorted(&mut lost, (meta.name.clone(), exact.then_some(0)));
        }
        let skip = trims_seen.saturating_sub(forgotten) as usize;
        for (trimmed, meta) in self.recent.iter().skip(skip) {
            if *trimmed > seq {
                let Ok(place) = lost.binary_search_by(|(topic, _)| topic.cmp(&meta.name)) else {
                    continue;
                };
                if let (_, Some(count)) = &mut lost[place] {
                    *count += 1;
                }
            }
        }
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_exact_for_the_trims_that_are_remembered_and_unknown_before() {
        let meta = |name| TopicMeta::new(Name::new(name).unwrap(), 0);
        let (quiet, busy) = (meta("quiet"), meta("busy"));
        let mut trims = TrimHistory::default();
        trims.note(1, &quiet);
        trims.note(2, &quiet);
        for seq in 3..=TRIM_HISTORY_EVENTS as u64 + 1 {
            trims.note(seq, &busy);
        }
        // One trim too many to remember: the first of the quiet topic's two.
        let both = [&*quiet, &*busy];
        let lost = |seq, trims_seen| {
            trims.lost(&both, seq, trims_seen).into_iter().map(|(_, n)| n).collect::<Vec<_>>()
        };
        let busy = Some(TRIM_HISTORY_EVENTS as u64 - 1);
        assert_eq!(lost(0, 0), [busy, None]);
        assert_eq!(lost(0, 1), [busy, Some(1)]);
        assert_eq!(lost(1, 0), [busy, Some(1)]);
        assert_eq!(lost(10, 20), [Some(TRIM_HISTORY_EVENTS as u64 - 19), Some(0)]);
    }
}
