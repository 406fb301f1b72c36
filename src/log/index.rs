//! What the log keeps about all topics together, so that no publish has to scan them: totals, which
//! topic has the oldest event, and which topics are empty.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use super::event::{Event, TrimmedEvents};
use super::topic::Topic;
use super::trims::TrimHistory;
use crate::cursor::Seq;
use crate::names::Name;

/// Indexes and totals over all topics.
#[derive(Default)]
pub struct LogIndex {
    /// Each topic that has events, under the seq of an event that is or was its oldest. A trim
    /// changes nothing here unless it empties the topic: the search for the log's oldest event
    /// corrects the first entry when it is out of date.
    pub by_oldest: BTreeMap<Seq, Name>,
    /// When the log's oldest event was appended, as of the last search for it.
    pub oldest_at: Option<Instant>,
    /// Each empty topic, with its last trimmed seq before its name: after a repair, topics may share
    /// the seq. The first entry is forgotten first, because the fewest cursors are before its seq.
    pub empty: BTreeSet<(Seq, Name)>,
    pub trims: TrimHistory,
    pub events: u64,
    pub bytes: u64,
}

impl LogIndex {
    /// Appends an event to a topic.
    pub fn push(&mut self, topic: &mut Topic, event: Event) {
        self.events += 1;
        self.bytes += event.cost();
        topic.push(Arc::new(event));
        if topic.len() == 1 {
            self.empty.remove(&(topic.last_trim.seq, topic.meta.name.clone()));
            self.insert_by_oldest(topic);
        }
    }

    /// Indexes a topic under its oldest event.
    pub fn insert_by_oldest(&mut self, topic: &mut Topic) {
        if let Some(seq) = topic.oldest() {
            self.by_oldest.insert(seq, topic.meta.name.clone());
            topic.index_key = seq;
        }
    }

    /// Trims a topic's oldest event. False if the topic is empty.
    pub fn trim_oldest(&mut self, topic: &mut Topic, trimmed: &mut TrimmedEvents) -> bool {
        let Some(event) = topic.pop_oldest() else { return false };
        self.events -= 1;
        self.bytes -= event.cost();
        topic.last_trim = self.trims.record(event.seq, &topic.meta);
        if topic.len() == 0 {
            self.by_oldest.remove(&topic.index_key);
            self.empty.insert((event.seq, topic.meta.name.clone()));
        }
        trimmed.push(event);
        true
    }
}
