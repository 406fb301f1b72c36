//! The state file: the cursor of a reader, kept over its restarts.
//!
//! It is replaced whole (written aside, synced, renamed, the directory synced), so that a crash
//! leaves the old one or the new one. While it is in use it is locked: two readers with one place
//! would each hide the other's events from it.

use std::fs::{File, OpenOptions};
use std::io::{self, Error, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};

use crate::client::Subscription;
use crate::client::event::{self, Members, is_cursor};
use crate::client::exchange::read_small;
use crate::json::JsonObject;
use crate::limits::STATE_FILE_BYTES;

/// A state file in use.
pub struct StateFile {
    path: PathBuf,
    /// The file that is there now, locked.
    held: File,
    topics: String,
    types: String,
    cursor: Option<String>,
}

impl StateFile {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    /// When it cannot be used, is in use, or is that of another subscription.
    pub fn open(path: &Path, subscription: &Subscription) -> io::Result<StateFile> {
        let explain =
            |e: Error| Error::new(e.kind(), format!("state file {}: {e}", path.display()));
        let held = open_locked(path).map_err(explain)?;
        // What is replaced is the file, not a symbolic link to it.
        let path = path.canonicalize().map_err(explain)?;
        let (topics, types) = (subscription.topics.to_string(), subscription.types.to_string());
        let mut state = StateFile { path, held, topics, types, cursor: None };
        state.cursor = state.read().map_err(explain)?;
        Ok(state)
    }

    /// The cursor, once one was saved.
    pub fn cursor(&self) -> Option<&str> {
        self.cursor.as_deref()
    }

    fn read(&self) -> io::Result<Option<String>> {
        let text = read_small(&self.path, STATE_FILE_BYTES)?;
        if text.is_empty() {
            return Ok(None);
        }
        let strange = || Error::other("is not a state file of longpoll follow");
        let members: Members<'_> =
            serde_json::from_slice(text.as_bytes()).map_err(|_| strange())?;
        let member = |name| event::member::<String>(&members, name).ok_or_else(strange);
        for (name, wanted) in [("topics", &self.topics), ("types", &self.types)] {
            let kept = member(name)?;
            if kept != *wanted {
                let all = |list: &str| if list.is_empty() { "all".into() } else { list.to_owned() };
                return Err(Error::other(format!(
                    "is a place among the {name} {}, asked is for {}; what one has read the other \
                     has not: take another file",
                    all(&kept),
                    all(wanted)
                )));
            }
        }
        let cursor = member("cursor")?;
        if is_cursor(&cursor) { Ok(Some(cursor)) } else { Err(strange()) }
    }

    /// Keeps the cursor.
    ///
    /// # Errors
    /// When the disk does not take it; then the old one is still there.
    pub fn save(&mut self, cursor: &str) -> io::Result<()> {
        if self.cursor.as_deref() == Some(cursor) {
            return Ok(());
        }
        self.replace(cursor).map_err(|e| {
            Error::new(e.kind(), format!("state file {}: {e}", self.path.display()))
        })?;
        self.cursor = Some(cursor.to_owned());
        Ok(())
    }

    fn replace(&mut self, cursor: &str) -> io::Result<()> {
        let mut text = Vec::new();
        let mut object = JsonObject::begin(&mut text);
        object.string("topics", &self.topics).string("types", &self.types).string("cursor", cursor);
        object.end();
        text.push(b'\n');
        let mut aside = self.path.clone().into_os_string();
        aside.push(".new");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .custom_flags(OFlags::NOFOLLOW.bits() as i32)
            .open(&aside)?;
        lock(&file)?;
        file.set_permissions(self.held.metadata()?.permissions())?;
        file.write_all(&text)?;
        file.sync_all()?;
        std::fs::rename(&aside, &self.path)?;
        // The lock of the old file goes with it.
        self.held = file;
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        File::open(folder)?.sync_all()
    }
}

/// Opens the file under this name and locks it.
fn open_locked(path: &Path) -> io::Result<File> {
    loop {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let opened = file.metadata()?;
        if !opened.is_file() {
            return Err(Error::other("is not a file"));
        }
        lock(&file)?;
        // Between the two steps its holder may have put another file in its place.
        let named = std::fs::metadata(path)?;
        if (named.dev(), named.ino()) == (opened.dev(), opened.ino()) {
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
