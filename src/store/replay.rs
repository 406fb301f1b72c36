//! Putting the log together again from what is on disk.
//!
//! 1. The newest segment's header and snapshot say what the log was when that segment began, and
//!    which segments are needed. They have to tile the number line: no seq without its segment.
//! 2. The older segments bring the events that were kept then.
//! 3. The rest of the newest segment is done again, in its order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use parking_lot::Mutex;

use super::compact::instant;
use super::error::{IoContext, StoreError};
use super::header::{self, FullHeader, SegmentHeader, file_name};
use super::record::{KeyStamp, Record, StoredEvent};
use super::scan::{CommitReader, NextCommit, read_sealed};
use super::segments::{Segment, SegmentList};
use super::storage::{Storage, StorageFile};
use crate::cursor::Cursor;
use crate::limits::{IDEMPOTENCY_KEY_TTL, MAX_IDEMPOTENCY_KEYS};
use crate::log::{Appended, IdempotencyKey, Log, LogSnapshot, Timestamp, event_cost};

/// What was read.
pub struct Replayed<T> {
    pub log: Log<T>,
    pub segments: SegmentList,
    /// The newest segment: what it says of itself, its file, where its snapshot and where all that
    /// is whole ends, and what is wrong after that.
    pub begun: FullHeader,
    pub file: Box<dyn StorageFile>,
    pub start: u64,
    pub end: u64,
    pub torn: Option<StoreError>,
    /// `SegmentList` that stand for nothing any more.
    pub leftovers: Vec<u64>,
    /// The last record says that the run ended in order.
    pub closed: bool,
    keys: VecDeque<(KeyStamp, u64, SystemTime)>,
    ages: AgeClock,
}

/// Turns the times of an earlier run into moments on the clock that ages run on. They go in the
/// order of the log, whatever the other clock did.
struct AgeClock {
    now: Timestamp,
    last: Option<Instant>,
}

impl AgeClock {
    fn of(&mut self, time: SystemTime) -> Instant {
        let at = self.last.max(Some(instant(time, self.now)));
        self.last = at;
        at.unwrap_or(self.now.at)
    }
}

/// Reads a store whose newest segment is this one.
pub fn read<T>(
    disk: &dyn Storage,
    older: &[u64],
    newest: u64,
    now: Timestamp,
) -> Result<Replayed<T>, StoreError> {
    let name = file_name(newest);
    let file = disk.open(&name).doing("open", &name)?;
    let mut commits = CommitReader::open(&name, &*file)?;
    let (begun, snapshot) = beginning(&mut commits, newest)?;
    let start = commits.end;
    let mut found = Replayed {
        log: Log::restored(begun.epoch, begun.retention(), &snapshot),
        segments: SegmentList(Vec::new()),
        begun,
        // The same file once more: the first is being read.
        file: disk.open(&name).doing("open", &name)?,
        start,
        end: start,
        torn: None,
        leftovers: Vec::new(),
        closed: false,
        keys: VecDeque::new(),
        ages: AgeClock { now, last: None },
    };
    found.load_older(disk, older, newest)?;
    found.log.settle();
    found.segments.0.push(Segment::new(newest));
    loop {
        match commits.advance()? {
            NextCommit::Commit(lines) => found.replay(&commits, &lines)?,
            NextCommit::Torn(damage) => {
                found.torn = Some(damage);
                break;
            }
            NextCommit::End => break,
        }
    }
    found.end = commits.end;
    if let Some(active) = found.segments.active() {
        active.bytes = commits.end;
    }
    Ok(found)
}

/// The first commit of a segment: its header, and the state of the log. It was complete before the
/// file had its name, so nothing about it can be torn.
fn beginning(
    commits: &mut CommitReader<'_>,
    first: u64,
) -> Result<(FullHeader, LogSnapshot), StoreError> {
    let at = commits.end;
    let lines = match commits.advance()? {
        NextCommit::Commit(lines) => lines,
        NextCommit::Torn(damage) => return Err(damage),
        NextCommit::End => return Err(commits.damage(at, "it ends here")),
    };
    let odd = |at, what: &str| commits.damage(at, what);
    let begun = match lines.first().and_then(|(_, json)| header::read(json)) {
        Some(SegmentHeader::Full(begun)) if begun.next == first => *begun,
        Some(SegmentHeader::Full(_)) => {
            return Err(odd(at, "its name is not that of its first seq"));
        }
        Some(SegmentHeader::Compacted { .. }) => {
            return Err(odd(at, "the segments after it are missing"));
        }
        None => return Err(odd(at, "it has no header")),
    };
    let mut snapshot = LogSnapshot {
        head: first.saturating_sub(1),
        trims: begun.trims,
        forgotten: begun.forgotten,
        ..LogSnapshot::default()
    };
    for (at, json) in &lines[1..] {
        match Record::read(json) {
            Some(Record::Topic(topic)) => snapshot.topics.push(topic),
            Some(Record::Trimmed(topic, seqs)) => {
                snapshot.recent.extend(seqs.into_iter().map(|seq| (seq, topic.clone())));
            }
            _ => return Err(odd(*at, "this line is not of a snapshot")),
        }
    }
    Ok((begun, snapshot))
}

fn missing(first: u64) -> StoreError {
    let what = "it is missing: the segments around it leave out what it should have";
    StoreError::damaged(&file_name(first), 0, what)
}

impl<T> Replayed<T> {
    /// Takes in what was kept when the newest segment began.
    fn load_older(
        &mut self,
        disk: &dyn Storage,
        older: &[u64],
        newest: u64,
    ) -> Result<(), StoreError> {
        let mut expected = self.begun.first;
        let mut rewritten_through = 0;
        for &first in older {
            if first < self.begun.first || first <= rewritten_through {
                self.leftovers.push(first);
                continue;
            }
            if first != expected {
                return Err(missing(expected));
            }
            let mut segment = Segment::new(first);
            let sealed = read_sealed(disk, first, &mut |record| self.load(&mut segment, record))?;
            segment.bytes = sealed.bytes;
            self.segments.0.push(segment);
            expected = match sealed.header {
                SegmentHeader::Compacted { through } => {
                    rewritten_through = through;
                    through + 1
                }
                SegmentHeader::Full(_) => sealed.last.map_or(first, |last| last + 1),
            };
        }
        if expected == newest { Ok(()) } else { Err(missing(expected)) }
    }

    fn load(&mut self, segment: &mut Segment, record: Record) {
        match record {
            Record::Event(event) => {
                let at = self.ages.of(event.time);
                if let Some(stamp) = event.stamp {
                    segment.count_key(at);
                    self.key(stamp, event.seq, event.time);
                }
                let cost = event_cost(&event.content);
                let kept = self.log.load(&event.topic, event.seq, event.time, at, event.content);
                segment.count(cost, kept);
            }
            Record::Key(key) => {
                segment.count_key(self.ages.of(key.time));
                self.key(key.stamp, key.seq, key.time);
            }
            // These belonged to the moment.
            _ => {}
        }
    }

    fn key(&mut self, stamp: KeyStamp, seq: u64, time: SystemTime) {
        let age = self.ages.now.wall.duration_since(time).unwrap_or_default();
        if age < IDEMPOTENCY_KEY_TTL {
            self.keys.push_back((stamp, seq, time));
            if self.keys.len() > MAX_IDEMPOTENCY_KEYS {
                self.keys.pop_front();
            }
        }
    }

    /// Does again what a commit says.
    fn replay(
        &mut self,
        commits: &CommitReader<'_>,
        lines: &[(u64, Vec<u8>)],
    ) -> Result<(), StoreError> {
        let odd = |at: u64, what: &str| commits.damage(at, what);
        let mut trimmed = Vec::new();
        let mut batch: Vec<StoredEvent> = Vec::new();
        for (at, json) in lines {
            let record = Record::read(json);
            let record = record.ok_or_else(|| odd(*at, "this line says nothing that is known"))?;
            self.closed = matches!(record, Record::Closed);
            match record {
                Record::Event(event) => {
                    batch.push(event);
                    if batch.len() >= batch[0].batch {
                        let again = self.append(std::mem::take(&mut batch), &mut trimmed);
                        again.ok_or_else(|| odd(*at, "this event does not follow"))?;
                    }
                }
                _ if !batch.is_empty() => return Err(odd(*at, "an event of a batch is missing")),
                Record::Trim(topic) => self.log.trim_noting(&topic, &mut trimmed),
                Record::Expire(through) => self.log.trim_through(through, &mut trimmed),
                Record::Opened | Record::Closed => {}
                Record::Key(_) | Record::Topic(_) | Record::Trimmed(..) => {
                    return Err(odd(*at, "this line has no place here"));
                }
            }
        }
        self.segments.trimmed(&trimmed);
        if batch.is_empty() { Ok(()) } else { Err(odd(self.end, "a batch has no end")) }
    }

    fn append(
        &mut self,
        batch: Vec<StoredEvent>,
        trimmed: &mut Vec<Arc<crate::log::Event>>,
    ) -> Option<()> {
        let first = batch.first()?;
        let (topic, time, seq) = (first.topic.clone(), first.time, first.seq);
        let fits = (seq..)
            .zip(&batch)
            .all(|(seq, event)| event.seq == seq && event.topic == topic && event.time == time);
        (fits && seq == self.log.head().seq + 1).then_some(())?;
        let at = self.ages.of(time);
        let last = batch.last().map_or(seq, |event| event.seq);
        let stamp = batch.last().and_then(|event| event.stamp);
        let events: Vec<_> = batch.into_iter().map(|event| event.content).collect();
        if let Some(active) = self.segments.active() {
            for content in &events {
                active.count(event_cost(content), true);
            }
            if stamp.is_some() {
                active.count_key(at);
            }
        }
        if let Some(stamp) = stamp {
            self.key(stamp, last, time);
        }
        let now = Timestamp { at, wall: time };
        let appended = self.log.append_noting(&topic, events, None, now, trimmed).ok()?;
        matches!(appended, Appended::New(cursor) if cursor.seq == last).then_some(())
    }

    /// Remembers the keys that were used, with the answers that they got.
    pub fn remember_keys(&mut self, outcome: impl Fn(Cursor, SystemTime, Option<u32>) -> T) {
        let newest = self.log.head();
        for (stamp, seq, time) in std::mem::take(&mut self.keys) {
            let outcome = outcome(Cursor { seq, ..newest }, time, stamp.count);
            let KeyStamp { id, fingerprint, .. } = stamp;
            let claim =
                IdempotencyKey { id, fingerprint, outcome: Arc::new(Mutex::new(Some(outcome))) };
            self.log.remember(&claim, instant(time, self.ages.now));
        }
    }
}
