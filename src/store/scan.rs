//! Reading a segment, a line at a time, and telling a torn end from damage.
//!
//! A commit counts whole or not at all, so a segment is read by commits. What is not whole at the
//! very end may be what a crash interrupted; the same anywhere before means that something was
//! changed, and is told with file and offset. This only tells which; what follows from it is for
//! `recovery` to say.

use std::io;

use super::error::{IoContext, StoreError};
use super::header::{SegmentHeader, check_first_line, file_name};
use super::lines::{CommitMark, parse};
use super::storage::{Storage, StorageFile};
use super::{header, record::Record};
use crate::limits::STORE_LINE_BYTES;

/// The lines of a file.
pub struct LineReader<'a> {
    file: &'a dyn StorageFile,
    /// Read ahead: from `start` to `filled`.
    buffer: Vec<u8>,
    start: usize,
    filled: usize,
    /// Where in the file the next line begins, and how much of it was read.
    at: u64,
    read: u64,
}

/// One line, whatever it is worth.
pub struct RawLine<'b> {
    pub at: u64,
    /// Where the next one begins.
    pub end: u64,
    /// Without its end; or what is wrong.
    pub bytes: Result<&'b [u8], &'static str>,
}

const READ: usize = 64 << 10;

impl<'a> LineReader<'a> {
    pub fn new(file: &'a dyn StorageFile) -> LineReader<'a> {
        LineReader { file, buffer: vec![0; READ], start: 0, filled: 0, at: 0, read: 0 }
    }

    /// The next line; none at the end.
    pub fn read(&mut self) -> io::Result<Option<RawLine<'_>>> {
        let at = self.at;
        let mut seen = 0;
        let mut skipped = 0;
        let length = loop {
            let ahead = &self.buffer[self.start..self.filled];
            if let Some(end) = memchr::memchr(b'\n', &ahead[seen..]) {
                break Some(seen + end);
            }
            seen = ahead.len();
            if seen > STORE_LINE_BYTES {
                skipped += seen as u64;
                self.start += seen;
                seen = 0;
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
        let taken = bytes + usize::from(length.is_some());
        self.start += taken;
        self.at += skipped + taken as u64;
        let bytes = match length {
            _ if skipped > 0 => Err("a line is longer than any that is written"),
            None => Err("the last line has no end"),
            Some(_) => Ok(&self.buffer[line]),
        };
        Ok(Some(RawLine { at, end: self.at, bytes }))
    }

    /// Reads on; false at the end.
    fn fill(&mut self) -> io::Result<bool> {
        self.buffer.copy_within(self.start..self.filled, 0);
        self.filled -= self.start;
        self.start = 0;
        if self.filled == self.buffer.len() {
            self.buffer.resize(self.filled * 2, 0);
        }
        loop {
            match self.file.read_at(&mut self.buffer[self.filled..], self.read) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                got => {
                    let got = got?;
                    self.filled += got;
                    self.read += got as u64;
                    return Ok(got > 0);
                }
            }
        }
    }
}

/// Where a commit stands in its file.
struct OpenCommit {
    at: u64,
    lines: Vec<(u64, Vec<u8>)>,
}

/// The commits of a segment, each whole.
pub struct CommitReader<'a> {
    name: String,
    lines: LineReader<'a>,
    /// Where the next commit begins: up to here all is well.
    pub end: u64,
}

/// What comes next in a segment.
pub enum NextCommit {
    /// The lines of a commit, and where each begins.
    Commit(Vec<(u64, Vec<u8>)>),
    /// Nothing, and all is well.
    End,
    /// From [`CommitReader::end`] on there is nothing whole, nor anything that was safe.
    Torn(StoreError),
}

impl<'a> CommitReader<'a> {
    /// Opens a segment's file.
    pub fn open(name: &str, file: &'a dyn StorageFile) -> Result<CommitReader<'a>, StoreError> {
        let mut lines = LineReader::new(file);
        let Some(line) = lines.read().doing("read", name)? else {
            return Err(StoreError::damaged(name, 0, "it is empty"));
        };
        let bytes = line.bytes.map_err(|what| StoreError::damaged(name, 0, what))?;
        check_first_line(name, bytes)?;
        let end = line.end;
        Ok(CommitReader { name: name.to_owned(), lines, end })
    }

    /// The next commit.
    pub fn advance(&mut self) -> Result<NextCommit, StoreError> {
        let mut open = OpenCommit { at: self.end, lines: Vec::new() };
        loop {
            let line = self.lines.read().doing("read", &self.name)?;
            let Some(line) = line else {
                let torn = !open.lines.is_empty();
                let what = "the last commit has no end";
                return Ok(if torn {
                    NextCommit::Torn(self.damage(open.at, what))
                } else {
                    NextCommit::End
                });
            };
            let (at, end) = (line.at, line.end);
            let wrong = match line.bytes {
                Err(why) => why,
                Ok(bytes) => match parse(bytes) {
                    None => "the checksum is wrong",
                    Some((CommitMark::End { before, .. }, _)) if at - open.at != before => {
                        "a line of the commit is missing"
                    }
                    Some((mark, json)) => {
                        open.lines.push((at, bytes[json..].to_vec()));
                        if mark == CommitMark::More {
                            continue;
                        }
                        self.end = end;
                        return Ok(NextCommit::Commit(open.lines));
                    }
                },
            };
            return self.torn_or_damaged(at, wrong);
        }
    }

    /// Whether what comes later says that this was safe.
    fn torn_or_damaged(&mut self, at: u64, what: &str) -> Result<NextCommit, StoreError> {
        let damage = self.damage(at, what);
        while let Some(line) = self.lines.read().doing("read", &self.name)? {
            let Ok(Some((CommitMark::End { before, after_sync: true }, _))) = line.bytes.map(parse)
            else {
                continue;
            };
            // Everything before this commit was safe when it was written.
            if line.at.checked_sub(before).is_some_and(|begun| begun > at) {
                return Err(damage);
            }
        }
        Ok(NextCommit::Torn(damage))
    }

    pub fn damage(&self, at: u64, what: &str) -> StoreError {
        StoreError::damaged(&self.name, at, what)
    }
}

/// What was found in a segment that nothing is appended to any more.
pub struct SealedSegment {
    pub header: SegmentHeader,
    pub bytes: u64,
    /// The last seq in it, if it has events.
    pub last: Option<u64>,
}

/// Reads such a segment: all of it has to be well.
pub fn read_sealed(
    disk: &dyn Storage,
    first: u64,
    each: &mut dyn FnMut(Record),
) -> Result<SealedSegment, StoreError> {
    let name = file_name(first);
    let file = disk.open(&name).doing("open", &name)?;
    let mut commits = CommitReader::open(&name, &*file)?;
    let mut header = None;
    let mut last = None;
    loop {
        let lines = match commits.advance()? {
            NextCommit::Commit(lines) => lines,
            NextCommit::Torn(damage) => return Err(damage),
            NextCommit::End => break,
        };
        for (at, json) in lines {
            let wrong = |what: &str| Err(commits.damage(at, what));
            let Some(known) = &header else {
                header = header::read(&json);
                if header.is_none() {
                    return wrong("it has no header");
                }
                continue;
            };
            let Some(record) = Record::read(&json) else {
                return wrong("this line says nothing that is known");
            };
            if let Record::Event(event) = &record {
                let expected = last.map_or(first, |last: u64| last + 1);
                let follows = match known {
                    SegmentHeader::Full(_) => event.seq == expected,
                    SegmentHeader::Compacted { through } => {
                        (expected..=*through).contains(&event.seq)
                    }
                };
                if !follows {
                    return wrong("this event does not follow");
                }
                last = Some(event.seq);
            }
            each(record);
        }
    }
    match header {
        Some(header) => Ok(SealedSegment { header, bytes: commits.end, last }),
        None => Err(commits.damage(commits.end, "it has no header")),
    }
}
