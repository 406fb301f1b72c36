//! What the log keeps about all topics together, so that neither a publish nor a read has to scan
//! them: totals, all events in seq order, and which topics are empty.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::event::{Event, TrimmedEvents};
use super::order::EventOrder;
use super::topic::Topic;
use super::trims::TrimHistory;
use crate::cursor::Seq;
use crate::names::Name;

/// Indexes and totals over all topics.
#[derive(Default)]
pub struct LogIndex {
    pub order: EventOrder,
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
        let event = Arc::new(event);
        self.order.push(Arc::clone(&event));
        topic.push(event);
        if topic.len() == 1 {
            self.empty.remove(&(topic.last_trim.seq, topic.meta.name.clone()));
        }
    }

    /// Trims a topic's oldest event. False if the topic is empty.
    pub fn trim_oldest(&mut self, topic: &mut Topic, trimmed: &mut TrimmedEvents) -> bool {
        let Some(event) = topic.pop_oldest() else { return false };
        self.events -= 1;
        self.bytes -= event.cost();
        self.order.remove(event.seq);
        topic.last_trim = self.trims.record(event.seq, &topic.meta);
        if topic.len() == 0 {
            self.empty.insert((event.seq, topic.meta.name.clone()));
        }
        trimmed.push(event);
        true
    }
}
