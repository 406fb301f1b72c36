//! The man page, in the markup of man(7).

use std::fmt::Write as _;

use longpoll::VERSION;

use super::commands::{CommandDoc, CommandOption, commands};

/// The release date of this version, from the list of changes.
fn date() -> &'static str {
    let heading = format!("\n### {VERSION}, ");
    let changes = include_str!("../../scripts/RELEASE.md");
    let rest = changes.split_once(&heading).expect("RELEASE.md has this version with its date").1;
    rest.lines().next().unwrap_or_default()
}

/// Escapes a text, so that roff shows it unchanged.
fn escape(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq");
    if text.starts_with('.') { format!("\\&{text}") } else { text }
}

fn line(text: &str) -> String {
    escape(text) + "\n"
}

fn push_option(page: &mut String, option: &CommandOption) {
    let short = option.short.map_or(String::new(), |short| format!("\\fB\\-{short}\\fR, "));
    let name = escape(&option.name);
    let value = match &*option.value {
        "" => String::new(),
        value => format!(" \\fI{}\\fR", escape(value)),
    };
    let _ = writeln!(page, ".TP\n{short}\\fB\\-\\-{name}\\fR{value}");
    page.push_str(&line(&option.help));
    if let Some(default) = &option.default {
        let _ = writeln!(page, "[{}]", escape(default));
    }
}

fn synopsis(command: &CommandDoc) -> String {
    let name = if command.name.is_empty() { "[serve]" } else { command.name };
    let flags = match command.name {
        "" | "follow" | "publish" => " [\\fIflags\\fR]".to_owned(),
        _ => command
            .options
            .iter()
            .fold(String::new(), |all, o| all + " [\\-\\-" + &escape(&o.name) + "]"),
    };
    let words = escape(command.words);
    let line = format!(".B longpoll {name}\\fR{flags} \\fI{words}\\fR");
    line.trim_end_matches(" \\fI\\fR").to_owned()
}

/// The sections after the options; no table has their content.
const LAST_SECTIONS: &str = r#".SH ENVIRONMENT
Each flag of the server is also a variable:
.B \-\-max\-wait
is
.BR LONGPOLL_MAX_WAIT .
A repeatable flag is a comma\-separated list there, and a switch is
.B on
or
.BR off .
The command line overrides the environment.
.PP
The server also reads variables that
.BR systemd (1)
sets:
.TP
.B LISTEN_FDS
sockets to listen on, instead of \-\-listen
.TP
.B NOTIFY_SOCKET
the socket on which the server reports that it is ready and that it stops
.TP
.B WATCHDOG_USEC
the watchdog interval; at least 4 s, or the server does not start
.TP
.B JOURNAL_STREAM
if this is stderr, log lines carry a priority and no time
.SH SIGNALS
.TP
.BR SIGINT ", " SIGTERM ", " SIGHUP
The server drains: it answers held polls, finishes the requests in progress, and exits with status 0.
A second signal ends it immediately.
.SH EXIT STATUS
.TP
.B 0
Success; the server has drained.
.TP
.B 1
The server could not start, or a command failed; stderr has the reason.
.TP
.B 2
A flag, an argument or a variable is invalid.
.TP
.B 3
.B longpoll follow
found that events were lost.
.SH EXAMPLES
.EX
longpoll \-\-data /var/lib/longpoll
curl 'http://127.0.0.1:8080/topics/news?since=now'
curl \-d hello http://127.0.0.1:8080/topics/news
longpoll follow http://127.0.0.1:8080 news
longpoll publish http://127.0.0.1:8080 news hello
.EE
.SH SEE ALSO
.BR curl (1),
.BR systemd.socket (5)
"#;

/// The whole page.
pub fn page() -> String {
    let mut page = format!(".TH LONGPOLL 1 {} \"longpoll {VERSION}\" \"User Commands\"\n", date());
    let commands = commands();
    let server = &commands[0];
    let _ = write!(
        page,
        ".SH NAME\nlongpoll \\- {}.SH SYNOPSIS\n",
        line("a long\u{2d}polling server and its clients")
    );
    let all: Vec<String> = commands.iter().map(synopsis).collect();
    page.push_str(&all.join("\n.br\n"));
    let _ = write!(
        page,
        "\n.SH DESCRIPTION\n.B longpoll\n{}",
        line(&format!(
            "{}. Each answer has a cursor from which the client continues, so it misses no event \
             between two polls.",
            server.about
        ))
    );
    for command in &commands[1..] {
        let _ = writeln!(page, ".TP\n.B longpoll {}", command.name);
        page.push_str(&line(&format!("{}.", command.about)));
    }
    page.push_str(
        ".PP\nTIME is a number with ms, s, m or h (seconds without a unit); SIZE is bytes, or a \
         number with KiB, MiB or GiB.\n",
    );
    for command in commands {
        let title = match command.name {
            "" => "OPTIONS".to_owned(),
            name => format!("LONGPOLL {}", name.to_ascii_uppercase()),
        };
        let _ = writeln!(page, ".SH \"{title}\"");
        for (argument, meaning) in &command.arguments {
            let _ = write!(page, ".TP\n\\fI{}\\fR\n{}", escape(argument), line(meaning));
        }
        command.options.iter().for_each(|option| push_option(&mut page, option));
        if !command.notes.is_empty() {
            page.push_str(".PP\n");
            page.push_str(&line(&command.notes));
        }
    }
    page + LAST_SECTIONS
}
