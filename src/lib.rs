//! A small long-polling server.

#![forbid(unsafe_code)]

pub mod config;
pub mod cursor;
pub mod error;
pub mod limits;
pub mod metrics;
pub mod names;
pub mod permits;
pub mod shutdown;
pub mod json;
pub mod line;
pub mod diag;
pub mod log;
pub mod bell;
pub mod http;
pub mod api;
pub mod door;

/// The version, as `--version` and `/health` say it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
