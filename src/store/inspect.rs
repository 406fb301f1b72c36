//! `longpoll inspect DIR`: what a store has, and what is wrong with it. It changes nothing and locks
//! nothing, so it may be used on a store that a server writes to.

use std::io::{self, Write};
use std::path::Path;

use super::error::{IoContext, StoreError};
use super::header::{self, SegmentHeader, file_name, first_line, segments};
use super::lines::{CommitMark, parse};
use super::lock::{LOCK, SyncedMark, identity};
use super::record::Record;
use super::recovery::{check_safe, why_new_epoch};
use super::replay::read;
use super::scan::LineReader;
use super::storage::{DiskDirectory, Storage, StorageFile};
use crate::cursor::Seq;
use crate::log::Timestamp;

/// What is in a segment's file, whole or not.
#[derive(Default)]
pub struct SegmentContents {
    pub header: Option<SegmentHeader>,
    pub events: u64,
    pub seqs: Option<(Seq, Seq)>,
    /// How many lines are not as they were written, and where the first is.
    pub bad: u64,
    pub first_bad: u64,
}

impl SegmentContents {
    fn note_bad(&mut self, at: u64) {
        self.bad += 1;
        if self.bad == 1 {
            self.first_bad = at;
        }
    }
}

/// Goes through a segment's file, over whatever is not as it was written. `each` gets what was
/// committed.
///
/// # Errors
/// When the disk fails.
pub fn go_through(
    file: &dyn StorageFile,
    each: &mut dyn FnMut(Record),
) -> io::Result<SegmentContents> {
    let mut found = SegmentContents::default();
    let mut lines = LineReader::new(file);
    // Those whose commit has not ended yet.
    let mut open: Vec<Record> = Vec::new();
    while let Some(line) = lines.read()? {
        let at = line.at;
        let bytes = line.bytes.unwrap_or_default();
        if at == 0 && first_line().strip_suffix(b"\n") == Some(bytes) {
            continue;
        }
        let Some((mark, json)) = parse(bytes) else {
            found.note_bad(at);
            continue;
        };
        match Record::read(&bytes[json..]) {
            Some(record) => open.push(record),
            None if found.header.is_none() => found.header = header::read(&bytes[json..]),
            None => found.note_bad(at),
        }
        if mark != CommitMark::More {
            for record in open.drain(..) {
                if let Record::Event(event) = &record {
                    let first = found.seqs.map_or(event.seq, |(first, _)| first);
                    found.seqs = Some((first, event.seq));
                    found.events += 1;
                }
                each(record);
            }
        }
    }
    Ok(found)
}

/// One line about a segment.
fn describe(disk: &dyn Storage, first: Seq, out: &mut dyn Write) -> io::Result<()> {
    let name = file_name(first);
    let file = disk.open(&name)?;
    let contents = go_through(&*file, &mut |_| {})?;
    write!(out, "{name}  {} bytes, {} events", file.length()?, contents.events)?;
    if let Some((first, last)) = contents.seqs {
        write!(out, ", seqs {first} to {last}")?;
    }
    if let Some(SegmentHeader::Compacted { through }) = contents.header {
        write!(out, ", rewritten, stands for all up to {through}")?;
    }
    if contents.bad > 0 {
        write!(out, ", {} bad lines, the first at byte {}", contents.bad, contents.first_bad)?;
    }
    writeln!(out)
}

/// Says what a store has. True: a server would start with it.
///
/// # Errors
/// When the directory cannot be read, or nobody takes what is said.
pub fn inspect<T>(directory: &Path, out: &mut dyn Write) -> io::Result<bool> {
    let disk = DiskDirectory::new(directory);
    // Before the segments: what it says is then at most as new as they are.
    let marker = disk.open(LOCK).ok();
    let safe = marker.as_ref().and_then(|marker| SyncedMark::read(&**marker));
    let mut firsts = segments(&disk).map_err(io::Error::other)?;
    for first in &firsts {
        describe(&disk, *first, out)?;
    }
    let Some(newest) = firsts.pop() else {
        writeln!(out, "there are no segments: the next start begins a new log")?;
        return Ok(true);
    };
    let checked = read::<T>(&disk, &firsts, newest, Timestamp::read()).and_then(|found| {
        let here = identity(&directory.join(LOCK)).doing("look at", LOCK)?;
        let copied = here.as_ref() != Some(&found.begun.identity);
        if !copied {
            check_safe(&found, safe)?;
        }
        Ok((found, copied))
    });
    let (found, copied) = match checked {
        Ok(checked) => checked,
        Err(StoreError::Damaged(damage)) => {
            writeln!(out, "DAMAGED: {damage}")?;
            let directory = directory.display();
            writeln!(out, "\"longpoll repair {directory}\" keeps what is whole")?;
            return Ok(false);
        }
        Err(StoreError::Newer(why)) => {
            writeln!(out, "{why}")?;
            return Ok(false);
        }
        Err(failure) => return Err(io::Error::other(failure)),
    };
    let totals = found.log.totals();
    writeln!(
        out,
        "epoch {}, next seq {}; {} events kept, {} topics, {} events trimmed",
        found.begun.epoch,
        totals.head.next(),
        totals.events,
        totals.topics,
        totals.trimmed
    )?;
    if let Some(torn) = &found.torn {
        writeln!(
            out,
            "the end is torn, or is being written: {torn}; the next start cuts it at byte {}",
            found.end
        )?;
    }
    // A server that is running may still end in order.
    if let Some(why) = why_new_epoch(&found, copied, safe) {
        writeln!(out, "as it is now, the next start begins a new epoch, because {why}")?;
    }
    writeln!(out, "valid")?;
    Ok(true)
}
