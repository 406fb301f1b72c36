//! The commands and flags of the program, read from their sources: the server's table of flags, and
//! the help texts of the clients. The man page and the completions are generated from this list, so
//! they cannot miss a flag.

use longpoll::client::command::{FOLLOW_HELP, PUBLISH_HELP};
use longpoll::config::FLAGS;

/// One flag of one command.
pub struct CommandOption {
    /// The long name, without its dashes.
    pub name: String,
    pub short: Option<char>,
    /// The placeholder of the value; empty for a switch.
    pub value: String,
    pub help: String,
    /// `None` if the help text names no default.
    pub default: Option<String>,
}

/// One command of the program, or the server.
pub struct CommandDoc {
    /// Empty for the server.
    pub name: &'static str,
    /// The arguments after the flags, as the usage line has them.
    pub words: &'static str,
    pub about: String,
    /// Placeholders of arguments, each with its meaning.
    pub arguments: Vec<(String, String)>,
    pub options: Vec<CommandOption>,
    /// The text after the flags in the command's help.
    pub notes: String,
}

/// The values that a shell offers for a flag: all that the flag accepts, or the usual ones. A test
/// checks that the program accepts each.
pub const CHOICES: &[(&str, &[&str])] = &[
    ("sync", &["always", "never", "1s"]),
    ("log", &["error", "info", "requests"]),
    ("since", &["start", "now", "last:1"]),
    ("format", &["ndjson", "raw", "json"]),
    ("on-gap", &["fail", "skip"]),
    ("stdin", &["json", "text", "whole"]),
];

impl CommandOption {
    pub fn choices(&self) -> &'static [&'static str] {
        CHOICES.iter().find(|(name, _)| *name == self.name).map_or(&[], |(_, choices)| choices)
    }
}

fn switch(name: &str, short: Option<char>, help: &str) -> CommandOption {
    CommandOption {
        name: name.into(),
        short,
        value: String::new(),
        help: help.into(),
        default: None,
    }
}

/// All commands of the program; the server comes first.
pub fn commands() -> Vec<CommandDoc> {
    let command = |name, words, about: &str, arguments: &[(&str, &str)], options| CommandDoc {
        name,
        words,
        about: about.into(),
        arguments: arguments.iter().map(|(name, help)| ((*name).into(), (*help).into())).collect(),
        options,
        notes: String::new(),
    };
    vec![
        command(
            "",
            "",
            "is an HTTP server that holds a poll open until an event arrives or a deadline passes",
            &[],
            server_options(),
        ),
        command(
            "token",
            "NAME RIGHTS TOPICS",
            "prints a line for the file of --tokens on stdout, and its secret on stderr",
            &[
                ("NAME", "a name for the token, unique in the file"),
                ("RIGHTS", "read, publish and admin, comma-separated"),
                ("TOPICS", "comma-separated; sensors.* matches all with that prefix, * all"),
            ],
            vec![],
        ),
        command(
            "inspect",
            "DIR",
            "reports every segment of a store and whether it is damaged; changes nothing",
            &[("DIR", "the directory that --data names")],
            vec![],
        ),
        command(
            "repair",
            "DIR",
            "keeps the intact part of a store, sets damaged files aside, and begins a new epoch",
            &[("DIR", "the directory that --data names")],
            vec![switch(
                "new-epoch",
                None,
                "only begin a new epoch, for a store restored from a backup",
            )],
        ),
        client_command("follow", "URL TOPICS", FOLLOW_HELP),
        client_command("publish", "URL TOPIC [DATA|-]", PUBLISH_HELP),
    ]
}

fn server_options() -> Vec<CommandOption> {
    let flags = FLAGS.iter().map(|flag| CommandOption {
        name: flag.name.into(),
        short: None,
        value: flag.value.into(),
        help: flag.help.into(),
        default: Some(flag.default_text()),
    });
    flags
        .chain([
            switch("help", Some('h'), "print a summary of this page"),
            switch("version", Some('V'), "print the version"),
        ])
        .collect()
}

/// Parses a help text. Arguments and flags are indented by two spaces, continuation lines by more.
/// Flags begin with a dash, and the notes follow the flags.
fn client_command(name: &'static str, words: &'static str, help: &str) -> CommandDoc {
    let first = help.lines().next().unwrap_or_default();
    let about = first.split_once(": ").map_or(first, |(_, about)| about).to_owned();
    assert!(help.contains(&format!("longpoll {name} [flags] {words}\n")), "{name}: {words}");
    let mut arguments: Vec<(String, String)> = Vec::new();
    let mut options: Vec<CommandOption> = Vec::new();
    let mut lines = help.lines();
    for line in lines.by_ref() {
        if let Some(flag) = line.strip_prefix("  -") {
            options.push(parse_option(flag));
        } else if let Some(last) = options.last_mut() {
            if !line.starts_with("   ") {
                break;
            }
            last.help.push(' ');
            last.help.push_str(line.trim());
        } else if let Some((argument, meaning)) =
            line.strip_prefix("  ").and_then(|line| line.split_once("  "))
        {
            arguments.push((argument.trim().into(), meaning.trim().into()));
        }
    }
    for option in &mut options {
        let split = option.help.strip_suffix(']').and_then(|help| help.rsplit_once(" ["));
        if let Some((help, default)) = split {
            (option.help, option.default) = (help.to_owned(), Some(default.to_owned()));
        }
    }
    let notes = lines.collect::<Vec<_>>().join(" ");
    CommandDoc { name, words, about, arguments, options, notes }
}

/// Parses the first line of a flag without its first dash: `-since WHERE       start, now, …` or
/// `h, --help   print this`.
fn parse_option(line: &str) -> CommandOption {
    let (left, help) = line.split_once("  ").expect("two spaces before the help of a flag");
    let (short, long) = match left.split_once(", --") {
        Some((short, long)) => (short.chars().next(), long),
        None => (None, left.trim_start_matches('-')),
    };
    let (name, value) = long.split_once(' ').unwrap_or((long, ""));
    CommandOption { value: value.into(), ..switch(name, short, help.trim()) }
}
