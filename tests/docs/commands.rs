//! What the program takes, read from where it is written: the table of the server's flags, and the
//! help texts of the clients. Whatever is made here has each of them.

use longpoll::client::command::{FOLLOW_HELP, PUBLISH_HELP};
use longpoll::config::FLAGS;

/// One flag of one command.
pub struct Opt {
    /// Without the dashes.
    pub name: String,
    pub short: Option<char>,
    /// What stands for its value; empty for a switch.
    pub value: String,
    pub help: String,
    /// None when there is nothing to say about it.
    pub default: Option<String>,
}

/// One way to call the program.
pub struct Command {
    /// Empty: the server.
    pub name: &'static str,
    /// What comes after the flags.
    pub words: &'static str,
    pub about: String,
    pub options: Vec<Opt>,
    /// What its help text says at the end.
    pub notes: String,
}

/// Words that a flag takes, for those that take no others or for which these are the usual ones.
/// The program is asked in a test whether it does.
pub const CHOICES: &[(&str, &[&str])] = &[
    ("sync", &["always", "never", "1s"]),
    ("log", &["error", "info", "requests"]),
    ("since", &["start", "now", "last:1"]),
    ("format", &["ndjson", "raw", "json"]),
    ("on-gap", &["fail", "skip"]),
    ("stdin", &["json", "text", "whole"]),
];

impl Opt {
    pub fn choices(&self) -> &'static [&'static str] {
        CHOICES.iter().find(|(name, _)| *name == self.name).map_or(&[], |(_, words)| words)
    }
}

fn switch(name: &str, short: Option<char>, help: &str) -> Opt {
    Opt { name: name.into(), short, value: String::new(), help: help.into(), default: None }
}

/// Everything that the program takes.
pub fn commands() -> Vec<Command> {
    let plain = |name, words, about: &str, options| Command {
        name,
        words,
        about: about.into(),
        options,
        notes: String::new(),
    };
    vec![
        plain("", "", "holds each request until there is news or a deadline", server()),
        plain(
            "token",
            "NAME RIGHTS TOPICS",
            "prints a line for the file of --tokens, and on stderr the secret that belongs to it",
            vec![],
        ),
        plain("inspect", "DIR", "shows what a store has, and whether it is whole", vec![]),
        plain(
            "repair",
            "DIR",
            "keeps what is whole of a store, and begins a new epoch",
            vec![switch("new-epoch", None, "only begin a new epoch, as after a restored backup")],
        ),
        client("follow", "URL TOPICS", FOLLOW_HELP),
        client("publish", "URL TOPIC [DATA|-]", PUBLISH_HELP),
    ]
}

fn server() -> Vec<Opt> {
    let flags = FLAGS.iter().map(|flag| Opt {
        name: flag.name.into(),
        short: None,
        value: flag.value.into(),
        help: flag.help.into(),
        default: Some(flag.default_text()),
    });
    flags
        .chain([
            switch("help", Some('h'), "print a summary of this"),
            switch("version", Some('V'), "print the version"),
        ])
        .collect()
}

/// Reads a help text: flags are indented by two, what goes on about one by more.
fn client(name: &'static str, words: &'static str, help: &str) -> Command {
    let first = help.lines().next().unwrap_or_default();
    let about = first.split_once(": ").map_or(first, |(_, about)| about).to_owned();
    assert!(help.contains(&format!("longpoll {name} [flags] {words}\n")), "{name}: {words}");
    let mut options: Vec<Opt> = Vec::new();
    let mut lines = help.lines();
    for line in lines.by_ref() {
        if let Some(flag) = line.strip_prefix("  -") {
            options.push(option(flag));
        } else if let Some(last) = options.last_mut() {
            if !line.starts_with("   ") {
                break;
            }
            last.help.push(' ');
            last.help.push_str(line.trim());
        }
    }
    for option in &mut options {
        let split = option.help.strip_suffix(']').and_then(|help| help.rsplit_once(" ["));
        if let Some((help, default)) = split {
            (option.help, option.default) = (help.to_owned(), Some(default.to_owned()));
        }
    }
    let notes = lines.collect::<Vec<_>>().join(" ");
    Command { name, words, about, options, notes }
}

/// `-since WHERE       start, now, …` or `h, --help   print this`: a line without its first dash.
fn option(line: &str) -> Opt {
    let (left, help) = line.split_once("  ").expect("two spaces before what a flag does");
    let (short, long) = match left.split_once(", --") {
        Some((short, long)) => (short.chars().next(), long),
        None => (None, left.trim_start_matches('-')),
    };
    let (name, value) = long.split_once(' ').unwrap_or((long, ""));
    Opt { value: value.into(), ..switch(name, short, help.trim()) }
}
