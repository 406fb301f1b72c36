//! Goal: the rules of the house hold by themselves.

use std::path::{Path, PathBuf};

use longpoll::config::{Config, FLAGS, help};

use crate::support::{Server, program};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Every Rust file below a folder.
fn rust_files(folder: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    assert!(!files.is_empty());
    files
}

/// The module of `src/log/read.rs` is `log`.
fn module_of(file: &Path) -> String {
    let inner = file.strip_prefix(root().join("src")).unwrap();
    let first = inner.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

#[test]
fn a_module_imports_only_from_those_above_it_on_the_map() {
    let map = read("src/lib.rs");
    let order: Vec<&str> =
        map.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    let place = |module: &str| order.iter().position(|m| *m == module);
    for file in rust_files("src") {
        let module = module_of(&file);
        // The program and the map itself stand above all.
        let Some(own) = place(&module) else {
            assert!(matches!(&*module, "lib" | "main"), "{module} is not on the map");
            continue;
        };
        let text = std::fs::read_to_string(&file).unwrap();
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        for used in code.flat_map(|line| line.split("crate::").skip(1)) {
            let used = used.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap();
            if let Some(place) = place(used) {
                assert!(place <= own, "{} imports {used}, which is below it", file.display());
            }
        }
    }
}

#[test]
fn files_and_functions_are_short_enough_to_read() {
    for file in rust_files("src").into_iter().chain(rust_files("tests")) {
        let text = std::fs::read_to_string(&file).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.len() <= 400, "{} has {} lines", file.display(), lines.len());
        for (start, line) in lines.iter().enumerate() {
            let code = line.trim_start();
            let indent = &line[..line.len() - code.len()];
            let begins = ["fn ", "pub fn ", "pub(super) fn ", "const fn ", "pub const fn "];
            if !begins.iter().any(|begin| code.starts_with(begin)) || code.ends_with([';', '}']) {
                continue;
            }
            let end = format!("{indent}}}");
            let length = lines[start..].iter().position(|line| *line == end).unwrap_or(0);
            assert!(length < 70, "{}:{} is {length} lines", file.display(), start + 1);
        }
    }
}

#[test]
fn the_top_level_holds_what_it_should() {
    let allowed = ["Cargo.toml", "Cargo.lock", "src", "tests", "scripts", "README.md", "target"];
    for entry in std::fs::read_dir(root()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name.starts_with('.') || allowed.contains(&&*name), "{name}");
    }
}

#[test]
fn every_dependency_says_why_it_is_there() {
    let manifest = read("Cargo.toml");
    let section = manifest.split("[dependencies]\n").nth(1).unwrap().split("\n[").next().unwrap();
    let mut before = "";
    for line in section.lines().filter(|line| !line.is_empty()) {
        if !line.starts_with('#') {
            assert!(before.starts_with('#'), "no reason beside: {line}");
        }
        before = line;
    }
}

#[test]
fn the_readme_gives_every_flag_with_its_default() {
    let readme = read("README.md");
    let help = help();
    for flag in FLAGS {
        let default = help
            .lines()
            .find_map(|line| line.trim_start().strip_prefix(&format!("--{} ", flag.name)))
            .and_then(|line| line.rsplit_once('[')?.1.strip_suffix(']'))
            .unwrap_or_else(|| panic!("--{} is not in the help text", flag.name));
        let row = format!("| `--{}` | {default} |", flag.name);
        assert!(readme.contains(&row), "README.md lacks {row}");
    }
    assert_eq!(Config::default().max_polls(), 448, "what 7/8 of the connections are");
}

#[test]
fn the_version_is_the_same_wherever_it_is_told() {
    let version = longpoll::VERSION;
    assert!(read("Cargo.toml").contains(&format!("\nversion = \"{version}\"\n")));
    let told = program().arg("--version").output().unwrap();
    assert_eq!(String::from_utf8(told.stdout).unwrap(), format!("longpoll {version}\n"));
    assert_eq!(Server::start(&[]).get("/health").json()["version"], version);
    // The newest change comes first, with its date.
    let readme = read("README.md");
    let newest = readme.split_once("\n## Changes\n\n### ").unwrap().1.lines().next().unwrap();
    let (changed, date) = newest.split_once(", ").unwrap();
    assert_eq!(changed, version);
    assert!(date.len() == 10 && date.split('-').all(|n| n.parse::<u16>().is_ok()), "{date}");
    assert!(readme.contains(&format!("a tag `v{version}`")));
}

#[test]
fn the_help_fits_one_screen() {
    let help = help();
    assert!(help.lines().count() <= 40, "{help}");
    assert!(help.lines().all(|line| line.chars().count() <= 80), "{help}");
}

#[test]
fn what_the_readme_names_is_there() {
    let readme = read("README.md");
    let quoted = readme.split('`').skip(1).step_by(2);
    let paths = quoted
        .filter(|text| ["src/", "tests/", "scripts/"].iter().any(|top| text.starts_with(top)));
    let mut count = 0;
    for text in paths {
        let path = text.split([' ', ':']).next().unwrap();
        assert!(root().join(path).exists(), "README.md names {path}");
        // `src/bell.rs: Seat::wait` names a function too.
        if let Some((_, function)) = text.split_once(": ") {
            let name = function.rsplit("::").next().unwrap();
            let source = read(path);
            assert!(source.contains(&format!("fn {name}")), "{path} has no fn {name}");
        }
        count += 1;
    }
    assert!(count > 10, "the map has only {count} places");
    for lesson in std::fs::read_dir(root().join("scripts/lessons")).unwrap() {
        let name = lesson.unwrap().file_name().into_string().unwrap();
        let is_lesson = name.starts_with(|c: char| c.is_ascii_digit());
        assert!(!is_lesson || readme.contains(&name), "README.md does not send anyone to {name}");
    }
}
