//! `longpoll repair DIR`: keeps everything that is whole, moves the rest aside, and begins a new
//! epoch, because what is missing cannot be told from what never was.
//!
//! The file of a segment with damage gets a second name, which begins with its own. Then a new segment
//! begins with all that is known beside the events. Then what is whole in the damaged ones takes
//! their place. Each step leaves a directory that no server takes for whole, unless it is, and that
//! this can be run on again.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use super::compact::{LiveSet, SegmentWriter};
use super::error::{IoContext, StoreError};
use super::header::{FullHeader, SegmentHeader, file_name, segments};
use super::inspect::go_through;
use super::journal::ActiveSegment;
use super::lock::{LOCK, SyncedMark};
use super::record::Record;
use super::recovery::{OpenSettings, open};
use super::scan::{CommitReader, LineReader, read_sealed};
use super::storage::{DiskDirectory, Storage};
use super::{in_words, lock_directory};
use crate::config::{Config, RepairMode, SyncPolicy};
use crate::cursor::{Cursor, Epoch, Seq, TrimCount, random_bytes};
use crate::log::{LastTrim, LogSnapshot, Timestamp, TopicTrims};
use crate::names::Name;

/// Repairs a store, and says what was done.
///
/// # Errors
/// When it is in use, or the disk fails; or when only a new epoch was asked for and it is damaged.
pub fn repair<T>(
    directory: &Path,
    what: RepairMode,
    outcome: impl Fn(Cursor, SystemTime, Option<u32>) -> T,
) -> io::Result<String> {
    if !directory.is_dir() {
        return Err(io::Error::other(format!("{} is no directory", directory.display())));
    }
    let lock = lock_directory(directory)?;
    let disk = Arc::new(DiskDirectory::new(directory));
    let mended = mend(disk, &lock.identity, what, outcome);
    let RepairOutcome { events, head, aside } =
        mended.map_err(|failure| in_words(directory, &failure))?;
    let mut said = vec![format!("{events} events are kept; a new epoch begins at {head}")];
    said.extend(aside.iter().map(|name| format!("{name} has what was there before")));
    Ok(said.join("\n") + "\n")
}

/// What a repair has done.
pub struct RepairOutcome {
    /// Events that are kept.
    pub events: u64,
    /// Where the new epoch begins.
    pub head: Cursor,
    /// The files in which the rest is.
    pub aside: Vec<String>,
}

/// Repairs the store on a disk, whose lock file has this identity.
///
/// # Errors
/// As above.
pub fn mend<T>(
    disk: Arc<dyn Storage>,
    identity: &str,
    what: RepairMode,
    outcome: impl Fn(Cursor, SystemTime, Option<u32>) -> T,
) -> Result<RepairOutcome, StoreError> {
    let aside = match what {
        RepairMode::Damage => salvage(&*disk, identity)?,
        RepairMode::NewEpoch => Vec::new(),
    };
    let settings = OpenSettings {
        retention: None,
        sync: SyncPolicy::Always,
        identity: identity.to_owned(),
        new_epoch: Some("it was asked for"),
    };
    // All of it is synced when this returns, so there is nothing to end in order.
    let (store, _) = open(disk, &settings, &Arc::default(), outcome, Timestamp::read())?;
    Ok(RepairOutcome { events: store.log.totals().events, head: store.log.head(), aside })
}

/// What is whole in a store.
struct Salvage {
    /// The last event, and what is known of trims: of each topic, and of all by age.
    head: Seq,
    kept: LiveSet,
    expired: Seq,
    /// The header of the newest segment that still has its own.
    begun: Option<Box<FullHeader>>,
}

impl Salvage {
    fn take(&mut self, record: Record) {
        match record {
            Record::Event(event) => {
                self.head = self.head.max(event.seq);
                self.kept.trimmed_through(event.topic);
            }
            Record::Topic(known) => {
                let through = self.kept.trimmed_through(known.topic);
                *through = known.last.seq.max(*through);
            }
            Record::Trim(topic) => *self.kept.trimmed_through(topic) = self.head,
            Record::Expire(through) => self.expired = self.expired.max(through),
            _ => {}
        }
    }

    /// The state of the log: what of it can no longer be known went with the old epoch.
    fn state(
        &mut self,
        disk: &dyn Storage,
        identity: &str,
    ) -> Result<(FullHeader, LogSnapshot), StoreError> {
        let defaults = Config::default();
        let made = |secret: [u8; 16]| FullHeader {
            epoch: Epoch::from_bits(0),
            next: Seq::ZERO,
            first: Seq::ZERO,
            number: 0,
            synced: true,
            identity: String::new(),
            secret: u128::from_le_bytes(secret),
            retain_events: defaults.retain_events as u64,
            retain_bytes: defaults.retain_bytes,
            max_topics: defaults.max_topics as u64,
            trims: TrimCount::ZERO,
            forgotten: LastTrim::default(),
        };
        let mut begun = match &self.begun {
            Some(begun) => (**begun).clone(),
            None => made(random_bytes().doing("make", "a secret")?),
        };
        begun.epoch = Epoch::random().doing("make", "an epoch")?;
        // Beyond all that there were: the lock file may know of some that are gone.
        let safe = disk.open(LOCK).ok().and_then(|marker| SyncedMark::read(&*marker));
        begun.number = begun.number.max(safe.map_or(0, |safe| safe.number)) + 1;
        begun.trims = begun.trims.max(TrimCount::new(1));
        identity.clone_into(&mut begun.identity);
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
            trims: begun.trims,
            forgotten: begun.forgotten,
            topics: self.kept.topics().iter().map(topic).collect(),
            recent: Vec::new(),
        };
        Ok((begun, snapshot))
    }
}

/// Makes a store whole again. Returns the files in which the rest is.
fn salvage(disk: &dyn Storage, identity: &str) -> Result<Vec<String>, StoreError> {
    let kept = LiveSet::new(&LogSnapshot::default(), SystemTime::now());
    let mut whole = Salvage { head: Seq::ZERO, kept, expired: Seq::ZERO, begun: None };
    let mut firsts = Vec::new();
    // Up to where each of them is well by itself, and up to where one that was rewritten is.
    let (mut ends, mut rewritten_through) = (Vec::new(), Seq::ZERO);
    for first in segments(disk)? {
        // What stands for nothing any more may be older than what took its place.
        if first <= rewritten_through {
            continue;
        }
        let name = file_name(first);
        let file = disk.open(&name).doing("open", &name)?;
        if let Err(newer @ StoreError::Newer(_)) = CommitReader::open(&name, &*file) {
            return Err(newer);
        }
        let contents = go_through(&*file, &mut |record| whole.take(record)).doing("read", &name)?;
        if let Some(SegmentHeader::Full(begun)) = contents.header {
            whole.begun = Some(begun);
        }
        let sealed = read_sealed(disk, first, &mut |_| {}).ok();
        firsts.push(first);
        ends.push(sealed.map(|sealed| match sealed.header {
            SegmentHeader::Compacted { through } => {
                rewritten_through = through;
                through
            }
            SegmentHeader::Full(_) => sealed.last.unwrap_or(first.previous()),
        }));
    }
    let Some(&newest) = firsts.last() else { return Ok(Vec::new()) };
    whole.head = whole.head.max(newest.previous()).max(rewritten_through);
    for (_, through) in whole.kept.topics() {
        *through = whole.expired.max(*through);
    }
    let next = whole.head.next();
    let mut damaged = Vec::new();
    for (place, &first) in firsts.iter().enumerate() {
        let through = firsts.get(place + 1).map_or(whole.head, |after| after.previous());
        if ends[place] != Some(through) {
            damaged.push((first, through));
        }
    }
    let names = damaged.iter().map(|(first, _)| set_aside(disk, &file_name(*first)));
    let aside = names.collect::<Result<Vec<_>, _>>()?;
    sync_names(disk)?;
    // First what is known beside the events: the next try would not find it in what is rewritten.
    let (begun, snapshot) = whole.state(disk, identity)?;
    let first = firsts[0].min(next);
    ActiveSegment::begin(disk, &FullHeader { next, first, ..begun }, &snapshot)?;
    sync_names(disk)?;
    for (first, through) in damaged.into_iter().filter(|(first, _)| *first < next) {
        let name = file_name(first);
        let mut output = SegmentWriter::new(disk, first, through, &whole.kept)?;
        let file = disk.open(&name).doing("open", &name)?;
        go_through(&*file, &mut |record| output.take(record)).doing("read", &name)?;
        output.finish(disk)?;
    }
    sync_names(disk)?;
    Ok(aside)
}

fn sync_names(disk: &dyn Storage) -> Result<(), StoreError> {
    disk.sync_names().doing("sync", "the directory")
}

/// Gives a segment's file a second name, under which nothing looks for it; unless it has one from
/// a try that was cut short.
fn set_aside(disk: &dyn Storage, name: &str) -> Result<String, StoreError> {
    let names = disk.list().doing("list", "the directory")?;
    let mut number = 1;
    loop {
        let aside = format!("{name}.damaged-{number}");
        if !names.contains(&aside) {
            disk.link(name, &aside).doing("set aside", name)?;
            return Ok(aside);
        }
        if is_same(disk, name, &aside).doing("compare", &aside)? {
            return Ok(aside);
        }
        number += 1;
    }
}

/// Whether two files have the same content.
fn is_same(disk: &dyn Storage, one: &str, other: &str) -> io::Result<bool> {
    let (one, other) = (disk.open(one)?, disk.open(other)?);
    let (mut one, mut other) = (LineReader::new(&*one), LineReader::new(&*other));
    loop {
        match (one.read()?, other.read()?) {
            (None, None) => return Ok(true),
            (Some(a), Some(b)) if a.bytes == b.bytes && a.end == b.end => {}
            _ => return Ok(false),
        }
    }
}
