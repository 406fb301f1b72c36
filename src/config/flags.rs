//! The one table of flags: it drives parsing, the environment and `--help`.
//!
//! A flag that parses is a flag that is documented, with the default that is in force; and the
//! README is held to the same table by a test.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use super::units::{DURATION_RULE, SIZE_RULE, duration, format_duration, format_size, size, whole};
use super::{Config, HAS_STORE, ListenAddress, LogLevel, NO_STORE, SyncPolicy};

/// Where the server listens when nobody says.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:8080";
/// What a switch on the command line means; in the environment it is written out.
pub const ON: &str = "on";

/// One setting.
pub struct Flag {
    /// Without the dashes.
    pub name: &'static str,
    /// What stands for its value in the help text; empty for a switch, which takes none.
    pub value: &'static str,
    /// One line: what it bounds, and what happens there.
    pub help: &'static str,
    /// May be given more than once; a comma-separated list in the environment.
    pub repeatable: bool,
    default: fn(&Config) -> String,
    set: fn(&mut Config, &str) -> Result<(), String>,
}

impl Flag {
    /// The environment variable of the same meaning.
    #[must_use]
    pub fn env(&self) -> String {
        format!("LONGPOLL_{}", self.name.replace('-', "_").to_ascii_uppercase())
    }

    /// What holds when nobody says, in words.
    #[must_use]
    pub fn default_text(&self) -> String {
        (self.default)(&Config::default())
    }

    pub(super) fn is_switch(&self) -> bool {
        self.value.is_empty()
    }

    pub(super) fn set(&self, config: &mut Config, value: &str) -> Result<(), String> {
        (self.set)(config, value)
    }

    pub(super) fn set_from_list(&self, config: &mut Config, list: &str) -> Result<(), String> {
        if !self.repeatable {
            return self.set(config, list);
        }
        list.split(',').try_for_each(|value| self.set(config, value))
    }

    /// Forgets what the environment said, before the first argument that says otherwise.
    pub(super) fn clear(&self, config: &mut Config) {
        match self.name {
            "listen" => config.listen.clear(),
            "trust-proxy" => config.trust_proxies.clear(),
            "allow-host" => config.allow_hosts.clear(),
            "allow-origin" => config.allow_origins.clear(),
            _ => {}
        }
    }
}

/// Every flag, in the order of the help text.
pub static FLAGS: &[Flag] = &[
    Flag {
        name: "listen",
        value: "ADDR",
        help: "host:port or unix:/path; repeatable",
        repeatable: true,
        default: |_| DEFAULT_LISTEN.into(),
        set: |c, v| listen(v).map(|l| c.listen.push(l)),
    },
    Flag {
        name: "max-connections",
        value: "N",
        help: "beyond it an idle one gives way, else 503",
        repeatable: false,
        default: |c| c.max_connections.to_string(),
        set: |c, v| count(v, 2, 1_000_000).map(|n| c.max_connections = n),
    },
    Flag {
        name: "max-connections-per-client",
        value: "N",
        help: "beyond it 429",
        repeatable: false,
        default: |_| "half of those".into(),
        set: |c, v| count(v, 1, 1_000_000).map(|n| c.max_connections_per_client = Some(n)),
    },
    Flag {
        name: "trust-proxy",
        value: "ADDR",
        help: "a proxy whose X-Forwarded-For counts; repeatable",
        repeatable: true,
        default: |_| "none".into(),
        set: |c, v| c.trust_proxies.add(v),
    },
    Flag {
        name: "max-polls",
        value: "N",
        help: "polls held at once; beyond it 503",
        repeatable: false,
        default: |_| "7/8 of those".into(),
        set: |c, v| count(v, 1, 1_000_000).map(|n| c.max_polls = Some(n)),
    },
    Flag {
        name: "max-wait",
        value: "TIME",
        help: "longest hold of a poll; a longer wait is clamped",
        repeatable: false,
        default: |c| format_duration(c.max_wait),
        set: |c, v| time(v).map(|d| c.max_wait = d),
    },
    Flag {
        name: "wait-jitter",
        value: "PERCENT",
        help: "a wait is shortened by up to this, at random",
        repeatable: false,
        default: |c| c.wait_jitter.to_string(),
        set: |c, v| count(v, 0, 100).map(|n| c.wait_jitter = n as u32),
    },
    Flag {
        name: "max-event",
        value: "SIZE",
        help: "largest body of one event; beyond it 413",
        repeatable: false,
        default: |c| format_size(c.max_event as u64),
        set: |c, v| bytes(v, 1, 1 << 20).map(|n| c.max_event = n as usize),
    },
    Flag {
        name: "max-head",
        value: "SIZE",
        help: "largest request head; beyond it 414 or 431",
        repeatable: false,
        default: |c| format_size(c.max_head as u64),
        set: |c, v| bytes(v, 1 << 10, 1 << 20).map(|n| c.max_head = n as usize),
    },
    Flag {
        name: "max-topics",
        value: "N",
        help: "beyond it empty ones are forgotten, else 429",
        repeatable: false,
        default: |c| c.max_topics.to_string(),
        set: |c, v| count(v, 1, 1_000_000).map(|n| c.max_topics = n),
    },
    Flag {
        name: "retain-events",
        value: "N",
        help: "events kept per topic; older ones are trimmed",
        repeatable: false,
        default: |c| c.retain_events.to_string(),
        set: |c, v| count(v, 1, 1_000_000_000).map(|n| c.retain_events = n),
    },
    Flag {
        name: "retain-age",
        value: "TIME",
        help: "age at which events are trimmed",
        repeatable: false,
        default: |c| format_duration(c.retain_age),
        set: |c, v| positive_time(v).map(|d| c.retain_age = d),
    },
    Flag {
        name: "retain-bytes",
        value: "SIZE",
        help: "kept in all; the oldest events go first",
        repeatable: false,
        default: |c| format_size(c.retain_bytes),
        set: |c, v| bytes(v, 1, 1 << 50).map(|n| c.retain_bytes = n),
    },
    Flag {
        name: "head-timeout",
        value: "TIME",
        help: "for the whole head to arrive; then 408",
        repeatable: false,
        default: |c| format_duration(c.head_timeout),
        set: |c, v| positive_time(v).map(|d| c.head_timeout = d),
    },
    Flag {
        name: "body-timeout",
        value: "TIME",
        help: "for the whole body to arrive; then 408",
        repeatable: false,
        default: |c| format_duration(c.body_timeout),
        set: |c, v| positive_time(v).map(|d| c.body_timeout = d),
    },
    Flag {
        name: "idle-timeout",
        value: "TIME",
        help: "between requests; then the connection is closed",
        repeatable: false,
        default: |c| format_duration(c.idle_timeout),
        set: |c, v| positive_time(v).map(|d| c.idle_timeout = d),
    },
    Flag {
        name: "write-timeout",
        value: "TIME",
        help: "for a whole answer, plus 1s per 16KiB; then close",
        repeatable: false,
        default: |c| format_duration(c.write_timeout),
        set: |c, v| positive_time(v).map(|d| c.write_timeout = d),
    },
    Flag {
        name: "allow-host",
        value: "NAME",
        help: "a name the server goes by; repeatable",
        repeatable: true,
        default: |_| "its own".into(),
        set: |c, v| host(v).map(|host| c.allow_hosts.push(host)),
    },
    Flag {
        name: "allow-origin",
        value: "ORIGIN",
        help: "a site whose pages may ask; repeatable",
        repeatable: true,
        default: |_| "none".into(),
        set: |c, v| origin(v).map(|origin| c.allow_origins.push(origin)),
    },
    Flag {
        name: "tokens",
        value: "FILE",
        help: "who may do what; else all may do everything",
        repeatable: false,
        default: |_| "none".into(),
        set: |c, v| file(v).map(|path| c.tokens = Some(path)),
    },
    Flag {
        name: "no-console",
        value: "",
        help: "no page at /; /longpoll.js stays",
        repeatable: false,
        default: |_| "off".into(),
        set: |c, v| switch(v).map(|on| c.console = !on),
    },
    Flag {
        name: "data",
        value: "DIR",
        help: "keep the log there, beyond a restart",
        repeatable: false,
        default: |_| "none".into(),
        set: |c, v| stored(file, v).map(|d| c.data = Some(d)),
    },
    Flag {
        name: "sync",
        value: "WHEN",
        help: "always, a TIME or never: when --data is synced",
        repeatable: false,
        default: |_| "always".into(),
        set: |c, v| stored(sync, v).map(|s| c.sync = s),
    },
    Flag {
        name: "log",
        value: "LEVEL",
        help: "error, info or requests, to stderr",
        repeatable: false,
        default: |_| "info".into(),
        set: |c, v| level(v).map(|l| c.log = l),
    },
];

/// The help text; it fits one screen.
#[must_use]
pub fn help() -> String {
    let mut text = String::from(
        "longpoll: holds each request until there is news or a deadline\n\n\
         Usage: longpoll [serve] [flags]\n       \
                longpoll token NAME RIGHTS TOPICS   a line for --tokens, and its secret\n",
    );
    text.push_str(if HAS_STORE {
        "       longpoll inspect DIR | repair [--new-epoch] DIR   a store, see --data\n"
    } else {
        "\nThis program was built without its store: --data and --sync are refused.\n"
    });
    if cfg!(feature = "client") {
        text.push_str("       longpoll follow --help | publish --help   its clients\n");
    }
    text.push('\n');
    for flag in FLAGS {
        let left = format!("--{} {}", flag.name, flag.value);
        let default = flag.default_text();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {left:<22} {} [{default}]", flag.help);
    }
    text.push_str(
        "  -h, --help             print this\n  \
           -V, --version          print the version\n\n\
         Dangerous: --allow-origin '*' lets every page that anyone opens publish here.\n\
         TIME: a number with ms, s, m or h. SIZE: bytes, or with KiB, MiB or GiB.\n\
         Each flag is also a variable: --max-wait is LONGPOLL_MAX_WAIT.\n",
    );
    text
}

fn listen(value: &str) -> Result<ListenAddress, String> {
    if let Some(path) = value.strip_prefix("unix:") {
        if path.is_empty() {
            return Err("unix: needs a path".into());
        }
        return Ok(ListenAddress::Unix(path.into()));
    }
    match value.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
            Ok(ListenAddress::Tcp(value.into()))
        }
        _ => Err("allowed is host:port, [ipv6]:port or unix:/path".into()),
    }
}

fn host(value: &str) -> Result<String, String> {
    let ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    if value.is_empty() || !value.bytes().all(ok) {
        return Err("allowed is a host name, without a port".into());
    }
    Ok(value.trim_end_matches('.').to_ascii_lowercase())
}

fn origin(value: &str) -> Result<String, String> {
    let site = value.split_once("://").filter(|(scheme, authority)| {
        let scheme_ok = scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
        let plain = |b: u8| b.is_ascii_graphic() && !b"/?#@,*\"".contains(&b);
        !scheme.is_empty() && scheme_ok && !authority.is_empty() && authority.bytes().all(plain)
    });
    match (value, site) {
        ("*", _) | (_, Some(_)) => Ok(value.to_ascii_lowercase()),
        _ => {
            Err("allowed is scheme://host or scheme://host:port, without a / at the end, or *"
                .into())
        }
    }
}

fn file(value: &str) -> Result<PathBuf, String> {
    if value.is_empty() { Err("a path is needed".into()) } else { Ok(value.into()) }
}

fn count(value: &str, least: u64, most: u64) -> Result<usize, String> {
    whole(value)
        .filter(|n| (least..=most).contains(n))
        .map(|n| n as usize)
        .ok_or_else(|| format!("allowed is a whole number from {least} to {most}"))
}

fn bytes(value: &str, least: u64, most: u64) -> Result<u64, String> {
    size(value).filter(|n| (least..=most).contains(n)).ok_or_else(|| {
        let (least, most) = (format_size(least), format_size(most));
        format!("allowed is {SIZE_RULE}, from {least} to {most}")
    })
}

fn time(value: &str) -> Result<Duration, String> {
    duration(value).ok_or_else(|| format!("allowed is {DURATION_RULE}"))
}

fn positive_time(value: &str) -> Result<Duration, String> {
    time(value).and_then(|d| match d.as_millis() {
        0 => Err(format!("allowed is {DURATION_RULE}, at least 1ms")),
        _ => Ok(d),
    })
}

fn switch(value: &str) -> Result<bool, String> {
    match value {
        ON => Ok(true),
        "off" => Ok(false),
        _ => Err("allowed is on or off".into()),
    }
}

/// What only a store can follow.
fn stored<T>(read: fn(&str) -> Result<T, String>, value: &str) -> Result<T, String> {
    if HAS_STORE { read(value) } else { Err(NO_STORE.into()) }
}

fn sync(value: &str) -> Result<SyncPolicy, String> {
    match value {
        "always" => Ok(SyncPolicy::Always),
        "never" => Ok(SyncPolicy::Never),
        _ => positive_time(value)
            .map(SyncPolicy::Every)
            .map_err(|_| format!("allowed is always, never, or {DURATION_RULE}, at least 1ms")),
    }
}

fn level(value: &str) -> Result<LogLevel, String> {
    match value {
        "error" => Ok(LogLevel::Error),
        "info" => Ok(LogLevel::Info),
        "requests" => Ok(LogLevel::Requests),
        _ => Err("allowed is error, info or requests".into()),
    }
}
