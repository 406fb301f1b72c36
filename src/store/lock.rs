//! One process for each directory, and two things that its lock file knows.
//!
//! *Which directory this is.* The lock file's inode and birth time go with the directory when it is
//! moved, and not when it is copied or restored. A segment's header has them, so that a copy is
//! known for one and begins a new epoch.
//!
//! *How far it was safe.* After each sync the file is told which commit was the last. `SegmentList`
//! alone cannot tell a store that lost its end from one that never had it; this can. It is not
//! synced itself: what it says may be old, but never more than was safe.

use std::fs::{Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::SystemTime;

use rustix::fs::FlockOperation;

use super::lines::{CommitBuffer, parse};
use super::record::RecordReader;
use super::storage::StorageFile;
use crate::json::JsonObject;

/// Its name.
pub const LOCK: &str = "lock";

/// The lock; given back when dropped.
pub struct DirectoryLock {
    _file: std::fs::File,
    /// Of this directory, and of no other.
    pub identity: String,
}

impl DirectoryLock {
    /// Locks a directory.
    ///
    /// # Errors
    /// When another process has it locked, or the file cannot be made.
    pub fn take(directory: &Path) -> io::Result<DirectoryLock> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(directory.join(LOCK))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(io::Error::other("another process uses this directory"));
            }
            Err(error) => return Err(error.into()),
        }
        Ok(DirectoryLock { identity: identity_of(&file.metadata()?), _file: file })
    }
}

/// The identity of the directory with this lock file, if it has one.
pub fn identity(lock: &Path) -> io::Result<Option<String>> {
    match std::fs::metadata(lock) {
        Ok(metadata) => Ok(Some(identity_of(&metadata))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn identity_of(metadata: &Metadata) -> String {
    // Not every file system knows when a file was born.
    let born = metadata.created().ok().and_then(|t| t.duration_since(SystemTime::UNIX_EPOCH).ok());
    let born = born.unwrap_or_default();
    format!("{}-{}.{:09}", metadata.ino(), born.as_secs(), born.subsec_nanos())
}

/// The last commit that is known to be safe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SyncedMark {
    /// The number of its segment.
    pub number: u64,
    /// Where it begins and ends there.
    pub from: u64,
    pub to: u64,
}

impl SyncedMark {
    /// Notes it.
    pub fn write(self, file: &dyn StorageFile) -> io::Result<()> {
        let mut commit = CommitBuffer::default();
        commit.push(|out| {
            let mut object = JsonObject::begin(out);
            object.number("segment", self.number).number("from", self.from).number("to", self.to);
            object.end();
        });
        file.write_at(&commit.finish(true), 0)
    }

    /// What was noted last. None also when it cannot be read: then the segments have to do.
    pub fn read(file: &dyn StorageFile) -> Option<SyncedMark> {
        let mut bytes = [0; 256];
        let got = file.read_at(&mut bytes, 0).ok()?;
        // A shorter note leaves the end of a longer one behind it.
        let line = bytes[..got].split(|b| *b == b'\n').next()?;
        let (_, json) = parse(line)?;
        let mut r = RecordReader(&line[json..]);
        r.take("{\"segment\":").then_some(())?;
        Some(SyncedMark {
            number: r.number()?,
            from: r.member("from")?.number()?,
            to: r.member("to")?.number()?,
        })
    }
}
