//! The segment that commits are appended to: its open file, and how it begins.

use super::error::{IoContext as _, StoreError};
use super::header::{FullHeader, encode, file_name, finish_file, temporary_name};
use super::storage::{Storage, StorageFile};
use crate::log::LogSnapshot;

/// The segment that is appended to.
pub struct ActiveSegment {
    pub file: Box<dyn StorageFile>,
    /// Byte offset after the snapshot.
    pub start: u64,
    /// Byte offset after the last acknowledged commit.
    pub end: u64,
    /// Byte offset up to which the disk has confirmed a sync.
    pub synced: u64,
}

impl ActiveSegment {
    /// Creates a segment. Its file gets its name when it is complete and synced. The caller syncs
    /// the directory before it relies on anything in the segment.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn create(
        storage: &dyn Storage,
        header: &FullHeader,
        snapshot: &LogSnapshot,
    ) -> Result<ActiveSegment, StoreError> {
        let name = file_name(header.next);
        let temporary = temporary_name(&name);
        let bytes = encode(header, snapshot);
        let file = storage.create(&temporary).context("create", &temporary)?;
        let written = file.write_at(&bytes, 0);
        finish_file(storage, &*file, &name, written)?;
        let end = bytes.len() as u64;
        Ok(ActiveSegment { file, start: end, end, synced: end })
    }
}
