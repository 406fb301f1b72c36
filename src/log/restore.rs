//! A log that lives on: what a store has to know to write a publish down before it is appended,
//! and how the log of an earlier run of the program is put together again.
//!
//! A restored log begins with a [`LogSnapshot`], takes in the events that were kept then, is
//! settled, and from there on is changed just as it was when it lived, by [`Log::append_noting`]
//! and the trims, in the same order. So it ends in the same state.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::event::{Event, EventContent};
use super::idempotency::{IdempotencyKey, KeyLookup, SharedOutcome};
use super::topic::Topic;
use super::trims::{LastTrim, TopicMeta, TrimHistory};
use super::{Log, LogState, Retention};
use crate::cursor::{Cursor, Epoch};
use crate::limits::TRIM_HISTORY_EVENTS;
use crate::names::Name;

/// What the log knows beside its kept events and its keys.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct LogSnapshot {
    /// The seq given out last.
    pub head: u64,
    /// Events ever trimmed.
    pub trims: u64,
    /// Stands for every topic that was forgotten.
    pub forgotten: LastTrim,
    /// Every topic.
    pub topics: Vec<TopicTrims>,
    /// The last trims one by one, oldest first: the seq, and its topic.
    pub recent: Vec<(u64, Name)>,
}

/// What a topic remembers of its trims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicTrims {
    pub topic: Name,
    pub last: LastTrim,
    /// Up to here its trims can no longer be counted.
    pub uncounted_through: u64,
}

/// What would become of a publish.
pub enum AppendPlan<T> {
    /// The same was published before under its key.
    Duplicate(SharedOutcome<T>),
    /// Its key was used for something else.
    KeyReused,
    /// It would be appended to a topic that is there.
    Append,
    /// It would be appended, and make its topic.
    CreateTopic,
    /// It would be appended, and make its topic in place of an empty one.
    ReplaceEmptyTopic,
    /// It would make one topic too many.
    TooManyTopics,
}

impl<T> Log<T> {
    /// What would become of a publish if `made` more topics were there.
    pub fn plan(
        &self,
        topic: &Name,
        claim: Option<&IdempotencyKey<T>>,
        now: Instant,
        made: usize,
    ) -> AppendPlan<T> {
        let mut locked = self.lock();
        if let Some(claim) = claim {
            match locked.keys().look_up(claim, now) {
                KeyLookup::New => {}
                KeyLookup::Duplicate(outcome) => return AppendPlan::Duplicate(outcome),
                KeyLookup::Conflict => return AppendPlan::KeyReused,
            }
        }
        let log = locked.log();
        if log.topics.contains_key(topic) {
            AppendPlan::Append
        } else if log.topics.len() + made < self.retention.topics {
            AppendPlan::CreateTopic
        } else if log.index.empty.is_empty() {
            AppendPlan::TooManyTopics
        } else {
            AppendPlan::ReplaceEmptyTopic
        }
    }

    /// The cursor of the newest event.
    pub fn head(&self) -> Cursor {
        let mut locked = self.lock();
        let log = locked.log();
        log.at(log.head)
    }

    /// Whether a topic has events.
    pub fn has_events(&self, topic: &Name) -> bool {
        self.lock().log().topics.get(topic).is_some_and(|topic| topic.len() > 0)
    }

    /// The last event that is too old, if any is.
    pub fn aged_through(&self, now: Instant, age: Duration) -> Option<u64> {
        let aged = |event: &Arc<Event>| now.saturating_duration_since(event.at) >= age;
        let mut locked = self.lock();
        let log = locked.log();
        log.oldest().filter(|event| aged(event))?;
        let last = |topic: &Topic| Some(topic.starting_at(0).take_while(|e| aged(e)).last()?.seq);
        log.topics.values().filter_map(last).max()
    }

    /// `TrimHistory` every event up to this seq.
    pub fn trim_through(&self, seq: u64, trimmed: &mut Vec<Arc<Event>>) {
        let mut locked = self.lock();
        let log = locked.log();
        while let Some(oldest) = log.oldest().filter(|oldest| oldest.seq <= seq) {
            log.trim_oldest_of(oldest.topic(), trimmed);
        }
        self.changed_if(!trimmed.is_empty(), &locked);
    }

    /// What is to be written down, beside the events.
    pub fn snapshot(&self) -> LogSnapshot {
        let mut locked = self.lock();
        let log = locked.log();
        let trims = |topic: &Topic| TopicTrims {
            topic: topic.meta.name.clone(),
            last: topic.last_trim,
            uncounted_through: topic.meta.uncounted_through(),
        };
        LogSnapshot {
            head: log.head,
            trims: log.index.trims.total(),
            forgotten: log.forgotten,
            topics: log.topics.values().map(trims).collect(),
            recent: log.index.trims.recent().map(|(seq, topic)| (seq, topic.clone())).collect(),
        }
    }

    /// A log as the snapshot tells it, without events.
    #[must_use]
    pub fn restored(epoch: Epoch, retention: Retention, snapshot: &LogSnapshot) -> Log<T> {
        let log = Log::new(epoch, retention);
        *log.lock().log() = LogState::restored(epoch, snapshot);
        log
    }

    /// Takes in an event that was written before the snapshot was; in seq order. False: it had
    /// been trimmed by then.
    pub fn load(
        &self,
        topic: &Name,
        seq: u64,
        time: SystemTime,
        at: Instant,
        content: EventContent,
    ) -> bool {
        self.lock().log().load(topic, seq, time, at, content)
    }

    /// To be called when all of those are in.
    pub fn settle(&self) {
        let mut locked = self.lock();
        let log = locked.log();
        for topic in log.topics.values().filter(|topic| topic.len() == 0) {
            log.index.empty.insert(topic.last_trim.seq, topic.meta.name.clone());
        }
    }

    /// Takes a key that was used in an earlier run of the program.
    pub fn remember(&self, claim: &IdempotencyKey<T>, at: Instant) {
        let mut locked = self.lock();
        if matches!(locked.keys().look_up(claim, at), KeyLookup::New) {
            locked.keys().take(claim, at);
        }
    }

    /// Goes on in this epoch and under this retention.
    pub fn begin(&mut self, epoch: Epoch, retention: Retention, trimmed: &mut Vec<Arc<Event>>) {
        self.retention = retention;
        let mut locked = self.lock();
        let log = locked.log();
        log.epoch = epoch;
        let names: Vec<Name> = log.topics.keys().cloned().collect();
        for name in names {
            while log.topics.get(&name).is_some_and(|topic| topic.len() > retention.events) {
                log.trim_oldest_of(&name, trimmed);
            }
        }
        log.trim_to_bytes(retention.bytes, trimmed);
    }
}

impl LogState {
    fn restored(epoch: Epoch, snapshot: &LogSnapshot) -> LogState {
        let mut state = LogState::new(epoch);
        for TopicTrims { topic, last, uncounted_through } in &snapshot.topics {
            let meta = TopicMeta::new(topic.clone(), *uncounted_through);
            state.topics.insert(topic.clone(), Topic::new(meta, *last));
        }
        let mut recent = VecDeque::new();
        let beyond = snapshot.recent.len().saturating_sub(TRIM_HISTORY_EVENTS);
        for (seq, topic) in &snapshot.recent[beyond..] {
            // Nobody asks for the trail of a topic that was forgotten since.
            let known = state.topics.get(topic).map(|topic| Arc::clone(&topic.meta));
            recent.push_back((*seq, known.unwrap_or_else(|| TopicMeta::new(topic.clone(), 0))));
        }
        state.head = snapshot.head;
        state.forgotten = snapshot.forgotten;
        state.index.trims = TrimHistory::restored(snapshot.trims, recent);
        state
    }

    fn load(
        &mut self,
        topic: &Name,
        seq: u64,
        time: SystemTime,
        at: Instant,
        content: EventContent,
    ) -> bool {
        let Some(place) = self.topics.get_mut(topic) else { return false };
        if seq <= place.last_trim.seq {
            return false;
        }
        let event = Event { seq, time, at, meta: Arc::clone(&place.meta), content };
        self.index.take_in(place, event);
        true
    }
}
