//! Compaction: rewriting sealed segments without their dead records.
//!
//! A run of neighbouring segments becomes one file under the name of the first. It leaves out only
//! what was dead when the active segment began, so that replaying the active segment still finds
//! every event that its records trim. The new file is complete and synced before the rename; the
//! files that it replaces are removed afterwards. If a crash prevents that, the new file's header
//! says up to which seq it replaces all others.

use std::io;

use crossbeam_channel::{Receiver, Sender};

use super::error::{IoContext, StoreError};
use super::header::{
    file_name, finish_file, format_line, list_segments, temporary_name, write_compacted,
};
use super::lines::CommitBuffer;
use super::lock::LOCK_FILE;
use super::record::{EventRecord, KeyRecord, Record, StoredEvent, write_compacted_end};
use super::scan::read_sealed;
use super::segments::Segment;
use super::storage::{FileId, Storage, StorageFile};
use crate::cursor::Seq;
use crate::log::{LogSnapshot, event_cost};
use crate::names::Name;

/// Decides what is live, by the state of the log when the active segment began.
pub struct LiveSet {
    /// Each topic with its last trimmed seq, sorted by name. Events of other topics are dead.
    topics: Vec<(Name, Seq)>,
    /// The keys of earlier publishes are forgotten; `None`: all keys are.
    oldest_key: Option<Seq>,
}

impl LiveSet {
    #[must_use]
    pub fn new(snapshot: &LogSnapshot, oldest_key: Option<Seq>) -> LiveSet {
        let topics = snapshot.topics.iter();
        LiveSet { topics: topics.map(|t| (t.topic.clone(), t.last.seq)).collect(), oldest_key }
    }

    /// All topics, each with its last trimmed seq.
    pub fn topics(&mut self) -> &mut [(Name, Seq)] {
        &mut self.topics
    }

    /// The last trimmed seq of a topic; adds the topic if it is new.
    pub fn trimmed_through(&mut self, topic: Name) -> &mut Seq {
        let place = self.topics.binary_search_by(|(name, _)| name.cmp(&topic));
        let place = place.unwrap_or_else(|place| {
            self.topics.insert(place, (topic, Seq::ZERO));
            place
        });
        &mut self.topics[place].1
    }

    fn has_event(&self, topic: &Name, seq: Seq) -> bool {
        let place = self.topics.binary_search_by(|(name, _)| name.cmp(topic));
        place.is_ok_and(|place| seq > self.topics[place].1)
    }

    fn has_key(&self, seq: Seq) -> bool {
        self.oldest_key.is_some_and(|oldest| oldest <= seq)
    }
}

/// Files to remove and segments to compact, decided when the active segment began.
///
/// The journal receives each compacted run through a channel. The job has ended when it is dropped,
/// also by a panic.
pub struct CompactionJob {
    /// The segments that were needed then. Older files that are not among them are removed, also
    /// those that an earlier job failed to remove.
    pub needed: Vec<Seq>,
    /// Runs of neighbours to compact: their first seqs, and the last seq of the run's range.
    pub runs: Vec<(Vec<Seq>, Seq)>,
    pub live: LiveSet,
    /// The lock file of the directory, which may be moved away and replaced while the job runs.
    pub lock_file: FileId,
    pub compacted: Sender<CompactedRun>,
}

/// A compaction job that another thread runs.
pub struct RunningCompaction {
    pub compacted: Receiver<CompactedRun>,
    /// The first seq of the segment that was active when the job began.
    pub active: Seq,
}

/// A run that was compacted.
pub struct CompactedRun {
    /// The first seqs of the segments that were replaced.
    pub sources: Vec<Seq>,
    pub segment: Segment,
}

impl CompactionJob {
    /// Runs the job. A run that fails leaves its segments as they are, and reports to `on_error`.
    pub fn run(self, storage: &dyn Storage, mut on_error: impl FnMut(StoreError)) {
        let removed = self.check_directory(storage).and_then(|()| self.remove_dead(storage));
        removed.unwrap_or_else(&mut on_error);
        for (sources, through) in &self.runs {
            let (sources, through) = (sources.clone(), *through);
            let checked = self.check_directory(storage);
            match checked.and_then(|()| compact_run(storage, &sources, through, &self.live)) {
                Ok(segment) => {
                    // The compacted segment counts from here on. If a removal fails, the file left
                    // behind is obsolete, and the next start removes it.
                    remove_replaced(storage, &sources).unwrap_or_else(&mut on_error);
                    // Fails only if the journal is gone.
                    let _ = self.compacted.send(CompactedRun { sources, segment });
                }
                Err(error) => on_error(error),
            }
        }
    }

    /// Checks that the directory is still the store's: nothing of another one may be removed.
    fn check_directory(&self, storage: &dyn Storage) -> Result<(), StoreError> {
        if storage.file_id(LOCK_FILE).context("look at", LOCK_FILE)? == self.lock_file {
            return Ok(());
        }
        Err(StoreError::Io("the directory was replaced by another one".to_owned()))
    }

    fn remove_dead(&self, storage: &dyn Storage) -> Result<(), StoreError> {
        let newest = self.needed.last().copied().unwrap_or_default();
        for first in list_segments(storage)?.into_iter().filter(|first| *first < newest) {
            if !self.needed.contains(&first) {
                let name = file_name(first);
                storage.remove(&name).context("remove", &name)?;
            }
        }
        Ok(())
    }
}

fn compact_run(
    storage: &dyn Storage,
    sources: &[Seq],
    through: Seq,
    live: &LiveSet,
) -> Result<Segment, StoreError> {
    let first = sources.first().copied().unwrap_or_default();
    let mut output = SegmentWriter::create(storage, first, through, live)?;
    for source in sources {
        read_sealed(storage, *source, &mut |record| output.add(record))?;
    }
    output.finish(storage)
}

fn remove_replaced(storage: &dyn Storage, sources: &[Seq]) -> Result<(), StoreError> {
    // The rename has to be durable first: otherwise a power cut could bring back the old file under
    // this name after its neighbours were removed.
    storage.sync_directory().context("sync", "the directory")?;
    for name in sources.iter().skip(1).map(|first| file_name(*first)) {
        storage.remove(&name).context("remove", &name)?;
    }
    Ok(())
}

/// Writes a compacted segment, first under a temporary name, which the next start would remove.
/// [`SegmentWriter::finish`] syncs and renames it.
pub struct SegmentWriter<'a> {
    file: Box<dyn StorageFile>,
    commit: CommitBuffer,
    segment: Segment,
    /// The smallest seq that the next event may have, and the largest that any may have.
    next: Seq,
    through: Seq,
    live: &'a LiveSet,
    /// Events and keys so far, and the last seq among them.
    records: u64,
    last: Seq,
    written: io::Result<()>,
}

/// Bytes that are written at once.
const WRITE_BYTES: usize = 64 << 10;

impl SegmentWriter<'_> {
    /// Creates the file.
    ///
    /// # Errors
    /// When it cannot be created. Failed writes are reported by [`SegmentWriter::finish`].
    pub fn create<'a>(
        storage: &dyn Storage,
        first: Seq,
        through: Seq,
        live: &'a LiveSet,
    ) -> Result<SegmentWriter<'a>, StoreError> {
        let temporary = temporary_name(&file_name(first));
        let file = storage.create(&temporary).context("create", &temporary)?;
        let written = file.write_at(&format_line(), 0);
        let mut segment = Segment::new(first);
        segment.bytes = format_line().len() as u64;
        let mut commit = CommitBuffer::default();
        commit.push(|out| write_compacted(out, through));
        let (next, records, last) = (first, 0, Seq::ZERO);
        Ok(SegmentWriter { file, commit, segment, next, through, live, records, last, written })
    }

    /// Adds a record if it is live. Records other than events and keys are dropped: their effect is
    /// in the snapshot of the active segment.
    pub fn add(&mut self, record: Record) {
        match record {
            Record::Event(event) => self.add_event(event),
            Record::Key(key) => self.add_key(&key),
            _ => {}
        }
        if self.commit.len() >= WRITE_BYTES {
            self.flush();
        }
    }

    fn add_event(&mut self, mut event: StoredEvent) {
        if !(self.next..=self.through).contains(&event.seq) {
            return;
        }
        self.next = event.seq.next();
        event.key = event.key.filter(|_| self.live.has_key(event.seq));
        if self.live.has_event(&event.topic, event.seq) {
            self.segment.add_event(event_cost(&event.content), true);
            if event.key.is_some() {
                self.segment.add_key(event.seq);
            }
            let StoredEvent { seq, topic, time, key, content, .. } = &event;
            let (time, key) = (*time, key.as_ref());
            let event = EventRecord { seq: *seq, topic, time, batch: 1, key, content };
            self.push(*seq, |out| event.write(out));
        } else if let Some(key) = event.key {
            let StoredEvent { seq, topic, time, .. } = event;
            self.add_key(&KeyRecord { seq, topic, time, key });
        }
    }

    fn add_key(&mut self, key: &KeyRecord) {
        if self.live.has_key(key.seq) {
            self.segment.add_key(key.seq);
            self.push(key.seq, |out| key.write(out));
        }
    }

    fn push(&mut self, seq: Seq, write_json: impl FnOnce(&mut Vec<u8>)) {
        self.commit.push(write_json);
        self.records += 1;
        self.last = seq;
    }

    fn flush(&mut self) {
        let bytes = std::mem::take(&mut self.commit).finish(true);
        if self.written.is_ok() {
            self.written = self.file.write_at(&bytes, self.segment.bytes);
            self.segment.bytes += bytes.len() as u64;
        }
    }

    /// Syncs the file and renames it, which replaces the first source.
    ///
    /// # Errors
    /// When a write, the sync or the rename failed. The file is removed then.
    pub fn finish(mut self, storage: &dyn Storage) -> Result<Segment, StoreError> {
        let (records, last) = (self.records, self.last);
        self.commit.push(|out| write_compacted_end(out, records, last));
        self.flush();
        let name = file_name(self.segment.first);
        finish_file(storage, &*self.file, &name, self.written)?;
        Ok(self.segment)
    }
}
