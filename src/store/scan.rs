//! Reading a segment commit by commit, and telling a torn tail from damage.
//!
//! A commit counts as a whole or not at all. Invalid bytes at the very end of a file may be a write
//! that a crash interrupted (a torn tail). If a later commit says that they had been synced, the
//! file was damaged, which is an error with file and offset. `recovery` decides what follows from
//! a torn tail.

use std::io;
use std::ops::RangeInclusive;

use super::error::{IoContext, StoreError};
use super::header::{self, SegmentHeader, check_format_line, file_name};
use super::lines::{CommitMark, parse};
use super::record::Record;
use super::storage::{Storage, StorageFile};
use crate::cursor::Seq;
use crate::limits::STORE_LINE_BYTES;

/// Reads a file line by line.
pub struct LineReader<'a> {
    file: &'a dyn StorageFile,
    /// Read-ahead: the bytes from `start` to `filled` are not consumed yet.
    buffer: Vec<u8>,
    start: usize,
    filled: usize,
    /// File offset of the next line.
    next_line: u64,
    /// File offset of the next read.
    next_read: u64,
}

/// One line, valid or not.
pub struct RawLine<'b> {
    /// File offset of its first byte.
    pub at: u64,
    /// File offset after its line feed.
    pub end: u64,
    /// Its bytes without the line feed; or what is wrong with it.
    pub bytes: Result<&'b [u8], &'static str>,
}

const READ_BYTES: usize = 64 << 10;

impl<'a> LineReader<'a> {
    pub fn new(file: &'a dyn StorageFile) -> LineReader<'a> {
        let buffer = vec![0; READ_BYTES];
        LineReader { file, buffer, start: 0, filled: 0, next_line: 0, next_read: 0 }
    }

    /// Reads the next line; `None` at the end of the file.
    pub fn next_line(&mut self) -> io::Result<Option<RawLine<'_>>> {
        let at = self.next_line;
        let mut searched = 0;
        let mut skipped = 0;
        let length = loop {
            let ahead = &self.buffer[self.start..self.filled];
            if let Some(end) = memchr::memchr(b'\n', &ahead[searched..]) {
                break Some(searched + end);
            }
            searched = ahead.len();
            if searched > STORE_LINE_BYTES {
                skipped += searched as u64;
                self.start += searched;
                searched = 0;
            }
            if !self.fill()? {
                break None;
            }
        };
        let bytes = length.unwrap_or(self.filled - self.start);
        if length.is_none() && bytes == 0 && skipped == 0 {
            return Ok(None);
        }
        let line = self.start..self.start + bytes;
        let consumed = bytes + usize::from(length.is_some());
        self.start += consumed;
        self.next_line += skipped + consumed as u64;
        let bytes = match length {
            _ if skipped > 0 => Err("the line is longer than any record"),
            None => Err("the line has no line feed"),
            Some(_) => Ok(&self.buffer[line]),
        };
        Ok(Some(RawLine { at, end: self.next_line, bytes }))
    }

    /// Reads more bytes into the buffer; false at the end of the file.
    fn fill(&mut self) -> io::Result<bool> {
        self.buffer.copy_within(self.start..self.filled, 0);
        self.filled -= self.start;
        self.start = 0;
        if self.filled == self.buffer.len() {
            self.buffer.resize(self.filled * 2, 0);
        }
        loop {
            match self.file.read_at(&mut self.buffer[self.filled..], self.next_read) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                got => {
                    let got = got?;
                    self.filled += got;
                    self.next_read += got as u64;
                    return Ok(got > 0);
                }
            }
        }
    }
}

/// Reads a segment commit by commit.
pub struct CommitReader<'a> {
    name: String,
    lines: LineReader<'a>,
    /// The version of the segment's format.
    pub version: u64,
    /// File offset after the last complete commit.
    pub end: u64,
}

/// What follows in a segment.
pub enum NextCommit {
    /// The JSON of each line of a complete commit, with the line's file offset.
    Commit(Vec<(u64, Vec<u8>)>),
    /// The file ends after a complete commit.
    End,
    /// The file goes on after [`CommitReader::end`], without a complete commit and without any
    /// commit that says that these bytes were synced.
    Torn(StoreError),
}

impl<'a> CommitReader<'a> {
    /// Starts to read a segment file.
    ///
    /// # Errors
    /// When the file cannot be read, or its format line is wrong.
    pub fn open(name: &str, file: &'a dyn StorageFile) -> Result<CommitReader<'a>, StoreError> {
        let mut lines = LineReader::new(file);
        let Some(line) = lines.next_line().context("read", name)? else {
            return Err(StoreError::damaged(name, 0, "the file is empty"));
        };
        let bytes = line.bytes.map_err(|what| StoreError::damaged(name, 0, what))?;
        let version = check_format_line(name, bytes);
        let end = line.end;
        if matches!(version, Err(StoreError::Newer(_))) {
            // No checksum covers the first line, and a newer header would have another form.
            let second = lines.next_line().context("read", name)?;
            if second.is_some_and(|line| line.bytes.is_ok_and(header::is_header)) {
                return Err(StoreError::damaged(name, 0, "the format version is damaged"));
            }
        }
        let version = version?;
        Ok(CommitReader { name: name.to_owned(), lines, version, end })
    }

    /// Reads the next commit.
    ///
    /// # Errors
    /// When the file cannot be read, or is damaged.
    pub fn next_commit(&mut self) -> Result<NextCommit, StoreError> {
        let start = self.end;
        let mut lines = Vec::new();
        loop {
            let Some(line) = self.lines.next_line().context("read", &self.name)? else {
                return Ok(if lines.is_empty() {
                    NextCommit::End
                } else {
                    NextCommit::Torn(self.damage(start, "the last commit is incomplete"))
                });
            };
            let (at, end) = (line.at, line.end);
            let wrong = match line.bytes {
                Err(why) => why,
                Ok(bytes) => match parse(bytes) {
                    None => "checksum mismatch",
                    Some((CommitMark::End { before, .. }, _)) if at - start != before => {
                        "a line of the commit is missing"
                    }
                    Some((mark, json)) => {
                        lines.push((at, bytes[json..].to_vec()));
                        if mark == CommitMark::More {
                            continue;
                        }
                        self.end = end;
                        return Ok(NextCommit::Commit(lines));
                    }
                },
            };
            return self.torn_or_damaged(at, wrong);
        }
    }

    /// Reads on to find a commit which says that the bytes at `at` had been synced: then they are
    /// damaged, otherwise torn.
    fn torn_or_damaged(&mut self, at: u64, what: &str) -> Result<NextCommit, StoreError> {
        let damage = self.damage(at, what);
        while let Some(line) = self.lines.next_line().context("read", &self.name)? {
            let Ok(Some((CommitMark::End { before, after_sync: true }, _))) = line.bytes.map(parse)
            else {
                continue;
            };
            // Everything before the start of this commit was synced when it was written.
            if line.at.checked_sub(before).is_some_and(|start| start > at) {
                return Err(damage);
            }
        }
        Ok(NextCommit::Torn(damage))
    }

    pub fn damage(&self, at: u64, what: &str) -> StoreError {
        StoreError::damaged(&self.name, at, what)
    }
}

/// A sealed segment that was read: one that is not appended to any more.
pub struct SealedSegment {
    pub header: SegmentHeader,
    pub bytes: u64,
    /// Bytes of the header and the snapshot.
    pub snapshot_bytes: u64,
    /// The last seq in it, if it has events.
    pub last: Option<Seq>,
}

/// Reads a sealed segment. A sealed segment was synced, so a torn tail is damage here.
///
/// # Errors
/// When the file cannot be read, or is damaged.
pub fn read_sealed(
    storage: &dyn Storage,
    first: Seq,
    on_record: &mut dyn FnMut(Record),
) -> Result<SealedSegment, StoreError> {
    let name = file_name(first);
    let file = storage.open(&name).context("open", &name)?;
    let mut commits = CommitReader::open(&name, &*file)?;
    let at = commits.end;
    let mut lines = match commits.next_commit()? {
        NextCommit::Commit(lines) => lines.into_iter(),
        NextCommit::Torn(damage) => return Err(damage),
        NextCommit::End => return Err(commits.damage(at, NO_HEADER)),
    };
    let header = lines.next().and_then(|(_, json)| header::parse(&json));
    let Some(header) = header else { return Err(commits.damage(at, NO_HEADER)) };
    let snapshot_bytes = commits.end;
    let mut order = RecordOrder::new(first, &header, commits.version);
    loop {
        for (at, json) in lines {
            let record = Record::parse(&json).ok_or_else(|| commits.damage(at, UNKNOWN_RECORD))?;
            order.check(&record).map_err(|what| commits.damage(at, what))?;
            on_record(record);
        }
        lines = match commits.next_commit()? {
            NextCommit::Commit(lines) => lines.into_iter(),
            NextCommit::Torn(damage) => return Err(damage),
            NextCommit::End => break,
        };
    }
    if order.needs_end {
        return Err(commits.damage(commits.end, "the end of the compacted segment is missing"));
    }
    Ok(SealedSegment { header, bytes: commits.end, snapshot_bytes, last: order.last_event })
}

/// Checks that the records of a sealed segment are in order, and that none is missing at the end.
struct RecordOrder {
    /// The seqs that the next event may have.
    next_event: RangeInclusive<Seq>,
    /// Each event directly follows the one before.
    consecutive: bool,
    last_event: Option<Seq>,
    /// Events and keys so far, and the last seq among them.
    records: u64,
    last: Seq,
    /// A [`Record::CompactedEnd`] has to follow.
    needs_end: bool,
}

impl RecordOrder {
    fn new(first: Seq, header: &SegmentHeader, version: u64) -> RecordOrder {
        let (next_event, consecutive) = match header {
            SegmentHeader::Full(_) => (first..=first, true),
            SegmentHeader::Compacted { through } => (first..=*through, false),
        };
        RecordOrder {
            next_event,
            consecutive,
            last_event: None,
            records: 0,
            last: Seq::ZERO,
            needs_end: !consecutive && version >= 2,
        }
    }

    fn check(&mut self, record: &Record) -> Result<(), &'static str> {
        match record {
            Record::Event(event) => {
                if !self.next_event.contains(&event.seq) {
                    return Err("the event's seq is out of order");
                }
                let next = event.seq.next();
                let last = if self.consecutive { next } else { *self.next_event.end() };
                self.next_event = next..=last;
                self.last_event = Some(event.seq);
                self.count(event.seq);
            }
            Record::Key(key) => self.count(key.seq),
            Record::CompactedEnd { records, last } => {
                if !self.needs_end || (*records, *last) != (self.records, self.last) {
                    return Err("a record of the compacted segment is missing");
                }
                self.needs_end = false;
            }
            _ => {}
        }
        Ok(())
    }

    fn count(&mut self, seq: Seq) {
        self.records += 1;
        self.last = seq;
    }
}

/// What is wrong with a segment that does not begin with a header.
pub const NO_HEADER: &str = "the header is missing or malformed";
/// What is wrong with a line that is intact but holds no record.
pub const UNKNOWN_RECORD: &str = "unknown or malformed record";
