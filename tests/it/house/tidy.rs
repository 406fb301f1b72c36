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
fn the_map_has_every_module_in_its_order_and_every_file_says_what_it_is_for() {
    let map = read("src/lib.rs");
    let modules = map.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    let chapters = map.split_once("//! 1. ").unwrap().1.split("//!\n").next().unwrap();
    let named = chapters.split('[').skip(1).filter_map(|name| name.split(']').next());
    let named: Vec<&str> = named.map(|name| name.trim_start_matches("mod@")).collect();
    assert_eq!(named, modules.filter(|module| *module != "client").collect::<Vec<_>>());
    for file in rust_files("src").into_iter().chain(rust_files("tests")) {
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("//! "), "{} does not say what it is for", file.display());
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

/// Checks a place that `by` names: a path, a script with what it is called with, or a function such
/// as `src/bell.rs: Seat::wait`.
fn assert_is_there(place: &str, by: &str) {
    let path = place.split([' ', '\n', ':']).next().unwrap();
    assert!(root().join(path).exists(), "{by} names {path}");
    let Some((_, function)) = place.split_once(": ") else { return };
    let source = read(path);
    let found = match function.rsplit_once("::") {
        _ if path.strip_suffix(".rs").is_none() => {
            source.contains(&format!("  async {function}("))
                || source.contains(&format!("  {function}("))
        }
        None => has_function(&source, function),
        Some((owner, name)) => methods_of(&source, owner).any(|block| has_function(block, name)),
    };
    assert!(found, "{by} names {function}, which is not in {path}");
}

fn has_function(source: &str, name: &str) -> bool {
    ["(", "<"].iter().any(|next| source.contains(&format!("fn {name}{next}")))
}

/// The `impl` blocks of a type.
fn methods_of<'s>(source: &'s str, owner: &str) -> impl Iterator<Item = &'s str> {
    let heads = [format!(" {owner} {{"), format!(" {owner}<")];
    let blocks = source.split("\nimpl").skip(1).filter_map(|rest| rest.split("\n}").next());
    blocks.filter(move |block| {
        let head = block.lines().next().unwrap_or_default();
        heads.iter().any(|of| head.contains(of))
    })
}

/// What a text has in backquotes that is a place in this repository.
fn places(text: &str) -> Vec<&str> {
    let quoted = text.split('`').skip(1).step_by(2);
    let is_place =
        |text: &&str| ["src/", "tests/", "scripts/"].iter().any(|top| text.starts_with(top));
    quoted.filter(is_place).collect()
}

#[test]
fn what_the_readme_names_is_there() {
    let readme = read("README.md");
    let places = places(&readme);
    for place in &places {
        assert_is_there(place, "README.md");
    }
    assert!(places.len() > 10, "the map has only {} places", places.len());
}

#[test]
fn a_lesson_says_what_to_run_what_to_see_where_it_is_done_and_what_breaks_without_it() {
    let readme = read("README.md");
    let mut lessons = 0;
    for lesson in std::fs::read_dir(root().join("scripts/lessons")).unwrap() {
        let name = lesson.unwrap().file_name().into_string().unwrap();
        if !name.starts_with(|c: char| c.is_ascii_digit()) {
            continue;
        }
        let path = format!("scripts/lessons/{name}");
        let text = read(&path);
        let head = text.split("\nset -euo pipefail\n").next().unwrap();
        let number: u32 = name[..2].parse().unwrap();
        assert!(head.contains(&format!("\n# Lesson {number}: ")), "{name} says another number");
        let part = |from: &str, to: &str| {
            let after = head.split_once(from).unwrap_or_else(|| panic!("{name} has no {from:?}")).1;
            let part = after.split(to).next().unwrap().replace("\n#", " ");
            part.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        let run = part("# Run: ", "# See: ");
        assert_eq!(run.split(' ').next(), Some(&*path), "{name} says to run something else");
        assert!(!part("# See: ", "# Where: ").is_empty(), "{name}: nothing to see");
        assert!(!part("# Without: ", "\n\n").is_empty(), "{name}: nothing breaks");
        let done_in = part("# Where: ", "# Without: ");
        let done_in: Vec<&str> = done_in.split(", ").collect();
        for place in &done_in {
            assert!(place.contains(": "), "{name}: {place} is not a file and a function");
            assert_is_there(place, &name);
        }
        let row = readme.lines().find(|line| line.starts_with(&format!("| `{path}` |")));
        let row = row.unwrap_or_else(|| panic!("README.md does not send anyone to {name}"));
        assert_eq!(places(row)[1..], done_in, "README.md and {name} name different places");
        lessons += 1;
    }
    assert!(lessons >= 14, "the course has {lessons} lessons");
}

#[test]
fn the_readme_shows_a_picture_that_is_whole_and_fits_light_and_dark() {
    assert!(read("README.md").contains("](scripts/compare.svg)"));
    let picture = read("scripts/compare.svg");
    let mut open = Vec::new();
    for tag in picture.split('<').skip(1) {
        let (tag, text) = tag.split_once('>').expect("a tag has an end");
        assert!(!text.contains('>') && tag.matches('"').count() % 2 == 0, "{tag}");
        let name = tag.split([' ', '/']).find(|part| !part.is_empty()).unwrap();
        assert_ne!(name, "script");
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name));
        } else if !tag.ends_with('/') {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "{open:?} stay open");
    assert!(picture.contains("@media (prefers-color-scheme: dark)"));
    for way in ["short polling, 1 s", "long polling", "server-sent events", "WebSocket"] {
        assert_eq!(picture.matches(&format!(">{way}</text>")).count(), 2, "{way}");
    }
}
