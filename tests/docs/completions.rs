//! The completions of bash, zsh and fish, generated from the list of commands.

use std::fmt::Write as _;

use super::commands::{CommandDoc, CommandOption, commands};

/// What a shell offers as the value of a flag.
enum ValueKind {
    /// The flag is a switch.
    NoValue,
    Choices(&'static [&'static str]),
    File,
    Directory,
    /// The shell cannot offer anything.
    Free,
}

fn value_kind(option: &CommandOption) -> ValueKind {
    match (&*option.value, option.choices()) {
        ("", _) => ValueKind::NoValue,
        ("FILE", _) => ValueKind::File,
        ("DIR", _) => ValueKind::Directory,
        (_, []) => ValueKind::Free,
        (_, choices) => ValueKind::Choices(choices),
    }
}

/// The names of the commands, each with its description. `serve` names the server.
fn named_commands() -> Vec<(&'static str, String)> {
    let mut all: Vec<_> =
        commands().into_iter().skip(1).map(|command| (command.name, command.about)).collect();
    all.insert(0, ("serve", "runs the server, which is the default".into()));
    all
}

fn names(commands: &[(&'static str, String)]) -> String {
    commands.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(" ")
}

/// The command as a pattern of a shell's `case`.
fn pattern(command: &CommandDoc) -> &'static str {
    if command.name.is_empty() { "*" } else { command.name }
}

/// All commands with the server last, because its pattern `*` matches every word.
fn commands_with_server_last() -> Vec<CommandDoc> {
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
    for command in commands_with_server_last() {
        for option in &command.options {
            let reply = match value_kind(option) {
                ValueKind::NoValue => continue,
                ValueKind::Choices(choices) => format!("-W '{}'", choices.join(" ")),
                ValueKind::File => "-f".into(),
                ValueKind::Directory => "-d".into(),
                ValueKind::Free => String::new(),
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
    for command in commands_with_server_last() {
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
        names(&named_commands())
    );
    text
}

/// Escapes a text for the single quotes and brackets of `_arguments`.
fn escape_zsh(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        if matches!(c, '[' | ']' | ':' | '\\') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped.replace('\'', "'\\''")
}

fn zsh_option(option: &CommandOption) -> String {
    let (name, help) = (&option.name, escape_zsh(&option.help));
    let value = escape_zsh(&option.value);
    let action = match value_kind(option) {
        ValueKind::NoValue => return format!("'*--{name}[{help}]'"),
        ValueKind::Choices(choices) => format!("({})", choices.join(" ")),
        ValueKind::File => "_files".into(),
        ValueKind::Directory => "_files -/".into(),
        ValueKind::Free => " ".into(),
    };
    format!("'*--{name}=[{help}]:{value}:{action}'")
}

pub fn zsh() -> String {
    let mut text = String::from(
        "#compdef longpoll\n\n\
         local -a commands\n\
         commands=(\n",
    );
    for (name, about) in named_commands() {
        let _ = writeln!(text, "    '{name}:{}'", escape_zsh(&about));
    }
    text.push_str(")\n\ncase ${words[2]} in\n");
    for command in commands_with_server_last() {
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

/// Escapes a text for the single quotes of fish.
fn escape_fish(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\'', "\\'")
}

pub fn fish() -> String {
    let all = names(&named_commands());
    let all_but_serve = all.strip_prefix("serve ").unwrap_or(&all);
    let mut text = String::from("# fish completion for longpoll\n\ncomplete -c longpoll -f\n");
    for (name, about) in named_commands() {
        let about = escape_fish(&about);
        let _ = writeln!(
            text,
            "complete -c longpoll -n 'not __fish_seen_subcommand_from {all}' -a {name} -d '{about}'"
        );
    }
    for command in commands() {
        let when = match command.name {
            "" => format!("not __fish_seen_subcommand_from {all_but_serve}"),
            name => format!("__fish_seen_subcommand_from {name}"),
        };
        if matches!(command.name, "inspect" | "repair") {
            let _ = writeln!(
                text,
                "complete -c longpoll -n '{when}' -a '(__fish_complete_directories)'"
            );
        }
        for option in &command.options {
            let value = match value_kind(option) {
                ValueKind::NoValue => String::new(),
                ValueKind::Choices(choices) => format!(" -x -a '{}'", choices.join(" ")),
                ValueKind::File => " -r -F".into(),
                ValueKind::Directory => " -x -a '(__fish_complete_directories)'".into(),
                ValueKind::Free => " -x".into(),
            };
            let short = option.short.map_or(String::new(), |short| format!(" -s {short}"));
            let (name, help) = (&option.name, escape_fish(&option.help));
            let _ = writeln!(
                text,
                "complete -c longpoll -n '{when}'{short} -l {name}{value} -d '{help}'"
            );
        }
    }
    text
}
