//! The few things that a store asks of a directory. Real files are one side of this; a disk that
//! fails, writes short and loses what was not synced is the other, in the tests.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::Advice;

/// One directory.
pub trait Storage: Send + Sync {
    /// The names of its files.
    ///
    /// # Errors
    /// Here and below: what the operating system says.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Opens a file that is there.
    fn open(&self, name: &str) -> io::Result<Box<dyn StorageFile>>;
    /// Makes a file, empty, whatever was there under its name.
    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>>;
    /// Gives a file another name, in place of what was there.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Gives a file one more name.
    fn link(&self, from: &str, to: &str) -> io::Result<()>;
    /// Takes a file away.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes the names of files last.
    fn sync_names(&self) -> io::Result<()>;
}

/// One open file.
pub trait StorageFile: Send {
    /// Its length in bytes.
    fn length(&self) -> io::Result<u64>;
    /// Reads some bytes from there; none at the end.
    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<usize>;
    /// Writes all of these bytes there.
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()>;
    /// Cuts it off there.
    fn truncate(&self, length: u64) -> io::Result<()>;
    /// Makes its content last.
    fn sync(&self) -> io::Result<()>;
    /// Forgets what memory holds of it, so that the next read says what the disk has.
    fn forget(&self);
}

/// A real directory.
pub struct DiskDirectory(PathBuf);

impl DiskDirectory {
    #[must_use]
    pub fn new(path: &Path) -> DiskDirectory {
        DiskDirectory(path.to_owned())
    }
}

/// Events may be private: nobody else reads them.
const MODE: u32 = 0o600;

impl Storage for DiskDirectory {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.0)? {
            // What has no plain name is none of the store's.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        let path = self.0.join(name);
        let file = OpenOptions::new().read(true).write(true).open(&path);
        // A look at a store needs no right to change it.
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

    fn sync_names(&self) -> io::Result<()> {
        std::fs::File::open(&self.0)?.sync_all()
    }
}

impl StorageFile for std::fs::File {
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

    fn forget(&self) {
        // Advice: nothing depends on its being taken.
        let _ = rustix::fs::fadvise(self, 0, None, Advice::DontNeed);
    }
}
