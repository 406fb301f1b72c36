//! All events of the log in seq order. A page of `*` therefore costs its own events, however many
//! topics there are, and the oldest event of the log is the first one here.
//!
//! The order is a list of chunks. Appends go to the last chunk and most trims to the first one;
//! another trim moves the events of its chunk. Chunks that have become small are merged, so their
//! number follows the number of events.

use std::collections::VecDeque;
use std::sync::Arc;

use super::event::Event;
use crate::cursor::Seq;

/// Events in one chunk: few enough that removing one from the middle takes less than a microsecond,
/// and enough that the lengths of all chunks of a million events are added up in a few.
const CHUNK_EVENTS: usize = 512;

type Chunk = VecDeque<Arc<Event>>;

/// The events of all topics in seq order.
#[derive(Default)]
pub struct EventOrder {
    /// No chunk is empty.
    chunks: VecDeque<Chunk>,
}

impl EventOrder {
    /// Appends an event, whose seq is higher than all others.
    pub fn push(&mut self, event: Arc<Event>) {
        match self.chunks.back_mut() {
            Some(last) if last.len() < CHUNK_EVENTS => last.push_back(event),
            _ => {
                let mut chunk = Chunk::with_capacity(CHUNK_EVENTS);
                chunk.push_back(event);
                self.chunks.push_back(chunk);
            }
        }
    }

    /// Removes the event with this seq, if there is one.
    pub fn remove(&mut self, seq: Seq) {
        let at = self.chunk_after(seq.previous());
        let Some(chunk) = self.chunks.get_mut(at) else { return };
        if chunk.front().is_some_and(|first| first.seq == seq) {
            chunk.pop_front();
        } else if let Ok(index) = chunk.binary_search_by_key(&seq, |event| event.seq) {
            chunk.remove(index);
        }
        let length = chunk.len();
        let fits = |next: &Chunk| length + next.len() <= CHUNK_EVENTS / 2;
        if length == 0 {
            self.chunks.remove(at);
        } else if length < CHUNK_EVENTS / 4 && self.chunks.get(at + 1).is_some_and(fits) {
            if let Some(mut next) = self.chunks.remove(at + 1) {
                self.chunks[at].append(&mut next);
            }
        }
    }

    /// The oldest event.
    pub fn first(&self) -> Option<&Arc<Event>> {
        self.chunks.front()?.front()
    }

    /// The events after `seq`, oldest first.
    pub fn after(&self, seq: Seq) -> impl Iterator<Item = &Arc<Event>> {
        let at = self.chunk_after(seq);
        let before = self.chunks.get(at).map_or(0, |chunk| count_through(chunk, seq));
        self.chunks.range(at..).flatten().skip(before)
    }

    /// Number of events after `seq`.
    pub fn count_after(&self, seq: Seq) -> usize {
        let at = self.chunk_after(seq);
        let before = self.chunks.get(at).map_or(0, |chunk| count_through(chunk, seq));
        self.chunks.range(at..).map(Chunk::len).sum::<usize>() - before
    }

    /// The seq before the last `n` events; `None` if there are not more than `n`.
    pub fn before_last(&self, mut n: usize) -> Option<Seq> {
        for chunk in self.chunks.iter().rev() {
            match chunk.len().checked_sub(n + 1) {
                Some(index) => return chunk.get(index).map(|event| event.seq),
                None => n -= chunk.len(),
            }
        }
        None
    }

    /// The seq of the last event for which `holds` is true. It is true for events up to one of them,
    /// and for none after it.
    pub fn last_while(&self, holds: impl Fn(&Event) -> bool) -> Option<Seq> {
        let begins = |chunk: &Chunk| chunk.front().is_some_and(|first| holds(first));
        let chunk = self.chunks.get(self.chunks.partition_point(begins).checked_sub(1)?)?;
        let last = chunk.partition_point(|event| holds(event)).checked_sub(1)?;
        chunk.get(last).map(|event| event.seq)
    }

    /// The index of the chunk that has the first event after `seq`.
    fn chunk_after(&self, seq: Seq) -> usize {
        // Nearly every reader is at the end, and nearly every trim at the start.
        let ends_before = |chunk: &Chunk| chunk.back().is_some_and(|last| last.seq <= seq);
        match self.chunks.front() {
            Some(first) if !ends_before(first) => 0,
            _ => self.chunks.partition_point(ends_before),
        }
    }
}

/// Number of events in a chunk up to `seq`.
fn count_through(chunk: &Chunk, seq: Seq) -> usize {
    chunk.partition_point(|event| event.seq <= seq)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::event::{BodyKind, EventContent};
    use crate::log::trims::TopicMeta;
    use crate::names::Name;
    use std::time::{Instant, SystemTime};

    #[test]
    fn order_equals_a_sorted_list_after_any_removals() {
        let meta = TopicMeta::new(Name::new("news").unwrap(), Seq::ZERO);
        let event = |seq| {
            let content = EventContent {
                event_type: None,
                kind: BodyKind::Text,
                content_type: None,
                body: Box::default(),
            };
            let (time, at) = (SystemTime::UNIX_EPOCH, Instant::now());
            Arc::new(Event { seq: Seq::new(seq), time, at, meta: Arc::clone(&meta), content })
        };
        let mut random = fastrand::Rng::with_seed(7);
        let (mut order, mut expected) = (EventOrder::default(), Vec::new());
        for seq in 1..=6_000 {
            order.push(event(seq));
            expected.push(seq);
            // Mostly the oldest are removed, as by retention; also any other, and ones that are gone.
            let removed = if random.bool() { expected[0] } else { random.u64(0..=seq) };
            if random.u8(0..3) > 0 {
                order.remove(Seq::new(removed));
                expected.retain(|seq| *seq != removed);
            }
            if seq % 50 != 0 {
                continue;
            }
            for after in [0, seq / 2, random.u64(0..=seq), seq] {
                let rest: Vec<u64> = order.after(Seq::new(after)).map(|e| e.seq.get()).collect();
                let start = expected.partition_point(|seq| *seq <= after);
                assert_eq!(rest, expected[start..], "after {after}");
                assert_eq!(order.count_after(Seq::new(after)), rest.len());
                let last = expected[..start].last().copied();
                let found = order.last_while(|event| event.seq.get() <= after);
                assert_eq!(found.map(Seq::get), last);
            }
            for count in [0, 1, random.usize(0..=expected.len()), expected.len()] {
                let before = expected.len().checked_sub(count + 1).map(|at| Seq::new(expected[at]));
                assert_eq!(order.before_last(count), before, "the last {count}");
            }
            assert_eq!(order.first().map(|e| e.seq.get()), expected.first().copied());
            assert!(order.chunks.len() <= expected.len() / (CHUNK_EVENTS / 8) + 2);
        }
    }
}
