//! Rule: files, functions, the README and the glossary are short enough to read, every source file
//! says what it holds, and feature conditions are few.

use super::source::blank_comments_and_strings;
use super::{files, read, rust_sources};

const FILE_LINES: usize = 400;
const FUNCTION_LINES: usize = 70;
const README_LINES: usize = 200;
const GLOSSARY_LINES: usize = 25;
/// Features meet the code at module boundaries; each condition inside a function doubles what a
/// reader has to keep in mind.
const FEATURE_CONDITIONS: usize = 40;

/// The functions longer than the limit, each with its first line number and its length.
fn long_functions(text: &str, limit: usize) -> Vec<(usize, usize)> {
    let begins =
        ["fn ", "pub fn ", "pub(super) fn ", "pub(crate) fn ", "const fn ", "pub const fn "];
    let lines: Vec<&str> = text.lines().collect();
    let mut long = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        if !begins.iter().any(|begin| code.starts_with(begin)) || code.ends_with([';', '}']) {
            continue;
        }
        let end = format!("{}}}", &line[..line.len() - code.len()]);
        let length = lines[start..].iter().position(|line| *line == end).unwrap_or(0);
        if length >= limit {
            long.push((start + 1, length));
        }
    }
    long
}

/// The lines of a section of a crate's documentation, up to the next section or the code.
fn doc_section<'t>(text: &'t str, heading: &str) -> Option<Vec<&'t str>> {
    let docs = text.lines().map_while(|line| line.strip_prefix("//!"));
    let mut section = docs.map(str::trim).skip_while(|line| *line != heading);
    section.next()?;
    Some(section.take_while(|line| !line.starts_with("# ")).collect())
}

/// The number of lines with a condition on a cargo feature.
fn feature_conditions(text: &str) -> usize {
    let code = blank_comments_and_strings(text);
    let lines = code.lines().filter(|line| {
        ["cfg(", "cfg_attr(", "cfg!("].iter().any(|condition| line.contains(condition))
            && line.contains("feature")
    });
    lines.count()
}

#[test]
fn files_and_functions_are_short_and_every_file_says_what_it_holds() {
    for (path, text) in rust_sources("src").into_iter().chain(rust_sources("tests")) {
        assert!(text.starts_with("//! "), "{path} does not say what it holds");
        let length = text.lines().count();
        assert!(length <= FILE_LINES, "{path} has {length} lines");
        let long = long_functions(&text, FUNCTION_LINES);
        assert!(long.is_empty(), "{path} has long functions, as (line, length): {long:?}");
    }
}

#[test]
fn the_readme_is_short() {
    let length = read("README.md").lines().count();
    assert!(length <= README_LINES, "README.md has {length} lines, more than {README_LINES}");
}

#[test]
fn the_crate_documentation_has_a_short_glossary() {
    let glossary = doc_section(&read("src/lib.rs"), "# Glossary").map(|lines| lines.len());
    let length = glossary.expect("src/lib.rs has no section `# Glossary`");
    assert!(
        length <= GLOSSARY_LINES,
        "the glossary has {length} lines, more than {GLOSSARY_LINES}"
    );
}

#[test]
fn feature_conditions_are_few() {
    let counts =
        files("src", &["rs"]).into_iter().map(|path| (feature_conditions(&read(&path)), path));
    let counts: Vec<_> = counts.filter(|(count, _)| *count > 0).collect();
    let total: usize = counts.iter().map(|(count, _)| count).sum();
    assert!(total <= FEATURE_CONDITIONS, "{total} lines in src name a feature: {counts:?}");
}

#[test]
fn long_functions_are_found() {
    let text =
        "fn a() {\n\n}\nimpl X {\n    pub fn b(\n        c: u8,\n    ) {\n\n    }\n}\nfn d();\n";
    assert_eq!(long_functions(text, 3), [(5, 4)]);
    assert_eq!(long_functions(text, 5), []);
}

#[test]
fn a_section_ends_at_the_next_heading_or_at_the_code() {
    let text = "//! X\n//!\n//! # Glossary\n//!\n//! - a\n//! # More\n//! b\nfn f() {}\n";
    assert_eq!(doc_section(text, "# Glossary"), Some(vec!["", "- a"]));
    assert_eq!(doc_section(text, "# More"), Some(vec!["b"]));
    assert_eq!(doc_section(text, "# Other"), None);
}

#[test]
fn feature_conditions_are_counted_by_line() {
    let text = "#[cfg(feature = \"a\")]\n#[cfg_attr(feature = \"b\", x)] // cfg(feature)\n\
                #[cfg(test)]\n// #[cfg(feature = \"c\")]\nif cfg!(feature = \"d\") { feature() }\n";
    assert_eq!(feature_conditions(text), 3);
}
