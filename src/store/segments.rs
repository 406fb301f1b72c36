//! Statistics of each segment, and the choice of segments to compact.
//!
//! Counters only, no files: the choice weighs the dead bytes of a segment against the live ones
//! that compaction would write again, and can be tested without a disk. An event is live while the
//! log retains it, a key while it is remembered; all else in a segment is dead.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use crate::cursor::Seq;
use crate::limits::IDEMPOTENCY_KEY_TTL;
use crate::log::Event;

/// The statistics of one segment.
#[derive(Debug, Clone)]
pub struct Segment {
    /// The first seq in its range; its file is named for it.
    pub first: Seq,
    /// Length of the file.
    pub bytes: u64,
    /// What its events cost, in bytes as `--retain-bytes` counts; all of them, and the live ones.
    cost: u64,
    live_cost: u64,
    /// Idempotency keys in it, and when the last of them is forgotten.
    keys: u64,
    keys_until: Option<Instant>,
}

/// Bytes of a line that holds a key, roughly.
const KEY_LINE_BYTES: u64 = 256;
/// Dead bytes that do not justify a compaction.
const MIN_DEAD_BYTES: u64 = 512;
/// Small neighbouring segments that are merged even if nothing in them is dead.
const MERGED_SEGMENTS: usize = 4;

impl Segment {
    #[must_use]
    pub fn new(first: Seq) -> Segment {
        Segment { first, bytes: 0, cost: 0, live_cost: 0, keys: 0, keys_until: None }
    }

    /// Counts an event in the segment.
    pub fn add_event(&mut self, cost: u64, live: bool) {
        self.cost += cost;
        self.live_cost += if live { cost } else { 0 };
    }

    /// Counts a key in the segment that was used at `at`.
    pub fn add_key(&mut self, at: Instant) {
        self.keys += 1;
        self.keys_until = self.keys_until.max(at.checked_add(IDEMPOTENCY_KEY_TTL));
    }

    pub fn has_events(&self) -> bool {
        self.cost > 0
    }

    /// Keys still remembered: all, until the last one is forgotten.
    fn live_keys(&self, now: Instant) -> u64 {
        if self.keys_until.is_some_and(|until| until > now) { self.keys } else { 0 }
    }

    fn is_dead(&self, now: Instant) -> bool {
        self.live_cost == 0 && self.live_keys(now) == 0
    }

    /// Bytes that compaction would keep, roughly.
    fn live_bytes(&self, now: Instant) -> u64 {
        let events =
            u128::from(self.bytes) * u128::from(self.live_cost) / u128::from(self.cost.max(1));
        (events as u64 + self.live_keys(now) * KEY_LINE_BYTES).min(self.bytes)
    }
}

/// The segments of a store, oldest first; the last one is the active one, which is appended to.
pub struct SegmentList(pub Vec<Segment>);

impl SegmentList {
    /// The segment that is appended to.
    pub fn active(&mut self) -> Option<&mut Segment> {
        self.0.last_mut()
    }

    /// Counts trimmed events as dead.
    pub fn remove_events(&mut self, trimmed: &[Arc<Event>]) {
        for event in trimmed {
            let after = self.0.partition_point(|segment| segment.first <= event.seq);
            if let Some(segment) = after.checked_sub(1).and_then(|at| self.0.get_mut(at)) {
                segment.live_cost = segment.live_cost.saturating_sub(event.cost());
            }
        }
    }

    /// Replaces `count` segments, the first of which has the same first seq, by a compacted one.
    pub fn replace(&mut self, count: usize, mut compacted: Segment) {
        let at = self.0.iter().position(|segment| segment.first == compacted.first);
        let Some(at) = at else { return };
        let range = at..(at + count).min(self.0.len());
        // Trims during the compaction were counted in the segments that it replaces.
        compacted.live_cost = self.0[range.clone()].iter().map(|segment| segment.live_cost).sum();
        self.0.drain(at + 1..range.end);
        self.0[at] = compacted;
    }

    pub fn bytes(&self) -> u64 {
        self.0.iter().map(|segment| segment.bytes).sum()
    }

    /// How many of the oldest segments hold nothing live.
    pub fn dead_prefix(&self, now: Instant) -> usize {
        self.0.iter().take_while(|segment| segment.is_dead(now)).count()
    }

    /// Chooses runs of neighbouring sealed segments to compact into one segment each: segments that
    /// are more than half dead, and runs of several small ones. While the sealed segments exceed
    /// twice `retain_bytes`, a tenth dead is enough. No run has more than `max_bytes` live bytes.
    pub fn compaction_runs(
        &self,
        max_bytes: u64,
        retain_bytes: u64,
        now: Instant,
    ) -> Vec<Range<usize>> {
        let sealed = &self.0[..self.0.len().saturating_sub(1)];
        let oversized =
            sealed.iter().map(|s| s.bytes).sum::<u64>() > retain_bytes.saturating_mul(2);
        let pays_off = |segment: &Segment| {
            let live = segment.live_bytes(now);
            let bound = if oversized { live / 9 * 10 } else { live * 2 };
            segment.bytes > bound + MIN_DEAD_BYTES
        };
        let mut runs = Vec::new();
        let mut run = 0..0;
        let mut size = 0;
        for at in 0..=sealed.len() {
            let segment = sealed.get(at);
            let live = segment.map_or(0, |segment| segment.live_bytes(now));
            let fits = segment.is_some_and(|s| pays_off(s) || live <= max_bytes / 2);
            if !fits || size + live > max_bytes {
                if run.len() >= MERGED_SEGMENTS || sealed[run.clone()].iter().any(pays_off) {
                    runs.push(run.clone());
                }
                run = at..at;
                size = 0;
            }
            if fits {
                run.end = at + 1;
                size += live;
            } else {
                run = at + 1..at + 1;
            }
        }
        runs
    }
}
