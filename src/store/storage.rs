//! The file operations that a store needs, as two traits.
//!
//! [`DiskDirectory`] implements them with real files. The tests implement them in memory, with
//! failing and short writes, failing syncs, and power cuts that lose data that was not synced.

use std::fs::{Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::Advice;

/// Identifies a file as long as it exists or is open: its file system and its inode number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileId(pub u64, pub u64);

impl From<Metadata> for FileId {
    fn from(metadata: Metadata) -> FileId {
        FileId(metadata.dev(), metadata.ino())
    }
}

/// One directory.
///
/// # Errors
/// Every method returns the error of the operating system.
pub trait Storage: Send + Sync {
    /// The names of all files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Opens an existing file.
    fn open(&self, name: &str) -> io::Result<Box<dyn StorageFile>>;
    /// Creates an empty file, or empties the existing one.
    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>>;
    /// Renames a file, replacing any file at `to`.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Adds a second name to a file (a hard link).
    fn link(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Syncs the directory: file names created, renamed or removed so far survive a power cut.
    fn sync_directory(&self) -> io::Result<()>;
    /// The file that has this name now.
    fn file_id(&self, name: &str) -> io::Result<FileId>;
    /// Bytes by which files may grow; `u64::MAX` if the file system does not say.
    fn free_bytes(&self) -> io::Result<u64>;
}

/// One open file.
///
/// # Errors
/// Every method returns the error of the operating system.
pub trait StorageFile: Send {
    /// Identifies this file, also after it was renamed or removed.
    fn id(&self) -> io::Result<FileId>;
    /// Length in bytes.
    fn length(&self) -> io::Result<u64>;
    /// Reads at least one byte at offset `at`; returns 0 at the end of the file.
    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<usize>;
    /// Writes all bytes at offset `at`.
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()>;
    /// Cuts the file to this length.
    fn truncate(&self, length: u64) -> io::Result<()>;
    /// Syncs the content: everything written so far survives a power cut.
    fn sync(&self) -> io::Result<()>;
    /// Drops the file's pages from the page cache, so that the next read shows what the disk has.
    fn drop_cache(&self);
}

/// A directory on disk.
pub struct DiskDirectory(PathBuf);

impl DiskDirectory {
    #[must_use]
    pub fn new(path: &Path) -> DiskDirectory {
        DiskDirectory(path.to_owned())
    }
}

/// Events may be private: only the owner may read the files.
const MODE: u32 = 0o600;

impl Storage for DiskDirectory {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.0)? {
            // The store's own names are ASCII; a name that is not UTF-8 is another program's.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        let path = self.0.join(name);
        let file = OpenOptions::new().read(true).write(true).open(&path);
        // `longpoll inspect` needs no right to write.
        let file = file.or_else(|_| std::fs::File::open(&path))?;
        Ok(Box::new(file))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(MODE);
        Ok(Box::new(options.open(self.0.join(name))?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.0.join(from), self.0.join(to))
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::hard_link(self.0.join(from), self.0.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.0.join(name))
    }

    fn sync_directory(&self) -> io::Result<()> {
        std::fs::File::open(&self.0)?.sync_all()
    }

    fn file_id(&self, name: &str) -> io::Result<FileId> {
        std::fs::metadata(self.0.join(name)).map(FileId::from)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let disk = rustix::fs::statvfs(&self.0)?;
        // Some file systems, FUSE ones for example, fill in nothing.
        Ok(if disk.f_blocks == 0 { u64::MAX } else { disk.f_bavail.saturating_mul(disk.f_frsize) })
    }
}

impl StorageFile for std::fs::File {
    fn id(&self) -> io::Result<FileId> {
        self.metadata().map(FileId::from)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(self, bytes, at)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.write_all_at(bytes, at)
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn drop_cache(&self) {
        // Only advice: a kernel that ignores it shows what it has in memory, which may hide damage
        // but causes none.
        let _ = rustix::fs::fadvise(self, 0, None, Advice::DontNeed);
    }
}
