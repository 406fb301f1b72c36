//! The same in a build without the store: [`crate::config`] lets nothing through to here, in the
//! same words.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use super::OpenLog;
use crate::config::{Config, NO_STORE, RepairAsked};
use crate::diag::Diag;
use crate::metrics::Metrics;

pub(super) fn open(_: &Path, _: &Config, _: &Arc<Metrics>, _: &Diag) -> io::Result<OpenLog> {
    Err(io::Error::other(NO_STORE))
}

/// # Errors
/// Always; here and below.
pub fn inspect(_: &Path, _: &mut dyn Write) -> io::Result<bool> {
    Err(io::Error::other(NO_STORE))
}

/// # Errors
pub fn repair(_: &Path, _: RepairAsked) -> io::Result<String> {
    Err(io::Error::other(NO_STORE))
}
