//! `longpoll inspect DIR`: what a store contains, and what is wrong with it.
//!
//! It changes nothing and takes no lock, so it can be used while a server writes to the store.

use std::io::{self, Write};
use std::path::Path;

use super::error::{IoContext, StoreError};
use super::header::{self, SegmentHeader, file_name, list_segments};
use super::lines::{CommitMark, parse};
use super::lock::{LOCK_FILE, SyncedMark, identity};
use super::record::Record;
use super::recovery::{check_mark, new_epoch_reason};
use super::replay::replay;
use super::scan::LineReader;
use super::storage::{DiskDirectory, Storage, StorageFile};
use crate::cursor::Seq;
use crate::log::Timestamp;

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
}

impl SegmentContents {
    fn add_bad_line(&mut self, at: u64) {
        self.bad_lines += 1;
        if self.bad_lines == 1 {
            self.first_bad = at;
        }
    }
}

/// Reads a segment file and skips invalid lines. `on_record` gets the valid records whose commit
/// has its end.
///
/// # Errors
/// When the file cannot be read.
pub fn read_lenient(
    file: &dyn StorageFile,
    on_record: &mut dyn FnMut(Record),
) -> io::Result<SegmentContents> {
    let mut contents = SegmentContents::default();
    let mut lines = LineReader::new(file);
    // The records of the commit whose end was not read yet.
    let mut commit: Vec<Record> = Vec::new();
    while let Some(line) = lines.next_line()? {
        let at = line.at;
        let bytes = line.bytes.unwrap_or_default();
        if at == 0 && header::check_format_line("", bytes).is_ok() {
            continue;
        }
        let Some((mark, json)) = parse(bytes) else {
            contents.add_bad_line(at);
            continue;
        };
        match Record::parse(&bytes[json..]) {
            Some(record) => commit.push(record),
            None if contents.header.is_none() => contents.header = header::parse(&bytes[json..]),
            None => contents.add_bad_line(at),
        }
        if mark != CommitMark::More {
            for record in commit.drain(..) {
                if let Record::Event(event) = &record {
                    let first = contents.seqs.map_or(event.seq, |(first, _)| first);
                    contents.seqs = Some((first, event.seq));
                    contents.events += 1;
                }
                on_record(record);
            }
        }
    }
    Ok(contents)
}

/// Prints one line about a segment.
fn print_segment(storage: &dyn Storage, first: Seq, out: &mut dyn Write) -> io::Result<()> {
    let name = file_name(first);
    let file = storage.open(&name)?;
    let contents = read_lenient(&*file, &mut |_| {})?;
    write!(out, "{name}  {} bytes, {} events", file.length()?, contents.events)?;
    if let Some((first, last)) = contents.seqs {
        write!(out, ", seqs {first} to {last}")?;
    }
    if let Some(SegmentHeader::Compacted { through }) = contents.header {
        write!(out, ", compacted, replaces all up to seq {through}")?;
    }
    if contents.bad_lines > 0 {
        let (bad_lines, at) = (contents.bad_lines, contents.first_bad);
        write!(out, ", {bad_lines} invalid lines, the first at byte {at}")?;
    }
    writeln!(out)
}

/// Prints what a store contains. Returns whether a server would start with it.
///
/// # Errors
/// When the directory cannot be read, or the output cannot be written.
pub fn inspect<T>(directory: &Path, out: &mut dyn Write) -> io::Result<bool> {
    let storage = DiskDirectory::new(directory);
    // Read before the segments: the mark of a running server is then never newer than they are.
    let lock_file = storage.open(LOCK_FILE).ok();
    let mark = lock_file.as_ref().and_then(|file| SyncedMark::read(&**file));
    let mut firsts = list_segments(&storage).map_err(|error| error.in_directory(directory))?;
    for first in &firsts {
        print_segment(&storage, *first, out)?;
    }
    let Some(newest) = firsts.pop() else {
        writeln!(out, "there are no segments: the next start creates a new log")?;
        return Ok(true);
    };
    let checked = replay::<T>(&storage, &firsts, newest, Timestamp::read()).and_then(|replayed| {
        let identity = identity(&directory.join(LOCK_FILE)).context("look at", LOCK_FILE)?;
        let copied = identity.as_ref() != Some(&replayed.header.identity);
        if !copied {
            check_mark(&replayed, mark)?;
        }
        Ok((replayed, copied))
    });
    let (replayed, copied) = match checked {
        Ok(checked) => checked,
        Err(StoreError::Damaged(damage)) => {
            writeln!(out, "DAMAGED: {damage}")?;
            let directory = directory.display();
            writeln!(out, "\"longpoll repair {directory}\" keeps every intact record")?;
            return Ok(false);
        }
        Err(StoreError::Newer(text)) => {
            writeln!(out, "{text}")?;
            return Ok(false);
        }
        Err(error) => return Err(error.in_directory(directory)),
    };
    let totals = replayed.log.totals();
    writeln!(
        out,
        "epoch {}, next seq {}; {} events retained, {} topics, {} events trimmed",
        replayed.header.epoch,
        totals.head.next(),
        totals.events,
        totals.topics,
        totals.trimmed
    )?;
    if let Some(torn) = &replayed.torn {
        writeln!(
            out,
            "the end is torn, or a server is writing it: {torn}; the next start truncates the \
             file at byte {}",
            replayed.end
        )?;
    }
    // Says "as it is now", because a running server may still shut down cleanly.
    if let Some(why) = new_epoch_reason(&replayed, copied, mark) {
        writeln!(out, "as it is now, the next start begins a new epoch, because {why}")?;
    }
    writeln!(out, "valid")?;
    Ok(true)
}
