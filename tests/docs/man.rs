//! The man page, as man(7) writes it.

use std::fmt::Write as _;

use longpoll::VERSION;

use super::commands::{Command, Opt, commands};

/// When this version came out, as README.md's list of changes has it.
fn date() -> &'static str {
    let heading = format!("\n### {VERSION}, ");
    let readme = include_str!("../../README.md");
    let rest = readme.split_once(&heading).expect("README.md lists the changes of this version").1;
    rest.lines().next().unwrap_or_default()
}

/// Text that roff shows as it is.
fn plain(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq");
    if text.starts_with('.') { format!("\\&{text}") } else { text }
}

/// The same, for a line of its own: words in capitals stand for something.
fn line(text: &str) -> String {
    plain(text) + "\n"
}

fn option(page: &mut String, option: &Opt) {
    let short = option.short.map_or(String::new(), |short| format!("\\fB\\-{short}\\fR, "));
    let name = plain(&option.name);
    let value = match &*option.value {
        "" => String::new(),
        value => format!(" \\fI{}\\fR", plain(value)),
    };
    let _ = writeln!(page, ".TP\n{short}\\fB\\-\\-{name}\\fR{value}");
    page.push_str(&line(&option.help));
    if let Some(default) = &option.default {
        let _ = writeln!(page, "[{}]", plain(default));
    }
}

fn synopsis(command: &Command) -> String {
    let name = if command.name.is_empty() { "[serve]" } else { command.name };
    let flags = match command.name {
        "" | "follow" | "publish" => " [\\fIflags\\fR]".to_owned(),
        _ => command
            .options
            .iter()
            .fold(String::new(), |all, o| all + " [\\-\\-" + &plain(&o.name) + "]"),
    };
    let words = plain(command.words);
    let line = format!(".B longpoll {name}\\fR{flags} \\fI{words}\\fR");
    line.trim_end_matches(" \\fI\\fR").to_owned()
}

/// What is not in any table.
const ENDS: &str = r#".SH ENVIRONMENT
Each flag of the server is also a variable:
.B \-\-max\-wait
is
.BR LONGPOLL_MAX_WAIT ;
what may come repeatedly is separated by commas there, and a switch is
.B on
or
.BR off .
The command line wins.
.PP
From
.BR systemd (1)
it takes
.BR LISTEN_FDS " (sockets to serve on, instead of \-\-listen),"
.BR NOTIFY_SOCKET " (where it says that it is ready, and that it stops),"
.BR WATCHDOG_USEC " (how often it says that it lives; at least 4 s), and"
.BR JOURNAL_STREAM " (if that is its stderr, lines carry a priority and no time)."
.SH SIGNALS
.TP
.BR SIGINT ", " SIGTERM ", " SIGHUP
Drain: held polls are answered at once, what is being answered finishes, and the program ends with
status 0. A second one ends it at once.
.SH EXIT STATUS
.TP
.B 0
It did what it was asked to.
.TP
.B 1
It cannot be done; stderr says why.
.TP
.B 2
The command line or the environment is wrong.
.TP
.B 3
.B longpoll follow
has found that events were lost.
.SH EXAMPLES
.EX
longpoll \-\-data /var/lib/longpoll
curl 'http://127.0.0.1:8080/topics/news?since=now'
curl \-d hello http://127.0.0.1:8080/topics/news
longpoll follow http://127.0.0.1:8080 news
.EE
.SH SEE ALSO
.BR curl (1),
.BR systemd.socket (5)
"#;

/// The page.
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
            "{}. A client goes on from a cursor, and so loses nothing in between.",
            server.about
        ))
    );
    for command in &commands[1..] {
        let _ = writeln!(page, ".TP\n.B longpoll {}", command.name);
        page.push_str(&line(&format!("{}.", command.about)));
    }
    page.push_str(".PP\nTIME is a number with ms, s, m or h (seconds without); SIZE is bytes, or with KiB, MiB or GiB.\n");
    for command in commands.iter().filter(|command| !command.options.is_empty()) {
        let title = match command.name {
            "" => "OPTIONS".to_owned(),
            name => format!("OPTIONS OF {}", name.to_ascii_uppercase()),
        };
        let _ = writeln!(page, ".SH \"{title}\"");
        command.options.iter().for_each(|o| option(&mut page, o));
        if !command.notes.is_empty() {
            page.push_str(".PP\n");
            page.push_str(&line(&command.notes));
        }
    }
    page + ENDS
}
