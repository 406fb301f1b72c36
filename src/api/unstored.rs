//! The same in a build without the store: [`crate::config`] lets nothing through to here, in the
//! same words.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use super::LogHandle;
use crate::config::{Config, NO_STORE, RepairMode};
use crate::logger::Logger;
use crate::metrics::Metrics;

pub(super) fn open(_: &Path, _: &Config, _: &Arc<Metrics>, _: &Logger) -> io::Result<LogHandle> {
    Err(io::Error::other(NO_STORE))
}

/// # Errors
/// Always; here and below.
pub fn inspect(_: &Path, _: &mut dyn Write) -> io::Result<bool> {
    Err(io::Error::other(NO_STORE))
}

/// # Errors
pub fn repair(_: &Path, _: RepairMode) -> io::Result<String> {
    Err(io::Error::other(NO_STORE))
}
