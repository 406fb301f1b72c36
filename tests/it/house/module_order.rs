//! Rule: the order of the `mod` lines, in `lib.rs` and in each folder's facade, is the reading
//! order: a module takes only from modules that are listed before it.

use super::module_graph::{Module, Node, graph, made_up_modules, modules};
use super::{read, rust_sources};

/// What the children of a folder take from siblings that are listed after them.
fn forward_imports(modules: &[Module], folder: &Module) -> Vec<String> {
    let position = |node: &Node| match node {
        Node::Facade => None,
        Node::Child(name) => folder.children.iter().position(|child| child == name),
    };
    let graph = graph(modules, folder);
    let edges = graph.iter().flat_map(|(from, to)| to.iter().map(move |to| (from, to)));
    let forward = edges.filter_map(|(from, to)| {
        let (from, to) = (position(from)?, position(to)?);
        let [importer, source] = [from, to].map(|position| &folder.children[position]);
        let report = || {
            format!("{}: `{importer}` takes from `{source}`, which is listed after it", folder.file)
        };
        (to > from).then(report)
    });
    forward.collect()
}

#[test]
fn modules_are_listed_in_reading_order() {
    let modules = modules(&rust_sources("src"));
    let forward: Vec<_> =
        modules.iter().flat_map(|folder| forward_imports(&modules, folder)).collect();
    assert!(forward.is_empty(), "{} imports:\n{}", forward.len(), forward.join("\n"));
}

#[test]
fn the_crate_documentation_lists_every_module_in_order() {
    let map = read("src/lib.rs");
    let modules = map.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    let list = map.split_once("//! 1. ").unwrap().1.split("//!\n").next().unwrap();
    let listed = list.split('[').skip(1).filter_map(|name| name.split(']').next());
    let listed: Vec<&str> =
        listed.map(|name| name.trim_matches('`').trim_start_matches("mod@")).collect();
    assert_eq!(listed, modules.filter(|module| *module != "client").collect::<Vec<_>>());
}

#[test]
fn an_import_from_a_later_module_is_reported() {
    let modules = made_up_modules(&[
        ("src/lib.rs", "pub mod early; #[cfg(feature = \"x\")] pub mod late;"),
        ("src/early/mod.rs", "mod first;\nmod second;"),
        ("src/early/first.rs", "use super::second::X; use crate::late::Y;"),
        ("src/early/second.rs", ""),
        ("src/late.rs", "use crate::early::Z;"),
    ]);
    let in_folder = |index: usize| forward_imports(&modules, &modules[index]);
    assert_eq!(in_folder(0), ["src/lib.rs: `early` takes from `late`, which is listed after it"]);
    let expected = "src/early/mod.rs: `first` takes from `second`, which is listed after it";
    assert_eq!(in_folder(1), [expected]);
}
