//! Stands for `open_log.rs` in a build without the store. [`crate::config`] refuses `--data`,
//! `inspect` and `repair` before these functions can, with the same text.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use super::log_handle::LogHandle;
use crate::config::{Config, NO_STORE, RepairMode};
use crate::cursor::Epoch;
use crate::logger::Logger;
use crate::metrics::Metrics;

impl LogHandle {
    /// An empty log in memory.
    ///
    /// # Errors
    /// If `--data` is set, or the operating system has no random bytes.
    pub fn open(config: &Config, _: &Arc<Metrics>, _: &Logger) -> io::Result<LogHandle> {
        match &config.data {
            None => LogHandle::in_memory(config, Epoch::random()?),
            Some(_) => Err(io::Error::other(NO_STORE)),
        }
    }
}

/// # Errors
/// Always: this build has no store.
pub fn inspect(_: &Path, _: &mut dyn Write) -> io::Result<bool> {
    Err(io::Error::other(NO_STORE))
}

/// # Errors
/// Always: this build has no store.
pub fn repair(_: &Path, _: RepairMode) -> io::Result<String> {
    Err(io::Error::other(NO_STORE))
}
