//! The table of flags, which drives the parser, the environment variables and `--help`.
//!
//! So every flag is documented, with its real default. A test holds the documentation to the same
//! table.

use std::fmt::Write as _;

use super::types::{Config, HAS_STORE};
use super::units::{format_duration, format_size};
use super::values::{
    parse_bytes, parse_count, parse_host, parse_level, parse_listen, parse_origin, parse_path,
    parse_positive_time, parse_switch, parse_sync, parse_time, require_store,
};

/// The listener without `--listen`.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:8080";

/// A setting of the server: a flag and an environment variable.
pub struct Flag {
    /// The name without its dashes.
    pub name: &'static str,
    /// The placeholder of its value in the help text; empty for a switch, which has no value.
    pub value: &'static str,
    /// One line of help: what the flag limits, and what happens at the limit.
    pub help: &'static str,
    /// Whether the flag may be repeated; the variable is then a comma-separated list.
    pub repeatable: bool,
    default: fn(&Config) -> String,
    set: fn(&mut Config, &str) -> Result<(), String>,
}

impl Flag {
    /// The name of the environment variable.
    #[must_use]
    pub fn env(&self) -> String {
        format!("LONGPOLL_{}", self.name.replace('-', "_").to_ascii_uppercase())
    }

    /// The default, as the help text shows it.
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

    /// Drops the values of the environment, before the first argument of a repeatable flag.
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
        set: |c, v| parse_listen(v).map(|l| c.listen.push(l)),
    },
    Flag {
        name: "max-connections",
        value: "N",
        help: "beyond it an idle one is closed, else 503",
        repeatable: false,
        default: |c| c.max_connections.to_string(),
        set: |c, v| parse_count(v, 2, 1_000_000).map(|n| c.max_connections = n),
    },
    Flag {
        name: "max-connections-per-client",
        value: "N",
        help: "beyond it 429",
        repeatable: false,
        default: |_| "half of those".into(),
        set: |c, v| parse_count(v, 1, 1_000_000).map(|n| c.max_connections_per_client = Some(n)),
    },
    Flag {
        name: "trust-proxy",
        value: "ADDR",
        help: "proxy whose X-Forwarded-For is used; repeatable",
        repeatable: true,
        default: |_| "none".into(),
        set: |c, v| c.trust_proxies.add(v),
    },
    Flag {
        name: "max-polls",
        value: "N",
        help: "held polls; beyond it 503",
        repeatable: false,
        default: |_| "7/8 of those".into(),
        set: |c, v| parse_count(v, 1, 1_000_000).map(|n| c.max_polls = Some(n)),
    },
    Flag {
        name: "max-wait",
        value: "TIME",
        help: "longest hold of a poll; a longer wait is clamped",
        repeatable: false,
        default: |c| format_duration(c.max_wait),
        set: |c, v| parse_time(v).map(|d| c.max_wait = d),
    },
    Flag {
        name: "wait-jitter",
        value: "PERCENT",
        help: "random part by which a wait may be shortened",
        repeatable: false,
        default: |c| c.wait_jitter.to_string(),
        set: |c, v| parse_count(v, 0, 100).map(|n| c.wait_jitter = n as u32),
    },
    Flag {
        name: "max-event",
        value: "SIZE",
        help: "largest body of one event; beyond it 413",
        repeatable: false,
        default: |c| format_size(c.max_event as u64),
        set: |c, v| parse_bytes(v, 1, 1 << 20).map(|n| c.max_event = n as usize),
    },
    Flag {
        name: "max-head",
        value: "SIZE",
        help: "largest request head; beyond it 414 or 431",
        repeatable: false,
        default: |c| format_size(c.max_head as u64),
        set: |c, v| parse_bytes(v, 1 << 10, 1 << 20).map(|n| c.max_head = n as usize),
    },
    Flag {
        name: "max-topics",
        value: "N",
        help: "beyond it an empty one is dropped, else 429",
        repeatable: false,
        default: |c| c.max_topics.to_string(),
        set: |c, v| parse_count(v, 1, 1_000_000).map(|n| c.max_topics = n),
    },
    Flag {
        name: "retain-events",
        value: "N",
        help: "events kept per topic; older ones are trimmed",
        repeatable: false,
        default: |c| c.retain_events.to_string(),
        set: |c, v| parse_count(v, 1, 1_000_000_000).map(|n| c.retain_events = n),
    },
    Flag {
        name: "retain-age",
        value: "TIME",
        help: "age at which events are trimmed",
        repeatable: false,
        default: |c| format_duration(c.retain_age),
        set: |c, v| parse_positive_time(v).map(|d| c.retain_age = d),
    },
    Flag {
        name: "retain-bytes",
        value: "SIZE",
        help: "size of all events; oldest are trimmed first",
        repeatable: false,
        default: |c| format_size(c.retain_bytes),
        set: |c, v| parse_bytes(v, 1, 1 << 50).map(|n| c.retain_bytes = n),
    },
    Flag {
        name: "head-timeout",
        value: "TIME",
        help: "to receive a request head; then 408",
        repeatable: false,
        default: |c| format_duration(c.head_timeout),
        set: |c, v| parse_positive_time(v).map(|d| c.head_timeout = d),
    },
    Flag {
        name: "body-timeout",
        value: "TIME",
        help: "to receive a request body; then 408",
        repeatable: false,
        default: |c| format_duration(c.body_timeout),
        set: |c, v| parse_positive_time(v).map(|d| c.body_timeout = d),
    },
    Flag {
        name: "idle-timeout",
        value: "TIME",
        help: "between requests; then close",
        repeatable: false,
        default: |c| format_duration(c.idle_timeout),
        set: |c, v| parse_positive_time(v).map(|d| c.idle_timeout = d),
    },
    Flag {
        name: "write-timeout",
        value: "TIME",
        help: "to send a response, plus 1s per 16KiB; then close",
        repeatable: false,
        default: |c| format_duration(c.write_timeout),
        set: |c, v| parse_positive_time(v).map(|d| c.write_timeout = d),
    },
    Flag {
        name: "allow-host",
        value: "NAME",
        help: "host name of this server; repeatable",
        repeatable: true,
        default: |_| "its own".into(),
        set: |c, v| parse_host(v).map(|host| c.allow_hosts.push(host)),
    },
    Flag {
        name: "allow-origin",
        value: "ORIGIN",
        help: "site whose pages may send requests; repeatable",
        repeatable: true,
        default: |_| "none".into(),
        set: |c, v| parse_origin(v).map(|origin| c.allow_origins.push(origin)),
    },
    Flag {
        name: "tokens",
        value: "FILE",
        help: "tokens and their rights; without, all is allowed",
        repeatable: false,
        default: |_| "none".into(),
        set: |c, v| parse_path(v).map(|path| c.tokens = Some(path)),
    },
    Flag {
        name: "no-console",
        value: "",
        help: "no page at /; keeps /longpoll.js",
        repeatable: false,
        default: |_| "off".into(),
        set: |c, v| parse_switch(v).map(|on| c.console = !on),
    },
    Flag {
        name: "data",
        value: "DIR",
        help: "store the log there; it survives a restart",
        repeatable: false,
        default: |_| "none".into(),
        set: |c, v| require_store(parse_path, v).map(|d| c.data = Some(d)),
    },
    Flag {
        name: "sync",
        value: "WHEN",
        help: "when --data is synced: always, a TIME or never",
        repeatable: false,
        default: |_| "always".into(),
        set: |c, v| require_store(parse_sync, v).map(|s| c.sync = s),
    },
    Flag {
        name: "log",
        value: "LEVEL",
        help: "error, info or requests, to stderr",
        repeatable: false,
        default: |_| "info".into(),
        set: |c, v| parse_level(v).map(|l| c.log = l),
    },
];

/// The help text, which fits one screen.
#[must_use]
pub fn help() -> String {
    let mut text = String::from(
        "longpoll: a server that holds each request until an event or a deadline\n\n\
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
         Dangerous: --allow-origin '*' lets every page in a user's browser publish here.\n\
         TIME: a number with ms, s, m or h. SIZE: bytes, or with KiB, MiB or GiB.\n\
         Each flag is also an environment variable: --max-wait is LONGPOLL_MAX_WAIT.\n",
    );
    text
}
