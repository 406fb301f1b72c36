//! The ways in which a request fails, and which of them are worth a retry.
//!
//! The follow and publish loops ask only [`Error::is_transient`]: they retry a transient error
//! after a pause, and return any other to the caller.

use std::fmt;
use std::time::Duration;

use super::event::ReceivedGap;

/// Why a request has no usable response.
#[derive(Debug)]
pub enum Error {
    /// The connection failed, or the response did not arrive whole and in time.
    Network(String),
    /// The server refused the request.
    Refused { status: u16, detail: String, retry_after: Option<Duration> },
    /// The response is not one that a longpoll server sends.
    BadResponse(String),
    /// The server is shutting down; the client reconnects, perhaps to its successor.
    Draining,
    /// Events were lost before this client read them.
    Gap(ReceivedGap),
    /// An argument is invalid; no request was sent.
    Invalid(String),
    /// The token file cannot be read.
    Token(String),
    /// No attempt within the time that `Publisher::retry_for` set succeeded. One of them may have
    /// reached the server all the same.
    GaveUp { after: Duration, last: Box<Error> },
    /// The shutdown signal was given before the server answered.
    Stopped,
    /// The operating system has no file descriptor or no randomness left.
    System(std::io::Error),
}

impl Error {
    /// Whether the same request may succeed later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Error::Network(_) | Error::BadResponse(_) | Error::Draining | Error::Token(_) => true,
            Error::Refused { status, .. } => {
                matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504 | 507)
            }
            Error::Gap(_)
            | Error::Invalid(_)
            | Error::GaveUp { .. }
            | Error::Stopped
            | Error::System(_) => false,
        }
    }

    /// How long the server asked to wait; zero when it did not.
    pub(super) fn retry_after(&self) -> Duration {
        match self {
            Error::Refused { retry_after, .. } => retry_after.unwrap_or_default(),
            _ => Duration::ZERO,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Network(why)
            | Error::BadResponse(why)
            | Error::Invalid(why)
            | Error::Token(why) => f.write_str(why),
            Error::Refused { status, detail, .. } => {
                write!(f, "the server answered {status}: {detail}")
            }
            Error::Draining => f.write_str("the server is shutting down"),
            Error::Gap(gap) => gap.fmt(f),
            Error::GaveUp { after, last } => {
                write!(f, "gave up after {} s, and the outcome is unknown: {last}", after.as_secs())
            }
            Error::Stopped => f.write_str("stopped before the server answered"),
            Error::System(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

/// Called before each retry with the error and the pause before the next attempt.
pub type RetryCallback = Box<dyn FnMut(&Error, Duration) + Send>;
