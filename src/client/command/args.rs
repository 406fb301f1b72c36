//! Parsing of the two command lines.
//!
//! A command line is parsed whole before anything is done, and an error says what is expected.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::time::Duration;

use lexopt::Arg::{Long, Short, Value};

use super::error::CommandError;
use super::format::OutputFormat;
use super::help::{FOLLOW_HELP, PUBLISH_HELP};
use crate::client::follow::Subscription;
use crate::client::url::Url;
use crate::config::units::{self, DURATION_RULE};
use crate::limits::{MAX_FOLLOW_WAIT, RETRY_FOR_MAX};
use crate::names::{NAME_RULE, Name, TypeFilter};

/// A parsed command line.
pub enum ClientCommand {
    Help(&'static str),
    Follow(Box<FollowArgs>),
    Publish(Box<PublishArgs>),
}

/// The reaction to lost events.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GapAction {
    Fail,
    Skip,
}

/// The arguments of `longpoll follow`.
pub struct FollowArgs {
    pub subscription: Subscription,
    pub format: OutputFormat,
    pub exec: Option<OsString>,
    pub state: Option<PathBuf>,
    pub on_gap: GapAction,
    pub count: Option<u64>,
}

/// The source of the events to publish.
pub enum PublishSource {
    Text(Vec<u8>),
    Json(Vec<u8>),
    /// All of stdin is one event.
    StdinWhole,
    /// Each line of stdin is an event.
    StdinLines(LineFormat),
}

/// The format of a line on stdin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LineFormat {
    Json,
    Text,
}

/// The arguments of `longpoll publish`.
pub struct PublishArgs {
    pub url: Url,
    pub topic: Name,
    pub source: PublishSource,
    pub event_type: Option<Name>,
    pub key: Option<String>,
    pub retry_for: Duration,
    pub token_file: Option<PathBuf>,
}

/// Parses the arguments; `None` when the first one names neither of the two commands.
pub fn parse(
    args: impl IntoIterator<Item = OsString>,
) -> Option<Result<ClientCommand, CommandError>> {
    let mut args = args.into_iter().peekable();
    let command = args.next_if(|first| first == "follow" || first == "publish")?;
    let parser = lexopt::Parser::from_args(args);
    Some(if command == "follow" { parse_follow(parser) } else { parse_publish(parser) })
}

/// The arguments of one command line, in order.
struct ArgReader {
    parser: lexopt::Parser,
    /// The positional arguments so far.
    positional: Vec<OsString>,
    command: &'static str,
}

impl ArgReader {
    fn new(parser: lexopt::Parser, command: &'static str) -> ArgReader {
        ArgReader { parser, positional: Vec::new(), command }
    }

    /// The next flag; keeps the positional arguments before it.
    fn next_flag(&mut self) -> Result<Option<String>, CommandError> {
        while let Some(arg) = self.parser.next().map_err(|e| usage(self.command, &e))? {
            match arg {
                Long(name) => return Ok(Some(name.to_owned())),
                Short('h') => return Ok(Some("help".to_owned())),
                Short(other) => return Err(usage(self.command, &format!("unknown flag -{other}"))),
                Value(value) => self.positional.push(value),
            }
        }
        Ok(None)
    }

    fn os_value(&mut self) -> Result<OsString, CommandError> {
        self.parser.value().map_err(|e| usage(self.command, &e))
    }

    /// Parses the value of a flag.
    fn value<T>(
        &mut self,
        flag: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T, CommandError> {
        let value = utf8(self.os_value()?)?;
        parse(&value).map_err(|why| CommandError::Usage(format!("--{flag} {value}: {why}")))
    }

    /// The positional arguments; `expected` names them for the error text.
    fn positional<const N: usize>(
        &mut self,
        expected: &str,
    ) -> Result<[OsString; N], CommandError> {
        let positional = std::mem::take(&mut self.positional);
        positional.try_into().map_err(|given: Vec<OsString>| {
            usage(self.command, &format!("{} arguments given; expected {expected}", given.len()))
        })
    }

    fn unknown_flag(&self, flag: &str) -> CommandError {
        usage(self.command, &format!("unknown flag --{flag}"))
    }
}

fn parse_follow(parser: lexopt::Parser) -> Result<ClientCommand, CommandError> {
    let mut args = ArgReader::new(parser, "follow");
    let (mut since, mut types, mut wait, mut token_file) = (None, None, None, None);
    let (mut format, mut exec, mut state, mut count) = (OutputFormat::Ndjson, None, None, None);
    let mut on_gap = GapAction::Fail;
    while let Some(flag) = args.next_flag()? {
        match &*flag {
            "help" => return Ok(ClientCommand::Help(FOLLOW_HELP)),
            "since" => since = Some(args.value("since", |v| Ok(v.to_owned()))?),
            "state" => state = Some(args.os_value()?.into()),
            "type" => types = Some(args.value("type", TypeFilter::parse)?),
            "format" => format = args.value("format", OutputFormat::parse)?,
            "exec" => exec = Some(args.os_value()?),
            "on-gap" => on_gap = args.value("on-gap", parse_gap_action)?,
            "count" => count = Some(args.value("count", parse_count)?),
            "wait" => wait = Some(args.value("wait", |v| parse_duration(v, MAX_FOLLOW_WAIT))?),
            "token-file" => token_file = Some(args.os_value()?.into()),
            other => return Err(args.unknown_flag(other)),
        }
    }
    let [url, topics] = args.positional("URL TOPICS")?;
    let mut subscription =
        Subscription::new(parse_url(url)?, &utf8(topics)?).map_err(CommandError::Usage)?;
    subscription.token_file = token_file;
    subscription.types = types.unwrap_or_default();
    subscription.since = since.unwrap_or(subscription.since);
    subscription.wait = wait.unwrap_or(subscription.wait);
    let args = FollowArgs { subscription, format, exec, state, on_gap, count };
    Ok(ClientCommand::Follow(Box::new(args)))
}

fn parse_publish(parser: lexopt::Parser) -> Result<ClientCommand, CommandError> {
    let mut args = ArgReader::new(parser, "publish");
    let (mut json, mut stdin, mut event_type) = (false, None, None);
    let (mut key, mut token_file) = (None, None);
    let mut retry_for = Duration::from_secs(60);
    while let Some(flag) = args.next_flag()? {
        match &*flag {
            "help" => return Ok(ClientCommand::Help(PUBLISH_HELP)),
            "json" => json = true,
            "stdin" => stdin = Some(args.value("stdin", parse_stdin_source)?),
            "type" => event_type = Some(args.value("type", parse_name)?),
            "key" => key = Some(args.value("key", |v| Ok(v.to_owned()))?),
            "retry-for" => {
                retry_for = args.value("retry-for", |v| parse_duration(v, RETRY_FOR_MAX))?;
            }
            "token-file" => token_file = Some(args.os_value()?.into()),
            other => return Err(args.unknown_flag(other)),
        }
    }
    if args.positional.len() == 2 {
        args.positional.push("-".into());
    }
    let [url, topic, data] = args.positional("URL TOPIC [DATA]")?;
    let topic = utf8(topic)?;
    let topic =
        parse_name(&topic).map_err(|why| CommandError::Usage(format!("topic {topic:?}: {why}")))?;
    let conflict = |why: &str| Err(CommandError::Usage(why.to_owned()));
    let source = match (data == "-", json, stdin) {
        (true, true, _) => return conflict("--json applies to DATA; for stdin use --stdin json"),
        (false, _, Some(_)) => return conflict("--stdin and DATA exclude each other"),
        (true, false, source) => source.unwrap_or(PublishSource::StdinLines(LineFormat::Json)),
        (false, true, None) => PublishSource::Json(data.into_vec()),
        (false, false, None) => PublishSource::Text(data.into_vec()),
    };
    if key.is_some() && matches!(source, PublishSource::StdinLines(_)) {
        return conflict("--key is for one event; a repeated command may batch lines differently");
    }
    let url = parse_url(url)?;
    let args = PublishArgs { url, topic, source, event_type, key, retry_for, token_file };
    Ok(ClientCommand::Publish(Box::new(args)))
}

fn usage(command: &str, why: &dyn std::fmt::Display) -> CommandError {
    CommandError::Usage(format!("{why}; see longpoll {command} --help"))
}

fn utf8(arg: OsString) -> Result<String, CommandError> {
    arg.into_string().map_err(|arg| CommandError::Usage(format!("{arg:?} is not UTF-8")))
}

fn parse_url(arg: OsString) -> Result<Url, CommandError> {
    utf8(arg)?.parse().map_err(CommandError::Usage)
}

fn parse_name(text: &str) -> Result<Name, String> {
    Name::new(text).ok_or_else(|| format!("expected {NAME_RULE}"))
}

fn parse_count(text: &str) -> Result<u64, String> {
    let count = units::parse_integer(text).filter(|n| *n > 0);
    count.ok_or_else(|| "expected a whole number, at least 1".to_owned())
}

fn parse_duration(text: &str, max: Duration) -> Result<Duration, String> {
    let rule = || format!("expected {DURATION_RULE}, up to {} s", max.as_secs());
    units::parse_duration(text).filter(|time| *time <= max).ok_or_else(rule)
}

fn parse_gap_action(text: &str) -> Result<GapAction, String> {
    match text {
        "fail" => Ok(GapAction::Fail),
        "skip" => Ok(GapAction::Skip),
        _ => Err("expected fail or skip".into()),
    }
}

fn parse_stdin_source(text: &str) -> Result<PublishSource, String> {
    match text {
        "json" => Ok(PublishSource::StdinLines(LineFormat::Json)),
        "text" => Ok(PublishSource::StdinLines(LineFormat::Text)),
        "whole" => Ok(PublishSource::StdinWhole),
        _ => Err("expected json, text or whole".into()),
    }
}
