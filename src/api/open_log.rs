//! Opens, inspects and repairs a log; the only file that names the store (`--data`).
//!
//! It is here because the store keeps the receipts of publishes, and their type is the api's.
//! `open_log_in_memory.rs` takes its place in a build without the store.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use super::log_handle::{LogHandle, retention};
use super::receipt::PublishReceipt;
use crate::config::{Config, RepairMode};
use crate::cursor::Epoch;
use crate::logger::Logger;
use crate::metrics::Metrics;
use crate::store;

impl LogHandle {
    /// The log of the store in `--data`; without that flag an empty one in memory.
    ///
    /// # Errors
    /// If the store cannot be used; the text says why.
    pub fn open(config: &Config, metrics: &Arc<Metrics>, logger: &Logger) -> io::Result<LogHandle> {
        let Some(directory) = &config.data else {
            return LogHandle::in_memory(config, Epoch::random()?);
        };
        let retention = retention(config);
        let opened =
            store::open(directory, retention, config.sync, metrics, PublishReceipt::restored)?;
        opened.log_report(logger);
        let fingerprints = opened.fingerprints();
        let (log, writer) = opened.start(logger)?;
        Ok(LogHandle { log, writer: Arc::new(writer), fingerprints })
    }
}

/// Reports the contents of the store in a directory; true if a server would start with it.
///
/// # Errors
/// If the store cannot be read, or `out` cannot be written.
pub fn inspect(directory: &Path, out: &mut dyn Write) -> io::Result<bool> {
    store::inspect::inspect::<PublishReceipt>(directory, out)
}

/// Repairs the store in a directory, and returns a report.
///
/// # Errors
/// If the store is in use, the disk fails, or the damage needs another mode.
pub fn repair(directory: &Path, mode: RepairMode) -> io::Result<String> {
    store::repair::repair(directory, mode, PublishReceipt::restored)
}
