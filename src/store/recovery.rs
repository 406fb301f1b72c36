//! Opening a store: what was read is checked against what is known to have been safe, a torn end
//! is cut off, and it is decided whether this is still the same life of the log.
//!
//! It prefers to refuse. Whatever was acknowledged has to be there (the lock file knows up to
//! where), or nothing is served; and wherever a seq could be given out a second time, a new epoch
//! begins, so that no old cursor is ever taken for a new one.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::commit::Store;
use super::compact::CompactionJob;
use super::error::{IoContext, StoreError};
use super::header::{FullHeader, file_name, segments};
use super::journal::{ActiveSegment, Journal};
use super::lines::CommitBuffer;
use super::lock::{LOCK, SyncedMark};
use super::record::write_word;
use super::replay::{Replayed, read};
use super::segments::{Segment, SegmentList};
use super::storage::{Storage, StorageFile};
use crate::config::SyncPolicy;
use crate::cursor::{Cursor, Epoch, Seq, TrimCount, random_bytes};
use crate::log::{LastTrim, Log, LogSnapshot, Retention, Timestamp};
use crate::metrics::Metrics;

/// How a store is to be opened.
pub struct OpenSettings {
    /// As it was, when there is none here.
    pub retention: Option<Retention>,
    pub sync: SyncPolicy,
    /// Of the lock file.
    pub identity: String,
    /// Begin a new epoch for this reason, whatever is found.
    pub new_epoch: Option<&'static str>,
}

/// What was found.
#[derive(Default)]
pub struct OpenReport {
    /// What was cut off, and how many bytes that were.
    pub torn: Option<(StoreError, u64)>,
    /// Why a new epoch began, if one did.
    pub new_epoch: Option<&'static str>,
    /// What can be done to the segments.
    pub chore: Option<CompactionJob>,
}

/// Opens a store, or makes one in an empty directory. `outcome` makes the answer for repeats of
/// what was published in an earlier run: from its cursor, its time and, of a batch, its count.
///
/// # Errors
/// When the disk fails, or when something is not as it was written and was safe.
pub fn open<T>(
    disk: Arc<dyn Storage>,
    settings: &OpenSettings,
    metrics: &Arc<Metrics>,
    outcome: impl Fn(Cursor, SystemTime, Option<u32>) -> T,
    now: Timestamp,
) -> Result<(Store<T>, OpenReport), StoreError> {
    let mut firsts = segments(&*disk)?;
    let marker = disk.open(LOCK).or_else(|_| disk.create(LOCK)).doing("open", LOCK)?;
    let safe = SyncedMark::read(&*marker);
    let Some(newest) = firsts.pop() else {
        let number = safe.map_or(0, |safe| safe.number) + 1;
        let store = fresh(disk, settings, metrics, marker, number)?;
        let new_epoch = safe.map(|_| "the segments that the lock file knows of are gone");
        return Ok((store, OpenReport { new_epoch, ..OpenReport::default() }));
    };
    settle(&*disk, newest)?;
    let mut found = read(&*disk, &firsts, newest, now)?;
    let copied = found.begun.identity != settings.identity;
    if !copied {
        check_safe(&found, safe)?;
    }
    let torn = cut(&mut found)?;
    clean_up(&*disk, &found.leftovers)?;

    let new_epoch = settings.new_epoch.or_else(|| why_new_epoch(&found, copied, safe));
    let mut report = OpenReport { torn, new_epoch, chore: None };
    let retention = settings.retention.unwrap_or(found.begun.retention());
    let Retention { events, bytes, topics, .. } = retention;
    let begun = FullHeader {
        epoch: match report.new_epoch {
            Some(_) => Epoch::random().doing("make", "an epoch")?,
            None => found.begun.epoch,
        },
        synced: settings.sync == SyncPolicy::Always,
        identity: settings.identity.clone(),
        retain_events: events as u64,
        retain_bytes: bytes,
        max_topics: topics as u64,
        ..found.begun.clone()
    };
    // A segment has one header; and one without events would grow a little with every start.
    let anew = begun != found.begun
        || found.end > found.start && !found.segments.0.last().is_some_and(Segment::has_events);
    let mut trimmed = Vec::new();
    found.log.reconfigure(begun.epoch, begun.retention(), &mut trimmed);
    found.segments.trimmed(&trimmed);
    found.remember_keys(outcome);
    let active =
        ActiveSegment { file: found.file, start: found.start, end: found.end, synced: found.end };
    let mut journal = Journal::new(disk, settings, active, found.segments, begun, marker);
    if anew {
        report.chore = journal.rotate(&found.log, now.at, &metrics.store)?;
    }
    let store = open_for_writing(journal, found.log, settings, metrics, now)?;
    Ok((store, report))
}

/// Why seqs could repeat if the epoch were to go on, if they could.
pub fn why_new_epoch<T>(
    found: &Replayed<T>,
    copied: bool,
    safe: Option<SyncedMark>,
) -> Option<&'static str> {
    let shorter = |safe: SyncedMark| safe.number == found.begun.number && found.end < safe.to;
    if copied {
        Some("the directory was copied or restored")
    } else if !found.begun.synced && !found.closed {
        Some("the last run did not sync everything, and did not end in order")
    } else if safe.is_some_and(shorter) {
        Some("the last commit is not whole, and the lock file knows that it was safe")
    } else {
        None
    }
}

fn nothing() -> StoreError {
    StoreError::Refused("there are no segments".into())
}

fn fresh<T>(
    disk: Arc<dyn Storage>,
    settings: &OpenSettings,
    metrics: &Arc<Metrics>,
    marker: Box<dyn StorageFile>,
    number: u64,
) -> Result<Store<T>, StoreError> {
    let retention = settings.retention.ok_or_else(nothing)?;
    let secret = random_bytes().doing("make", "a secret")?;
    let begun = FullHeader {
        epoch: Epoch::random().doing("make", "an epoch")?,
        next: Seq::new(1),
        first: Seq::new(1),
        number,
        synced: settings.sync == SyncPolicy::Always,
        identity: settings.identity.clone(),
        secret: u128::from_le_bytes(secret),
        retain_events: retention.events as u64,
        retain_bytes: retention.bytes,
        max_topics: retention.topics as u64,
        trims: TrimCount::ZERO,
        forgotten: LastTrim::default(),
    };
    clean_up(&*disk, &[])?;
    let active = ActiveSegment::begin(&*disk, &begun, &LogSnapshot::default())?;
    disk.sync_names().doing("sync", "the directory")?;
    let log = Log::new(begun.epoch, begun.retention());
    let segments = SegmentList(vec![Segment::new(Seq::new(1))]);
    let journal = Journal::new(disk, settings, active, segments, begun, marker);
    open_for_writing(journal, log, settings, metrics, Timestamp::read())
}

fn open_for_writing<T>(
    mut journal: Journal,
    log: Log<T>,
    settings: &OpenSettings,
    metrics: &Arc<Metrics>,
    now: Timestamp,
) -> Result<Store<T>, StoreError> {
    journal.mark(journal.active.end);
    if journal.sync != SyncPolicy::Always {
        // Before anything is written that may be lost: that this was a run which may lose it.
        let mut commit = CommitBuffer::default();
        commit.push(|out| write_word(out, "opened"));
        journal.commit(commit, now.at, &metrics.store)?;
        journal.sync(now.at, &metrics.store)?;
    }
    journal.count(&metrics.store);
    Ok(Store {
        journal,
        log: Arc::new(log),
        retain_age: settings.retention.map_or(Duration::MAX, |retention| retention.age),
        expired: false,
        metrics: Arc::clone(metrics),
    })
}

/// What the lock file knows to have been safe has to be there; but the last commit may be torn.
pub fn check_safe<T>(found: &Replayed<T>, safe: Option<SyncedMark>) -> Result<(), StoreError> {
    let name = file_name(found.begun.next);
    let Some(safe) = safe else { return Ok(()) };
    if safe.number > found.begun.number {
        return Err(StoreError::damaged(&name, 0, "the segment after it is missing"));
    }
    if safe.number == found.begun.number && found.end < safe.from {
        let what = "what follows is not whole, and the lock file knows that it was safe";
        return Err(StoreError::damaged(&name, found.end, what));
    }
    Ok(())
}

/// Makes safe what the last run wrote, and the name of the file: it may have been killed before it
/// could. And forgets what memory has of it: after a sync that failed, that may be more than the
/// disk has.
fn settle(disk: &dyn Storage, newest: Seq) -> Result<(), StoreError> {
    let name = file_name(newest);
    let file = disk.open(&name).doing("open", &name)?;
    file.sync().doing("sync", &name)?;
    file.forget();
    disk.sync_names().doing("sync", "the directory")
}

/// Cuts off what is not whole.
fn cut<T>(found: &mut Replayed<T>) -> Result<Option<(StoreError, u64)>, StoreError> {
    let name = file_name(found.begun.next);
    let length = found.file.length().doing("look at", &name)?;
    if length > found.end {
        found.file.truncate(found.end).doing("cut", &name)?;
        found.file.sync().doing("sync", &name)?;
    }
    Ok(found.torn.take().map(|damage| (damage, length - found.end)))
}

/// Removes what stands for nothing.
fn clean_up(disk: &dyn Storage, leftovers: &[Seq]) -> Result<(), StoreError> {
    let names = disk.list().doing("list", "the directory")?;
    let unfinished = names.into_iter().filter(|name| name.ends_with(".log.tmp"));
    let mut removed = false;
    for name in leftovers.iter().map(|first| file_name(*first)).chain(unfinished) {
        disk.remove(&name).doing("remove", &name)?;
        removed = true;
    }
    if removed {
        disk.sync_names().doing("sync", "the directory")?;
    }
    Ok(())
}
