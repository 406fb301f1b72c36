//! One topic: a ring of events in seq order, and what it remembers of those it has let go.
//!
//! Each topic trims for itself, so that a busy one costs the readers of a quiet one nothing (until
//! the byte budget of the whole log is used up). Events leave only at the old end: that is why its
//! last trim alone is enough for an exact gap test.

use std::collections::VecDeque;
use std::sync::Arc;

use super::event::Event;
use super::trims::{LastTrim, TopicMeta};
use crate::cursor::Seq;

/// A topic's events. The oldest leave at the front, so its trims go in seq order.
pub struct Topic {
    pub meta: Arc<TopicMeta>,
    events: VecDeque<Arc<Event>>,
    bytes: u64,
    pub last_trim: LastTrim,
    /// By which seq it is among those that have events; of no meaning while it has none.
    pub listed: Seq,
}

impl Topic {
    /// An empty topic. `before` is the last trim that may have been its own in an earlier life.
    pub fn new(meta: Arc<TopicMeta>, before: LastTrim) -> Topic {
        Topic { meta, events: VecDeque::new(), bytes: 0, last_trim: before, listed: Seq::ZERO }
    }

    pub fn push(&mut self, event: Arc<Event>) {
        self.bytes += event.cost();
        self.events.push_back(event);
    }

    /// Takes the oldest event out. The caller notes the trim in `last_trim`.
    pub fn pop_oldest(&mut self) -> Option<Arc<Event>> {
        let event = self.events.pop_front()?;
        self.bytes -= event.cost();
        // A topic that was large once must not keep the room for ever; a factor of four keeps a
        // full ring from being moved to and fro.
        if self.events.len() < self.events.capacity() / 4 {
            self.events.shrink_to(self.events.capacity() / 2);
        }
        Some(event)
    }

    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Bytes of its events as the budget counts them.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn oldest(&self) -> Option<Seq> {
        self.events.front().map(|e| e.seq)
    }

    pub fn newest(&self) -> Option<Seq> {
        self.events.back().map(|e| e.seq)
    }

    /// Index in the ring of the first event after `seq`.
    pub fn index_after(&self, seq: Seq) -> usize {
        // Nearly every reader is at the end or at the start.
        if self.newest().is_none_or(|newest| newest <= seq) {
            return self.events.len();
        }
        if self.oldest().is_none_or(|oldest| oldest > seq) {
            return 0;
        }
        self.events.partition_point(|e| e.seq <= seq)
    }

    pub fn get(&self, index: usize) -> Option<&Arc<Event>> {
        self.events.get(index)
    }

    /// The events from an index on, oldest first.
    pub fn starting_at(&self, index: usize) -> impl DoubleEndedIterator<Item = &Arc<Event>> {
        self.events.range(index.min(self.events.len())..)
    }
}
