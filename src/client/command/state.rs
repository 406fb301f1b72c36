//! The state file: a follower's cursor, saved across restarts.
//!
//! Each save replaces the whole file (write a new file, sync it, rename it, sync the directory), so
//! a crash leaves the old content or the new. The file is locked while it is in use: two followers
//! with one cursor would each skip the events that the other has processed.

use std::fs::{File, OpenOptions};
use std::io::{self, Error, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};

use crate::client::event::is_cursor;
use crate::client::follow::Subscription;
use crate::client::untrusted::{JsonMembers, read_small_file};
use crate::json::JsonObject;
use crate::limits::STATE_FILE_BYTES;

/// An open and locked state file.
pub struct StateFile {
    path: PathBuf,
    /// The current file, which holds the lock.
    locked: File,
    topics: String,
    types: String,
    cursor: Option<String>,
}

impl StateFile {
    /// Opens or creates the file, and locks it.
    ///
    /// # Errors
    /// When the file cannot be opened, another process uses it, or it belongs to another
    /// subscription.
    pub fn open(path: &Path, subscription: &Subscription) -> io::Result<StateFile> {
        let in_file = |e: Error| with_path(&e, path);
        let locked = open_locked(path).map_err(in_file)?;
        // A save must replace the file, not a symbolic link to it.
        let path = path.canonicalize().map_err(in_file)?;
        let (topics, types) = (subscription.topics.to_string(), subscription.types.to_string());
        let mut state = StateFile { path, locked, topics, types, cursor: None };
        state.cursor = state.read().map_err(in_file)?;
        Ok(state)
    }

    /// The saved cursor; `None` when the file is new.
    pub fn cursor(&self) -> Option<&str> {
        self.cursor.as_deref()
    }

    fn read(&self) -> io::Result<Option<String>> {
        let text = read_small_file(&self.path, STATE_FILE_BYTES)?;
        if text.is_empty() {
            return Ok(None);
        }
        let invalid = || Error::other("is not a state file of longpoll follow");
        let members = JsonMembers::parse(text.as_bytes()).ok_or_else(invalid)?;
        let member = |name| members.get::<String>(name).ok_or_else(invalid);
        for (name, expected) in [("topics", &self.topics), ("types", &self.types)] {
            let saved = member(name)?;
            if saved != *expected {
                return Err(other_subscription(name, &saved, expected));
            }
        }
        let cursor = member("cursor")?;
        if is_cursor(&cursor) { Ok(Some(cursor)) } else { Err(invalid()) }
    }

    /// Saves the cursor.
    ///
    /// # Errors
    /// When the new file cannot be written; the old one then remains.
    pub fn save(&mut self, cursor: &str) -> io::Result<()> {
        if self.cursor.as_deref() == Some(cursor) {
            return Ok(());
        }
        self.replace(cursor).map_err(|e| with_path(&e, &self.path))?;
        self.cursor = Some(cursor.to_owned());
        Ok(())
    }

    fn replace(&mut self, cursor: &str) -> io::Result<()> {
        let mut text = Vec::new();
        let mut object = JsonObject::begin(&mut text);
        object.string("topics", &self.topics).string("types", &self.types).string("cursor", cursor);
        object.end();
        text.push(b'\n');
        let mut new_path = self.path.clone().into_os_string();
        new_path.push(".new");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .custom_flags(OFlags::NOFOLLOW.bits() as i32)
            .open(&new_path)?;
        lock(&file)?;
        file.set_permissions(self.locked.metadata()?.permissions())?;
        file.write_all(&text)?;
        file.sync_all()?;
        std::fs::rename(&new_path, &self.path)?;
        // Closing the old file releases its lock; the new file is locked already.
        self.locked = file;
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        File::open(directory)?.sync_all()
    }
}

fn with_path(error: &Error, path: &Path) -> Error {
    Error::new(error.kind(), format!("state file {}: {error}", path.display()))
}

/// The error for a saved cursor that skips events which this subscription has not received.
fn other_subscription(name: &str, saved: &str, expected: &str) -> Error {
    let list = |list: &str| if list.is_empty() { "all".into() } else { list.to_owned() };
    let (saved, expected) = (list(saved), list(expected));
    Error::other(format!(
        "has a cursor for the {name} {saved}, and this subscription is for {expected}; use one \
         file per subscription"
    ))
}

/// Opens the file at this path and locks it.
fn open_locked(path: &Path) -> io::Result<File> {
    loop {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let opened = file.metadata()?;
        if !opened.is_file() {
            return Err(Error::other("is not a regular file"));
        }
        lock(&file)?;
        // Another follower may have replaced the file between `open` and `lock`.
        let current = std::fs::metadata(path)?;
        if (current.dev(), current.ino()) == (opened.dev(), opened.ino()) {
            return Ok(file);
        }
    }
}

fn lock(file: &File) -> io::Result<()> {
    flock(file, FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
        rustix::io::Errno::AGAIN => Error::other("is in use by another longpoll follow"),
        error => error.into(),
    })
}
