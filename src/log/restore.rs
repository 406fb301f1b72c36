//! Storing and restoring the log's state, for a store that keeps a log across restarts.
//!
//! A log is restored in three steps: create it from a [`LogSnapshot`], load the kept events that
//! are older than the snapshot, and finish loading. From then on it is changed as the original was,
//! by the same appends and trims in the same order, and so it reaches the same state.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::event::{Event, EventContent};
use super::order::EventOrder;
use super::state::LogState;
use super::topic::Topic;
use super::trims::{LastTrim, TopicMeta, TrimHistory};
use crate::cursor::{Epoch, Seq, TrimCount};
use crate::limits::TRIM_HISTORY_EVENTS;
use crate::names::Name;

/// The log's state except for its kept events and idempotency keys.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct LogSnapshot {
    /// The newest seq.
    pub head: Seq,
    /// Number of events trimmed so far.
    pub trims: TrimCount,
    /// Stands for every forgotten topic.
    pub forgotten: LastTrim,
    /// Every topic.
    pub topics: Vec<TopicTrims>,
    /// The remembered trims, oldest first: the seq and its topic.
    pub recent: Vec<(Seq, Name)>,
}

impl LogSnapshot {
    /// Leaves out the remembered trims. Readers that lost events before now still learn that, but
    /// no longer how many.
    pub fn forget_history(&mut self) {
        self.recent.clear();
        for topic in &mut self.topics {
            topic.uncounted_through = topic.uncounted_through.max(topic.last.seq);
        }
    }
}

/// What the log remembers of a topic's trims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicTrims {
    pub topic: Name,
    pub last: LastTrim,
    /// The trims up to this seq can no longer be counted.
    pub uncounted_through: Seq,
}

impl LogState {
    pub fn snapshot(&self) -> LogSnapshot {
        let topic_trims = |topic: &Topic| TopicTrims {
            topic: topic.meta.name.clone(),
            last: topic.last_trim,
            uncounted_through: topic.meta.uncounted_through(),
        };
        let trims = &self.index.trims;
        LogSnapshot {
            head: self.head,
            trims: trims.total(),
            forgotten: self.forgotten,
            topics: self.topics.values().map(topic_trims).collect(),
            recent: trims.recent().map(|(seq, topic)| (seq, topic.clone())).collect(),
        }
    }

    /// The state in a snapshot, without events.
    pub fn restored(epoch: Epoch, snapshot: &LogSnapshot) -> LogState {
        let mut state = LogState::new(epoch);
        for TopicTrims { topic, last, uncounted_through } in &snapshot.topics {
            let meta = TopicMeta::new(topic.clone(), *uncounted_through);
            state.topics.insert(topic.clone(), Topic::new(meta, *last));
        }
        let surplus = snapshot.recent.len().saturating_sub(TRIM_HISTORY_EVENTS);
        let recent: VecDeque<_> = snapshot.recent[surplus..]
            .iter()
            .map(|(seq, name)| {
                let meta = state.topics.get(name).map(|topic| Arc::clone(&topic.meta));
                // No read uses the value for a topic that was forgotten since.
                (*seq, meta.unwrap_or_else(|| TopicMeta::new(name.clone(), Seq::ZERO)))
            })
            .collect();
        state.head = snapshot.head;
        state.forgotten = snapshot.forgotten;
        let last_trims = snapshot.topics.iter().map(|topic| topic.last.seq);
        let highest = last_trims.fold(snapshot.forgotten.seq, Seq::max);
        state.index.trims = TrimHistory::restored(snapshot.trims, highest, recent);
        state
    }

    /// Adds an event that is older than the snapshot; call it in seq order. Returns false if the
    /// event had been trimmed by then.
    pub fn load(
        &mut self,
        topic: &Name,
        seq: Seq,
        time: SystemTime,
        at: Instant,
        content: EventContent,
    ) -> bool {
        let Some(topic) = self.topics.get_mut(topic) else { return false };
        if seq <= topic.last_trim.seq {
            return false;
        }
        let event = Event { seq, time, at, meta: Arc::clone(&topic.meta), content };
        self.index.push(topic, event);
        true
    }

    /// Indexes the topics that have no events after loading.
    pub fn finish_loading(&mut self) {
        for topic in self.topics.values().filter(|topic| topic.len() == 0) {
            self.index.empty.insert((topic.last_trim.seq, topic.meta.name.clone()));
        }
    }

    /// Makes every event older.
    pub fn make_older(&mut self, by: Duration) {
        // Only an event that is not shared can be changed.
        self.index.order = EventOrder::default();
        let mut events = Vec::new();
        for topic in self.topics.values_mut() {
            topic.make_older(by);
            events.extend(topic.starting_at(0).cloned());
        }
        events.sort_unstable_by_key(|event| event.seq);
        for event in events {
            self.index.order.push(event);
        }
    }

    /// The newest event of at least this age, if there is one.
    pub fn expired_through(&self, now: Instant, age: Duration) -> Option<Seq> {
        self.index.order.last_while(|event| now.saturating_duration_since(event.at) >= age)
    }
}
