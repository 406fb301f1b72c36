//! What the shells complete.

use std::fmt::Write as _;

use super::commands::{Command, Opt, commands};

/// What a value of this kind is completed with.
enum Kind {
    Switch,
    Words(&'static [&'static str]),
    File,
    Directory,
    /// Only the person knows.
    Free,
}

fn kind(option: &Opt) -> Kind {
    match (&*option.value, option.choices()) {
        ("", _) => Kind::Switch,
        ("FILE", _) => Kind::File,
        ("DIR", _) => Kind::Directory,
        (_, []) => Kind::Free,
        (_, words) => Kind::Words(words),
    }
}

/// Commands that have names, `serve` among them.
fn named() -> Vec<(&'static str, String)> {
    let mut all: Vec<_> =
        commands().into_iter().skip(1).map(|command| (command.name, command.about)).collect();
    all.insert(0, ("serve", "runs the server, as without any of these".into()));
    all
}

fn names(commands: &[(&'static str, String)]) -> String {
    commands.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(" ")
}

/// As a pattern of a shell's `case`.
fn pattern(command: &Command) -> &'static str {
    if command.name.is_empty() { "*" } else { command.name }
}

/// The server's options come last, as they are for whatever is no other command.
fn server_last() -> Vec<Command> {
    let mut all = commands();
    all.rotate_left(1);
    all
}

pub fn bash() -> String {
    let mut text = String::from(
        "# bash completion for longpoll\n\n\
         _longpoll() {\n    \
             local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} flags\n    \
             COMPREPLY=()\n    \
             case ${COMP_WORDS[1]}:$before in\n",
    );
    for command in server_last() {
        for option in &command.options {
            let reply = match kind(option) {
                Kind::Switch => continue,
                Kind::Words(words) => format!("-W '{}'", words.join(" ")),
                Kind::File => "-f".into(),
                Kind::Directory => "-d".into(),
                Kind::Free => String::new(),
            };
            let case = format!("        {}:--{})", pattern(&command), option.name);
            let _ = if reply.is_empty() {
                writeln!(text, "{case} return ;;")
            } else {
                writeln!(
                    text,
                    "{case} mapfile -t COMPREPLY < <(compgen {reply} -- \"$word\"); return ;;"
                )
            };
        }
    }
    text.push_str("    esac\n    case ${COMP_WORDS[1]} in\n");
    for command in server_last() {
        let flags: Vec<_> = command.options.iter().map(|o| format!("--{}", o.name)).collect();
        let _ = writeln!(text, "        {}) flags='{}' ;;", pattern(&command), flags.join(" "));
    }
    let _ = write!(
        text,
        "    esac\n    \
             if [[ $word == -* ]]; then\n        \
                 mapfile -t COMPREPLY < <(compgen -W \"$flags\" -- \"$word\")\n    \
             elif ((COMP_CWORD == 1)); then\n        \
                 mapfile -t COMPREPLY < <(compgen -W '{}' -- \"$word\")\n    \
             elif [[ ${{COMP_WORDS[1]}} == inspect || ${{COMP_WORDS[1]}} == repair ]]; then\n        \
                 mapfile -t COMPREPLY < <(compgen -d -- \"$word\")\n    \
             fi\n}}\n\n\
         complete -o filenames -F _longpoll longpoll\n",
        names(&named())
    );
    text
}

/// Inside single quotes and brackets of `_arguments`.
fn for_zsh(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        if matches!(c, '[' | ']' | ':' | '\\') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped.replace('\'', "'\\''")
}

fn zsh_option(option: &Opt) -> String {
    let (name, help) = (&option.name, for_zsh(&option.help));
    let value = for_zsh(&option.value);
    let action = match kind(option) {
        Kind::Switch => return format!("'*--{name}[{help}]'"),
        Kind::Words(words) => format!("({})", words.join(" ")),
        Kind::File => "_files".into(),
        Kind::Directory => "_files -/".into(),
        Kind::Free => " ".into(),
    };
    format!("'*--{name}=[{help}]:{value}:{action}'")
}

pub fn zsh() -> String {
    let mut text = String::from(
        "#compdef longpoll\n\n\
         local -a commands\n\
         commands=(\n",
    );
    for (name, about) in named() {
        let _ = writeln!(text, "    '{name}:{}'", for_zsh(&about));
    }
    text.push_str(")\n\ncase ${words[2]} in\n");
    for command in server_last() {
        let _ = write!(text, "    {})\n        _arguments -S \\\n", pattern(&command));
        for option in &command.options {
            let _ = writeln!(text, "            {} \\", zsh_option(option));
        }
        text.push_str(match command.name {
            "" => "            '1: :{_describe command commands}'\n        ;;\n",
            "inspect" | "repair" => "            '1: :' '2:DIR:_files -/'\n        ;;\n",
            _ => "            '1: :' '*: : '\n        ;;\n",
        });
    }
    text.push_str("esac\n");
    text
}

fn for_fish(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\'', "\\'")
}

pub fn fish() -> String {
    let all = names(&named());
    let clients = all.strip_prefix("serve ").unwrap_or(&all);
    let mut text = String::from("# fish completion for longpoll\n\ncomplete -c longpoll -f\n");
    for (name, about) in named() {
        let about = for_fish(&about);
        let _ = writeln!(
            text,
            "complete -c longpoll -n 'not __fish_seen_subcommand_from {all}' -a {name} -d '{about}'"
        );
    }
    for command in commands() {
        let when = match command.name {
            "" => format!("not __fish_seen_subcommand_from {clients}"),
            name => format!("__fish_seen_subcommand_from {name}"),
        };
        if matches!(command.name, "inspect" | "repair") {
            let _ = writeln!(
                text,
                "complete -c longpoll -n '{when}' -a '(__fish_complete_directories)'"
            );
        }
        for option in &command.options {
            let value = match kind(option) {
                Kind::Switch => String::new(),
                Kind::Words(words) => format!(" -x -a '{}'", words.join(" ")),
                Kind::File => " -r -F".into(),
                Kind::Directory => " -x -a '(__fish_complete_directories)'".into(),
                Kind::Free => " -x".into(),
            };
            let short = option.short.map_or(String::new(), |short| format!(" -s {short}"));
            let (name, help) = (&option.name, for_fish(&option.help));
            let _ = writeln!(
                text,
                "complete -c longpoll -n '{when}'{short} -l {name}{value} -d '{help}'"
            );
        }
    }
    text
}
