//! The settings of the server, given as flags or environment variables, checked once and immutable
//! afterwards.
//!
//! There are two stages: text that may be wrong, and a valid [`Config`]. No other module checks a
//! setting again, and no setting changes during a request. One table, [`FLAGS`], drives the parser,
//! the environment variables and `--help`, so they cannot disagree.

pub mod units;
mod proxies;
mod types;
mod values;
mod flags;
mod parser;

pub use flags::{DEFAULT_LISTEN, FLAGS, Flag, help};
pub use parser::parse;
pub use proxies::TrustedProxies;
pub use types::{
    Command, Config, ListenAddress, LogLevel, NO_STORE, RepairMode, SyncPolicy, TokenRequest,
    UsageError,
};
