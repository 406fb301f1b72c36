//! Replay: rebuilding the log from the segments.
//!
//! 1. The header and snapshot of the newest segment say what the log was when that segment began,
//!    and which older segments are needed. These have to cover all seqs without a gap.
//! 2. The older segments supply the events that were retained then.
//! 3. The commits of the newest segment are applied in their order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::ages::AgeClock;
use super::error::{IoContext, StoreError};
use super::header::{self, FullHeader, SegmentHeader, file_name};
use super::record::{KeyRecord, Record, StoredEvent, StoredKey};
use super::scan::{CommitReader, NO_HEADER, NextCommit, UNKNOWN_RECORD, read_sealed};
use super::segments::{Segment, SegmentList};
use super::storage::{Storage, StorageFile};
use crate::cursor::{Cursor, Seq};
use crate::limits::{IDEMPOTENCY_KEY_TTL, MAX_IDEMPOTENCY_KEYS, TRUSTED_KEY_STEP};
use crate::log::{Appended, Event, IdempotencyKey, Log, LogSnapshot, Timestamp, event_cost};
use crate::sync::Mutex;

/// A store that was read.
pub struct Replayed<T> {
    pub log: Log<T>,
    pub segments: SegmentList,
    /// Header and file of the newest segment.
    pub header: FullHeader,
    pub file: Box<dyn StorageFile>,
    /// Byte offsets in it: after the snapshot, and after the last complete commit.
    pub start: u64,
    pub end: u64,
    /// What is wrong after `end`, if the tail is torn.
    pub torn: Option<StoreError>,
    /// Segments that others have replaced, to be removed.
    pub obsolete: Vec<Seq>,
    /// The last record says that the server shut down cleanly.
    pub closed: bool,
    /// The time from the newest record to the start, if it is too long to count: the clock may be
    /// wrong. [`AgeClock`] has the rule.
    pub distrusted_step: Option<Duration>,
    keys: VecDeque<RecoveredKey>,
    event_clock: AgeClock,
    key_clock: AgeClock,
    now: Timestamp,
}

/// An idempotency key that was read, with the last event of its publish.
struct RecoveredKey {
    key: StoredKey,
    seq: Seq,
    time: SystemTime,
    /// When the key was used, by the clock of keys.
    used: Duration,
}

/// Reads a store with this newest segment and these older ones. Events are kept up to `retain_age`.
///
/// # Errors
/// When a file cannot be read, or is damaged. A torn tail is no error.
pub fn replay<T>(
    storage: &dyn Storage,
    older: &[Seq],
    newest: Seq,
    retain_age: Duration,
    now: Timestamp,
) -> Result<Replayed<T>, StoreError> {
    let name = file_name(newest);
    let file = storage.open(&name).context("open", &name)?;
    let mut commits = CommitReader::open(&name, &*file)?;
    let (header, snapshot) = read_snapshot(&mut commits, newest)?;
    let start = commits.end;
    let mut replayed = Replayed {
        log: Log::restored(header.epoch, header.retention(), &snapshot),
        segments: SegmentList(Vec::new()),
        header,
        // Opened a second time, because `commits` borrows the first.
        file: storage.open(&name).context("open", &name)?,
        start,
        end: start,
        torn: None,
        obsolete: Vec::new(),
        closed: false,
        distrusted_step: None,
        keys: VecDeque::new(),
        event_clock: AgeClock::new(retain_age),
        key_clock: AgeClock::new(TRUSTED_KEY_STEP),
        now,
    };
    replayed.load_older(storage, older, newest)?;
    replayed.log.finish_loading();
    replayed.segments.0.push(Segment::new(newest));
    loop {
        match commits.next_commit()? {
            NextCommit::Commit(lines) => replayed.apply_commit(&commits, &lines)?,
            NextCommit::Torn(damage) => {
                replayed.torn = Some(damage);
                break;
            }
            NextCommit::End => break,
        }
    }
    replayed.end = commits.end;
    if let Some(active) = replayed.segments.active() {
        active.bytes = commits.end;
        active.snapshot_bytes = start;
    }
    replayed.finish_ages();
    Ok(replayed)
}

/// Reads the first commit of the newest segment: its header and the snapshot of the log. The file
/// got its name after this commit was synced, so a torn one is damage.
pub fn read_snapshot(
    commits: &mut CommitReader<'_>,
    first: Seq,
) -> Result<(FullHeader, LogSnapshot), StoreError> {
    let at = commits.end;
    let lines = match commits.next_commit()? {
        NextCommit::Commit(lines) => lines,
        NextCommit::Torn(damage) => return Err(damage),
        NextCommit::End => return Err(commits.damage(at, NO_HEADER)),
    };
    let damaged = |at, what: &str| commits.damage(at, what);
    let header = match lines.first().and_then(|(_, json)| header::parse(json)) {
        Some(SegmentHeader::Full(header)) if header.next == first => *header,
        Some(SegmentHeader::Full(_)) => {
            return Err(damaged(at, "the header's first seq differs from the file name"));
        }
        Some(SegmentHeader::Compacted { .. }) => {
            return Err(damaged(at, "the segments after this compacted one are missing"));
        }
        None => return Err(damaged(at, NO_HEADER)),
    };
    let mut snapshot = LogSnapshot {
        head: first.previous(),
        trims: header.trims,
        forgotten: header.forgotten,
        ..LogSnapshot::default()
    };
    for (at, json) in &lines[1..] {
        match Record::parse(json) {
            Some(Record::Topic(topic)) => snapshot.topics.push(topic),
            Some(Record::Trimmed(topic, seqs)) => {
                snapshot.recent.extend(seqs.into_iter().map(|seq| (seq, topic.clone())));
            }
            _ => return Err(damaged(*at, "expected a record of the snapshot")),
        }
    }
    Ok((header, snapshot))
}

fn missing(first: Seq) -> StoreError {
    let what = "the segment is missing: the others leave a gap in the seqs";
    StoreError::damaged(&file_name(first), 0, what)
}

impl<T> Replayed<T> {
    /// Loads what was retained when the newest segment began.
    fn load_older(
        &mut self,
        storage: &dyn Storage,
        older: &[Seq],
        newest: Seq,
    ) -> Result<(), StoreError> {
        let mut expected = self.header.oldest_segment;
        let mut compacted_through = Seq::ZERO;
        for &first in older {
            if first < self.header.oldest_segment || first <= compacted_through {
                self.obsolete.push(first);
                continue;
            }
            if first != expected {
                return Err(missing(expected));
            }
            let mut segment = Segment::new(first);
            let load = &mut |record| self.load(&mut segment, record);
            let sealed = read_sealed(storage, first, load)?;
            segment.bytes = sealed.bytes;
            segment.snapshot_bytes = sealed.snapshot_bytes;
            self.segments.0.push(segment);
            expected = match sealed.header {
                SegmentHeader::Compacted { through } => {
                    compacted_through = through;
                    through.next()
                }
                SegmentHeader::Full(_) => sealed.last.map_or(first, Seq::next),
            };
        }
        if expected == newest { Ok(()) } else { Err(missing(expected)) }
    }

    fn load(&mut self, segment: &mut Segment, record: Record) {
        match record {
            Record::Event(event) => {
                if event.key.is_some() {
                    segment.add_key(event.seq);
                }
                let at = self.advance(event.time, event.key, event.seq);
                let cost = event_cost(&event.content);
                let live = self.log.load(&event.topic, event.seq, event.time, at, event.content);
                segment.add_event(cost, live);
            }
            Record::Key(KeyRecord { seq, time, key, .. }) => {
                segment.add_key(seq);
                self.advance(time, Some(key), seq);
            }
            // The snapshot of the newest segment contains the effect of all other records.
            _ => {}
        }
    }

    /// Moves both clocks on to the time of a record, and keeps its key. Returns when the record was
    /// written, as if the first one were written now: [`Replayed::finish_ages`] corrects that.
    fn advance(&mut self, time: SystemTime, key: Option<StoredKey>, seq: Seq) -> Instant {
        let used = self.key_clock.advance(time);
        if let Some(key) = key {
            self.keys.push_back(RecoveredKey { key, seq, time, used });
            if self.keys.len() > MAX_IDEMPOTENCY_KEYS {
                self.keys.pop_front();
            }
        }
        let written = self.event_clock.advance(time);
        self.now.at.checked_add(written).unwrap_or(self.now.at)
    }

    /// Moves on to the time of the start, which decides how old the records are.
    fn finish_ages(&mut self) {
        let distrusted = self.event_clock.distrusted_step(self.now.wall);
        self.distrusted_step = distrusted.filter(|_| self.log.totals().events > 0);
        self.log.make_older(self.event_clock.advance(self.now.wall));
    }

    /// Applies the records of a commit to the log.
    fn apply_commit(
        &mut self,
        commits: &CommitReader<'_>,
        lines: &[(u64, Vec<u8>)],
    ) -> Result<(), StoreError> {
        let damaged = |at: u64, what: &str| commits.damage(at, what);
        let mut trimmed = Vec::new();
        let mut batch: Vec<StoredEvent> = Vec::new();
        for (at, json) in lines {
            let record = Record::parse(json).ok_or_else(|| damaged(*at, UNKNOWN_RECORD))?;
            self.closed = matches!(record, Record::Closed);
            match record {
                Record::Event(event) => {
                    batch.push(event);
                    if batch.len() >= batch[0].batch {
                        let appended = self.append(std::mem::take(&mut batch), &mut trimmed);
                        appended
                            .ok_or_else(|| damaged(*at, "the event does not continue the log"))?;
                    }
                }
                _ if !batch.is_empty() => {
                    return Err(damaged(*at, "an event of a batch is missing"));
                }
                Record::Trim(topic) => self.log.trim(&topic, &mut trimmed),
                Record::Expire(through) => self.log.trim_through(through, &mut trimmed),
                Record::Opened | Record::Closed => {}
                Record::Key(_)
                | Record::CompactedEnd { .. }
                | Record::Topic(_)
                | Record::Trimmed(..) => {
                    return Err(damaged(*at, "this record is not allowed after the snapshot"));
                }
            }
        }
        self.segments.remove_events(&trimmed);
        if batch.is_empty() { Ok(()) } else { Err(damaged(self.end, "a batch is incomplete")) }
    }

    /// Appends a batch to the log; `None` if its events do not continue the log.
    fn append(&mut self, batch: Vec<StoredEvent>, trimmed: &mut Vec<Arc<Event>>) -> Option<()> {
        let first = batch.first()?;
        let (topic, time, seq) = (first.topic.clone(), first.time, first.seq);
        let consecutive = |pair: &[StoredEvent]| pair[1].seq == pair[0].seq.next();
        let one_publish = batch.windows(2).all(consecutive)
            && batch.iter().all(|event| event.topic == topic && event.time == time);
        (one_publish && seq == self.log.head().seq.next()).then_some(())?;
        let last = batch.last().map_or(seq, |event| event.seq);
        let key = batch.last().and_then(|event| event.key);
        let at = self.advance(time, key, last);
        let events: Vec<_> = batch.into_iter().map(|event| event.content).collect();
        if let Some(active) = self.segments.active() {
            for content in &events {
                active.add_event(event_cost(content), true);
            }
        }
        if key.is_some() {
            self.segments.add_key(last);
        }
        let now = Timestamp { at, wall: time };
        let appended = self.log.append(&topic, events, None, now, trimmed).ok()?;
        matches!(appended, Appended::New(cursor) if cursor.seq == last).then_some(())
    }

    /// Gives the log the idempotency keys that are still remembered. `outcome` makes the response
    /// for a repeat from the publish's cursor, its time and, for a batch, its number of events.
    pub fn remember_keys(&mut self, outcome: impl Fn(Cursor, SystemTime, Option<u32>) -> T) {
        let newest = self.log.head();
        let elapsed = self.key_clock.advance(self.now.wall);
        for RecoveredKey { key, seq, time, used } in std::mem::take(&mut self.keys) {
            let age = elapsed.saturating_sub(used);
            let at = self.now.at.checked_sub(age).filter(|_| age < IDEMPOTENCY_KEY_TTL);
            let Some(at) = at else { continue };
            let StoredKey { id, fingerprint, count } = key;
            let outcome = outcome(Cursor { seq, ..newest }, time, count);
            let outcome = Arc::new(Mutex::new(Some(outcome)));
            let key = IdempotencyKey { id, fingerprint, outcome };
            self.log.load_key(&key, seq, at);
        }
    }
}
