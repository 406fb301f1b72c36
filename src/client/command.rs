//! `longpoll follow` and `longpoll publish`: the two loops as programs.
//!
//! Exit status: 0 when it went well or was told to stop; 1 when it cannot go on; 2 when the
//! command line is wrong; 3 when events were lost (`follow` with `--on-gap fail`).

mod args;
mod exec;
mod follow;
mod format;
mod input;
mod publish;
mod state;

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use args::Asked;
pub use args::{FOLLOW_HELP, PUBLISH_HELP};

use super::trouble::Error;
use crate::shutdown::Shutdown;

/// Why a command ended before its work was done.
#[derive(Debug)]
enum Failure {
    /// The command line cannot be followed.
    Usage(String),
    /// It cannot go on.
    Stuck(String),
    /// Events were lost.
    Gap,
}

impl Failure {
    fn code(&self) -> u8 {
        match self {
            Failure::Stuck(_) => 1,
            Failure::Usage(_) => 2,
            Failure::Gap => 3,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        match error {
            Error::Invalid(why) => Failure::Usage(why),
            error => Failure::Stuck(error.to_string()),
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        Failure::Stuck(error.to_string())
    }
}

/// Runs the command that the first argument names; nothing when it names none of the client's.
#[must_use]
pub fn run(args: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let asked = args::parse(args)?;
    let done = asked.and_then(|asked| {
        let stop = Shutdown::new()?;
        stop.on_signals()?;
        match asked {
            Asked::Help(text) => {
                // A reader that closed its end has seen what it wanted.
                let _ = std::io::stdout().write_all(text.as_bytes());
                Ok(())
            }
            Asked::Follow(ask) => follow::run(&ask, &stop),
            Asked::Publish(ask) => publish::run(&ask, &stop),
        }
    });
    Some(match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            match &failure {
                Failure::Usage(why) | Failure::Stuck(why) => tell(why),
                // Told already.
                Failure::Gap => {}
            }
            ExitCode::from(failure.code())
        }
    })
}

/// A line on stderr.
fn tell(text: impl std::fmt::Display) {
    // Nobody is left to tell when stderr is gone.
    let _ = std::io::stderr().write_all(format!("longpoll: {text}\n").as_bytes());
}

/// A failure that may pass.
fn tell_trouble(error: &impl std::fmt::Display, pause: Duration) {
    match pause.as_millis().div_ceil(100) {
        0 => tell(format_args!("{error}; trying again at once")),
        n => tell(format_args!("{error}; trying again in {}.{} s", n / 10, n % 10)),
    }
}
