//! `longpoll follow` and `longpoll publish`: the two client loops as programs.
//!
//! Exit status: 0 after success, or when a signal stopped the program; 1 after a failure; 2 for an
//! invalid command line; 3 when events were lost (`follow` with `--on-gap fail`).

mod error;
mod help;
mod format;
mod args;
mod stdin;
mod state;
mod exec;
mod follow;
mod publish;

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

pub use help::{FOLLOW_HELP, PUBLISH_HELP};

use crate::shutdown::Shutdown;
use args::ClientCommand;
use error::{CommandError, print_error};

/// Runs the client command that the first argument names; `None` when it names no client command.
#[must_use]
pub fn run(args: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let command = args::parse(args)?;
    let result = command.and_then(|command| {
        let shutdown = Shutdown::new()?;
        shutdown.on_signals()?;
        match command {
            ClientCommand::Help(text) => {
                // A closed stdout is no failure: a pager may quit before the end of the text.
                let _ = std::io::stdout().write_all(text.as_bytes());
                Ok(())
            }
            ClientCommand::Follow(args) => follow::run(&args, &shutdown),
            ClientCommand::Publish(args) => publish::run(&args, &shutdown),
        }
    });
    Some(match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            match &error {
                CommandError::Usage(why) | CommandError::Failed(why) => print_error(why),
                // The follow loop has already printed what was lost.
                CommandError::Gap => {}
            }
            ExitCode::from(error.exit_status())
        }
    })
}
