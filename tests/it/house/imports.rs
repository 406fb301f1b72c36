//! Rule: inside each folder of `src`, imports go one way, as they do between the folders.
//!
//! The nodes are the folder's child modules and its facade (`mod.rs`, or the file with the folder's
//! name). An edge means that one takes an item from the other:
//!
//! - A child that takes a name which the facade only imports or re-exports depends on the module
//!   that the name comes from, not on the facade.
//! - A child that takes an item which is defined in the facade depends on the facade.
//! - The facade depends on a child if its code uses the child. A `pub use` alone is not a use, and
//!   neither is `mod child;`.
//!
//! A cycle of such edges is an error. An item that both the facade and a child need therefore
//! belongs in a child module.

use std::collections::BTreeSet;

use super::module_graph::{Graph, Module, Node, graph, made_up_modules, modules};
use super::rust_sources;

/// The shortest cycle through a node, as its nodes in order, without the repeated last one.
fn shortest_cycle(graph: &Graph, start: &Node) -> Option<Vec<Node>> {
    let mut paths = vec![vec![start.clone()]];
    let mut seen = BTreeSet::new();
    while !paths.is_empty() {
        let mut longer = Vec::new();
        for path in paths {
            for next in graph.get(path.last()?).into_iter().flatten() {
                if next == start {
                    return Some(path);
                }
                if seen.insert(next.clone()) {
                    longer.push([&path[..], std::slice::from_ref(next)].concat());
                }
            }
        }
        paths = longer;
    }
    None
}

/// The cycles of a folder as `a.rs -> b.rs -> a.rs`; each begins with its smallest node.
fn cycles(graph: &Graph, facade: &str) -> Vec<String> {
    let name = |node: &Node| match node {
        Node::Facade => facade.to_owned(),
        Node::Child(child) => format!("{child}.rs"),
    };
    let mut cycles = BTreeSet::new();
    for start in graph.keys() {
        let Some(mut cycle) = shortest_cycle(graph, start) else { continue };
        let smallest =
            cycle.iter().enumerate().min_by_key(|(_, node)| *node).map_or(0, |(at, _)| at);
        cycle.rotate_left(smallest);
        let names: Vec<_> = cycle.iter().chain(cycle.first()).map(name).collect();
        cycles.insert(names.join(" -> "));
    }
    cycles.into_iter().collect()
}

/// All cycles inside the folders of a crate, each with its folder.
fn cycles_in_folders(modules: &[Module]) -> Vec<String> {
    let folders = modules.iter().filter(|module| !module.path.is_empty());
    let folders = folders.filter(|module| !module.children.is_empty());
    folders
        .flat_map(|folder| {
            let facade = folder.file.rsplit('/').next().unwrap_or_default();
            let cycles = cycles(&graph(modules, folder), facade);
            cycles.into_iter().map(|cycle| format!("src/{}: {cycle}", folder.path.join("/")))
        })
        .collect()
}

#[test]
fn imports_inside_a_folder_go_one_way() {
    let cycles = cycles_in_folders(&modules(&rust_sources("src")));
    assert!(cycles.is_empty(), "{} cycles:\n{}", cycles.len(), cycles.join("\n"));
}

#[test]
fn a_cycle_between_siblings_is_reported_once() {
    let modules = made_up_modules(&[
        ("src/lib.rs", "pub mod f;"),
        ("src/f/mod.rs", "mod a; mod b; mod c; pub use a::A;"),
        ("src/f/a.rs", "use super::b::{self,\n B};"),
        ("src/f/b.rs", "use super::c::C;"),
        ("src/f/c.rs", "use crate::f::A;"),
    ]);
    assert_eq!(cycles_in_folders(&modules), ["src/f: a.rs -> b.rs -> c.rs -> a.rs"]);
}

#[test]
fn a_file_with_the_name_of_the_folder_is_its_facade() {
    let modules = made_up_modules(&[
        ("src/f.rs", "mod a; mod b;"),
        ("src/f/a.rs", "use super::b::B;"),
        ("src/f/b.rs", "use super::a::A;"),
    ]);
    assert_eq!(cycles_in_folders(&modules), ["src/f: a.rs -> b.rs -> a.rs"]);
}

#[test]
fn a_facade_and_a_child_that_use_each_other_are_a_cycle() {
    let facade_and_child = |facade: &str, child: &str| {
        cycles_in_folders(&made_up_modules(&[("src/f/mod.rs", facade), ("src/f/a.rs", child)]))
    };
    let cycle = ["src/f: mod.rs -> a.rs -> mod.rs"];
    assert_eq!(facade_and_child("mod a; use a::g; struct X;", "use super::X;"), cycle);
    assert_eq!(facade_and_child("mod a; struct X; fn f() { a::g() }", "impl super::X {}"), cycle);
    assert_eq!(facade_and_child("mod a; pub use a::A; struct X(A);", "use super::X;"), cycle);
    // One direction only.
    assert!(facade_and_child("mod a; pub use a::A; struct X;", "use super::X;").is_empty());
    assert!(facade_and_child("mod a; use a::g; struct X;", "fn g() {}").is_empty());
    // Comments and tests do not count.
    assert!(facade_and_child("mod a; use a::g; struct X;", "// super::X\n").is_empty());
    assert!(
        facade_and_child("mod a; use a::g; struct X;", "#[cfg(test)] use super::X;").is_empty()
    );
}
