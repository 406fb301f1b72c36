//! Why a store cannot be used: one error type, which names the file and, for damage, the offset.

use std::fmt;
use std::io;

/// Why a store cannot be used.
#[derive(Debug)]
pub enum StoreError {
    /// What was being done, and what the operating system said.
    Io(Box<(String, io::Error)>),
    /// Something in it is not as it was written.
    Damaged(Box<Damage>),
    /// A newer program has written it.
    Newer(String),
    /// What the disk said a moment ago; it is not asked again so soon.
    Refused(String),
}

/// Where a store is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    pub file: String,
    pub at: u64,
    pub what: String,
}

impl StoreError {
    // Not inlined, like its neighbour: there are many places that may fail, and they are all cold.
    #[cold]
    #[inline(never)]
    pub fn io(what: &str, name: &str, error: io::Error) -> StoreError {
        StoreError::Io(Box::new((format!("cannot {what} {name}"), error)))
    }

    #[cold]
    #[inline(never)]
    pub fn damaged(file: &str, at: u64, what: &str) -> StoreError {
        StoreError::Damaged(Box::new(Damage { file: file.to_owned(), at, what: what.to_owned() }))
    }
}

/// Says what was being done when it failed.
pub trait IoContext<T> {
    /// # Errors
    /// The same, in words.
    fn doing(self, what: &str, name: &str) -> Result<T, StoreError>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn doing(self, what: &str, name: &str) -> Result<T, StoreError> {
        self.map_err(|error| StoreError::io(what, name, error))
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::Io(about) => write!(f, "{}: {}", about.0, about.1),
            StoreError::Damaged(damage) => damage.fmt(f),
            StoreError::Newer(why) | StoreError::Refused(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for StoreError {}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}: {}", self.file, self.at, self.what)
    }
}
