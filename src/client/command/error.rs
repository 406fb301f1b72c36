//! How a client command fails, and how it writes to stderr.

use std::fmt::Display;
use std::io::Write as _;
use std::time::Duration;

use crate::client::error::Error;

/// Why a command ended before its work was done.
#[derive(Debug)]
pub enum CommandError {
    /// The command line is invalid.
    Usage(String),
    /// The command cannot continue.
    Failed(String),
    /// Events were lost.
    Gap,
}

impl CommandError {
    pub fn exit_status(&self) -> u8 {
        match self {
            CommandError::Failed(_) => 1,
            CommandError::Usage(_) => 2,
            CommandError::Gap => 3,
        }
    }
}

impl From<Error> for CommandError {
    fn from(error: Error) -> CommandError {
        match error {
            Error::Invalid(why) => CommandError::Usage(why),
            error => CommandError::Failed(error.to_string()),
        }
    }
}

impl From<std::io::Error> for CommandError {
    fn from(error: std::io::Error) -> CommandError {
        CommandError::Failed(error.to_string())
    }
}

/// Prints a line on stderr.
pub fn print_error(text: impl Display) {
    // A failure to write to stderr cannot be reported anywhere.
    let _ = std::io::stderr().write_all(format!("longpoll: {text}\n").as_bytes());
}

/// Prints a transient failure and the pause before the next attempt.
pub fn print_retry(error: &impl Display, pause: Duration) {
    match pause.as_millis().div_ceil(100) {
        0 => print_error(format_args!("{error}; trying again at once")),
        n => print_error(format_args!("{error}; trying again in {}.{} s", n / 10, n % 10)),
    }
}
