//! Guards the documents: man page, shell completions, and the lessons in `scripts/lessons`.

#[cfg(feature = "client")]
mod generated;
mod lessons;
