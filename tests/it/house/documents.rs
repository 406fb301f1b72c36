//! Rule: what documents say about the program is true: dependencies, flags, version, help, and the
//! chart in the README.

use longpoll::config::{Config, FLAGS, help};

use super::{read, root};
use crate::support::{Server, program};

#[test]
fn the_top_folder_holds_only_known_entries() {
    let allowed = ["Cargo.toml", "Cargo.lock", "src", "tests", "scripts", "README.md", "target"];
    for entry in std::fs::read_dir(root()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name.starts_with('.') || allowed.contains(&&*name), "unexpected: {name}");
    }
}

#[test]
fn every_dependency_has_a_reason() {
    let manifest = read("Cargo.toml");
    let section = manifest.split("[dependencies]\n").nth(1).unwrap().split("\n[").next().unwrap();
    let mut before = "";
    for line in section.lines().filter(|line| !line.is_empty()) {
        if !line.starts_with('#') {
            assert!(before.starts_with('#'), "no comment above {line}");
        }
        before = line;
    }
}

#[test]
fn the_table_of_flags_has_every_flag_with_its_default() {
    let table = read("src/config/flags.md");
    let help = help();
    for flag in FLAGS {
        let default = help
            .lines()
            .find_map(|line| line.trim_start().strip_prefix(&format!("--{} ", flag.name)))
            .and_then(|line| line.rsplit_once('[')?.1.strip_suffix(']'))
            .unwrap_or_else(|| panic!("--{} is not in the help text", flag.name));
        let row = format!("| `--{}` | {default} |", flag.name);
        assert!(table.contains(&row), "src/config/flags.md lacks {row}");
    }
    assert_eq!(Config::default().max_polls(), 448, "7/8 of the connections");
}

/// What stands before the newest version in the list of changes.
const CHANGES: &str = "## Changes\n\n### ";

/// The document with the list of changes: its path and its text.
fn document_of_changes() -> (&'static str, String) {
    let documents = ["scripts/RELEASE.md", "README.md"];
    let documents = documents.into_iter().filter(|path| root().join(path).exists());
    let mut documents = documents.map(|path| (path, read(path)));
    documents.find(|(_, text)| text.contains(CHANGES)).expect("a document with `## Changes`")
}

#[test]
fn the_version_is_the_same_everywhere() {
    let version = longpoll::VERSION;
    assert!(read("Cargo.toml").contains(&format!("\nversion = \"{version}\"\n")));
    let output = program().arg("--version").output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("longpoll {version}\n"));
    assert_eq!(Server::start(&[]).get("/health").json()["version"], version);
    let (path, changes) = document_of_changes();
    let newest = changes.split_once(CHANGES).unwrap().1.lines().next().unwrap();
    let (newest_version, date) = newest.split_once(", ").unwrap();
    assert_eq!(newest_version, version, "{path} does not list the newest version first");
    assert!(date.len() == 10 && date.split('-').all(|n| n.parse::<u16>().is_ok()), "{date}");
    assert!(changes.contains(&format!("a tag `v{version}`")), "{path} does not name the tag");
}

#[test]
fn the_help_fits_one_screen() {
    let help = help();
    assert!(help.lines().count() <= 40, "{help}");
    assert!(help.lines().all(|line| line.chars().count() <= 80), "{help}");
}

#[test]
fn the_chart_is_shown_well_formed_and_has_a_dark_theme() {
    assert!(read("tests/load/README.md").contains("](../../scripts/compare.svg)"));
    let chart = read("scripts/compare.svg");
    let mut open = Vec::new();
    for tag in chart.split('<').skip(1) {
        let (tag, text) = tag.split_once('>').expect("a closed tag");
        assert!(!text.contains('>') && tag.matches('"').count() % 2 == 0, "{tag}");
        let name = tag.split([' ', '/']).find(|part| !part.is_empty()).unwrap();
        assert_ne!(name, "script");
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name));
        } else if !tag.ends_with('/') {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "{open:?} are not closed");
    assert!(chart.contains("@media (prefers-color-scheme: dark)"));
    for transport in ["short polling, 1 s", "long polling", "server-sent events", "WebSocket"] {
        assert_eq!(chart.matches(&format!(">{transport}</text>")).count(), 2, "{transport}");
    }
}
