//! Rule: the head of each lesson says what to run, what to see, where the code does it and what
//! breaks without it; and the code that it points at contains the step that it shows.

use std::path::Path;

use super::places::{Place, places};
use super::{is_rust_file, read, root};

/// The text of a lesson's head between two of its labels, as one line.
fn part(head: &str, from: &str, to: &str) -> String {
    let after = head.split_once(from).unwrap_or_else(|| panic!("no {from:?} in {head}")).1;
    let part = after.split(to).next().unwrap().replace("\n#", " ");
    part.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The entries of `# Where:`; commas inside parentheses do not separate.
fn entries(list: &str) -> Vec<&str> {
    let (mut entries, mut start, mut depth) = (Vec::new(), 0, 0);
    for (at, c) in list.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                entries.push(list[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    entries.push(list[start..].trim());
    entries
}

/// Says what is wrong with an entry of `# Where:`. One in `src` names the step that it shows.
fn check_entry(entry: &str) -> Result<(), String> {
    let place = Place::parse(entry);
    if place.function.is_none() {
        return Err("it is not a file and a function".to_owned());
    }
    let is_source = place.path.starts_with("src/") && is_rust_file(place.path);
    if is_source && place.step.is_none() {
        return Err(
            "it names no step, as in `src/waiters.rs: Waiter::wait (wait_until)`".to_owned()
        );
    }
    place.check()
}

/// The row of a lesson in the table of lessons, wherever that table is.
fn table_row(name: &str) -> String {
    let documents = ["scripts/lessons/README.md", "README.md"];
    let documents = documents.iter().filter(|path| root().join(path).exists());
    let is_row = |line: &&str| {
        line.starts_with('|') && line.split('|').nth(1).is_some_and(|cell| cell.contains(name))
    };
    let mut rows = documents
        .filter_map(|path| read(path).lines().find(is_row).map(|row| (path, row.to_owned())));
    rows.next().unwrap_or_else(|| panic!("no table of lessons has a row for {name}")).1
}

/// The lessons' file names, in order.
fn lessons() -> Vec<String> {
    let entries = std::fs::read_dir(root().join("scripts/lessons")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let is_lesson = |name: &String| name.starts_with(|c: char| c.is_ascii_digit());
    let is_script = |name: &String| Path::new(name).extension().is_some_and(|e| e == "sh");
    let mut names: Vec<_> = names.filter(|name| is_lesson(name) && is_script(name)).collect();
    names.sort();
    names
}

/// The comment at the top of a lesson.
fn head(name: &str) -> String {
    let text = read(format!("scripts/lessons/{name}"));
    text.split("\nset -euo pipefail\n").next().unwrap().to_owned()
}

#[test]
fn a_lesson_says_what_to_run_what_to_see_and_what_breaks_without_it() {
    let lessons = lessons();
    for name in &lessons {
        let path = format!("scripts/lessons/{name}");
        let head = head(name);
        let number: u32 = name[..2].parse().unwrap();
        assert!(head.contains(&format!("\n# Lesson {number}: ")), "{name} has another number");
        let run = part(&head, "# Run: ", "# See: ");
        assert_eq!(run.split(' ').next(), Some(&*path), "{name} says to run something else");
        assert!(!part(&head, "# See: ", "# Where: ").is_empty(), "{name}: `# See:` is empty");
        assert!(!part(&head, "# Without: ", "\n\n").is_empty(), "{name}: `# Without:` is empty");
    }
    assert!(lessons.len() >= 14, "the course has {} lessons", lessons.len());
}

#[test]
fn a_lesson_points_at_functions_that_do_what_it_shows() {
    let mut wrong = Vec::new();
    for name in lessons() {
        let list = part(&head(&name), "# Where: ", "# Without: ");
        for entry in entries(&list) {
            if let Err(error) = check_entry(entry) {
                wrong.push(format!("{name}: {entry}: {error}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} entries:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn the_table_of_lessons_names_the_same_places() {
    for name in lessons() {
        let list = part(&head(&name), "# Where: ", "# Without: ");
        let without_step = |entry: &str| {
            let place = Place::parse(entry);
            format!("{}: {}", place.path, place.function.unwrap_or_default())
        };
        let expected: Vec<_> = entries(&list).into_iter().map(without_step).collect();
        let row = table_row(&name);
        let cells = row.split_once(&*name).unwrap().1;
        let cells = cells.split_once('|').unwrap().1;
        let listed: Vec<_> = places(cells).into_iter().map(without_step).collect();
        assert_eq!(listed, expected, "the row of {name} names other places than the lesson");
    }
}

#[test]
fn entries_are_separated_by_commas_outside_of_parentheses() {
    let list = "src/a.rs: f (g(x, y)), scripts/b.mjs: h, src/c.rs: X::i (j)";
    let expected = ["src/a.rs: f (g(x, y))", "scripts/b.mjs: h", "src/c.rs: X::i (j)"];
    assert_eq!(entries(list), expected);
}

#[test]
fn parts_of_a_head_are_joined_to_one_line() {
    let head = "#!/bin/sh\n# Run: a b\n#      c\n# See: d\n# Where: e\n";
    assert_eq!(part(head, "# Run: ", "# See: "), "a b c");
    assert_eq!(part(head, "# See: ", "# Where: "), "d");
}

#[test]
fn an_entry_of_source_needs_a_function_and_a_step_that_is_there() {
    let own = "tests/it/house/lessons.rs: check_entry";
    assert_eq!(check_entry(own), Ok(()));
    assert_eq!(check_entry(&format!("{own} (place.check())")), Ok(()));
    let errors = [
        (own.replace("check_entry", "check_nothing"), "no function"),
        (format!("{own} (place.{}())", "compare"), "does not contain"),
        ("tests/it/house/lessons.rs".to_owned(), "not a file and a function"),
        ("tests/it/house/nothing.rs: f".to_owned(), "there is no tests/it/house/nothing.rs"),
        ("src/main.rs: main".to_owned(), "names no step"),
    ];
    for (entry, expected) in errors {
        let error = check_entry(&entry).unwrap_err();
        assert!(error.contains(expected), "{entry}: {error}");
    }
}
