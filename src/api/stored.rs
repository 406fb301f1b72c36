//! What of all this needs a store: `--data`, `longpoll inspect` and `longpoll repair`.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use super::publish::Published;
use super::{OpenLog, retention};
use crate::config::{Config, RepairAsked};
use crate::diag::Diag;
use crate::metrics::Metrics;
use crate::store;

/// The log that the store in a directory has.
pub(super) fn open(
    directory: &Path,
    config: &Config,
    metrics: &Arc<Metrics>,
    diag: &Diag,
) -> io::Result<OpenLog> {
    let opened = store::open(directory, retention(config), config.sync, metrics, Published::again)?;
    opened.report.tell(diag);
    let fingerprints = opened.fingerprints;
    let (log, ledger) = opened.start(diag)?;
    Ok(OpenLog { log, ledger: Arc::new(ledger), fingerprints })
}

/// Says what the store in a directory has. True: a server would start with it.
///
/// # Errors
/// When it cannot be read, or nobody takes what is said.
pub fn inspect(directory: &Path, out: &mut dyn Write) -> io::Result<bool> {
    store::inspect::inspect::<Published>(directory, out)
}

/// Repairs the store in a directory, and says what was done.
///
/// # Errors
/// When it is in use, the disk fails, or it needs more than was asked for.
pub fn repair(directory: &Path, asked: RepairAsked) -> io::Result<String> {
    store::repair::repair(directory, asked, Published::again)
}
