//! Rule: each file, script and function that a document names exists.

use super::source::{blank_comments_and_strings, item_end};
use super::{is_rust_file, markdown_files, read, root};

/// A place in the repository as documents name it: a path, then optionally a function and the text
/// of a step in it, such as `src/waiters.rs: Waiter::wait (wait_until)`.
#[derive(Debug, PartialEq, Eq)]
pub struct Place<'t> {
    pub path: &'t str,
    pub function: Option<&'t str>,
    pub step: Option<&'t str>,
}

impl<'t> Place<'t> {
    /// Reads a place. What follows the path of a script is its arguments.
    pub fn parse(text: &'t str) -> Place<'t> {
        let path = text.split([' ', '\n', ':']).next().unwrap_or_default();
        let Some((_, function)) = text.split_once(": ") else {
            return Place { path, function: None, step: None };
        };
        let (function, step) = match function.split_once(" (") {
            Some((function, step)) => (function, step.strip_suffix(')')),
            None => (function, None),
        };
        Place { path, function: Some(function), step }
    }

    /// Checks that the place exists, and that the step is in the function; otherwise says why not.
    pub fn check(&self) -> Result<(), String> {
        if !root().join(self.path).exists() {
            return Err(format!("there is no {}", self.path));
        }
        let Some(function) = self.function else { return Ok(()) };
        let source = read(self.path);
        if !is_rust_file(self.path) {
            let method = format!("  {function}(");
            let found =
                source.contains(&method) || source.contains(&format!("  async {function}("));
            return found.then_some(()).ok_or(format!("{} has no {function}", self.path));
        }
        check_function(&source, function, self.step).map_err(|e| format!("{}: {e}", self.path))
    }
}

fn check_function(source: &str, function: &str, step: Option<&str>) -> Result<(), String> {
    let bodies = bodies_of(source, function);
    if bodies.is_empty() {
        return Err(format!("there is no function {function}"));
    }
    match step {
        Some(step) if !bodies.iter().any(|body| body.contains(step)) => {
            Err(format!("the body of {function} does not contain {step:?}"))
        }
        _ => Ok(()),
    }
}

/// The bodies of a function `name` or a method `Type::name`; several where there are as many `impl`
/// blocks or conditions.
fn bodies_of<'s>(source: &'s str, function: &str) -> Vec<&'s str> {
    let code = blank_comments_and_strings(source);
    let (owner, name) =
        function.rsplit_once("::").map_or((None, function), |(owner, name)| (Some(owner), name));
    let scopes = match owner {
        None => vec![(0, code.len())],
        Some(owner) => impl_blocks(&code, owner),
    };
    let mut bodies = Vec::new();
    for (start, end) in scopes {
        for next in ["(", "<"] {
            let declaration = format!("fn {name}{next}");
            for (at, _) in code[start..end].match_indices(&declaration) {
                let item = &code[start + at..];
                let Some(open) = item.find('{') else { continue };
                bodies.push(&source[start + at + open..start + at + item_end(item)]);
            }
        }
    }
    bodies
}

/// Where the `impl` blocks of a type begin and end.
fn impl_blocks(code: &str, owner: &str) -> Vec<(usize, usize)> {
    let heads = [format!(" {owner} {{"), format!(" {owner}<")];
    let starts = code.match_indices("\nimpl").map(|(at, _)| at + 1);
    let blocks = starts.filter(|at| {
        let head = code[*at..].split_inclusive('{').next().unwrap_or_default();
        heads.iter().any(|of| head.contains(of))
    });
    blocks.map(|at| (at, at + item_end(&code[at..]))).collect()
}

/// What a text has in backquotes that is a place in this repository. Patterns are no places.
pub fn places(text: &str) -> Vec<&str> {
    let quoted = text.split('`').skip(1).step_by(2);
    let is_place = |text: &&str| {
        ["src/", "tests/", "scripts/"].iter().any(|top| text.starts_with(top))
            && !text.contains(['*', '…', '<', '{'])
    };
    quoted.filter(is_place).collect()
}

#[test]
fn the_places_that_documents_name_exist() {
    let mut wrong = Vec::new();
    for (path, text) in markdown_files() {
        // Code blocks show commands and their output.
        let prose: String = text.split("```").step_by(2).collect();
        for place in places(&prose) {
            if let Err(error) = Place::parse(place).check() {
                wrong.push(format!("{path} names `{place}`: {error}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let count = places(&read("README.md")).len();
    assert!(count > 10, "README.md names only {count} places");
}

#[test]
fn a_place_has_a_path_and_perhaps_a_function_and_a_step() {
    let place = |path, function, step| Place { path, function, step };
    for (text, expected) in [
        ("src/log", place("src/log", None, None)),
        ("scripts/bench.sh --quick", place("scripts/bench.sh", None, None)),
        ("src/a.rs: X::f", place("src/a.rs", Some("X::f"), None)),
        ("src/a.rs: f (g(x))", place("src/a.rs", Some("f"), Some("g(x)"))),
    ] {
        assert_eq!(Place::parse(text), expected);
    }
    assert_eq!(
        places("`src/a.rs: f` and `a` in `tests/it`, `src/*.rs`"),
        ["src/a.rs: f", "tests/it"]
    );
}

#[test]
fn a_step_has_to_be_in_the_body_of_its_function() {
    let source = "fn f() { step_one(); }\n\nstruct X;\n\nimpl X {\n    fn f(&self) {\n        \
                  if true { step_two(\"}\") }\n    }\n}\n\nimpl<T> Y<T> {\n    fn g<A>() {}\n}\n";
    for (function, step) in [
        ("f", "step_one"),
        ("X::f", "step_two"),
        ("X::f", "\"}\""),
        ("f", "step_two"),
        ("Y::g", "{}"),
    ] {
        assert_eq!(check_function(source, function, Some(step)), Ok(()), "{function} {step}");
    }
    for (function, step) in [("X::f", "step_one"), ("Y::g", "step_two"), ("X::f", "fn g")] {
        assert!(check_function(source, function, Some(step)).is_err(), "{function} {step}");
    }
    for function in ["g_one", "X::g", "Z::f"] {
        assert!(check_function(source, function, None).is_err(), "{function}");
    }
}
