//! One topic: its events in a ring buffer, in seq order, and the last of its trims.
//!
//! Each topic trims its own events, so a busy topic costs the readers of a quiet one nothing until
//! the byte budget of the whole log is used up. Only the oldest event is ever trimmed; this is why
//! the last trim alone is enough for an exact gap test.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::event::Event;
use super::trims::{LastTrim, TopicMeta};
use crate::cursor::Seq;

/// A topic's events and its last trim.
pub struct Topic {
    pub meta: Arc<TopicMeta>,
    events: VecDeque<Arc<Event>>,
    bytes: u64,
    pub last_trim: LastTrim,
}

impl Topic {
    /// An empty topic. `last_trim` is not earlier than the last trim of a forgotten topic that may
    /// have had the same name.
    pub fn new(meta: Arc<TopicMeta>, last_trim: LastTrim) -> Topic {
        Topic { meta, events: VecDeque::new(), bytes: 0, last_trim }
    }

    pub fn push(&mut self, event: Arc<Event>) {
        self.bytes += event.cost();
        self.events.push_back(event);
    }

    /// Removes the oldest event. The caller updates `last_trim`.
    pub fn pop_oldest(&mut self) -> Option<Arc<Event>> {
        let event = self.events.pop_front()?;
        self.bytes -= event.cost();
        // Return memory of a topic that was large once. Shrinking to half at a quarter full
        // prevents repeated reallocation of a topic whose size stays about the same.
        if self.events.len() < self.events.capacity() / 4 {
            self.events.shrink_to(self.events.capacity() / 2);
        }
        Some(event)
    }

    /// Makes every event older. No reader may share them yet.
    pub fn make_older(&mut self, by: Duration) {
        for event in self.events.iter_mut().filter_map(Arc::get_mut) {
            event.at = event.at.checked_sub(by).unwrap_or(event.at);
        }
    }

    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Bytes of the topic's events, as [`Event::cost`] counts them.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn oldest(&self) -> Option<Seq> {
        self.events.front().map(|event| event.seq)
    }

    pub fn newest(&self) -> Option<Seq> {
        self.events.back().map(|event| event.seq)
    }

    /// Index of the first event after `seq`; the topic's length if there is none.
    pub fn index_after(&self, seq: Seq) -> usize {
        // Nearly every reader is at the end or at the start, so the search is rare.
        if self.newest().is_none_or(|newest| newest <= seq) {
            return self.events.len();
        }
        if self.oldest().is_none_or(|oldest| oldest > seq) {
            return 0;
        }
        self.events.partition_point(|event| event.seq <= seq)
    }

    pub fn get(&self, index: usize) -> Option<&Arc<Event>> {
        self.events.get(index)
    }

    /// The events from an index to the end, oldest first.
    pub fn starting_at(&self, index: usize) -> impl DoubleEndedIterator<Item = &Arc<Event>> {
        self.events.range(index.min(self.events.len())..)
    }
}
