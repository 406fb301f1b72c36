//! Rule: sentences name their subject. A relative pronoun in its place ("…ever asks first") hides
//! whether the client, the publisher or the worker acts, and 224 lines once began with one.

use super::{files, markdown_files, read, root};

/// The words that may not occur, spelled in parts because this file obeys the rule too.
fn banned_words() -> [String; 4] {
    [["who", "ever"], ["who", "mever"], ["who", "m"], ["what", "ever"]].map(|parts| parts.concat())
}

/// The lines, by number, that contain a banned word as a whole word, in upper or lower case.
fn lines_with_banned_words(text: &str) -> Vec<(usize, &str)> {
    let banned = banned_words();
    let is_banned = |word: &str| banned.contains(&word.to_ascii_lowercase());
    let has_banned_word = |line: &str| line.split(|c: char| !c.is_alphanumeric()).any(is_banned);
    let lines = text.lines().enumerate().filter(|(_, line)| has_banned_word(line));
    lines.map(|(index, line)| (index + 1, line.trim())).collect()
}

/// The files whose sentences count: all text of `src`, `tests` and `scripts`, and all Markdown. The
/// fuzzer's corpus is data.
fn checked_files() -> Vec<String> {
    let mut paths: Vec<String> = markdown_files().into_iter().map(|(path, _)| path).collect();
    for folder in ["src", "tests", "scripts"] {
        paths.extend(files(folder, &[]));
    }
    paths.retain(|path| !path.starts_with("tests/fuzz/corpus/"));
    paths.sort();
    paths.dedup();
    paths
}

#[test]
fn sentences_name_their_subject() {
    let mut found = Vec::new();
    for path in checked_files() {
        let Ok(text) = std::fs::read_to_string(root().join(&path)) else { continue };
        for (number, line) in lines_with_banned_words(&text) {
            found.push(format!("{path}:{number}: {line}"));
        }
    }
    assert!(found.is_empty(), "{} lines:\n{}", found.len(), found.join("\n"));
}

#[test]
fn banned_words_are_found_in_any_case_and_only_as_whole_words() {
    let [first, second, third, fourth] = banned_words();
    for line in [
        format!("// {first} asks"),
        format!("{}'s turn", second.to_ascii_uppercase()),
        format!("to {third}, that"),
        format!("{}{}_comes", fourth[..1].to_ascii_uppercase(), &fourth[1..]),
    ] {
        assert_eq!(lines_with_banned_words(&line).len(), 1, "{line}");
    }
    let text = format!("who asks, {third}e, for ever, {fourth}s\n\n// {fourth}\n");
    assert_eq!(lines_with_banned_words(&text), [(3, &*format!("// {fourth}"))]);
}

#[test]
fn the_documents_and_scripts_are_checked() {
    let checked = checked_files();
    for path in ["README.md", "src/lib.rs", "scripts/check.sh", "tests/it/main.rs"] {
        assert!(checked.iter().any(|checked| checked == path), "{path} is not checked");
        assert!(!read(path).is_empty());
    }
}
