//! Guards the house rules: what holds for all source files and documents of this repository, such
//! as unique type names and imports that go one way. Each rule is a function over text, which its
//! own tests try on small made-up inputs.

mod documents;
mod imports;
mod lessons;
mod module_graph;
mod module_order;
mod places;
mod sentences;
mod sizes;
mod source;
mod type_names;

use std::path::{Path, PathBuf};

/// The top folder of the repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The text of a file, by its path from the root.
fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The files below a folder whose extension is in `extensions`, as paths from the root, sorted. An
/// empty list of extensions means all files. Build output and hidden folders are left out.
fn files(folder: &str, extensions: &[&str]) -> Vec<String> {
    let mut files = Vec::new();
    let mut folders = vec![PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(root().join(&folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let path = folder.join(&name);
            let is_excluded = name.starts_with('.') || ["target", "node_modules"].contains(&&*name);
            if root().join(&path).is_dir() {
                if !is_excluded {
                    folders.push(path);
                }
            } else if extensions.is_empty()
                || path.extension().is_some_and(|e| extensions.iter().any(|x| e == *x))
            {
                files.push(path.to_str().unwrap().to_owned());
            }
        }
    }
    files.sort();
    assert!(!files.is_empty(), "no files in {folder:?}");
    files
}

fn is_rust_file(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|extension| extension == "rs")
}

/// The Rust files below a folder, each with its text.
fn rust_sources(folder: &str) -> Vec<(String, String)> {
    files(folder, &["rs"]).into_iter().map(|path| (path.clone(), read(path))).collect()
}

/// All Markdown files, each with its text.
fn markdown_files() -> Vec<(String, String)> {
    files("", &["md"]).into_iter().map(|path| (path.clone(), read(path))).collect()
}
