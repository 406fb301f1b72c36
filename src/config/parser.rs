//! The parser of the command line: environment variables first, then arguments, which win.

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::Arg::{Long, Short, Value};

use super::flags::{FLAGS, Flag};
use super::types::{Command, Config, HAS_STORE, NO_STORE, RepairMode, TokenRequest, UsageError};
use super::values::ON;
use crate::names::{NAME_RULE, Name};

const INSPECT_USAGE: &str = "longpoll inspect DIR";
const REPAIR_USAGE: &str = "longpoll repair [--new-epoch] DIR";
const TOKEN_USAGE: &str =
    "longpoll token NAME RIGHTS TOPICS, such as longpoll token attic publish 'sensors.*'";

/// Parses the environment, then the arguments, which win.
///
/// # Errors
/// Names the flag or variable, its value, and what is expected.
pub fn parse(
    args: impl IntoIterator<Item = OsString>,
    env: impl Fn(&str) -> Option<OsString>,
) -> Result<Command, UsageError> {
    let mut config = Config::default();
    apply_environment(&mut config, env)?;
    let mut args = lexopt::Parser::from_args(args);
    let mut seen = Vec::new();
    let usage = |e: lexopt::Error| UsageError(format!("{e}; see longpoll --help"));
    while let Some(arg) = args.next().map_err(usage)? {
        match arg {
            Long("help") | Short('h') => return Ok(Command::Help),
            Long("version") | Short('V') => return Ok(Command::Version),
            Value(word) if word == "serve" && seen.is_empty() => seen.push("serve"),
            Value(word) if word == "token" && seen.is_empty() => return parse_token(args),
            Value(word) if word == "inspect" && seen.is_empty() => return parse_inspect(args),
            Value(word) if word == "repair" && seen.is_empty() => return parse_repair(args),
            Long(name) => {
                let known = FLAGS.iter().find(|flag| flag.name == name);
                let flag = known.ok_or_else(|| usage(Long(name).unexpected()))?;
                let value = if flag.is_switch() {
                    ON.into()
                } else {
                    utf8(flag.name, args.value().map_err(usage)?)?
                };
                apply_argument(&mut config, flag, &value, seen.contains(&flag.name))?;
                seen.push(flag.name);
            }
            other => return Err(usage(other.unexpected())),
        }
    }
    config.check()?;
    Ok(Command::Serve(Box::new(config)))
}

fn apply_environment(
    config: &mut Config,
    env: impl Fn(&str) -> Option<OsString>,
) -> Result<(), UsageError> {
    for flag in FLAGS {
        let name = flag.env();
        if let Some(value) = env(&name) {
            let value = utf8(&name, value)?;
            flag.set_from_list(config, &value)
                .map_err(|why| UsageError(format!("{name}={value}: {why}")))?;
        }
    }
    Ok(())
}

fn apply_argument(
    config: &mut Config,
    flag: &Flag,
    value: &str,
    is_repeat: bool,
) -> Result<(), UsageError> {
    if flag.repeatable && !is_repeat {
        flag.clear(config);
    }
    flag.set(config, value).map_err(|why| UsageError(format!("--{} {value}: {why}", flag.name)))
}

/// Parses the arguments of `longpoll inspect`.
fn parse_inspect(args: lexopt::Parser) -> Result<Command, UsageError> {
    match parse_store_args(args, INSPECT_USAGE)? {
        (directory, RepairMode::Damage) => Ok(Command::Inspect(directory)),
        (_, RepairMode::NewEpoch) => Err(UsageError(format!("usage: {INSPECT_USAGE}"))),
    }
}

/// Parses the arguments of `longpoll repair`.
fn parse_repair(args: lexopt::Parser) -> Result<Command, UsageError> {
    let (directory, mode) = parse_store_args(args, REPAIR_USAGE)?;
    Ok(Command::Repair(directory, mode))
}

fn parse_store_args(
    mut args: lexopt::Parser,
    usage_line: &str,
) -> Result<(PathBuf, RepairMode), UsageError> {
    if !HAS_STORE {
        return Err(UsageError(NO_STORE.into()));
    }
    let usage = |e: lexopt::Error| UsageError(format!("{e}; usage: {usage_line}"));
    let mut directory = None;
    let mut mode = RepairMode::Damage;
    while let Some(arg) = args.next().map_err(usage)? {
        match arg {
            Long("new-epoch") => mode = RepairMode::NewEpoch,
            Value(word) if directory.is_none() => directory = Some(word.into()),
            other => return Err(usage(other.unexpected())),
        }
    }
    let missing = || UsageError(format!("missing directory; usage: {usage_line}"));
    Ok((directory.ok_or_else(missing)?, mode))
}

/// Parses the arguments of `longpoll token`.
fn parse_token(mut args: lexopt::Parser) -> Result<Command, UsageError> {
    let mut words = Vec::new();
    let usage = |e: lexopt::Error| UsageError(format!("{e}; usage: {TOKEN_USAGE}"));
    while let Some(arg) = args.next().map_err(usage)? {
        match arg {
            Value(word) => words.push(utf8("token", word)?),
            Long("help") | Short('h') => return Ok(Command::Help),
            other => return Err(usage(other.unexpected())),
        }
    }
    let [name, rights, topics] = <[String; 3]>::try_from(words).map_err(|words| {
        UsageError(format!("{} arguments, expected 3; usage: {TOKEN_USAGE}", words.len()))
    })?;
    let name = Name::new(&name)
        .ok_or_else(|| UsageError(format!("name {name:?}: expected {NAME_RULE}")))?;
    Ok(Command::Token(TokenRequest { name, rights, topics }))
}

fn utf8(name: &str, value: OsString) -> Result<String, UsageError> {
    value.into_string().map_err(|value| UsageError(format!("{name}: {value:?} is not UTF-8")))
}
