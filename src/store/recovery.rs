//! Recovery: opening a store after any kind of end.
//!
//! It replays the segments, checks them against the synced mark, truncates a torn tail, and decides
//! whether the epoch continues. It prefers to refuse: if an acknowledged commit that the lock file
//! knows of is missing, the store does not open. And wherever a seq could be assigned a second
//! time, a new epoch begins, so that an old cursor is never taken for a current one.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::active_segment::ActiveSegment;
use super::commit::Store;
use super::compact::CompactionJob;
use super::error::{IoContext, StoreError};
use super::header::{FullHeader, file_name, list_segments};
use super::journal::Journal;
use super::lines::CommitBuffer;
use super::lock::{LOCK_FILE, SyncedMark};
use super::record::write_word;
use super::replay::{Replayed, replay};
use super::segments::{Segment, SegmentList};
use super::storage::{Storage, StorageFile};
use crate::config::SyncPolicy;
use crate::cursor::{Cursor, Epoch, Seq, TrimCount, random_bytes};
use crate::log::{LastTrim, Log, LogSnapshot, Retention, Timestamp};
use crate::metrics::Metrics;

/// How to open a store.
pub struct OpenSettings {
    /// `None`: keep the stored retention, and do not create a store.
    pub retention: Option<Retention>,
    pub sync_policy: SyncPolicy,
    /// The identity of the lock file.
    pub identity: String,
    /// A reason to begin a new epoch in any case, such as a repair.
    pub new_epoch: Option<&'static str>,
}

/// What opening a store found and did.
#[derive(Default)]
pub struct OpenReport {
    /// The torn tail, and how many bytes were truncated.
    pub torn: Option<(StoreError, u64)>,
    /// Why a new epoch began, if one did.
    pub new_epoch: Option<&'static str>,
    /// The time from the newest event to the start, if it was too long to count.
    pub distrusted_step: Option<Duration>,
    /// A compaction to run in the background.
    pub compaction: Option<CompactionJob>,
}

/// Opens a store; creates one in an empty directory. `outcome` makes the response for a repeat of a
/// publish of an earlier run: from its cursor, its time and, for a batch, its number of events.
///
/// # Errors
/// When the disk fails, or data that was synced is damaged or missing.
pub fn open<T>(
    storage: Arc<dyn Storage>,
    settings: &OpenSettings,
    metrics: &Arc<Metrics>,
    outcome: impl Fn(Cursor, SystemTime, Option<u32>) -> T,
    now: Timestamp,
) -> Result<(Store<T>, OpenReport), StoreError> {
    let mut firsts = list_segments(&*storage)?;
    let lock_file = storage.open(LOCK_FILE).or_else(|error| match error.kind() {
        ErrorKind::NotFound => storage.create(LOCK_FILE),
        _ => Err(error),
    });
    let lock_file = lock_file.context("open", LOCK_FILE)?;
    let mark = SyncedMark::read(&*lock_file);
    let Some(newest) = firsts.pop() else {
        check_never_used(&*lock_file)?;
        let store = create(storage, settings, metrics, lock_file)?;
        return Ok((store, OpenReport::default()));
    };
    sync_newest(&*storage, newest)?;
    let retain_age = settings.retention.map_or(Duration::MAX, |retention| retention.age);
    let mut replayed = replay(&*storage, &firsts, newest, retain_age, now)?;
    let copied = replayed.header.identity != settings.identity;
    if !copied {
        check_mark(&replayed, mark)?;
    }
    let torn = truncate_torn(&mut replayed)?;
    remove_obsolete(&*storage, &replayed.obsolete)?;

    let new_epoch = settings.new_epoch.or_else(|| new_epoch_reason(&replayed, copied, mark));
    let distrusted_step = replayed.distrusted_step;
    let mut report = OpenReport { torn, new_epoch, distrusted_step, compaction: None };
    let retention = settings.retention.unwrap_or(replayed.header.retention());
    let header = FullHeader {
        epoch: match report.new_epoch {
            Some(_) => Epoch::random().context("make", "an epoch")?,
            None => replayed.header.epoch,
        },
        synced: settings.sync_policy == SyncPolicy::Always,
        identity: settings.identity.clone(),
        retain_events: retention.events as u64,
        retain_bytes: retention.bytes,
        max_topics: retention.topics as u64,
        ..replayed.header.clone()
    };
    // A changed header needs a new segment. So does a segment with commits but no events, which
    // would otherwise grow with every start.
    let changed = header != replayed.header;
    let rotate = changed
        || replayed.end > replayed.start
            && !replayed.segments.0.last().is_some_and(Segment::has_events);
    let mut trimmed = Vec::new();
    replayed.log.reconfigure(header.epoch, header.retention(), &mut trimmed);
    replayed.segments.remove_events(&trimmed);
    replayed.remember_keys(outcome);
    let Replayed { log, segments, file, start, end, .. } = replayed;
    let active = ActiveSegment { file, start, end, synced: end };
    let policy = settings.sync_policy;
    let mut journal = Journal::new(storage, policy, active, segments, header, lock_file);
    if rotate {
        report.compaction = match journal.rotate(&log, now.at, &metrics.store) {
            // Not needed yet: the same header, on a disk that is full for example.
            Err(_) if !changed && journal.failing.is_none() => None,
            rotated => rotated?,
        };
    }
    let store = start_writing(journal, log, settings, metrics, now)?;
    Ok((store, report))
}

/// A store as a start would find it.
pub struct Examined<T> {
    pub replayed: Replayed<T>,
    /// The directory is not the one that the server wrote to.
    pub copied: bool,
}

/// Reads a store without changing it; `None` if there are no segments. `identity` is that of the
/// lock file, if there is one.
///
/// # Errors
/// When a file cannot be read, or a server would not start with the store.
pub fn examine<T>(
    storage: &dyn Storage,
    identity: Option<&str>,
    mark: Option<SyncedMark>,
) -> Result<Option<Examined<T>>, StoreError> {
    let mut firsts = list_segments(storage)?;
    let Some(newest) = firsts.pop() else { return Ok(None) };
    let replayed = replay(storage, &firsts, newest, Duration::MAX, Timestamp::read())?;
    let copied = identity != Some(&*replayed.header.identity);
    if !copied {
        check_mark(&replayed, mark)?;
    }
    Ok(Some(Examined { replayed, copied }))
}

/// Whether the lock file says that more was synced than there is.
pub fn has_lost_end<T>(replayed: &Replayed<T>, mark: Option<SyncedMark>) -> bool {
    mark.is_some_and(|m| m.segment == replayed.header.number && replayed.end < m.end)
}

/// Why seqs could repeat if the epoch continued; `None` if they cannot.
pub fn new_epoch_reason<T>(
    replayed: &Replayed<T>,
    copied: bool,
    mark: Option<SyncedMark>,
) -> Option<&'static str> {
    if copied {
        Some("the directory was copied or restored")
    } else if !replayed.header.synced && !replayed.closed {
        Some("the last run did not sync every commit and did not shut down cleanly")
    } else if has_lost_end(replayed, mark) {
        Some("the last commit is incomplete, and the lock file says that it was synced")
    } else {
        None
    }
}

/// Checks that a directory without segments never had any: its lock file has no synced mark.
///
/// # Errors
/// The segments were removed.
pub fn check_never_used(lock_file: &dyn StorageFile) -> Result<(), StoreError> {
    match lock_file.length().context("look at", LOCK_FILE)? {
        0 => Ok(()),
        _ => Err(StoreError::Removed),
    }
}

/// Creates a store in a directory without segments.
fn create<T>(
    storage: Arc<dyn Storage>,
    settings: &OpenSettings,
    metrics: &Arc<Metrics>,
    lock_file: Box<dyn StorageFile>,
) -> Result<Store<T>, StoreError> {
    let Some(retention) = settings.retention else {
        return Err(StoreError::Io("there are no segments".to_owned()));
    };
    let secret = random_bytes().context("make", "a secret")?;
    let header = FullHeader {
        epoch: Epoch::random().context("make", "an epoch")?,
        next: Seq::new(1),
        oldest_segment: Seq::new(1),
        number: 1,
        synced: settings.sync_policy == SyncPolicy::Always,
        identity: settings.identity.clone(),
        secret: u128::from_le_bytes(secret),
        retain_events: retention.events as u64,
        retain_bytes: retention.bytes,
        max_topics: retention.topics as u64,
        trims: TrimCount::ZERO,
        forgotten: LastTrim::default(),
    };
    remove_obsolete(&*storage, &[])?;
    let active = ActiveSegment::create(&*storage, &header, &LogSnapshot::default())?;
    storage.sync_directory().context("sync", "the directory")?;
    let log = Log::new(header.epoch, header.retention());
    let segments = SegmentList(vec![Segment::new(Seq::new(1))]);
    let policy = settings.sync_policy;
    let journal = Journal::new(storage, policy, active, segments, header, lock_file);
    start_writing(journal, log, settings, metrics, Timestamp::read())
}

fn start_writing<T>(
    mut journal: Journal,
    log: Log<T>,
    settings: &OpenSettings,
    metrics: &Arc<Metrics>,
    now: Timestamp,
) -> Result<Store<T>, StoreError> {
    journal.write_mark(journal.active.end);
    if journal.sync_policy != SyncPolicy::Always {
        // Synced before the first commit that may be lost: after a crash, the next start has to
        // know that commits may be missing.
        let mut commit = CommitBuffer::default();
        commit.push(|out| write_word(out, "opened"));
        journal.commit(commit, now.at, &metrics.store)?;
        journal.sync(now.at, &metrics.store)?;
    }
    journal.update_metrics(&metrics.store);
    Ok(Store {
        journal,
        log: Arc::new(log),
        retain_age: settings.retention.map_or(Duration::MAX, |retention| retention.age),
        just_expired: false,
        metrics: Arc::clone(metrics),
    })
}

/// Checks that everything before the last synced commit is there; that commit itself may be torn.
///
/// # Errors
/// Damage, if something is missing.
fn check_mark<T>(replayed: &Replayed<T>, mark: Option<SyncedMark>) -> Result<(), StoreError> {
    let name = file_name(replayed.header.next);
    let Some(mark) = mark else { return Ok(()) };
    if mark.segment > replayed.header.number {
        return Err(StoreError::damaged(&name, 0, "the segment after this one is missing"));
    }
    if mark.segment == replayed.header.number && replayed.end < mark.start {
        let what = "commits are incomplete or missing that the lock file says were synced";
        return Err(StoreError::damaged(&name, replayed.end, what));
    }
    Ok(())
}

/// Syncs the newest segment and its name, because the last run may have been killed before it did.
/// Then drops the page cache: after a failed sync, memory may show more than the disk has.
fn sync_newest(storage: &dyn Storage, newest: Seq) -> Result<(), StoreError> {
    let name = file_name(newest);
    let file = storage.open(&name).context("open", &name)?;
    file.sync().context("sync", &name)?;
    file.drop_cache();
    storage.sync_directory().context("sync", "the directory")
}

/// Truncates the newest segment after its last complete commit.
fn truncate_torn<T>(replayed: &mut Replayed<T>) -> Result<Option<(StoreError, u64)>, StoreError> {
    let name = file_name(replayed.header.next);
    let length = replayed.file.length().context("look at", &name)?;
    if length > replayed.end {
        replayed.file.truncate(replayed.end).context("truncate", &name)?;
        replayed.file.sync().context("sync", &name)?;
    }
    Ok(replayed.torn.take().map(|damage| (damage, length - replayed.end)))
}

/// Removes replaced segments, and files that were never completed.
fn remove_obsolete(storage: &dyn Storage, obsolete: &[Seq]) -> Result<(), StoreError> {
    let names = storage.list().context("list", "the directory")?;
    let unfinished = names.into_iter().filter(|name| name.ends_with(".log.tmp"));
    let mut removed = false;
    for name in obsolete.iter().map(|first| file_name(*first)).chain(unfinished) {
        storage.remove(&name).context("remove", &name)?;
        removed = true;
    }
    if removed {
        storage.sync_directory().context("sync", "the directory")?;
    }
    Ok(())
}
