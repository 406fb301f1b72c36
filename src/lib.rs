//! A small long-polling server.

#![forbid(unsafe_code)]

pub mod api;
pub mod bell;
pub mod config;
pub mod cursor;
pub mod diag;
pub mod door;
pub mod error;
pub mod http;
pub mod json;
pub mod limits;
pub mod line;
pub mod log;
pub mod metrics;
pub mod names;
pub mod permits;
pub mod shutdown;

/// The version, as `--version` and `/health` say it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
