//! What is known of all topics together: how much they have, which of them has the oldest event,
//! and which have none.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::event::Event;
use super::topic::Topic;
use super::trims::TrimHistory;
use crate::cursor::Seq;
use crate::names::Name;

/// The books of a log.
#[derive(Default)]
pub struct LogIndex {
    /// Each topic that has events, by a seq that its oldest has or had. A trim that leaves it some
    /// changes nothing here: whoever looks for the oldest event of the log brings up to date what
    /// is first.
    pub listed: BTreeMap<Seq, Name>,
    /// When the event was appended that was found to be the oldest of the log the last time.
    pub oldest_at: Option<Instant>,
    /// Last trimmed seq of each topic that has none: its first entry is forgotten first, because
    /// the fewest cursors are behind it.
    pub empty: BTreeMap<Seq, Name>,
    pub trims: TrimHistory,
    pub events: u64,
    pub bytes: u64,
}

impl LogIndex {
    /// Takes in a topic's newest event.
    pub fn take_in(&mut self, topic: &mut Topic, event: Event) {
        self.events += 1;
        self.bytes += event.cost();
        topic.push(Arc::new(event));
        if topic.len() == 1 {
            self.empty.remove(&topic.last_trim.seq);
            self.list(topic);
        }
    }

    /// Lists a topic by its oldest event.
    pub fn list(&mut self, topic: &mut Topic) {
        if let Some(seq) = topic.oldest() {
            self.listed.insert(seq, topic.meta.name.clone());
            topic.listed = seq;
        }
    }

    /// `TrimHistory` a topic's oldest event, if it has one.
    pub fn trim(&mut self, topic: &mut Topic, trimmed: &mut Vec<Arc<Event>>) -> bool {
        let Some(event) = topic.pop_oldest() else { return false };
        self.events -= 1;
        self.bytes -= event.cost();
        topic.last_trim = self.trims.note(event.seq, &topic.meta);
        if topic.len() == 0 {
            self.listed.remove(&topic.listed);
            self.empty.insert(event.seq, topic.meta.name.clone());
        }
        trimmed.push(event);
        true
    }
}
