//! A log together with the way to change it.

use std::io;
use std::sync::Arc;

use super::receipt::PublishReceipt;
use crate::config::Config;
use crate::cursor::Epoch;
use crate::log::{Fingerprinter, Log, LogWriter, Retention};

/// A log, its writer, and the secret of its idempotency keys.
pub struct LogHandle {
    pub(super) log: Arc<Log<PublishReceipt>>,
    /// The log itself, or the store that writes each change to the disk first.
    pub(super) writer: Arc<dyn LogWriter<PublishReceipt>>,
    pub(super) fingerprints: Fingerprinter,
}

impl LogHandle {
    /// An empty log that is kept in memory only.
    ///
    /// # Errors
    /// If the operating system has no random bytes.
    pub fn in_memory(config: &Config, epoch: Epoch) -> io::Result<LogHandle> {
        let log = Arc::new(Log::new(epoch, retention(config)));
        Ok(LogHandle { writer: Arc::clone(&log) as _, log, fingerprints: Fingerprinter::random()? })
    }
}

/// How much a log keeps, by the flags.
pub fn retention(config: &Config) -> Retention {
    Retention {
        events: config.retain_events,
        age: config.retain_age,
        bytes: config.retain_bytes,
        topics: config.max_topics,
    }
}
