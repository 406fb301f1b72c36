//! Storing and restoring the log's state, for a store that keeps a log across restarts.
//!
//! A log is restored in three steps: create it from a [`LogSnapshot`], load the kept events that
//! are older than the snapshot, and finish loading. From then on it is changed as the original was,
//! by the same appends and trims in the same order, and so it reaches the same state.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::event::{Event, EventContent};
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
        state.index.trims = TrimHistory::restored(snapshot.trims, recent);
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
        self.index.oldest_at = None;
        self.topics.values_mut().for_each(|topic| topic.make_older(by));
    }

    /// The newest event of at least this age, if there is one.
    pub fn expired_through(&mut self, now: Instant, age: Duration) -> Option<Seq> {
        let is_expired = |event: &Arc<Event>| now.saturating_duration_since(event.at) >= age;
        self.oldest_event().filter(is_expired)?;
        let newest_expired = |topic: &Topic| {
            Some(topic.starting_at(0).take_while(|event| is_expired(event)).last()?.seq)
        };
        self.topics.values().filter_map(newest_expired).max()
    }
}
