//! The lock file: it keeps a second process out, identifies the directory, and notes how far the
//! store was synced.
//!
//! *Identity.* The lock file's inode number and birth time stay the same when the directory is
//! moved, and change when it is copied or restored. Each segment header stores them, so that a
//! copied store is recognised and begins a new epoch.
//!
//! *Synced mark.* After each sync the file is overwritten with the place of the last synced commit.
//! Segments alone cannot tell a store that lost its end from one that never had it; the mark can.
//! The mark itself is never synced: it may be old, but it never claims more than was synced.

use std::fs::{Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::SystemTime;

use rustix::fs::FlockOperation;

use super::error::{IoContext as _, StoreError};
use super::lines::{CommitBuffer, parse};
use super::record::RecordReader;
use super::storage::StorageFile;
use crate::json::JsonObject;

/// Name of the lock file.
pub const LOCK_FILE: &str = "lock";

/// The lock on a directory; dropping it releases the lock.
pub struct DirectoryLock {
    _file: std::fs::File,
    /// Identifies the directory; a copy has another identity.
    pub identity: String,
}

impl DirectoryLock {
    /// Locks a directory, which is created first if it does not exist.
    ///
    /// # Errors
    /// When another process holds the lock, or the directory or its lock file cannot be created.
    pub fn acquire(directory: &Path) -> Result<DirectoryLock, StoreError> {
        create_directory(directory).context("create", "the directory")?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(directory.join(LOCK_FILE)).context("open", LOCK_FILE)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(StoreError::Io("another process uses this directory".to_owned()));
            }
            Err(error) => return Err(StoreError::io("lock", LOCK_FILE, &error.into())),
        }
        let metadata = file.metadata().context("look at", LOCK_FILE)?;
        Ok(DirectoryLock { identity: identity_of(&metadata), _file: file })
    }
}

/// Creates a directory and syncs its parent, unless the directory exists.
fn create_directory(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    std::fs::DirBuilder::new().mode(0o700).create(directory)?;
    let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
    std::fs::File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

/// The identity of the directory with this lock file; `None` if the file does not exist.
///
/// # Errors
/// When the file cannot be examined.
pub fn identity(lock_file: &Path) -> io::Result<Option<String>> {
    match std::fs::metadata(lock_file) {
        Ok(metadata) => Ok(Some(identity_of(&metadata))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn identity_of(metadata: &Metadata) -> String {
    // Some file systems record no birth time; then the inode number alone identifies the file.
    let born = metadata.created().ok().and_then(|t| t.duration_since(SystemTime::UNIX_EPOCH).ok());
    let born = born.unwrap_or_default();
    format!("{}-{}.{:09}", metadata.ino(), born.as_secs(), born.subsec_nanos())
}

/// The place of the last commit that is known to have been synced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SyncedMark {
    /// The number of its segment: see [`super::header::FullHeader::number`].
    pub segment: u64,
    /// Byte offsets of its first byte and after its last one.
    pub start: u64,
    pub end: u64,
}

impl SyncedMark {
    /// Writes the mark to the lock file.
    ///
    /// # Errors
    /// When the write fails.
    pub fn write(self, lock_file: &dyn StorageFile) -> io::Result<()> {
        let mut commit = CommitBuffer::default();
        commit.push(|out| {
            let mut object = JsonObject::begin(out);
            object
                .number("segment", self.segment)
                .number("from", self.start)
                .number("to", self.end);
            object.end();
        });
        lock_file.write_at(&commit.finish(true), 0)
    }

    /// Reads the mark. `None` if there is none or it cannot be read: then recovery relies on the
    /// segments alone.
    pub fn read(lock_file: &dyn StorageFile) -> Option<SyncedMark> {
        let mut bytes = [0; 256];
        let got = lock_file.read_at(&mut bytes, 0).ok()?;
        // A shorter mark leaves the end of a longer, older one behind its line feed.
        let line = bytes[..got].split(|b| *b == b'\n').next()?;
        let (_, json) = parse(line)?;
        let mut r = RecordReader(&line[json..]);
        r.take("{\"segment\":").then_some(())?;
        Some(SyncedMark {
            segment: r.number()?,
            start: r.member("from")?.number()?,
            end: r.member("to")?.number()?,
        })
    }
}
