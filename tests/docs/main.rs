//! Writes the man page and the shell completions to a folder. They are generated from the same
//! tables and texts as `--help`. This is an example target, so that the shipped binary has none of it.
//!
//!     cargo run --example docs -- FOLDER

#![allow(clippy::expect_used, reason = "a generator stops at its first error")]

mod commands;
mod completions;
mod man;

use std::path::PathBuf;

/// The files by the names under which man and the shells search for them.
fn files() -> [(&'static str, String); 4] {
    [
        ("longpoll.1", man::page()),
        ("longpoll.bash", completions::bash()),
        ("_longpoll", completions::zsh()),
        ("longpoll.fish", completions::fish()),
    ]
}

fn main() -> std::io::Result<()> {
    let Some(folder) = std::env::args_os().nth(1).map(PathBuf::from) else {
        return Err(std::io::Error::other("usage: docs FOLDER"));
    };
    std::fs::create_dir_all(&folder)?;
    files().into_iter().try_for_each(|(name, text)| std::fs::write(folder.join(name), text))
}
