//! The settings and the commands of the command line, as types: valid by construction.
//!
//! A [`Config`] comes from its defaults or from the [parser](super::parser). No other module checks
//! a setting again.

use std::path::PathBuf;
use std::time::Duration;

use super::proxies::TrustedProxies;
use crate::limits::EVENT_OVERHEAD_BYTES;
use crate::names::Name;

/// The address of a listener.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ListenAddress {
    /// `host:port`, resolved when the socket is bound.
    Tcp(String),
    /// The path of `unix:/path`.
    Unix(PathBuf),
}

/// Which lines are written to stderr. Each level includes the levels before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum LogLevel {
    /// Failures that keep the server from its work.
    Error,
    /// Starts, stops, warnings and refusals.
    Info,
    /// A line per request.
    Requests,
}

/// When a store is synced to disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SyncPolicy {
    /// Before an event is acknowledged or served.
    Always,
    /// This long after a write.
    Every(Duration),
    /// When a segment is full, and at a clean stop.
    Never,
}

/// The settings of a server. Each field is the flag of the same name, documented in
/// [`FLAGS`](super::FLAGS).
#[derive(Clone, Debug)]
pub struct Config {
    /// Empty for [`DEFAULT_LISTEN`](super::DEFAULT_LISTEN).
    pub listen: Vec<ListenAddress>,
    pub max_connections: usize,
    pub(super) max_connections_per_client: Option<usize>,
    pub trust_proxies: TrustedProxies,
    pub(super) max_polls: Option<usize>,
    pub max_wait: Duration,
    /// Percent by which a wait may be shortened.
    pub wait_jitter: u32,
    /// Bytes.
    pub max_event: usize,
    /// Bytes.
    pub max_head: usize,
    pub max_topics: usize,
    pub retain_events: usize,
    pub retain_age: Duration,
    pub retain_bytes: u64,
    pub head_timeout: Duration,
    pub body_timeout: Duration,
    pub idle_timeout: Duration,
    pub write_timeout: Duration,
    pub allow_hosts: Vec<String>,
    pub allow_origins: Vec<String>,
    pub tokens: Option<PathBuf>,
    /// Whether the console page is served at `/`.
    pub console: bool,
    pub data: Option<PathBuf>,
    pub sync: SyncPolicy,
    pub log: LogLevel,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            listen: Vec::new(),
            max_connections: 512,
            max_connections_per_client: None,
            trust_proxies: TrustedProxies::default(),
            max_polls: None,
            max_wait: Duration::from_secs(55),
            wait_jitter: 10,
            max_event: 64 << 10,
            max_head: 16 << 10,
            max_topics: 10_000,
            retain_events: 1_000,
            retain_age: Duration::from_secs(24 * 3600),
            retain_bytes: 64 << 20,
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(10),
            allow_hosts: Vec::new(),
            allow_origins: Vec::new(),
            tokens: None,
            console: true,
            data: None,
            sync: SyncPolicy::Always,
            log: LogLevel::Info,
        }
    }
}

/// A parsed command line.
#[derive(Debug)]
pub enum Command {
    /// Run the server.
    Serve(Box<Config>),
    /// Describe the store in a directory.
    Inspect(PathBuf),
    /// Repair the store in a directory.
    Repair(PathBuf, RepairMode),
    /// Make a new token.
    Token(TokenRequest),
    /// Print the help text.
    Help,
    /// Print the version.
    Version,
}

/// How to repair a store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RepairMode {
    /// If the store is damaged, keep the intact events and begin a new epoch.
    Damage,
    /// Only begin a new epoch, as after restoring a disk snapshot.
    NewEpoch,
}

/// The arguments of `longpoll token`.
#[derive(Debug)]
pub struct TokenRequest {
    pub name: Name,
    /// In the syntax of the token file, which [`Access`](crate::access::Access) parses.
    pub rights: String,
    pub topics: String,
}

/// An invalid command line or environment. Its text names the flag, the value and what is expected.
#[derive(Debug)]
pub struct UsageError(pub(super) String);

impl std::fmt::Display for UsageError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

/// Whether this program was built with its store.
pub(super) const HAS_STORE: bool = cfg!(feature = "store");

/// The error text for a request to use a store, in a build without one.
pub const NO_STORE: &str = "this program was built without its store (cargo feature store)";

impl Config {
    /// The limit of held polls: `--max-polls`, or 7/8 of the connections. It is always below the
    /// number of connections, so that a publish finds one.
    #[must_use]
    pub fn max_polls(&self) -> usize {
        let max = self.max_connections.saturating_sub(1).max(1);
        self.max_polls.unwrap_or(self.max_connections / 8 * 7).clamp(1, max)
    }

    /// The limit of connections for one client: `--max-connections-per-client`, or half of all.
    #[must_use]
    pub fn max_connections_per_client(&self) -> usize {
        self.max_connections_per_client.unwrap_or(self.max_connections / 2).max(1)
    }

    /// Checks settings that depend on each other.
    pub(super) fn check(&self) -> Result<(), UsageError> {
        if let Some(polls) = self.max_polls.filter(|&polls| polls >= self.max_connections) {
            return Err(UsageError(format!(
                "--max-polls {polls}: expected fewer than --max-connections ({}), to leave a \
                 connection for publishes",
                self.max_connections
            )));
        }
        let min = (self.max_event + EVENT_OVERHEAD_BYTES) as u64;
        if self.retain_bytes < min {
            return Err(UsageError(format!(
                "--retain-bytes {}: expected at least {min}, for one event of --max-event ({})",
                self.retain_bytes, self.max_event
            )));
        }
        Ok(())
    }
}
