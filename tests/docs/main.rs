//! Writes the man page and the completions into a folder. They come from what `--help` comes from;
//! an example target, so that none of it is in the shipped binary.
//!
//!     cargo run --example docs -- FOLDER

#![allow(clippy::expect_used, reason = "it writes all or nothing")]

mod commands;
mod completions;
mod man;

use std::path::PathBuf;

/// Their names, as the shells and man look for them.
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
