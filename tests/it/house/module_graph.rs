//! Which module takes what from which other module. Two rules use it: imports go one way, and
//! modules are listed in reading order.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{is_test_file, program_code, tokens};

/// A path from the crate's root, such as `log::read::Slice`.
pub type CratePath = Vec<String>;

/// A source file: its module, and the paths that its code mentions.
pub struct Module {
    pub file: String,
    pub path: CratePath,
    /// The child modules, in the order in which the file declares them.
    pub children: Vec<String>,
    /// The paths into the crate that the code mentions; re-exports are left out unless the file
    /// itself uses the name.
    uses: BTreeSet<CratePath>,
    /// What each imported or re-exported name stands for; `None` for a name of another crate.
    imported: BTreeMap<String, Option<CratePath>>,
}

/// Node of a folder's graph: one of its child modules, or the folder's facade (`mod.rs`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Node {
    Facade,
    Child(String),
}

/// Directed edges: which node takes something from which other node.
pub type Graph = BTreeMap<Node, BTreeSet<Node>>;

/// The module path of a file, from the crate's root: `src/log/read.rs` is `log::read`.
fn module_path(file: &str) -> CratePath {
    let inner = file.trim_start_matches("src/").trim_end_matches(".rs");
    let inner = inner.trim_end_matches("/mod");
    if inner == "lib" { Vec::new() } else { inner.split('/').map(str::to_owned).collect() }
}

/// The leaves of the use tree at the start of the tokens, each with the name that it binds, and the
/// number of tokens read.
fn use_tree(tokens: &[&str], prefix: &[String]) -> (Vec<(CratePath, String)>, usize) {
    let (mut path, mut at) = (prefix.to_vec(), 0);
    while let Some(&token) = tokens.get(at) {
        match token {
            "::" => at += 1,
            "{" => {
                let mut leaves = Vec::new();
                at += 1;
                while tokens.get(at).is_some_and(|token| *token != "}") {
                    let (more, read) = use_tree(&tokens[at..], &path);
                    leaves.extend(more);
                    at += read;
                    at += usize::from(tokens.get(at) == Some(&","));
                }
                return (leaves, at + 1);
            }
            "," | "}" | ";" | "as" => break,
            _ => {
                path.push(token.to_owned());
                at += 1;
            }
        }
    }
    if path.last().is_some_and(|last| last == "self") && path.len() > 1 {
        path.pop();
    }
    let mut name = path.last().cloned().unwrap_or_default();
    if tokens.get(at) == Some(&"as") {
        tokens[at + 1].clone_into(&mut name);
        at += 2;
    }
    (vec![(path, name)], at)
}

impl Module {
    pub fn new(file: &str, text: &str) -> Module {
        let code = program_code(text);
        let tokens = tokens(&code);
        let mut module = Module {
            file: file.to_owned(),
            path: module_path(file),
            children: Vec::new(),
            uses: BTreeSet::new(),
            imported: BTreeMap::new(),
        };
        for (at, pair) in tokens.windows(3).enumerate() {
            if pair[0] == "mod" && pair[2] == ";" && (at == 0 || tokens[at - 1] != "::") {
                module.children.push(pair[1].to_owned());
            }
        }
        let (reexports, words) = module.read_imports(&tokens);
        module.read_paths(&words);
        for (name, path) in reexports {
            if words.contains(&&*name) {
                module.uses.insert(path);
            }
        }
        module
    }

    /// Records the `use` items; returns the re-exports and the tokens outside of `use` items.
    fn read_imports<'t>(&mut self, tokens: &[&'t str]) -> (Vec<(String, CratePath)>, Vec<&'t str>) {
        let (mut reexports, mut words) = (Vec::new(), Vec::new());
        let mut at = 0;
        while at < tokens.len() {
            // `impl Trait + use<'a>` is no import.
            if tokens[at] != "use" || tokens.get(at + 1) == Some(&"<") {
                words.push(tokens[at]);
                at += 1;
                continue;
            }
            let is_public = at > 0 && matches!(tokens[at - 1], "pub" | ")");
            let (leaves, read) = use_tree(&tokens[at + 1..], &[]);
            for (path, name) in leaves {
                let path = self.absolute(&path);
                self.imported.insert(name.clone(), path.clone());
                match path {
                    Some(path) if is_public => reexports.push((name, path)),
                    Some(path) => drop(self.uses.insert(path)),
                    None => {}
                }
            }
            at += 1 + read;
        }
        (reexports, words)
    }

    /// Records the paths outside of `use` items, such as `super::read::page(…)`.
    fn read_paths(&mut self, words: &[&str]) {
        for at in 0..words.len() {
            let is_start = words.get(at + 1) == Some(&"::") && (at == 0 || words[at - 1] != "::");
            if !is_start {
                continue;
            }
            let segments = words[at..].chunks(2).take_while(|pair| pair.get(1) == Some(&"::"));
            let count = segments.count();
            let path: Vec<_> =
                words[at..].iter().step_by(2).take(count + 1).map(|s| (*s).to_owned()).collect();
            let path = match self.imported.get(&path[0]) {
                Some(Some(base)) => Some([base, &path[1..]].concat()),
                Some(None) => None,
                None => self.absolute(&path),
            };
            self.uses.extend(path);
        }
    }

    /// A path from the crate's root; `None` for a path into another crate.
    fn absolute(&self, path: &[String]) -> Option<CratePath> {
        let (mut base, mut rest) = (self.path.clone(), path);
        match rest.first()?.as_str() {
            "crate" => (base, rest) = (Vec::new(), &rest[1..]),
            "self" => rest = &rest[1..],
            "super" => {}
            first if self.children.iter().any(|child| child == first) => {}
            _ => return None,
        }
        while rest.first().is_some_and(|segment| segment == "super") {
            base.pop();
            rest = &rest[1..];
        }
        base.extend_from_slice(rest);
        Some(base)
    }
}

/// The modules of a crate, from its files.
pub fn modules(sources: &[(String, String)]) -> Vec<Module> {
    let sources = sources.iter().filter(|(path, _)| !is_test_file(path) && path != "src/main.rs");
    sources.map(|(path, text)| Module::new(path, text)).collect()
}

/// The node of `folder` that holds what a path names; `None` if the path leads elsewhere. A name
/// that the facade only imports or re-exports belongs to the module that it comes from.
fn node_of(folder: &Module, path: &[String]) -> Option<Node> {
    let first = path.strip_prefix(&*folder.path)?.first()?;
    if folder.children.contains(first) {
        return Some(Node::Child(first.clone()));
    }
    match folder.imported.get(first) {
        None => Some(Node::Facade),
        Some(None) => None,
        Some(Some(origin)) if origin == path => Some(Node::Facade),
        Some(Some(origin)) => node_of(folder, origin),
    }
}

/// The graph of a folder. Files deeper down count as the child that contains them.
pub fn graph(modules: &[Module], folder: &Module) -> Graph {
    let mut graph = Graph::new();
    for module in modules {
        let Some(inner) = module.path.strip_prefix(&*folder.path) else { continue };
        let from = inner.first().map_or(Node::Facade, |child| Node::Child(child.clone()));
        for to in module.uses.iter().filter_map(|path| node_of(folder, path)) {
            if to != from {
                graph.entry(from.clone()).or_default().insert(to);
            }
        }
    }
    graph
}

/// Modules for the tests of the rules.
pub fn made_up_modules(files: &[(&str, &str)]) -> Vec<Module> {
    modules(&files.iter().map(|(path, text)| ((*path).into(), (*text).into())).collect::<Vec<_>>())
}

#[test]
fn use_trees_are_read_with_braces_lists_aliases_and_line_breaks() {
    let text = "crate::{log::{self, read::{Slice as S,\n page}}, names::*}";
    let leaves = use_tree(&tokens(text), &[]).0;
    let leaves: Vec<_> = leaves.iter().map(|(path, name)| (path.join("::"), &**name)).collect();
    let expected = [
        ("crate::log", "log"),
        ("crate::log::read::Slice", "S"),
        ("crate::log::read::page", "page"),
        ("crate::names::*", "*"),
    ];
    assert_eq!(leaves, expected.map(|(path, name)| (path.to_owned(), name)));
}

#[test]
fn each_way_to_name_a_sibling_is_an_edge() {
    for text in [
        "use super::b::X;",
        "use super::{b};",
        "use crate::f::{\n    b::{X, Y},\n};",
        "fn f() { super::b::g(); }",
        "fn f() { crate::f::b::g(); }",
        "use crate::f; fn g() { f::b::h(); }",
        // Through a re-export of the facade.
        "use super::X;",
    ] {
        let modules = made_up_modules(&[
            ("src/f/mod.rs", "mod a; mod b; pub use b::X;"),
            ("src/f/a.rs", text),
            ("src/f/b.rs", ""),
        ]);
        let edges = graph(&modules, &modules[0]);
        let (a, b) = (Node::Child("a".into()), Node::Child("b".into()));
        assert_eq!(edges, Graph::from([(a, BTreeSet::from([b]))]), "{text}");
    }
}

#[test]
fn comments_tests_and_other_crates_are_no_edges() {
    for text in [
        "// use super::b::X;",
        "#[cfg(test)] mod tests { use super::super::b::X; }",
        "use std::b::X; use other::super_b;",
        // A name of another crate that the facade imports.
        "use super::Arc;",
    ] {
        let modules = made_up_modules(&[
            ("src/f/mod.rs", "mod a; mod b; use std::sync::Arc; pub use b::X;"),
            ("src/f/a.rs", text),
        ]);
        assert_eq!(graph(&modules, &modules[0]), Graph::new(), "{text}");
    }
}
