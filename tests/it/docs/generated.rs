//! Guards the man page and the shell completions: they list exactly the flags and values that the
//! program accepts.

use std::fs::read_to_string;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use longpoll::config::FLAGS;

use crate::support::{fresh_path, program};

#[path = "../../docs/commands.rs"]
mod commands;
#[path = "../../docs/completions.rs"]
mod completions;
#[path = "../../docs/man.rs"]
mod man;

use commands::{CHOICES, commands};

/// The name and text of a document, and how it spells a flag.
type Text = (&'static str, String, fn(&str) -> String);

fn texts() -> [Text; 4] {
    [
        ("man", man::page(), |flag| format!("\\fB\\-\\-{}\\fR", flag.replace('-', "\\-"))),
        ("bash", completions::bash(), |flag| format!("--{flag}")),
        ("zsh", completions::zsh(), |flag| format!("'*--{flag}")),
        ("fish", completions::fish(), |flag| format!(" -l {flag} ")),
    ]
}

#[test]
fn man_page_and_completions_have_every_flag_of_every_command() {
    let mut flags: Vec<String> = FLAGS.iter().map(|flag| flag.name.into()).collect();
    // The parser of the clients has no table of flags; read them from its source.
    let parser = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/client/command/args.rs");
    let parser = read_to_string(parser).unwrap();
    let arms = parser.lines().filter_map(|line| line.trim().strip_prefix('"')?.split_once("\" =>"));
    // The values of a flag are match arms, too.
    let is_flag =
        |name: &&str| !CHOICES.iter().any(|(_, words)| words.contains(name)) || *name == "json";
    flags.extend(arms.map(|(name, _)| name).filter(is_flag).map(str::to_owned));
    assert!(flags.len() > FLAGS.len() + 12, "{flags:?}");
    for (name, text, written) in texts() {
        for flag in &flags {
            assert!(text.contains(&written(flag)), "--{flag} is not in {name}");
        }
        for command in commands() {
            assert!(text.contains(command.name), "{} is not in {name}", command.name);
        }
    }
}

#[test]
fn every_documented_flag_exists() {
    for command in commands() {
        for option in command.options {
            if matches!(&*option.name, "help" | "version") {
                continue;
            }
            // The unknown flag keeps the program from doing anything.
            let flag = format!("--{}", option.name);
            let value = if option.value.is_empty() { "" } else { "\u{1}" };
            let args = [command.name, &flag, value, "--no-such-flag"];
            let args = args.iter().filter(|word| !word.is_empty());
            let output = program().args(args).output().unwrap();
            let message = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{flag}: {message}");
            assert!(
                message.contains("no-such-flag") || message.contains(&format!("{flag} \u{1}")),
                "{} {flag}: {message}",
                command.name
            );
        }
    }
}

#[test]
fn every_completed_value_is_accepted() {
    for command in commands() {
        for option in &command.options {
            for choice in option.choices() {
                let flag = format!("--{}", option.name);
                let args = [command.name, &flag, choice, "--no-such-flag"];
                let args = args.iter().filter(|word| !word.is_empty());
                let output = program().args(args).output().unwrap();
                let message = String::from_utf8(output.stderr).unwrap();
                assert!(message.contains("no-such-flag"), "{flag} {choice}: {message}");
            }
        }
    }
}

#[test]
fn man_page_has_every_default() {
    let page = man::page();
    for flag in FLAGS {
        let default = format!("\n[{}]\n", flag.default_text().replace('-', "\\-"));
        assert!(page.contains(&default), "{default}");
    }
    assert!(page.contains(&format!("\"longpoll {}\"", longpoll::VERSION)));
    // Lines that start with a dot or a quote are roff requests; only these are known.
    let known = [".TH", ".SH", ".TP", ".PP", ".B ", ".BR", ".EX", ".EE", ".br"];
    for line in page.lines().filter(|line| line.starts_with(['.', '\''])) {
        assert!(known.iter().any(|request| line.starts_with(request)), "{line}");
    }
}

/// Checks a text with a program; returns whether the program is installed.
fn checked_by(checker: &str, args: &[&str], text: &str) -> bool {
    let mut command = Command::new(checker);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        println!("SKIPPED: {checker} is not installed");
        return false;
    };
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success() && !said.contains("arning"), "{checker}: {said}");
    true
}

#[test]
fn man_and_shells_accept_the_texts() {
    checked_by("bash", &["-n"], &completions::bash());
    checked_by("zsh", &["-n"], &completions::zsh());
    checked_by("fish", &["--no-execute"], &completions::fish());
    checked_by("mandoc", &["-Tlint", "-Wwarning"], &man::page());
    checked_by("groff", &["-man", "-ww", "-z"], &man::page());
}

/// What bash completes for this line, whose last word is incomplete.
fn completions_for(file: &Path, line: &str) -> Vec<String> {
    let script = "source \"$0\"; COMP_WORDS=($1); ((COMP_CWORD = ${#COMP_WORDS[@]} - 1)); \
                  [[ $1 == *' ' ]] && { COMP_WORDS+=(''); ((COMP_CWORD += 1)); }; \
                  _longpoll; printf '%s\\n' \"${COMPREPLY[@]}\"";
    let mut bash = Command::new("bash");
    let output = bash.args(["-c", script]).arg(file).arg(line).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().split_whitespace().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_flags_and_their_words() {
    let folder = fresh_path("docs-bash");
    std::fs::create_dir(&folder).unwrap();
    let file = folder.join("longpoll.bash");
    std::fs::write(&file, completions::bash()).unwrap();
    for (line, expected) in [
        ("longpoll f", &["follow"][..]),
        ("longpoll ", &["serve", "token", "inspect", "repair", "follow", "publish"]),
        ("longpoll --max-c", &["--max-connections", "--max-connections-per-client"]),
        ("longpoll serve --no", &["--no-console"]),
        ("longpoll --sync ", &["always", "never", "1s"]),
        ("longpoll --log e", &["error"]),
        ("longpoll follow --on", &["--on-gap"]),
        ("longpoll follow --on-gap ", &["fail", "skip"]),
        ("longpoll publish --max", &[]),
        ("longpoll repair --", &["--new-epoch"]),
        ("longpoll follow --wait ", &[]),
    ] {
        assert_eq!(completions_for(&file, line), expected, "{line:?}");
    }
    assert!(
        completions_for(&file, "longpoll --tokens /etc/pass").contains(&"/etc/passwd".to_owned())
    );
    assert!(completions_for(&file, "longpoll --data /et").contains(&"/etc".to_owned()));
    std::fs::remove_dir_all(folder).unwrap();
}
