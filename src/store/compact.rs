//! Rewriting sealed segments without what is dead in them.
//!
//! A run of neighbours becomes one file under the name of the first. What may be left out is what
//! was dead when the newest segment began: so the newest segment's own records still find
//! everything that they speak of when they are read again. The new file is complete and synced
//! before it takes the name; what it replaces is removed after that, and if that is cut short, the
//! new file's header says up to where it stands for all others.

use std::io;
use std::time::{Duration, Instant, SystemTime};

use super::error::{IoContext, StoreError};
use super::header::{file_name, first_line, segments, temporary_name, write_compacted};
use super::lines::CommitBuffer;
use super::record::{EventRecord, KeyRecord, Record, StoredEvent};
use super::scan::read_sealed;
use super::segments::Segment;
use super::storage::{Storage, StorageFile};
use crate::limits::IDEMPOTENCY_KEY_TTL;
use crate::log::{LogSnapshot, Timestamp, event_cost};
use crate::names::Name;

/// What was kept when the newest segment began.
pub struct LiveSet {
    /// The last trimmed seq of each topic, by name. What is of no topic here is gone.
    topics: Vec<(Name, u64)>,
    /// Keys used before this are forgotten.
    keys_since: SystemTime,
}

impl LiveSet {
    #[must_use]
    pub fn new(snapshot: &LogSnapshot, now: SystemTime) -> LiveSet {
        let topics = snapshot.topics.iter();
        LiveSet {
            topics: topics.map(|t| (t.topic.clone(), t.last.seq)).collect(),
            keys_since: now.checked_sub(IDEMPOTENCY_KEY_TTL).unwrap_or(SystemTime::UNIX_EPOCH),
        }
    }

    /// Every topic, and through which seq it is trimmed.
    pub fn topics(&mut self) -> &mut [(Name, u64)] {
        &mut self.topics
    }

    /// Through which seq a topic is trimmed; made if it is not there.
    pub fn trimmed_through(&mut self, topic: Name) -> &mut u64 {
        let place = self.topics.binary_search_by(|(name, _)| name.cmp(&topic));
        let place = place.unwrap_or_else(|place| {
            self.topics.insert(place, (topic, 0));
            place
        });
        &mut self.topics[place].1
    }

    fn event(&self, topic: &Name, seq: u64) -> bool {
        let place = self.topics.binary_search_by(|(name, _)| name.cmp(topic));
        place.is_ok_and(|place| seq > self.topics[place].1)
    }

    fn key(&self, time: SystemTime) -> bool {
        time > self.keys_since
    }
}

/// What is to be done to the files of a store, apart from appending.
pub struct CompactionJob {
    /// The segments that were needed when the newest of them began. Whatever older file is none of
    /// these nobody needs, also when it stayed behind at an earlier chore.
    pub needed: Vec<u64>,
    /// Runs of neighbours to be rewritten: their first seqs, and the last seq they stand for.
    pub runs: Vec<(Vec<u64>, u64)>,
    pub kept: LiveSet,
}

/// A rewritten run.
pub struct CompactedRun {
    pub from: Vec<u64>,
    pub to: Segment,
}

impl CompactionJob {
    /// Does it. What fails is left as it was; the failure is told to `failed`.
    pub fn run(&self, disk: &dyn Storage, mut failed: impl FnMut(StoreError)) -> Vec<CompactedRun> {
        self.remove_dead(disk).unwrap_or_else(&mut failed);
        let rewrite = |(from, through): &(Vec<u64>, u64)| {
            let to = rewrite(disk, from, *through, &self.kept).map_err(&mut failed).ok()?;
            // From here on it is what a start would find. What fails now leaves files behind that
            // stand for nothing, and go at the next start.
            remove_replaced(disk, from).unwrap_or_else(&mut failed);
            Some(CompactedRun { from: from.clone(), to })
        };
        self.runs.iter().filter_map(rewrite).collect()
    }

    fn remove_dead(&self, disk: &dyn Storage) -> Result<(), StoreError> {
        let newest = self.needed.last().copied().unwrap_or_default();
        for first in segments(disk)?.into_iter().filter(|first| *first < newest) {
            if !self.needed.contains(&first) {
                let name = file_name(first);
                disk.remove(&name).doing("remove", &name)?;
            }
        }
        Ok(())
    }
}

fn rewrite(
    disk: &dyn Storage,
    from: &[u64],
    through: u64,
    kept: &LiveSet,
) -> Result<Segment, StoreError> {
    let first = from.first().copied().unwrap_or_default();
    let mut output = SegmentWriter::new(disk, first, through, kept)?;
    for one in from {
        read_sealed(disk, *one, &mut |record| output.take(record))?;
    }
    output.finish(disk)
}

fn remove_replaced(disk: &dyn Storage, from: &[u64]) -> Result<(), StoreError> {
    // Or a power cut could bring back the old file under this name, and its neighbours be gone.
    disk.sync_names().doing("sync", "the directory")?;
    for name in from.iter().skip(1).map(|first| file_name(*first)) {
        disk.remove(&name).doing("remove", &name)?;
    }
    Ok(())
}

/// A segment that is made from others. It takes its name when it is complete and safe; until then
/// it is a file that goes at the next start.
pub struct SegmentWriter<'a> {
    file: Box<dyn StorageFile>,
    commit: CommitBuffer,
    segment: Segment,
    /// The seq that may come next, and the last one.
    next: u64,
    through: u64,
    kept: &'a LiveSet,
    now: Timestamp,
    written: io::Result<()>,
}

/// Bytes that are written at once.
const CHUNK: usize = 64 << 10;

impl SegmentWriter<'_> {
    pub fn new<'a>(
        disk: &dyn Storage,
        first: u64,
        through: u64,
        kept: &'a LiveSet,
    ) -> Result<SegmentWriter<'a>, StoreError> {
        let temporary = temporary_name(&file_name(first));
        let file = disk.create(&temporary).doing("create", &temporary)?;
        let written = file.write_at(&first_line(), 0);
        let mut segment = Segment::new(first);
        segment.bytes = first_line().len() as u64;
        let mut commit = CommitBuffer::default();
        commit.push(|out| write_compacted(out, through));
        let now = Timestamp::read();
        Ok(SegmentWriter { file, commit, segment, next: first, through, kept, now, written })
    }

    /// Takes in a record if it is needed. What is not an event or a key belonged to the moment.
    pub fn take(&mut self, record: Record) {
        match record {
            Record::Event(event) => self.take_event(event),
            Record::Key(key) => self.take_key(&key),
            _ => {}
        }
        if self.commit.len() >= CHUNK {
            self.write();
        }
    }

    fn take_event(&mut self, mut event: StoredEvent) {
        if !(self.next..=self.through).contains(&event.seq) {
            return;
        }
        self.next = event.seq + 1;
        event.stamp = event.stamp.filter(|_| self.kept.key(event.time));
        if self.kept.event(&event.topic, event.seq) {
            self.segment.count(event_cost(&event.content), true);
            if event.stamp.is_some() {
                self.segment.count_key(instant(event.time, self.now));
            }
            let StoredEvent { seq, topic, time, stamp, content, .. } = &event;
            let (time, stamp) = (*time, stamp.as_ref());
            let event = EventRecord { seq: *seq, topic, time, batch: 1, stamp, content };
            self.commit.push(|out| event.write(out));
        } else if let Some(stamp) = event.stamp {
            let StoredEvent { seq, topic, time, .. } = event;
            self.take_key(&KeyRecord { seq, topic, time, stamp });
        }
    }

    fn take_key(&mut self, key: &KeyRecord) {
        if self.kept.key(key.time) {
            self.segment.count_key(instant(key.time, self.now));
            self.commit.push(|out| key.write(out));
        }
    }

    fn write(&mut self) {
        let bytes = std::mem::take(&mut self.commit).finish(true);
        if self.written.is_ok() {
            self.written = self.file.write_at(&bytes, self.segment.bytes);
            self.segment.bytes += bytes.len() as u64;
        }
    }

    /// Gives it its name, in place of what was there.
    pub fn finish(mut self, disk: &dyn Storage) -> Result<Segment, StoreError> {
        self.write();
        let name = file_name(self.segment.first);
        let temporary = temporary_name(&name);
        let synced = self.written.and_then(|()| self.file.sync());
        let named = synced.and_then(|()| disk.rename(&temporary, &name));
        if named.is_err() {
            // It may be what fills the disk. If it stays, it goes at the next start.
            let _ = disk.remove(&temporary);
        }
        named.doing("write", &temporary).map(|()| self.segment)
    }
}

/// A moment of an earlier run of the program on the clock that ages run on.
#[must_use]
pub fn instant(time: SystemTime, Timestamp { at, wall }: Timestamp) -> Instant {
    let age = wall.duration_since(time).unwrap_or(Duration::ZERO);
    // The clock may not reach back so far; then it is as old as the clock can say.
    at.checked_sub(age).unwrap_or_else(|| {
        let (mut reach, mut step) = (at, age);
        while step > Duration::from_secs(1) {
            step /= 2;
            reach = reach.checked_sub(step).unwrap_or(reach);
        }
        reach
    })
}
