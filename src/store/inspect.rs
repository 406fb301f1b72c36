//! `longpoll inspect DIR`: what a store contains, and what is wrong with it.
//!
//! It changes nothing and takes no lock, so it can be used while a server writes to the store.

use std::io::{self, Write};
use std::path::Path;

use super::directory_view::DirectoryView;
use super::error::{Damage, IoContext, StoreError};
use super::header::{SegmentHeader, file_name};
use super::lenient::read_lenient;
use super::lock::{LOCK_FILE, SyncedMark, identity};
use super::recovery::{Examined, check_never_used, examine, has_lost_end, new_epoch_reason};
use super::storage::{DiskDirectory, Storage};
use crate::cursor::Seq;

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

/// How often a directory is read again because a server replaced its files meanwhile.
const MAX_TRIES: usize = 1_000;

/// Prints what a store contains. Returns whether a server would start with it.
///
/// # Errors
/// When the directory cannot be read, or the output cannot be written.
pub fn inspect<T>(directory: &Path, out: &mut dyn Write) -> io::Result<bool> {
    let mut damage_before: Option<Damage> = None;
    for _ in 0..MAX_TRIES {
        // Read before the segments: the mark of a running server is then never newer than they are.
        let lock_file = DiskDirectory::new(directory).open(LOCK_FILE).ok();
        let mark = lock_file.as_ref().and_then(|file| SyncedMark::read(&**file));
        let view = DirectoryView::open(directory).map_err(|error| error.in_directory(directory))?;
        let Some(view) = view else { continue };
        let mut report = Vec::new();
        let described = match lock_file {
            Some(lock_file) if view.firsts.is_empty() => check_never_used(&*lock_file),
            _ => Ok(()),
        };
        let described = described.and_then(|()| describe::<T>(&view, directory, mark, &mut report));
        let is_valid = match described {
            Ok(()) => true,
            // A server whose disk fails writes the same bytes again. So damage is what two readings
            // find in the same place.
            Err(StoreError::Damaged(damage)) if damage_before.as_ref() != Some(&*damage) => {
                damage_before = Some(*damage);
                continue;
            }
            Err(StoreError::Damaged(damage)) => {
                writeln!(report, "DAMAGED: {damage}")?;
                let directory = directory.display();
                writeln!(report, "\"longpoll repair {directory}\" keeps every intact record")?;
                false
            }
            Err(error @ (StoreError::Newer(_) | StoreError::Removed)) => {
                writeln!(report, "{error}")?;
                false
            }
            Err(error) => return Err(error.in_directory(directory)),
        };
        out.write_all(&report)?;
        return Ok(is_valid);
    }
    let what = "the server replaces its files faster than they can be read; try again";
    Err(io::Error::other(what))
}

/// Describes the segments and what a start would make of them.
fn describe<T>(
    view: &DirectoryView,
    directory: &Path,
    mark: Option<SyncedMark>,
    out: &mut Vec<u8>,
) -> Result<(), StoreError> {
    for first in &view.firsts {
        print_segment(view, *first, out).context("read", &file_name(*first))?;
    }
    let identity = identity(&directory.join(LOCK_FILE)).context("look at", LOCK_FILE)?;
    let examined = examine::<T>(view, identity.as_deref(), mark)?;
    print_state(examined.as_ref(), directory, mark, out).context("write", "the report")
}

/// Prints the state of the log; `None` stands for a directory without segments.
fn print_state<T>(
    examined: Option<&Examined<T>>,
    directory: &Path,
    mark: Option<SyncedMark>,
    out: &mut Vec<u8>,
) -> io::Result<()> {
    let Some(Examined { replayed, copied }) = examined else {
        return writeln!(out, "there are no segments: the next start creates a new log");
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
    if let Some(why) = new_epoch_reason(replayed, *copied, mark) {
        writeln!(out, "as it is now, the next start begins a new epoch, because {why}")?;
    }
    if !copied && has_lost_end(replayed, mark) {
        let directory = directory.display();
        writeln!(
            out,
            "\"longpoll repair {directory}\" before that start keeps the intact records of the \
             last commit"
        )?;
    }
    writeln!(out, "valid")
}
