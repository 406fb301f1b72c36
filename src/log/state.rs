//! The log's state: all topics, one sequence of seqs, and how retention trims them.
//!
//! This is plain data for one thread at a time; [`Log`](super::Log) puts it behind a lock. Reading
//! is in `read`, storing and restoring in `restore`.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::event::{Event, EventContent, Timestamp, TrimmedEvents};
use super::index::LogIndex;
use super::topic::Topic;
use super::trims::{LastTrim, TopicMeta};
use crate::cursor::{Cursor, Epoch, Seq};
use crate::names::Name;

/// How much the log keeps. Beyond it, the oldest events are trimmed.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// Events per topic.
    pub events: usize,
    /// Age of an event.
    pub age: Duration,
    /// Bytes of all topics together, as [`Event::cost`] counts them.
    pub bytes: u64,
    /// Topics. Beyond it, a new topic replaces an empty one.
    pub topics: usize,
}

/// The log rejects a publish.
#[derive(Debug, PartialEq, Eq)]
pub enum AppendError {
    /// The idempotency key was used for another publish.
    KeyReused,
    /// The publish needs a new topic, there are [`Retention::topics`], and none of them is empty.
    TooManyTopics,
}

/// One topic, as the list of topics shows it.
#[derive(Debug)]
pub struct TopicStatus {
    pub topic: Name,
    pub events: u64,
    pub bytes: u64,
    pub oldest: Option<Seq>,
    pub newest: Option<Seq>,
}

/// The events and topics of one epoch.
pub struct LogState {
    pub epoch: Epoch,
    /// The newest seq.
    pub head: Seq,
    pub topics: BTreeMap<Name, Topic>,
    /// Stands for every forgotten topic: the highest seq and the highest number of their last
    /// trims.
    pub forgotten: LastTrim,
    pub index: LogIndex,
}

impl LogState {
    pub fn new(epoch: Epoch) -> LogState {
        LogState {
            epoch,
            head: Seq::ZERO,
            topics: BTreeMap::new(),
            forgotten: LastTrim::default(),
            index: LogIndex::default(),
        }
    }

    /// The cursor of the newest event.
    pub fn head_cursor(&self) -> Cursor {
        Cursor { epoch: self.epoch, seq: self.head, trims_seen: None }
    }

    /// Appends events with consecutive seqs, and trims what `retention` no longer allows. Returns
    /// the cursor of the last event. After an error, no event is appended, but expired events may
    /// have been trimmed.
    pub fn append(
        &mut self,
        topic: &Name,
        events: Vec<EventContent>,
        now: Timestamp,
        retention: &Retention,
        trimmed: &mut TrimmedEvents,
    ) -> Result<Cursor, AppendError> {
        self.trim_expired(now.at, retention.age, trimmed);
        self.ensure_topic(topic, retention.topics)?;
        // The topic exists now, so the error below is unreachable.
        let Some(topic) = self.topics.get_mut(topic) else {
            return Err(AppendError::TooManyTopics);
        };
        for content in events {
            self.head = self.head.next();
            let event = Event {
                seq: self.head,
                time: now.wall,
                at: now.at,
                meta: Arc::clone(&topic.meta),
                content,
            };
            self.index.push(topic, event);
        }
        while topic.len() > retention.events && self.index.trim_oldest(topic, trimmed) {}
        self.trim_to_bytes(retention.bytes, trimmed);
        Ok(self.head_cursor())
    }

    /// Creates the topic unless it exists. If there are `max_topics` already, the empty topic with
    /// the lowest last trim is forgotten.
    fn ensure_topic(&mut self, topic: &Name, max_topics: usize) -> Result<(), AppendError> {
        if self.topics.contains_key(topic) {
            return Ok(());
        }
        if self.topics.len() >= max_topics {
            let (_, name) = self.index.empty.pop_first().ok_or(AppendError::TooManyTopics)?;
            if let Some(replaced) = self.topics.remove(&name) {
                self.forgotten.seq = self.forgotten.seq.max(replaced.last_trim.seq);
                self.forgotten.number = self.forgotten.number.max(replaced.last_trim.number);
            }
        }
        // A topic of this name may have been forgotten; if so, the trims that it had are covered by
        // `forgotten`.
        let meta = TopicMeta::new(topic.clone(), self.forgotten.seq);
        self.topics.insert(topic.clone(), Topic::new(meta, self.forgotten));
        Ok(())
    }

    /// Trims every event of at least this age.
    pub fn trim_expired(&mut self, now: Instant, age: Duration, trimmed: &mut TrimmedEvents) {
        // Events expire in seq order.
        let is_expired = |oldest: &Arc<Event>| now.saturating_duration_since(oldest.at) >= age;
        while let Some(oldest) = self.oldest_event().filter(is_expired) {
            self.trim_oldest_of(oldest.topic(), trimmed);
        }
    }

    /// Trims the oldest events of the log until the rest is at most `max_bytes`.
    pub fn trim_to_bytes(&mut self, max_bytes: u64, trimmed: &mut TrimmedEvents) {
        while self.index.bytes > max_bytes {
            let Some(oldest) = self.oldest_event() else { return };
            self.trim_oldest_of(oldest.topic(), trimmed);
        }
    }

    /// Trims the oldest events of each topic that has too many, and then those of the log until
    /// the rest fits the byte budget.
    pub fn trim_to_retention(&mut self, retention: &Retention, trimmed: &mut TrimmedEvents) {
        for topic in self.topics.values_mut() {
            while topic.len() > retention.events && self.index.trim_oldest(topic, trimmed) {}
        }
        self.trim_to_bytes(retention.bytes, trimmed);
    }

    /// Trims every event up to this seq.
    pub fn trim_through(&mut self, seq: Seq, trimmed: &mut TrimmedEvents) {
        while let Some(oldest) = self.oldest_event().filter(|oldest| oldest.seq <= seq) {
            self.trim_oldest_of(oldest.topic(), trimmed);
        }
    }

    /// Trims a topic's oldest event. False if the topic is empty or does not exist.
    pub fn trim_oldest_of(&mut self, name: &Name, trimmed: &mut TrimmedEvents) -> bool {
        let topic = self.topics.get_mut(name);
        topic.is_some_and(|topic| self.index.trim_oldest(topic, trimmed))
    }

    /// The oldest event of the whole log.
    pub fn oldest_event(&self) -> Option<Arc<Event>> {
        self.index.order.first().cloned()
    }

    /// The topics whose names begin with `prefix`, in name order.
    pub fn topics_with_prefix<'s>(&'s self, prefix: &str) -> impl Iterator<Item = &'s Topic> {
        self.topics_from(prefix, Bound::Included(prefix))
    }

    /// The topics whose names begin with `prefix`, in name order, from a name on.
    fn topics_from<'s>(
        &'s self,
        prefix: &str,
        from: Bound<&str>,
    ) -> impl Iterator<Item = &'s Topic> {
        let prefix: Box<str> = prefix.into();
        self.topics
            .range::<str, _>((from, Bound::Unbounded))
            .take_while(move |(name, _)| name.starts_with(&*prefix))
            .map(|(_, topic)| topic)
    }

    /// At most `limit` topics whose names begin with `prefix` and follow `after`, in name order.
    pub fn list_topics(&self, prefix: &str, after: &str, limit: usize) -> Vec<TopicStatus> {
        let from = if after < prefix { Bound::Included(prefix) } else { Bound::Excluded(after) };
        self.topics_from(prefix, from)
            .take(limit)
            .map(|topic| TopicStatus {
                topic: topic.meta.name.clone(),
                events: topic.len() as u64,
                bytes: topic.bytes(),
                oldest: topic.oldest(),
                newest: topic.newest(),
            })
            .collect()
    }
}
