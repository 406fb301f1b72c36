//! What a segment says about itself: the first two lines of its file.
//!
//! ```text
//! longpoll store 1
//! 4be1f6a0 .0 {"epoch":"9f3c52b1d07e4a68","next":1042,…}
//! ```
//!
//! The first line never changes its form, so that a program of any version can tell what it has
//! before it. The second is a line like all others.

use super::error::{IoContext as _, StoreError};
use super::lines::CommitBuffer;
use super::record::{LARGEST, RecordReader, hex, write_topic, write_trimmed};
use super::storage::Storage;
use crate::cursor::Epoch;
use crate::json::JsonObject;
use crate::log::{LastTrim, LogSnapshot, Retention};
use crate::names::Name;

/// The version of the format that this program writes and reads.
pub const FORMAT: u64 = 1;
const WORD: &str = "longpoll store ";

/// What a segment is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SegmentHeader {
    /// As it was written, with the state of the log when it began.
    Full(Box<FullHeader>),
    /// Made from others, without what was dead in them. It stands for all seqs up to this one.
    Compacted { through: u64 },
}

/// The header of a segment that events are appended to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FullHeader {
    pub epoch: Epoch,
    /// The seq that comes next.
    pub next: u64,
    /// The oldest segment that is still needed.
    pub first: u64,
    /// How many segments were begun in this store, this one included: no two are the same.
    pub number: u64,
    /// Whether every commit is synced before it counts.
    pub synced: bool,
    /// The lock file that it was written under: see [`super::lock`].
    pub identity: String,
    /// From which the fingerprints of publishes are made.
    pub secret: u128,
    /// By these the log was trimmed from here on.
    pub retain_events: u64,
    pub retain_bytes: u64,
    pub max_topics: u64,
    /// Events trimmed before, and the last trim of all topics that were forgotten.
    pub trims: u64,
    pub forgotten: LastTrim,
}

impl FullHeader {
    /// The retention by which the log was trimmed. Ages are written down when they have passed.
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

/// The first line.
#[must_use]
pub fn first_line() -> Vec<u8> {
    format!("{WORD}{FORMAT}\n").into_bytes()
}

/// Checks the first line of the file with this name.
///
/// # Errors
/// Which version it is of, if this program does not know it; or that it says none.
pub fn check_first_line(name: &str, line: &[u8]) -> Result<(), StoreError> {
    let version = std::str::from_utf8(line).ok().and_then(|line| line.strip_prefix(WORD));
    let version = version.filter(|v| !v.is_empty() && v.bytes().all(|b| b.is_ascii_digit()));
    match version.and_then(|version| version.parse::<u64>().ok()) {
        Some(FORMAT) => Ok(()),
        Some(newer) if newer > FORMAT => Err(StoreError::Newer(format!(
            "{name}: its format is version {newer}, and this program knows {FORMAT}; a newer \
             longpoll reads it"
        ))),
        _ => {
            let what = format!("it does not begin with {WORD:?} and a format version");
            Err(StoreError::damaged(name, 0, &what))
        }
    }
}

/// The beginning of a segment with the state of the log.
#[must_use]
pub fn begin(begun: &FullHeader, snapshot: &LogSnapshot) -> Vec<u8> {
    let mut commit = CommitBuffer::default();
    commit.push(|out| write_begun(out, begun));
    for topic in &snapshot.topics {
        commit.push(|out| write_topic(out, topic));
    }
    // TrimHistory come in runs of one topic.
    for run in snapshot.recent.chunk_by(|(_, a), (_, b)| a == b) {
        let seqs: Vec<u64> = run.iter().map(|(seq, _)| *seq).collect();
        commit.push(|out| write_trimmed(out, &run[0].1, &seqs));
    }
    let mut bytes = first_line();
    bytes.extend_from_slice(&commit.finish(true));
    bytes
}

fn write_begun(out: &mut Vec<u8>, begun: &FullHeader) {
    let mut object = JsonObject::begin(out);
    object
        .unescaped("epoch", &begun.epoch.to_string())
        .number("next", begun.next)
        .number("first", begun.first)
        .number("number", begun.number)
        .boolean("synced", begun.synced)
        .unescaped("lock", &begun.identity)
        .unescaped("secret", &hex(begun.secret))
        .number("retain_events", begun.retain_events)
        .number("retain_bytes", begun.retain_bytes)
        .number("max_topics", begun.max_topics)
        .number("trims", begun.trims)
        .number("forgotten_through", begun.forgotten.seq)
        .number("forgotten_trim", begun.forgotten.number);
    object.end();
}

/// Writes the header of a compacted segment.
pub fn write_compacted(out: &mut Vec<u8>, through: u64) {
    let mut object = JsonObject::begin(out);
    object.number("compacted_through", through);
    object.end();
}

/// Reads a header.
#[must_use]
pub fn read(json: &[u8]) -> Option<SegmentHeader> {
    let mut r = RecordReader(json);
    let header = if r.take("{\"compacted_through\":") {
        SegmentHeader::Compacted { through: r.number()? }
    } else {
        r.take("{\"epoch\":").then_some(())?;
        let boolean = |r: &mut RecordReader<'_>| {
            r.take("true").then_some(true).or(r.take("false").then_some(false))
        };
        SegmentHeader::Full(Box::new(FullHeader {
            epoch: r.plain()?.parse().ok()?,
            next: r.member("next")?.number()?,
            first: r.member("first")?.number()?,
            number: r.member("number")?.number()?,
            synced: boolean(r.member("synced")?)?,
            identity: r.member("lock")?.plain()?.to_owned(),
            secret: r.member("secret")?.hex()?,
            retain_events: r.member("retain_events")?.number()?,
            retain_bytes: r.member("retain_bytes")?.number()?,
            max_topics: r.member("max_topics")?.number()?,
            trims: r.member("trims")?.number()?,
            forgotten: LastTrim {
                seq: r.member("forgotten_through")?.number()?,
                number: r.member("forgotten_trim")?.number()?,
            },
        }))
    };
    (r.0 == b"}").then_some(header)
}

/// The file of the segment that begins with this seq.
#[must_use]
pub fn file_name(first: u64) -> String {
    format!("{first:020}.log")
}

/// The first seq of the segment in this file, if it is one.
#[must_use]
pub fn first_seq(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log").filter(|digits| digits.len() == 20)?;
    let plain = digits.bytes().all(|b| b.is_ascii_digit());
    if plain { digits.parse().ok().filter(|first| *first <= LARGEST) } else { None }
}

/// The segments of a directory, oldest first.
pub fn segments(disk: &dyn Storage) -> Result<Vec<u64>, StoreError> {
    let names = disk.list().doing("list", "the directory")?;
    let mut firsts = Vec::new();
    for first in names.iter().filter_map(|name| first_seq(name)) {
        // There are few, and a sort would be larger than all the rest here.
        let place = firsts.partition_point(|before| *before < first);
        firsts.insert(place, first);
    }
    Ok(firsts)
}

/// A name to write under until all is there.
#[must_use]
pub fn temporary_name(name: &str) -> String {
    format!("{name}.tmp")
}

/// Adds to a snapshot what a line of it says.
pub fn take_trimmed(snapshot: &mut LogSnapshot, topic: &Name, seqs: &[u64]) {
    snapshot.recent.extend(seqs.iter().map(|seq| (*seq, topic.clone())));
}
