//! What the person who runs the server may set: typed in as flags or environment variables,
//! checked once, immutable after.
//!
//! So there are two stages and no third: text that may be wrong, and a [`Config`] that is right.
//! Nothing further in asks again whether a number makes sense, and nothing changes under a
//! request's feet. One table, [`FLAGS`], drives the parsing, the environment and `--help`: they
//! cannot disagree.

mod flags;
mod proxies;
pub mod units;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

pub use flags::{DEFAULT_LISTEN, FLAGS, Flag, help};
pub use proxies::TrustedProxies;

use crate::limits::EVENT_OVERHEAD_BYTES;
use crate::names::{NAME_RULE, Name};

/// Where to listen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ListenAddress {
    /// `host:port`, resolved when the socket is bound.
    Tcp(String),
    /// `unix:/path`.
    Unix(PathBuf),
}

/// How much is written to stderr.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum LogLevel {
    /// What keeps the server from doing its work.
    Error,
    /// That, and its starts, stops and warnings.
    Info,
    /// That, and a line per request.
    Requests,
}

/// When a store syncs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SyncPolicy {
    /// Before anything is acknowledged or seen.
    Always,
    /// So long after something was written.
    Every(Duration),
    /// When a segment is full, and at an end in order.
    Never,
}

/// The settings. Each field is the flag of its name; the reasons are in [`FLAGS`].
#[derive(Clone, Debug)]
pub struct Config {
    /// None: [`DEFAULT_LISTEN`].
    pub listen: Vec<ListenAddress>,
    pub max_connections: usize,
    max_connections_per_client: Option<usize>,
    pub trust_proxies: TrustedProxies,
    max_polls: Option<usize>,
    pub max_wait: Duration,
    /// Percent by which a wait may be shortened.
    pub wait_jitter: u32,
    pub max_event: usize,
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
    /// Whether there is a page at `/`.
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

/// What the command line asks for.
#[derive(Debug)]
pub enum Command {
    /// Run the server.
    Serve(Box<Config>),
    /// Say what a store has.
    Inspect(PathBuf),
    /// Repair a store.
    Repair(PathBuf, RepairMode),
    /// Make a new token: its name, rights and topics.
    Token(TokenRequest),
    /// Print the help text.
    Help,
    /// Print the version.
    Version,
}

/// How a store is to be repaired.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RepairMode {
    /// Keep what is whole, and begin a new epoch.
    Damage,
    /// Only begin a new epoch, as after a disk was rolled back.
    NewEpoch,
}

/// A token to be made, as the command line asks for it.
#[derive(Debug)]
pub struct TokenRequest {
    pub name: Name,
    /// As the file has them; not read any further here.
    pub rights: String,
    pub topics: String,
}

/// A command line or environment that cannot be followed. Its text names the flag, the value and
/// what is allowed.
#[derive(Debug)]
pub struct UsageError(String);

impl std::fmt::Display for UsageError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

impl Config {
    /// Held polls at most: as asked, or 7/8 of the connections; always fewer than those, so that
    /// a publish finds a place.
    #[must_use]
    pub fn max_polls(&self) -> usize {
        let most = self.max_connections.saturating_sub(1).max(1);
        self.max_polls.unwrap_or(self.max_connections / 8 * 7).clamp(1, most)
    }

    /// Connections of one client at most: as asked, or half of all.
    #[must_use]
    pub fn max_connections_per_client(&self) -> usize {
        self.max_connections_per_client.unwrap_or(self.max_connections / 2).max(1)
    }

    fn check(&self) -> Result<(), UsageError> {
        if let Some(polls) = self.max_polls.filter(|&n| n >= self.max_connections) {
            return Err(UsageError(format!(
                "--max-polls {polls}: has to be below --max-connections ({}), or nobody could publish",
                self.max_connections
            )));
        }
        let smallest = (self.max_event + EVENT_OVERHEAD_BYTES) as u64;
        if self.retain_bytes < smallest {
            return Err(UsageError(format!(
                "--retain-bytes {}: one event of --max-event ({}) needs {}",
                self.retain_bytes, self.max_event, smallest
            )));
        }
        Ok(())
    }
}

/// Reads the environment, then the arguments, which win.
///
/// # Errors
/// Names the flag or variable, its value, and what is allowed.
pub fn parse(
    args: impl IntoIterator<Item = OsString>,
    env: impl Fn(&str) -> Option<OsString>,
) -> Result<Command, UsageError> {
    use lexopt::Arg::{Long, Short, Value};
    let mut config = Config::default();
    for flag in FLAGS {
        let name = flag.env();
        if let Some(value) = env(&name) {
            let value = text(&name, value)?;
            flag.set_from_list(&mut config, &value)
                .map_err(|why| UsageError(format!("{name}={value}: {why}")))?;
        }
    }
    let mut args = lexopt::Parser::from_args(args);
    let mut seen = Vec::new();
    let usage = |e: lexopt::Error| UsageError(format!("{e}; see longpoll --help"));
    while let Some(arg) = args.next().map_err(usage)? {
        match arg {
            Long("help") | Short('h') => return Ok(Command::Help),
            Long("version") | Short('V') => return Ok(Command::Version),
            Value(word) if word == "serve" && seen.is_empty() => seen.push("serve"),
            Value(word) if word == "token" && seen.is_empty() => return token(args),
            Value(word) if word == "inspect" && seen.is_empty() => return inspect(args),
            Value(word) if word == "repair" && seen.is_empty() => return repair(args),
            Long(name) => {
                let known = FLAGS.iter().find(|flag| flag.name == name);
                let flag = known.ok_or_else(|| usage(Long(name).unexpected()))?;
                let value = if flag.is_switch() {
                    flags::ON.into()
                } else {
                    text(flag.name, args.value().map_err(usage)?)?
                };
                if flag.repeatable && !seen.contains(&flag.name) {
                    flag.clear(&mut config);
                }
                seen.push(flag.name);
                flag.set(&mut config, &value)
                    .map_err(|why| UsageError(format!("--{} {value}: {why}", flag.name)))?;
            }
            other => return Err(usage(other.unexpected())),
        }
    }
    config.check()?;
    Ok(Command::Serve(Box::new(config)))
}

/// Reads what follows `longpoll inspect`.
fn inspect(mut args: lexopt::Parser) -> Result<Command, UsageError> {
    let (directory, asked) = store(&mut args, INSPECT_USAGE)?;
    match asked {
        RepairMode::Damage => Ok(Command::Inspect(directory)),
        RepairMode::NewEpoch => Err(UsageError(format!("usage: {INSPECT_USAGE}"))),
    }
}

/// Reads what follows `longpoll repair`.
fn repair(mut args: lexopt::Parser) -> Result<Command, UsageError> {
    let (directory, asked) = store(&mut args, REPAIR_USAGE)?;
    Ok(Command::Repair(directory, asked))
}

fn store(args: &mut lexopt::Parser, about: &str) -> Result<(PathBuf, RepairMode), UsageError> {
    if !HAS_STORE {
        return Err(UsageError(NO_STORE.into()));
    }
    let usage = |e: lexopt::Error| UsageError(format!("{e}; usage: {about}"));
    let mut directory = None;
    let mut asked = RepairMode::Damage;
    while let Some(arg) = args.next().map_err(usage)? {
        match arg {
            lexopt::Arg::Long("new-epoch") => asked = RepairMode::NewEpoch,
            lexopt::Arg::Value(word) if directory.is_none() => directory = Some(word.into()),
            other => return Err(usage(other.unexpected())),
        }
    }
    let directory =
        directory.ok_or_else(|| UsageError(format!("a directory is needed: {about}")))?;
    Ok((directory, asked))
}

/// What is said where a store is asked for, in a build that has none.
pub const NO_STORE: &str = "this program was built without its store (cargo feature store)";

const HAS_STORE: bool = cfg!(feature = "store");

const INSPECT_USAGE: &str = "longpoll inspect DIR";
const REPAIR_USAGE: &str = "longpoll repair [--new-epoch] DIR";

/// Reads what follows `longpoll token`.
fn token(mut args: lexopt::Parser) -> Result<Command, UsageError> {
    use lexopt::Arg::{Long, Short};
    let mut words = Vec::new();
    let usage = |e: lexopt::Error| UsageError(format!("{e}; usage: {TOKEN_USAGE}"));
    while let Some(arg) = args.next().map_err(usage)? {
        match arg {
            lexopt::Arg::Value(word) => words.push(text("token", word)?),
            Long("help") | Short('h') => return Ok(Command::Help),
            other => return Err(usage(other.unexpected())),
        }
    }
    let [name, rights, topics] = <[String; 3]>::try_from(words)
        .map_err(|words| UsageError(format!("words: {}; usage: {TOKEN_USAGE}", words.len())))?;
    let name =
        Name::new(&name).ok_or_else(|| UsageError(format!("name {name:?} is not {NAME_RULE}")))?;
    Ok(Command::Token(TokenRequest { name, rights, topics }))
}

const TOKEN_USAGE: &str =
    "longpoll token NAME RIGHTS TOPICS, such as longpoll token attic publish 'sensors.*'";

fn text(name: &str, value: OsString) -> Result<String, UsageError> {
    value.into_string().map_err(|value| UsageError(format!("{name}: {value:?} is not UTF-8")))
}
