//! Reading a segment that may be damaged: every line whose own checksum is right counts.

use std::io;

use super::header::{self, SegmentHeader};
use super::lines::{CommitMark, parse};
use super::record::Record;
use super::scan::LineReader;
use super::storage::StorageFile;
use crate::cursor::Seq;

/// A summary of a segment file, which may be damaged.
#[derive(Default)]
pub struct SegmentContents {
    pub header: Option<SegmentHeader>,
    pub events: u64,
    /// The first and the last seq.
    pub seqs: Option<(Seq, Seq)>,
    /// Invalid lines, and the byte offset of the first one.
    pub bad_lines: u64,
    pub first_bad: u64,
    /// The records after the last line that ends a commit, with their byte offsets. Whether they
    /// count is for the caller to decide: the commit may never have been complete.
    pub unfinished: Vec<(u64, Record)>,
}

/// Reads a segment file and skips invalid lines. `on_record` gets the valid records up to the last
/// line that ends a commit: the next commit is written only after the one before succeeded.
///
/// # Errors
/// When the file cannot be read.
pub fn read_lenient(
    file: &dyn StorageFile,
    on_record: &mut dyn FnMut(Record),
) -> io::Result<SegmentContents> {
    let mut contents = SegmentContents::default();
    let mut lines = LineReader::new(file);
    while let Some(line) = lines.next_line()? {
        let at = line.at;
        let bytes = line.bytes.unwrap_or_default();
        if contents.add_line(at, bytes, on_record) {
            continue;
        }
        contents.bad_lines += 1;
        if contents.bad_lines == 1 {
            contents.first_bad = at;
        }
        if let Some(second) = second_line(bytes) {
            contents.add_line(at, &bytes[..second - 1], on_record);
            contents.add_line(at + second as u64, &bytes[second..], on_record);
        }
    }
    Ok(contents)
}

impl SegmentContents {
    /// Adds a line without its line feed; false if the line is invalid.
    fn add_line(&mut self, at: u64, bytes: &[u8], on_record: &mut dyn FnMut(Record)) -> bool {
        if at == 0 && header::check_format_line("", bytes).is_ok() {
            return true;
        }
        let Some((mark, json)) = parse(bytes) else { return false };
        let json = &bytes[json..];
        let record = Record::parse(json);
        let is_record = record.is_some();
        if let Some(record) = record {
            if let Record::Event(event) = &record {
                let first = self.seqs.map_or(event.seq, |(first, _)| first);
                self.seqs = Some((first, event.seq));
                self.events += 1;
            }
            self.unfinished.push((at, record));
        } else if self.header.is_none() {
            self.header = header::parse(json);
        }
        if mark != CommitMark::More {
            self.unfinished.drain(..).for_each(|(_, record)| on_record(record));
        }
        is_record || self.header.is_some()
    }
}

/// How many places of an invalid line are tried as the start of a second one: a body may be made
/// to look like thousands.
const MAX_TRIES: usize = 16;

/// Where a second line begins if a damaged line feed has joined it to the first one.
fn second_line(bytes: &[u8]) -> Option<usize> {
    let starts = bytes.windows(10).enumerate().skip(1).filter(|(_, start)| {
        start[..8].iter().all(u8::is_ascii_hexdigit)
            && start[8] == b' '
            && matches!(start[9], b'+' | b'.' | b',')
    });
    let is_joint =
        |at: &usize| parse(&bytes[*at..]).is_some() || parse(&bytes[..*at - 1]).is_some();
    starts.map(|(at, _)| at).take(MAX_TRIES).find(is_joint)
}
