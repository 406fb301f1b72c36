//! `longpoll repair DIR`: keeps every intact record, preserves the damaged files under other names,
//! and begins a new epoch, because a missing event cannot be told from one that never existed. A
//! store that a server starts with, and that lost nothing, is left as it is.
//!
//! Three steps, each of which ends with a sync:
//!
//! 1. Each damaged segment file gets a second name, which begins with its own.
//! 2. A new segment begins, with a snapshot of everything known beside the events.
//! 3. The intact records of each damaged segment replace its file.
//!
//! After a crash at any point, a server either refuses the directory or finds every intact record
//! in it, and the repair can be run again.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use super::active_segment::ActiveSegment;
use super::compact::{LiveSet, SegmentWriter};
use super::error::{IoContext, StoreError};
use super::header::{FullHeader, SegmentHeader, file_name, list_segments};
use super::lenient::read_lenient;
use super::lock::{DirectoryLock, LOCK_FILE, SyncedMark};
use super::record::{MAX_NUMBER, Record};
use super::recovery::{OpenSettings, check_never_used, examine, has_lost_end, open};
use super::replay::read_snapshot;
use super::scan::{CommitReader, read_sealed};
use super::set_aside::set_aside;
use super::storage::{DiskDirectory, Storage};
use crate::config::{RepairMode, SyncPolicy};
use crate::cursor::{Cursor, Epoch, Seq, TrimCount, random_bytes};
use crate::log::{LastTrim, LogSnapshot, Timestamp, TopicTrims};
use crate::names::Name;

/// Repairs the store in a directory, and returns the report to print.
///
/// # Errors
/// When another process uses the directory, the disk fails, or the store is damaged and only a new
/// epoch was asked for.
pub fn repair<T>(
    directory: &Path,
    mode: RepairMode,
    outcome: impl Fn(Cursor, SystemTime, Option<u32>) -> T,
) -> io::Result<String> {
    if !directory.is_dir() {
        return Err(io::Error::other(format!("{} is not a directory", directory.display())));
    }
    let lock = DirectoryLock::acquire(directory).map_err(|error| error.in_directory(directory))?;
    let storage = Arc::new(DiskDirectory::new(directory));
    let repaired = repair_storage(storage, &lock.identity, mode, outcome);
    let repaired = repaired.map_err(|error| error.in_directory(directory))?;
    let Some(RepairOutcome { events, head, set_aside }) = repaired else {
        return Ok("valid, nothing to do\n".to_owned());
    };
    let mut report = vec![format!("{events} events kept; a new epoch begins at {head}")];
    report.extend(set_aside.iter().map(|name| format!("{name} has the damaged file")));
    Ok(report.join("\n") + "\n")
}

/// The result of a repair.
pub struct RepairOutcome {
    /// Events that were kept.
    pub events: u64,
    /// The cursor at which the new epoch begins.
    pub head: Cursor,
    /// The names under which the damaged files were preserved.
    pub set_aside: Vec<String>,
}

/// Repairs a store whose lock file has this identity. `None`: there was nothing to do.
///
/// # Errors
/// When the disk fails, or the store is damaged and only a new epoch was asked for.
pub fn repair_storage<T>(
    storage: Arc<dyn Storage>,
    identity: &str,
    mode: RepairMode,
    outcome: impl Fn(Cursor, SystemTime, Option<u32>) -> T,
) -> Result<Option<RepairOutcome>, StoreError> {
    let mark = read_mark(&*storage)?;
    let is_damaged = is_damaged::<T>(&*storage, identity, mark)?;
    let set_aside = match (mode, is_damaged) {
        (RepairMode::Damage, false) => return Ok(None),
        (RepairMode::Damage, true) => salvage(&*storage, identity, mark)?,
        (RepairMode::NewEpoch, false) => Vec::new(),
        (RepairMode::NewEpoch, true) => {
            let what = "the store is damaged; repair it without --new-epoch, which begins one too";
            return Err(StoreError::Io(what.to_owned()));
        }
    };
    let settings = OpenSettings {
        retention: None,
        sync_policy: SyncPolicy::Always,
        identity: identity.to_owned(),
        new_epoch: Some("the store was repaired"),
    };
    // Opening syncs everything, so the store needs no clean shutdown.
    let (store, _) = open(storage, &settings, &Arc::default(), outcome, Timestamp::read())?;
    let (events, head) = (store.log.totals().events, store.log.head());
    Ok(Some(RepairOutcome { events, head, set_aside }))
}

/// Reads the synced mark of a store.
fn read_mark(storage: &dyn Storage) -> Result<Option<SyncedMark>, StoreError> {
    let Ok(lock_file) = storage.open(LOCK_FILE) else { return Ok(None) };
    if list_segments(storage)?.is_empty() {
        check_never_used(&*lock_file)?;
    }
    Ok(SyncedMark::read(&*lock_file))
}

/// Whether a server would refuse the store, or would drop records that were synced.
fn is_damaged<T>(
    storage: &dyn Storage,
    identity: &str,
    mark: Option<SyncedMark>,
) -> Result<bool, StoreError> {
    match examine::<T>(storage, Some(identity), mark) {
        Ok(Some(examined)) => Ok(!examined.copied && has_lost_end(&examined.replayed, mark)),
        Ok(None) => Err(StoreError::Io("there are no segments".to_owned())),
        Err(StoreError::Damaged(_)) => Ok(true),
        Err(error) => Err(error),
    }
}

/// What the intact records of a store say.
struct Salvage {
    /// The last event.
    head: Seq,
    /// The last trimmed seq of each topic.
    live: LiveSet,
    /// The last seq that was trimmed because of its age.
    expired: Seq,
    /// The newest intact header.
    header: Option<Box<FullHeader>>,
}

/// No topics, and all keys: the clock may be wrong, and the next start knows which are too old.
fn no_topics() -> LiveSet {
    LiveSet::new(&LogSnapshot::default(), Some(Seq::ZERO))
}

impl Salvage {
    /// Takes what the snapshot at the start of a segment says, if it is intact: no topic is missing
    /// in it, and those that were forgotten by then stay so.
    fn begin_segment(&mut self, storage: &dyn Storage, first: Seq) -> Result<(), StoreError> {
        let name = file_name(first);
        let file = storage.open(&name).context("open", &name)?;
        let snapshot = CommitReader::open(&name, &*file)
            .and_then(|mut commits| read_snapshot(&mut commits, first));
        match snapshot {
            Ok((_, snapshot)) => {
                self.head = self.head.max(snapshot.head);
                self.live = LiveSet::new(&snapshot, Some(Seq::ZERO));
                Ok(())
            }
            Err(StoreError::Damaged(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn add(&mut self, record: Record) {
        match record {
            Record::Event(event) => {
                self.head = self.head.max(event.seq);
                self.live.trimmed_through(event.topic);
            }
            Record::Topic(known) => {
                let through = self.live.trimmed_through(known.topic);
                *through = known.last.seq.max(*through);
            }
            Record::Trim(topic) => *self.live.trimmed_through(topic) = self.head,
            Record::Expire(through) => self.expired = self.expired.max(through),
            _ => {}
        }
    }

    /// Header and snapshot for the new segment. The history of single trims is left out: it served
    /// the cursors of the old epoch. Nothing is trimmed before the next start, which knows the
    /// retention flags: those of the damaged run may be lost.
    fn new_segment(
        &mut self,
        identity: &str,
        mark: Option<SyncedMark>,
    ) -> Result<(FullHeader, LogSnapshot), StoreError> {
        let mut header = match &self.header {
            Some(header) => (**header).clone(),
            None => empty_header(random_bytes().context("make", "a secret")?),
        };
        header.retain_events = MAX_NUMBER;
        header.retain_bytes = MAX_NUMBER;
        header.max_topics = MAX_NUMBER;
        header.epoch = Epoch::random().context("make", "an epoch")?;
        // Larger than all numbers used so far; the lock file may know of a segment that is gone.
        header.number = header.number.max(mark.map_or(0, |mark| mark.segment)) + 1;
        header.trims = header.trims.max(TrimCount::new(1));
        identity.clone_into(&mut header.identity);
        let topic = |(topic, through): &(Name, Seq)| TopicTrims {
            topic: topic.clone(),
            last: LastTrim {
                seq: *through,
                number: TrimCount::new(u64::from(*through > Seq::ZERO)),
            },
            uncounted_through: *through,
        };
        let snapshot = LogSnapshot {
            head: self.head,
            trims: header.trims,
            forgotten: header.forgotten,
            topics: self.live.topics().iter().map(topic).collect(),
            recent: Vec::new(),
        };
        Ok((header, snapshot))
    }
}

/// The header for a store without an intact one, with a new secret.
fn empty_header(secret: [u8; 16]) -> FullHeader {
    FullHeader {
        epoch: Epoch::from_bits(0),
        next: Seq::ZERO,
        oldest_segment: Seq::ZERO,
        number: 0,
        synced: true,
        identity: String::new(),
        secret: u128::from_le_bytes(secret),
        retain_events: MAX_NUMBER,
        retain_bytes: MAX_NUMBER,
        max_topics: MAX_NUMBER,
        trims: TrimCount::ZERO,
        forgotten: LastTrim::default(),
    }
}

/// A segment of which the intact records are kept.
#[derive(Clone, Copy)]
struct IntactPart<'i> {
    first: Seq,
    /// The largest seq that an event in it can have.
    through: Seq,
    is_newest: bool,
    mark: Option<SyncedMark>,
    /// The identity of the lock file that has the mark.
    identity: &'i str,
}

impl IntactPart<'_> {
    /// Reads the intact records. Those after the last line that ends a commit count only if they
    /// were synced: they may be of a publish that was refused, or never answered.
    fn read(
        self,
        storage: &dyn Storage,
        on_record: &mut dyn FnMut(Record),
    ) -> Result<Option<SegmentHeader>, StoreError> {
        let name = file_name(self.first);
        let file = storage.open(&name).context("open", &name)?;
        let contents = read_lenient(&*file, on_record).context("read", &name)?;
        let synced = self.synced(contents.header.as_ref());
        // An interrupted repair has begun the segment after this one, and left such records out.
        let is_beyond = |record: &Record| match record {
            Record::Event(event) => event.seq > self.through,
            _ => false,
        };
        if !contents.unfinished.iter().any(|(_, record)| is_beyond(record)) {
            let unfinished = contents.unfinished.into_iter().filter(|(at, _)| *at < synced);
            unfinished.for_each(|(_, record)| on_record(record));
        }
        Ok(contents.header)
    }

    /// The byte offset up to which the segment is known to have been synced.
    fn synced(&self, header: Option<&SegmentHeader>) -> u64 {
        // The mark of another directory says nothing about a segment that was copied here.
        let is_own = |_: &SyncedMark| match header {
            Some(SegmentHeader::Full(header)) => header.identity == self.identity,
            _ => true,
        };
        match (header, self.mark.filter(is_own)) {
            // A compacted segment is synced before it gets its name.
            (Some(SegmentHeader::Compacted { .. }), _) => u64::MAX,
            (Some(SegmentHeader::Full(header)), Some(mark)) if header.number < mark.segment => {
                u64::MAX
            }
            (Some(SegmentHeader::Full(header)), Some(mark)) if header.number == mark.segment => {
                mark.end
            }
            // A segment is synced before the next one begins.
            _ if self.is_newest => 0,
            _ => u64::MAX,
        }
    }
}

/// The segments of a store, oldest first. Only the newest has no largest seq.
fn intact_parts<'i>(
    firsts: &[Seq],
    mark: Option<SyncedMark>,
    identity: &'i str,
) -> Vec<IntactPart<'i>> {
    let part = |(place, first): (usize, &Seq)| {
        let after = firsts.get(place + 1);
        let through = after.map_or(Seq::new(MAX_NUMBER), |after| after.previous());
        IntactPart { first: *first, through, is_newest: after.is_none(), mark, identity }
    };
    firsts.iter().enumerate().map(part).collect()
}

/// Replaces damaged segments by their intact records. Returns the names under which the damaged
/// files were preserved.
fn salvage(
    storage: &dyn Storage,
    identity: &str,
    mark: Option<SyncedMark>,
) -> Result<Vec<String>, StoreError> {
    let mut intact =
        Salvage { head: Seq::ZERO, live: no_topics(), expired: Seq::ZERO, header: None };
    let mut parts = Vec::new();
    // The last seq of each segment that reads without an error; and of the last compacted one.
    let (mut ends, mut compacted_through) = (Vec::new(), Seq::ZERO);
    for part in intact_parts(&list_segments(storage)?, mark, identity) {
        // A replaced segment is older than the compacted one, and may contradict it.
        if part.first <= compacted_through {
            continue;
        }
        intact.begin_segment(storage, part.first)?;
        let header = part.read(storage, &mut |record| intact.add(record))?;
        if let Some(SegmentHeader::Full(header)) = header {
            intact.header = Some(header);
        }
        let sealed = read_sealed(storage, part.first, &mut |_| {}).ok();
        parts.push(part);
        ends.push(sealed.map(|sealed| match sealed.header {
            SegmentHeader::Compacted { through } => {
                compacted_through = through;
                through
            }
            SegmentHeader::Full(_) => sealed.last.unwrap_or(part.first.previous()),
        }));
    }
    let Some(newest) = parts.last() else { return Ok(Vec::new()) };
    intact.head = intact.head.max(newest.first.previous()).max(compacted_through);
    for (_, through) in intact.live.topics() {
        *through = intact.expired.max(*through);
    }
    let next = intact.head.next();
    let oldest_segment = parts[0].first.min(next);
    let mut damaged = Vec::new();
    for (place, part) in parts.iter().enumerate() {
        let through = parts.get(place + 1).map_or(intact.head, |after| after.first.previous());
        if ends[place] != Some(through) {
            damaged.push((*part, through));
        }
    }
    let names = damaged.iter().map(|(part, _)| set_aside(storage, &file_name(part.first)));
    let set_aside = names.collect::<Result<Vec<_>, _>>()?;
    sync_directory(storage)?;
    // The snapshot comes first: after step 3, a second try would find fewer records for it.
    let (header, snapshot) = intact.new_segment(identity, mark)?;
    ActiveSegment::create(storage, &FullHeader { next, oldest_segment, ..header }, &snapshot)?;
    sync_directory(storage)?;
    for (part, through) in damaged.into_iter().filter(|(part, _)| part.first < next) {
        let mut output = SegmentWriter::create(storage, part.first, through, &intact.live)?;
        part.read(storage, &mut |record| output.add(record))?;
        output.finish(storage)?;
    }
    sync_directory(storage)?;
    Ok(set_aside)
}

fn sync_directory(storage: &dyn Storage) -> Result<(), StoreError> {
    storage.sync_directory().context("sync", "the directory")
}
