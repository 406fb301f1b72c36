//! `longpoll repair DIR`: keeps every intact record, preserves the damaged files under other names,
//! and begins a new epoch, because a missing event cannot be told from one that never existed.
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
use super::inspect::read_lenient;
use super::lock::{DirectoryLock, LOCK_FILE, SyncedMark};
use super::record::Record;
use super::recovery::{OpenSettings, open};
use super::scan::{CommitReader, LineReader, read_sealed};
use super::storage::{DiskDirectory, Storage};
use crate::config::{Config, RepairMode, SyncPolicy};
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
    let RepairOutcome { events, head, set_aside } =
        repaired.map_err(|error| error.in_directory(directory))?;
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

/// Repairs a store whose lock file has this identity.
///
/// # Errors
/// When the disk fails, or the store is damaged and only a new epoch was asked for.
pub fn repair_storage<T>(
    storage: Arc<dyn Storage>,
    identity: &str,
    mode: RepairMode,
    outcome: impl Fn(Cursor, SystemTime, Option<u32>) -> T,
) -> Result<RepairOutcome, StoreError> {
    let set_aside = match mode {
        RepairMode::Damage => salvage(&*storage, identity)?,
        RepairMode::NewEpoch => Vec::new(),
    };
    let settings = OpenSettings {
        retention: None,
        sync_policy: SyncPolicy::Always,
        identity: identity.to_owned(),
        new_epoch: Some("the store was repaired"),
    };
    // Opening syncs everything, so the store needs no clean shutdown.
    let (store, _) = open(storage, &settings, &Arc::default(), outcome, Timestamp::read())?;
    Ok(RepairOutcome { events: store.log.totals().events, head: store.log.head(), set_aside })
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

impl Salvage {
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
    /// the cursors of the old epoch.
    fn new_segment(
        &mut self,
        storage: &dyn Storage,
        identity: &str,
    ) -> Result<(FullHeader, LogSnapshot), StoreError> {
        let mut header = match &self.header {
            Some(header) => (**header).clone(),
            None => default_header(random_bytes().context("make", "a secret")?),
        };
        header.epoch = Epoch::random().context("make", "an epoch")?;
        // Larger than all numbers used so far; the lock file may know of a segment that is gone.
        let mark = storage.open(LOCK_FILE).ok().and_then(|file| SyncedMark::read(&*file));
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

/// The header for a store without an intact one: the default retention, and a new secret.
fn default_header(secret: [u8; 16]) -> FullHeader {
    let defaults = Config::default();
    FullHeader {
        epoch: Epoch::from_bits(0),
        next: Seq::ZERO,
        oldest_segment: Seq::ZERO,
        number: 0,
        synced: true,
        identity: String::new(),
        secret: u128::from_le_bytes(secret),
        retain_events: defaults.retain_events as u64,
        retain_bytes: defaults.retain_bytes,
        max_topics: defaults.max_topics as u64,
        trims: TrimCount::ZERO,
        forgotten: LastTrim::default(),
    }
}

/// Replaces damaged segments by their intact records. Returns the names under which the damaged
/// files were preserved.
fn salvage(storage: &dyn Storage, identity: &str) -> Result<Vec<String>, StoreError> {
    let live = LiveSet::new(&LogSnapshot::default(), Some(Seq::ZERO));
    let mut intact = Salvage { head: Seq::ZERO, live, expired: Seq::ZERO, header: None };
    let mut firsts = Vec::new();
    // The last seq of each segment that reads without an error; and of the last compacted one.
    let (mut ends, mut compacted_through) = (Vec::new(), Seq::ZERO);
    for first in list_segments(storage)? {
        // A replaced segment is older than the compacted one, and may contradict it.
        if first <= compacted_through {
            continue;
        }
        let name = file_name(first);
        let file = storage.open(&name).context("open", &name)?;
        if let Err(newer @ StoreError::Newer(_)) = CommitReader::open(&name, &*file) {
            return Err(newer);
        }
        let contents = read_lenient(&*file, &mut |record| intact.add(record));
        if let Some(SegmentHeader::Full(header)) = contents.context("read", &name)?.header {
            intact.header = Some(header);
        }
        let sealed = read_sealed(storage, first, &mut |_| {}).ok();
        firsts.push(first);
        ends.push(sealed.map(|sealed| match sealed.header {
            SegmentHeader::Compacted { through } => {
                compacted_through = through;
                through
            }
            SegmentHeader::Full(_) => sealed.last.unwrap_or(first.previous()),
        }));
    }
    let Some(&newest) = firsts.last() else { return Ok(Vec::new()) };
    intact.head = intact.head.max(newest.previous()).max(compacted_through);
    for (_, through) in intact.live.topics() {
        *through = intact.expired.max(*through);
    }
    let next = intact.head.next();
    let mut damaged = Vec::new();
    for (place, &first) in firsts.iter().enumerate() {
        let through = firsts.get(place + 1).map_or(intact.head, |after| after.previous());
        if ends[place] != Some(through) {
            damaged.push((first, through));
        }
    }
    let names = damaged.iter().map(|(first, _)| set_aside(storage, &file_name(*first)));
    let set_aside = names.collect::<Result<Vec<_>, _>>()?;
    sync_directory(storage)?;
    // The snapshot comes first: after step 3, a second try would find fewer records for it.
    let (header, snapshot) = intact.new_segment(storage, identity)?;
    let oldest_segment = firsts[0].min(next);
    ActiveSegment::create(storage, &FullHeader { next, oldest_segment, ..header }, &snapshot)?;
    sync_directory(storage)?;
    for (first, through) in damaged.into_iter().filter(|(first, _)| *first < next) {
        let name = file_name(first);
        let mut output = SegmentWriter::create(storage, first, through, &intact.live)?;
        let file = storage.open(&name).context("open", &name)?;
        read_lenient(&*file, &mut |record| output.add(record)).context("read", &name)?;
        output.finish(storage)?;
    }
    sync_directory(storage)?;
    Ok(set_aside)
}

fn sync_directory(storage: &dyn Storage) -> Result<(), StoreError> {
    storage.sync_directory().context("sync", "the directory")
}

/// Adds a second name to a damaged file, which the store ignores. If a repair that was interrupted
/// has added one for the same content, that one is used, so that retries do not pile up names.
fn set_aside(storage: &dyn Storage, name: &str) -> Result<String, StoreError> {
    let names = storage.list().context("list", "the directory")?;
    let mut number = 1;
    loop {
        let set_aside = format!("{name}.damaged-{number}");
        if !names.contains(&set_aside) {
            storage.link(name, &set_aside).context("set aside", name)?;
            return Ok(set_aside);
        }
        if has_same_content(storage, name, &set_aside).context("compare", &set_aside)? {
            return Ok(set_aside);
        }
        number += 1;
    }
}

fn has_same_content(storage: &dyn Storage, a: &str, b: &str) -> io::Result<bool> {
    let (a, b) = (storage.open(a)?, storage.open(b)?);
    let (mut a, mut b) = (LineReader::new(&*a), LineReader::new(&*b));
    loop {
        match (a.next_line()?, b.next_line()?) {
            (None, None) => return Ok(true),
            (Some(a), Some(b)) if a.bytes == b.bytes && a.end == b.end => {}
            _ => return Ok(false),
        }
    }
}
