//! The parsers of flag values. An error says what is expected; the caller adds the flag and the
//! value.

use std::path::PathBuf;
use std::time::Duration;

use super::types::{HAS_STORE, ListenAddress, LogLevel, NO_STORE, SyncPolicy};
use super::units::{
    DURATION_RULE, SIZE_RULE, format_size, parse_duration, parse_integer, parse_size,
};

/// The value of a switch that is given as an argument; a variable has to spell it out.
pub const ON: &str = "on";

pub fn parse_listen(value: &str) -> Result<ListenAddress, String> {
    if let Some(path) = value.strip_prefix("unix:") {
        if path.is_empty() {
            return Err("expected a path after unix:".into());
        }
        return Ok(ListenAddress::Unix(path.into()));
    }
    match value.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
            Ok(ListenAddress::Tcp(value.into()))
        }
        _ => Err("expected host:port, [ipv6]:port or unix:/path".into()),
    }
}

pub fn parse_host(value: &str) -> Result<String, String> {
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    if value.is_empty() || !value.bytes().all(is_allowed) {
        return Err("expected a host name, without a port".into());
    }
    Ok(value.trim_end_matches('.').to_ascii_lowercase())
}

pub fn parse_origin(value: &str) -> Result<String, String> {
    let site = value.split_once("://").filter(|(scheme, authority)| {
        let scheme_ok = scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
        let plain = |b: u8| b.is_ascii_graphic() && !b"/?#@,*\"".contains(&b);
        !scheme.is_empty() && scheme_ok && !authority.is_empty() && authority.bytes().all(plain)
    });
    match (value, site) {
        ("*", _) | (_, Some(_)) => Ok(value.to_ascii_lowercase()),
        _ => Err("expected scheme://host or scheme://host:port, without a trailing /, or *".into()),
    }
}

pub fn parse_path(value: &str) -> Result<PathBuf, String> {
    if value.is_empty() { Err("expected a path".into()) } else { Ok(value.into()) }
}

pub fn parse_count(value: &str, min: u64, max: u64) -> Result<usize, String> {
    parse_integer(value)
        .filter(|n| (min..=max).contains(n))
        .map(|n| n as usize)
        .ok_or_else(|| format!("expected a whole number from {min} to {max}"))
}

pub fn parse_bytes(value: &str, min: u64, max: u64) -> Result<u64, String> {
    parse_size(value).filter(|n| (min..=max).contains(n)).ok_or_else(|| {
        let (min, max) = (format_size(min), format_size(max));
        format!("expected {SIZE_RULE}, from {min} to {max}")
    })
}

pub fn parse_time(value: &str) -> Result<Duration, String> {
    parse_duration(value).ok_or_else(|| format!("expected {DURATION_RULE}"))
}

pub fn parse_positive_time(value: &str) -> Result<Duration, String> {
    parse_time(value).and_then(|d| match d.as_millis() {
        0 => Err(format!("expected {DURATION_RULE}, at least 1ms")),
        _ => Ok(d),
    })
}

pub fn parse_switch(value: &str) -> Result<bool, String> {
    match value {
        ON => Ok(true),
        "off" => Ok(false),
        _ => Err("expected on or off".into()),
    }
}

/// Parses the value of a flag that only a build with the store accepts.
pub fn require_store<T>(parse: fn(&str) -> Result<T, String>, value: &str) -> Result<T, String> {
    if HAS_STORE { parse(value) } else { Err(NO_STORE.into()) }
}

pub fn parse_sync(value: &str) -> Result<SyncPolicy, String> {
    match value {
        "always" => Ok(SyncPolicy::Always),
        "never" => Ok(SyncPolicy::Never),
        _ => parse_positive_time(value)
            .map(SyncPolicy::Every)
            .map_err(|_| format!("expected always, never, or {DURATION_RULE}, at least 1ms")),
    }
}

pub fn parse_level(value: &str) -> Result<LogLevel, String> {
    match value {
        "error" => Ok(LogLevel::Error),
        "info" => Ok(LogLevel::Info),
        "requests" => Ok(LogLevel::Requests),
        _ => Err("expected error, info or requests".into()),
    }
}
