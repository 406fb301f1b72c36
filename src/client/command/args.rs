//! The command lines of the two commands.
//!
//! They are read whole before anything is done, and what is wrong is told with what is allowed. The
//! help texts stand first: they are the promise, and what follows keeps it.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::time::Duration;

use lexopt::Arg::{Long, Short, Value};

use super::Failure;
use super::format::Format;
use crate::client::{Subscription, Url};
use crate::config::units::{DURATION_RULE, parse_duration, parse_integer};
use crate::limits::{MAX_WAIT, RETRY_FOR_MAX};
use crate::names::{NAME_RULE, Name, TypeFilter};

/// What `longpoll follow --help` prints.
pub const FOLLOW_HELP: &str = "\
longpoll follow: prints events as they come, without loss or repeat

Usage: longpoll follow [flags] URL TOPICS

  URL     http://HOST[:PORT][/PREFIX] or unix:/PATH
  TOPICS  one or more, comma-separated; sensors.* is every topic so begun

  --since WHERE       start, now, last:N or a cursor; where to begin [start]
  --state FILE        keeps the place; once there, it wins over --since
  --type TYPES        only events of these types, comma-separated [all]
  --format FORMAT     ndjson: a line for each event; raw: its own bytes and a
                      line end; json: a line for each answer, with its cursor;
                      or a line with {seq} {topic} {time} {type} {data} {json}
                      in it, and \\t, \\n, \\\\, {{ and }} [ndjson]
  --exec COMMAND      runs it (sh -c) for each event instead of printing: the
                      event is on stdin as --format says, its fields are in
                      LONGPOLL_SEQ, _TOPIC, _TIME and _TYPE; while it fails
                      it is repeated, and later events wait
  --on-gap WHAT       events lost: fail (exit 3) or skip (say so, go on) [fail]
  --count N           ends after N events
  --wait TIME         how long one poll is held; 0: end when caught up [25s]
  --token-file FILE   a token to show, read anew for each request
  -h, --help          print this

It reconnects by itself. The state is written after the event is out (or its
command has succeeded): killed in between, it repeats what was not saved yet.
Exit status: 0 done, or stopped by SIGINT or SIGTERM; 1 cannot go on; 2 wrong
usage; 3 events were lost. TIME: a number with ms, s, m or h.
";

/// What `longpoll publish --help` prints.
pub const PUBLISH_HELP: &str = "\
longpoll publish: publishes events, each once, however often it has to try

Usage: longpoll publish [flags] URL TOPIC [DATA|-]

  URL    http://HOST[:PORT][/PREFIX] or unix:/PATH
  DATA   one event; without it, or with -, events are read from stdin

  --json              DATA is JSON, not a text
  --stdin WHAT        json: a JSON value a line, each an event; text: a line of
                      text; whole: all of it is one event [json]
  --type TYPE         tags each event
  --key KEY           an Idempotency-Key for one event, so that the same command
                      can be repeated within 10 minutes [random]
  --retry-for TIME    how long to go on trying, 8m at most [1m]
  --token-file FILE   a token to show, read anew for each request
  -h, --help          print this

Lines go out as soon as they are there, up to 1000 or 1 MiB together; such a
batch is published whole or not at all. Prints the server's answer, or for many
lines a summary: {\"topic\",\"count\",\"seq\",\"cursor\"}.
Exit status: 0 all is published; 1 not all (stderr says how many are); 2 wrong
usage. TIME: a number with ms, s, m or h.
";

/// What a command line asks for.
pub enum Asked {
    Help(&'static str),
    Follow(Box<FollowAsk>),
    Publish(Box<PublishAsk>),
}

/// What to do about lost events.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnGap {
    Fail,
    Skip,
}

pub struct FollowAsk {
    pub subscription: Subscription,
    pub format: Format,
    pub exec: Option<OsString>,
    pub state: Option<PathBuf>,
    pub on_gap: OnGap,
    pub count: Option<u64>,
}

/// Where events come from.
pub enum Source {
    Text(Vec<u8>),
    Json(Vec<u8>),
    /// Stdin, as one event.
    Whole,
    /// Stdin, an event a line.
    Lines(LineKind),
}

/// What a line of stdin is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LineKind {
    Json,
    Text,
}

pub struct PublishAsk {
    pub url: Url,
    pub topic: Name,
    pub source: Source,
    pub tag: Option<Name>,
    pub key: Option<String>,
    pub retry_for: Duration,
    pub token_file: Option<PathBuf>,
}

/// Reads the arguments; nothing when the first is neither of the two commands.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Option<Result<Asked, Failure>> {
    let mut args = args.into_iter().peekable();
    let command = args.next_if(|first| first == "follow" || first == "publish")?;
    let parser = lexopt::Parser::from_args(args);
    Some(if command == "follow" { follow(parser) } else { publish(parser) })
}

/// The flags of one command line, as they come.
struct Flags {
    parser: lexopt::Parser,
    words: Vec<OsString>,
    command: &'static str,
}

impl Flags {
    /// The next flag; the words between are kept.
    fn next(&mut self) -> Result<Option<String>, Failure> {
        while let Some(arg) = self.parser.next().map_err(|e| usage(self.command, &e))? {
            match arg {
                Long(name) => return Ok(Some(name.to_owned())),
                Short('h') => return Ok(Some("help".to_owned())),
                Short(other) => return Err(usage(self.command, &format!("unknown flag -{other}"))),
                Value(word) => self.words.push(word),
            }
        }
        Ok(None)
    }

    fn os_value(&mut self) -> Result<OsString, Failure> {
        self.parser.value().map_err(|e| usage(self.command, &e))
    }

    /// A flag's value as `parse` reads it, or what is wrong with it.
    fn value<T>(
        &mut self,
        flag: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T, Failure> {
        let value = text(self.os_value()?)?;
        parse(&value).map_err(|why| Failure::Usage(format!("--{flag} {value}: {why}")))
    }

    fn unknown<T>(&self, flag: &str) -> Result<T, Failure> {
        Err(usage(self.command, &format!("unknown flag --{flag}")))
    }

    fn words<const N: usize>(&mut self, what: &str) -> Result<[OsString; N], Failure> {
        let words = std::mem::take(&mut self.words);
        words.try_into().map_err(|words: Vec<OsString>| {
            usage(self.command, &format!("{} words given; needed are {what}", words.len()))
        })
    }
}

fn follow(parser: lexopt::Parser) -> Result<Asked, Failure> {
    let mut flags = Flags { parser, words: Vec::new(), command: "follow" };
    let (mut since, mut types, mut wait, mut token_file) = (None, None, None, None);
    let (mut format, mut exec, mut state, mut count) = (Format::Ndjson, None, None, None);
    let mut on_gap = OnGap::Fail;
    while let Some(flag) = flags.next()? {
        match &*flag {
            "help" => return Ok(Asked::Help(FOLLOW_HELP)),
            "since" => since = Some(flags.value("since", |v| Ok(v.to_owned()))?),
            "state" => state = Some(flags.os_value()?.into()),
            "type" => types = Some(flags.value("type", TypeFilter::parse)?),
            "format" => format = flags.value("format", Format::parse)?,
            "exec" => exec = Some(flags.os_value()?),
            "on-gap" => {
                on_gap = flags.value("on-gap", |v| match v {
                    "fail" => Ok(OnGap::Fail),
                    "skip" => Ok(OnGap::Skip),
                    _ => Err("allowed is fail or skip".into()),
                })?;
            }
            "count" => {
                let allowed = || "allowed is a whole number, at least 1".to_owned();
                count =
                    Some(flags.value("count", |v| {
                        parse_integer(v).filter(|n| *n > 0).ok_or_else(allowed)
                    })?);
            }
            "wait" => wait = Some(flags.value("wait", |v| time(v, MAX_WAIT))?),
            "token-file" => token_file = Some(flags.os_value()?.into()),
            other => return flags.unknown(other),
        }
    }
    let [url, topics] = flags.words("URL TOPICS")?;
    let mut subscription =
        Subscription::new(self::url(url)?, &text(topics)?).map_err(Failure::Usage)?;
    subscription.token_file = token_file;
    subscription.types = types.unwrap_or_default();
    subscription.since = since.unwrap_or(subscription.since);
    subscription.wait = wait.unwrap_or(subscription.wait);
    let ask = FollowAsk { subscription, format, exec, state, on_gap, count };
    Ok(Asked::Follow(Box::new(ask)))
}

fn publish(parser: lexopt::Parser) -> Result<Asked, Failure> {
    let mut flags = Flags { parser, words: Vec::new(), command: "publish" };
    let (mut json, mut stdin, mut tag, mut key, mut token_file) = (false, None, None, None, None);
    let mut retry_for = Duration::from_secs(60);
    while let Some(flag) = flags.next()? {
        match &*flag {
            "help" => return Ok(Asked::Help(PUBLISH_HELP)),
            "json" => json = true,
            "stdin" => stdin = Some(flags.value("stdin", stdin_kind)?),
            "type" => tag = Some(flags.value("type", name)?),
            "key" => key = Some(flags.value("key", |v| Ok(v.to_owned()))?),
            "retry-for" => retry_for = flags.value("retry-for", |v| time(v, RETRY_FOR_MAX))?,
            "token-file" => token_file = Some(flags.os_value()?.into()),
            other => return flags.unknown(other),
        }
    }
    if flags.words.len() == 2 {
        flags.words.push("-".into());
    }
    let [url, topic, data] = flags.words("URL TOPIC [DATA]")?;
    let topic = text(topic)?;
    let topic = name(&topic).map_err(|why| Failure::Usage(format!("topic {topic:?}: {why}")))?;
    let wrong = |why: &str| Err(Failure::Usage(why.to_owned()));
    let source = match (data == "-", json, stdin) {
        (true, true, _) => return wrong("--json is about DATA; for stdin say --stdin json"),
        (false, _, Some(_)) => return wrong("--stdin and DATA exclude each other"),
        (true, false, kind) => kind.unwrap_or(Source::Lines(LineKind::Json)),
        (false, true, None) => Source::Json(data.into_vec()),
        (false, false, None) => Source::Text(data.into_vec()),
    };
    if key.is_some() && matches!(source, Source::Lines(_)) {
        return wrong("--key is for one event; a batch of lines is cut differently each time");
    }
    let url = self::url(url)?;
    let ask = PublishAsk { url, topic, source, tag, key, retry_for, token_file };
    Ok(Asked::Publish(Box::new(ask)))
}

fn usage(command: &str, why: &dyn std::fmt::Display) -> Failure {
    Failure::Usage(format!("{why}; see longpoll {command} --help"))
}

fn text(word: OsString) -> Result<String, Failure> {
    word.into_string().map_err(|word| Failure::Usage(format!("{word:?} is not UTF-8")))
}

fn url(word: OsString) -> Result<Url, Failure> {
    text(word)?.parse().map_err(Failure::Usage)
}

fn name(text: &str) -> Result<Name, String> {
    Name::new(text).ok_or_else(|| format!("allowed is {NAME_RULE}"))
}

fn time(text: &str, most: Duration) -> Result<Duration, String> {
    let rule = || format!("allowed is {DURATION_RULE}, up to {} s", most.as_secs());
    parse_duration(text).filter(|time| *time <= most).ok_or_else(rule)
}

fn stdin_kind(text: &str) -> Result<Source, String> {
    match text {
        "json" => Ok(Source::Lines(LineKind::Json)),
        "text" => Ok(Source::Lines(LineKind::Text)),
        "whole" => Ok(Source::Whole),
        _ => Err("allowed is json, text or whole".into()),
    }
}
