//! Rule: no two types of the crate have the same name, so that a name in prose or in an error
//! message means one thing. 32 names once stood for two types or more.

use std::collections::BTreeMap;

use super::rust_sources;
use super::source::{is_test_file, program_code, tokens};

/// The structs, enums, traits, unions and type aliases that some code declares. The associated
/// types of an `impl` or a `trait` are not types of their own.
fn declared_types(code: &str) -> Vec<&str> {
    let tokens = tokens(code);
    let mut types = Vec::new();
    // The first keyword of each open block, and that of the item being read.
    let mut blocks: Vec<&str> = Vec::new();
    let mut item = "";
    for (at, token) in tokens.iter().copied().enumerate() {
        let next = tokens.get(at + 1).copied().unwrap_or_default();
        match token {
            "{" => blocks.push(std::mem::take(&mut item)),
            "}" => {
                blocks.pop();
                item = "";
            }
            ";" => item = "",
            "fn" | "impl" | "mod" if item.is_empty() => item = token,
            "struct" | "enum" | "trait" | "union" | "type" if item.is_empty() => {
                let is_associated =
                    token == "type" && matches!(blocks.last(), Some(&("impl" | "trait")));
                if next.starts_with(char::is_uppercase) {
                    item = token;
                    if !is_associated {
                        types.push(next);
                    }
                }
            }
            _ => {}
        }
    }
    types
}

/// The names that are declared more than once, each with its files.
fn repeated_types(sources: &[(String, String)]) -> BTreeMap<String, Vec<String>> {
    let mut places = BTreeMap::<String, Vec<String>>::new();
    for (path, text) in sources.iter().filter(|(path, _)| !is_test_file(path)) {
        for name in declared_types(&program_code(text)) {
            places.entry(name.to_owned()).or_default().push(path.clone());
        }
    }
    places.retain(|_, places| places.len() > 1);
    places
}

#[test]
fn type_names_are_unique() {
    let repeated = repeated_types(&rust_sources("src"));
    let lines = repeated.iter().map(|(name, places)| format!("{name}: {}", places.join(", ")));
    let lines: Vec<_> = lines.collect();
    assert!(lines.is_empty(), "{} names of several types:\n{}", lines.len(), lines.join("\n"));
}

#[test]
fn declarations_are_found_and_associated_types_are_not() {
    let code = "pub struct A<T>(T); pub(crate) enum B { C } unsafe trait D { type E; }
        impl Iterator for A { type Item = u8; fn f() -> impl D { struct G; type H = u8; } }
        fn union(x: impl D) -> [u8; 2] { x.union() } type I = fn(u8) -> u8; union J { k: u8 }
        mod inner { type K = u8; }";
    assert_eq!(declared_types(code), ["A", "B", "D", "G", "H", "I", "J", "K"]);
}

#[test]
fn a_name_of_two_types_is_reported_with_its_places() {
    let source = |path: &str, text: &str| (path.to_owned(), text.to_owned());
    let repeated = repeated_types(&[
        source("src/a.rs", "struct Page; // enum Event\n"),
        source("src/b.rs", "enum Page {} struct Event; #[cfg(test)] mod tests { struct Event; }"),
        source("src/b/tests.rs", "struct Event;"),
    ]);
    let expected =
        BTreeMap::from([("Page".to_owned(), vec!["src/a.rs".into(), "src/b.rs".into()])]);
    assert_eq!(repeated, expected);
}
