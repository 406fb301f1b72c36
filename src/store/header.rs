//! The start of a segment file: the format line, the header and the snapshot. And its file name.
//!
//! ```text
//! longpoll store 2
//! 4be1f6a0 .0 {"epoch":"9f3c52b1d07e4a68","next":1042,…}
//! ```
//!
//! The first line has the same form in every version, so that any version of the program can tell
//! which format a file has. The header is a line like all others.

use std::io;

use super::error::{IoContext as _, StoreError};
use super::lines::{self, CommitBuffer};
use super::record::{MAX_NUMBER, RecordReader, hex, write_topic, write_trimmed};
use super::storage::{Storage, StorageFile};
use crate::cursor::{Epoch, Seq, TrimCount};
use crate::json::JsonObject;
use crate::log::{LastTrim, LogSnapshot, Retention};

/// The version of the format that this program writes. It also reads all earlier ones.
///
/// 2: a compacted segment ends with a [`super::record::Record::CompactedEnd`].
pub const FORMAT_VERSION: u64 = 2;
const MAGIC: &str = "longpoll store ";

/// The header of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SegmentHeader {
    /// The segment was appended to; a snapshot of the log follows the header.
    Full(Box<FullHeader>),
    /// Compaction made the segment from others. It replaces every segment up to this seq.
    Compacted { through: Seq },
}

/// The header of a segment that events are, or were, appended to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FullHeader {
    pub epoch: Epoch,
    /// The seq of the next event, which is the first one in this segment.
    pub next: Seq,
    /// The first seq of the oldest segment that is still needed.
    pub oldest_segment: Seq,
    /// Counts the segments of this store, and is unique among them.
    pub number: u64,
    /// Every commit is synced before it is acknowledged.
    pub synced: bool,
    /// The identity of the lock file when the segment began: see [`super::lock`].
    pub identity: String,
    /// The secret of the fingerprints that idempotency keys are stored as.
    pub secret: u128,
    /// The retention under which the events of this segment trimmed older ones.
    pub retain_events: u64,
    pub retain_bytes: u64,
    pub max_topics: u64,
    /// Events trimmed before this segment began.
    pub trims: TrimCount,
    /// The last trim of all topics that were forgotten.
    pub forgotten: LastTrim,
}

impl FullHeader {
    /// The retention for replay. It has no age, because trims by age are records of their own.
    #[must_use]
    pub fn retention(&self) -> Retention {
        Retention {
            events: self.retain_events as usize,
            age: std::time::Duration::MAX,
            bytes: self.retain_bytes,
            topics: self.max_topics as usize,
        }
    }
}

/// The first line of every segment.
#[must_use]
pub fn format_line() -> Vec<u8> {
    format!("{MAGIC}{FORMAT_VERSION}\n").into_bytes()
}

/// The format version in the first line of the segment file `name`.
///
/// # Errors
/// A newer format version, or damage.
pub fn check_format_line(name: &str, line: &[u8]) -> Result<u64, StoreError> {
    let version = std::str::from_utf8(line).ok().and_then(|line| line.strip_prefix(MAGIC));
    let version = version.filter(|v| !v.is_empty() && v.bytes().all(|b| b.is_ascii_digit()));
    match version.and_then(|version| version.parse::<u64>().ok()) {
        Some(known @ 1..=FORMAT_VERSION) => Ok(known),
        Some(newer) if newer > FORMAT_VERSION => Err(StoreError::Newer(format!(
            "{name}: format version {newer}, expected at most {FORMAT_VERSION}; a newer longpoll \
             can read it"
        ))),
        _ => {
            let what = format!("the file is no segment: expected {MAGIC:?} and a format version");
            Err(StoreError::damaged(name, 0, &what))
        }
    }
}

/// Encodes the start of a segment: format line, header, and the snapshot of the log.
#[must_use]
pub fn encode(header: &FullHeader, snapshot: &LogSnapshot) -> Vec<u8> {
    let mut commit = CommitBuffer::default();
    commit.push(|out| write_full(out, header));
    for topic in &snapshot.topics {
        commit.push(|out| write_topic(out, topic));
    }
    // Consecutive trims are often of one topic, and then share a line.
    for run in snapshot.recent.chunk_by(|(_, a), (_, b)| a == b) {
        let seqs: Vec<Seq> = run.iter().map(|(seq, _)| *seq).collect();
        commit.push(|out| write_trimmed(out, &run[0].1, &seqs));
    }
    let mut bytes = format_line();
    bytes.extend_from_slice(&commit.finish(true));
    bytes
}

fn write_full(out: &mut Vec<u8>, header: &FullHeader) {
    let mut object = JsonObject::begin(out);
    object
        .unescaped("epoch", &header.epoch.to_string())
        .number("next", header.next.get())
        .number("first", header.oldest_segment.get())
        .number("number", header.number)
        .boolean("synced", header.synced)
        .unescaped("lock", &header.identity)
        .unescaped("secret", &hex(header.secret))
        .number("retain_events", header.retain_events)
        .number("retain_bytes", header.retain_bytes)
        .number("max_topics", header.max_topics)
        .number("trims", header.trims.get())
        .number("forgotten_through", header.forgotten.seq.get())
        .number("forgotten_trim", header.forgotten.number.get());
    object.end();
}

/// Writes the header of a compacted segment.
pub fn write_compacted(out: &mut Vec<u8>, through: Seq) {
    let mut object = JsonObject::begin(out);
    object.number("compacted_through", through.get());
    object.end();
}

/// Parses a header.
#[must_use]
pub fn parse(json: &[u8]) -> Option<SegmentHeader> {
    let mut r = RecordReader(json);
    let header = if r.take("{\"compacted_through\":") {
        SegmentHeader::Compacted { through: r.seq()? }
    } else {
        r.take("{\"epoch\":").then_some(())?;
        let boolean = |r: &mut RecordReader<'_>| {
            r.take("true").then_some(true).or(r.take("false").then_some(false))
        };
        SegmentHeader::Full(Box::new(FullHeader {
            epoch: r.unescaped()?.parse().ok()?,
            next: r.member("next")?.seq()?,
            oldest_segment: r.member("first")?.seq()?,
            number: r.member("number")?.number()?,
            synced: boolean(r.member("synced")?)?,
            identity: r.member("lock")?.unescaped()?.to_owned(),
            secret: r.member("secret")?.hex()?,
            retain_events: r.member("retain_events")?.number()?,
            retain_bytes: r.member("retain_bytes")?.number()?,
            max_topics: r.member("max_topics")?.number()?,
            trims: r.member("trims")?.trim_count()?,
            forgotten: LastTrim {
                seq: r.member("forgotten_through")?.seq()?,
                number: r.member("forgotten_trim")?.trim_count()?,
            },
        }))
    };
    (r.0 == b"}").then_some(header)
}

/// Whether a line, without its line feed, is an intact header.
#[must_use]
pub fn is_header(line: &[u8]) -> bool {
    lines::parse(line).is_some_and(|(_, json)| parse(&line[json..]).is_some())
}

/// The file name of the segment with this first seq.
#[must_use]
pub fn file_name(first: Seq) -> String {
    format!("{:020}.log", first.get())
}

/// The first seq of a segment by its file name; `None` if the file is no segment.
#[must_use]
pub fn first_seq(name: &str) -> Option<Seq> {
    let digits = name.strip_suffix(".log").filter(|digits| digits.len() == 20)?;
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().filter(|first| *first <= MAX_NUMBER).map(Seq::new)
}

/// The first seqs of all segments in a directory, oldest first.
///
/// # Errors
/// When the directory cannot be listed.
pub fn list_segments(storage: &dyn Storage) -> Result<Vec<Seq>, StoreError> {
    let names = storage.list().context("list", "the directory")?;
    let mut firsts = Vec::new();
    for first in names.iter().filter_map(|name| first_seq(name)) {
        // Insertion sort: segments are few, and `sort` would add more code than this whole file.
        let place = firsts.partition_point(|before| *before < first);
        firsts.insert(place, first);
    }
    Ok(firsts)
}

/// The name of a file while it is written. The next start removes files that still have it.
#[must_use]
pub fn temporary_name(name: &str) -> String {
    format!("{name}.tmp")
}

/// Completes a file that was written under its temporary name, if `written` says that it was: syncs
/// it and gives it its name. Otherwise removes it.
///
/// # Errors
/// When the write, the sync or the rename failed.
pub fn finish_file(
    storage: &dyn Storage,
    file: &dyn StorageFile,
    name: &str,
    written: io::Result<()>,
) -> Result<(), StoreError> {
    let temporary = temporary_name(name);
    let renamed = written.and_then(|()| file.sync());
    let renamed = renamed.and_then(|()| storage.rename(&temporary, name));
    if renamed.is_err() {
        // The file may be what fills the disk. If it cannot be removed, the next start tries.
        let _ = storage.remove(&temporary);
    }
    renamed.context("write", &temporary)
}
