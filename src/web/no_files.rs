//! In the place of `files.rs` in a build without the cargo feature `console`.

use super::static_file::StaticFile;

#[must_use]
pub fn module() -> Option<&'static StaticFile> {
    None
}

#[must_use]
pub fn console() -> Option<&'static StaticFile> {
    None
}
