//! What of all this needs a store: `--data`, `longpoll inspect` and `longpoll repair`.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use super::publish::PublishReceipt;
use super::{LogHandle, retention};
use crate::config::{Config, RepairMode};
use crate::logger::Logger;
use crate::metrics::Metrics;
use crate::store;

/// The log that the store in a directory has.
pub(super) fn open(
    directory: &Path,
    config: &Config,
    metrics: &Arc<Metrics>,
    logger: &Logger,
) -> io::Result<LogHandle> {
    let opened =
        store::open(directory, retention(config), config.sync, metrics, PublishReceipt::again)?;
    opened.log_report(logger);
    let fingerprints = opened.fingerprints();
    let (log, writer) = opened.start(logger)?;
    Ok(LogHandle { log, writer: Arc::new(writer), fingerprints })
}

/// Says what the store in a directory has. True: a server would start with it.
///
/// # Errors
/// When it cannot be read, or nobody takes what is said.
pub fn inspect(directory: &Path, out: &mut dyn Write) -> io::Result<bool> {
    store::inspect::inspect::<PublishReceipt>(directory, out)
}

/// Repairs the store in a directory, and says what was done.
///
/// # Errors
/// When it is in use, the disk fails, or it needs more than was asked for.
pub fn repair(directory: &Path, asked: RepairMode) -> io::Result<String> {
    store::repair::repair(directory, asked, PublishReceipt::again)
}
