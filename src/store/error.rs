//! Why an operation on a store failed: one error type, which names the file and, for damage, the
//! byte offset.
//!
//! A leaf: the rest of the store builds on it. Callers outside the store get an [`io::Error`] with
//! its text, or the text alone as the reason of a `507`.

use std::fmt;
use std::io;
use std::path::Path;

/// Why an operation on a store failed.
#[derive(Debug)]
pub enum StoreError {
    /// The operating system refused an operation. The text names the operation, the file and the
    /// error. It is a text because the journal repeats it until its next retry.
    Io(String),
    /// A file differs from what was written to it.
    Damaged(Box<Damage>),
    /// A newer version of the program wrote the file.
    Newer(String),
    /// The segments are gone, but the lock file says that there were some.
    Removed,
}

/// Where a file differs from what was written to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    pub file: String,
    /// Byte offset in the file.
    pub at: u64,
    pub what: String,
}

impl StoreError {
    // Cold and not inlined, like `damaged`: many calls can fail, and inlining would repeat the
    // formatting code at each of them.
    #[cold]
    #[inline(never)]
    pub fn io(operation: &str, name: &str, error: &io::Error) -> StoreError {
        StoreError::Io(format!("cannot {operation} {name}: {error}"))
    }

    #[cold]
    #[inline(never)]
    pub fn damaged(file: &str, at: u64, what: &str) -> StoreError {
        StoreError::Damaged(Box::new(Damage { file: file.to_owned(), at, what: what.to_owned() }))
    }

    /// The error for the operator: with the directory, and the command that helps.
    #[must_use]
    pub fn in_directory(&self, directory: &Path) -> io::Error {
        let directory = directory.display();
        io::Error::other(match self {
            StoreError::Io(_) => format!("--data {directory}: {self}"),
            StoreError::Newer(_) => format!("{directory}/{self}"),
            StoreError::Removed => format!(
                "{directory}: {self}; restore the files NNNN….log, or remove {directory}/lock to \
                 begin an empty log"
            ),
            StoreError::Damaged(_) => format!(
                "{directory}/{self}; \"longpoll inspect {directory}\" shows more, \
                 \"longpoll repair {directory}\" keeps every intact record"
            ),
        })
    }
}

/// Adds the operation and the file to an I/O error.
pub trait IoContext<T> {
    /// # Errors
    /// The I/O error, as "cannot `operation` `name`: …".
    fn context(self, operation: &str, name: &str) -> Result<T, StoreError>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn context(self, operation: &str, name: &str) -> Result<T, StoreError> {
        self.map_err(|error| StoreError::io(operation, name, &error))
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::Io(text) | StoreError::Newer(text) => f.write_str(text),
            StoreError::Damaged(damage) => damage.fmt(f),
            StoreError::Removed => {
                f.write_str("there are no segments, but the lock file says that there was a log")
            }
        }
    }
}

impl std::error::Error for StoreError {}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}: {}", self.file, self.at, self.what)
    }
}
