//! The segments of a directory as they were at one moment, while a server may change them.
//!
//! A server begins, rewrites and removes segments at any time, and at every moment they are a valid
//! store. A program that opens one after the other sees files of different moments. So all are
//! opened first, and then each name has to be still that of the open file: at the moment between,
//! the directory had exactly these files.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::error::{IoContext as _, StoreError};
use super::header::{file_name, list_segments};
use super::storage::{DiskDirectory, FileId, Storage, StorageFile};
use crate::cursor::Seq;

/// Reads the segments as they were at one moment. Changes nothing.
pub struct DirectoryView {
    /// The first seq of each segment, oldest first.
    pub firsts: Vec<Seq>,
    files: Vec<ViewedFile>,
}

#[derive(Clone)]
struct ViewedFile {
    file: Arc<File>,
    /// The server may append to the newest segment; what follows this length is left out.
    length: u64,
}

impl DirectoryView {
    /// Opens all segments; `None` if a server replaced one meanwhile.
    ///
    /// # Errors
    /// When the directory or a file cannot be read.
    pub fn open(directory: &Path) -> Result<Option<DirectoryView>, StoreError> {
        let listed = DiskDirectory::new(directory);
        let firsts = list_segments(&listed)?;
        let mut opened = Vec::with_capacity(firsts.len());
        for name in firsts.iter().map(|first| file_name(*first)) {
            let file = unless_gone(File::open(directory.join(&name))).context("open", &name)?;
            let Some(file) = file else { return Ok(None) };
            opened.push((name, file));
        }
        if list_segments(&listed)? != firsts {
            return Ok(None);
        }
        let mut files = Vec::with_capacity(firsts.len());
        for (name, file) in opened {
            let named = unless_gone(listed.file_id(&name)).context("look at", &name)?;
            let opened = file.id().context("look at", &name)?;
            if named.is_none_or(|named| named != opened) {
                return Ok(None);
            }
            let length = file.length().context("look at", &name)?;
            files.push(ViewedFile { file: Arc::new(file), length });
        }
        Ok(Some(DirectoryView { firsts, files }))
    }
}

fn unless_gone<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

impl Storage for DirectoryView {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.firsts.iter().map(|first| file_name(*first)).collect())
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        let place = self.firsts.iter().position(|first| file_name(*first) == name);
        let file = place.and_then(|place| self.files.get(place)).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(file.clone()))
    }

    fn create(&self, _: &str) -> io::Result<Box<dyn StorageFile>> {
        Err(read_only())
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        Err(read_only())
    }

    fn link(&self, _: &str, _: &str) -> io::Result<()> {
        Err(read_only())
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        Err(read_only())
    }

    fn sync_directory(&self) -> io::Result<()> {
        Err(read_only())
    }

    fn file_id(&self, name: &str) -> io::Result<FileId> {
        self.open(name)?.id()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Err(read_only())
    }
}

impl StorageFile for ViewedFile {
    fn id(&self) -> io::Result<FileId> {
        self.file.id()
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.length)
    }

    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<usize> {
        let rest = self.length.saturating_sub(at).min(bytes.len() as u64) as usize;
        StorageFile::read_at(&*self.file, &mut bytes[..rest], at)
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(read_only())
    }

    fn truncate(&self, _: u64) -> io::Result<()> {
        Err(read_only())
    }

    fn sync(&self) -> io::Result<()> {
        Err(read_only())
    }

    fn drop_cache(&self) {}
}

fn read_only() -> io::Error {
    io::ErrorKind::Unsupported.into()
}
