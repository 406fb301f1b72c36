//! What is known of each segment, and which of them are worth rewriting.
//!
//! Pure counting, no files: what a rewrite would gain is decided here, so that it can be tested
//! without a disk. It weighs what is dead in a segment against what would be written again.

use std::ops::Range;
use std::time::Instant;

use crate::limits::IDEMPOTENCY_KEY_TTL;
use crate::log::Event;

/// One segment.
#[derive(Debug, Clone)]
pub struct Segment {
    /// The first seq that it stands for; it is in the name of its file.
    pub first: u64,
    pub bytes: u64,
    /// What its events cost, as `--retain-bytes` counts, and what those cost that are kept.
    cost: u64,
    live: u64,
    /// Keys in it, and until when the last of them is remembered.
    keys: u64,
    keys_until: Option<Instant>,
}

/// Bytes of a line that keeps a key, about.
const KEY_LINE: u64 = 256;
/// What is not worth a rewrite.
const SCRAPS: u64 = 512;
/// So many small segments in a row become one.
const ROW: usize = 4;

impl Segment {
    #[must_use]
    pub fn new(first: u64) -> Segment {
        Segment { first, bytes: 0, cost: 0, live: 0, keys: 0, keys_until: None }
    }

    /// Counts an event that is in it; whether it is kept.
    pub fn count(&mut self, cost: u64, live: bool) {
        self.cost += cost;
        self.live += if live { cost } else { 0 };
    }

    /// Counts a key that is in it.
    pub fn count_key(&mut self, at: Instant) {
        self.keys += 1;
        self.keys_until = self.keys_until.max(at.checked_add(IDEMPOTENCY_KEY_TTL));
    }

    pub fn has_events(&self) -> bool {
        self.cost > 0
    }

    fn keys(&self, now: Instant) -> u64 {
        if self.keys_until.is_some_and(|until| until > now) { self.keys } else { 0 }
    }

    /// Whether nothing in it is needed.
    fn is_dead(&self, now: Instant) -> bool {
        self.live == 0 && self.keys(now) == 0
    }

    /// How many of its bytes are needed, about.
    fn needed(&self, now: Instant) -> u64 {
        let events = u128::from(self.bytes) * u128::from(self.live) / u128::from(self.cost.max(1));
        (events as u64 + self.keys(now) * KEY_LINE).min(self.bytes)
    }
}

/// All of them, oldest first; the last is the one that is appended to.
pub struct SegmentList(pub Vec<Segment>);

impl SegmentList {
    /// The one that is appended to.
    pub fn active(&mut self) -> Option<&mut Segment> {
        self.0.last_mut()
    }

    /// Counts events that are no longer kept.
    pub fn trimmed(&mut self, events: &[std::sync::Arc<Event>]) {
        for event in events {
            let after = self.0.partition_point(|segment| segment.first <= event.seq);
            if let Some(segment) = after.checked_sub(1).and_then(|at| self.0.get_mut(at)) {
                segment.live = segment.live.saturating_sub(event.cost());
            }
        }
    }

    /// Puts a rewritten segment in the place of so many.
    pub fn replace(&mut self, count: usize, mut by: Segment) {
        let Some(at) = self.0.iter().position(|segment| segment.first == by.first) else { return };
        let range = at..(at + count).min(self.0.len());
        // What was trimmed while it was written was taken off those that it replaces.
        by.live = self.0[range.clone()].iter().map(|segment| segment.live).sum();
        self.0.drain(at + 1..range.end);
        self.0[at] = by;
    }

    pub fn bytes(&self) -> u64 {
        self.0.iter().map(|segment| segment.bytes).sum()
    }

    /// How many of the oldest segments nobody needs.
    pub fn dead_in_front(&self, now: Instant) -> usize {
        self.0.iter().take_while(|segment| segment.is_dead(now)).count()
    }

    /// Runs of sealed segments that are worth rewriting as one: more than half dead, or many small
    /// ones in a row; beyond twice `--retain-bytes` in all, also those that are a tenth dead.
    pub fn worth_rewriting(&self, most: u64, retain_bytes: u64, now: Instant) -> Vec<Range<usize>> {
        let sealed = &self.0[..self.0.len().saturating_sub(1)];
        let crowded = sealed.iter().map(|s| s.bytes).sum::<u64>() > retain_bytes.saturating_mul(2);
        let worthy = |segment: &Segment| {
            let needed = segment.needed(now);
            let bound = if crowded { needed / 9 * 10 } else { needed * 2 };
            segment.bytes > bound + SCRAPS
        };
        let mut runs = Vec::new();
        let mut run = 0..0;
        let mut size = 0;
        for at in 0..=sealed.len() {
            let segment = sealed.get(at);
            let needed = segment.map_or(0, |segment| segment.needed(now));
            let fits = segment.is_some_and(|s| worthy(s) || needed <= most / 2);
            if !fits || size + needed > most {
                if run.len() >= ROW || sealed[run.clone()].iter().any(worthy) {
                    runs.push(run.clone());
                }
                run = at..at;
                size = 0;
            }
            if fits {
                run.end = at + 1;
                size += needed;
            } else {
                run = at + 1..at + 1;
            }
        }
        runs
    }
}
