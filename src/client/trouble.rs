//! What can come between a client and its answer, and whether it may pass.
//!
//! That is the one question that the loops ask: what may pass is tried again after a pause, and
//! what will not is handed to whoever called. What a server has said is cleaned before it is shown,
//! because a terminal obeys what it is sent.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::limits::SERVER_TEXT_CHARS;

/// Why there is no answer.
#[derive(Debug)]
pub enum Error {
    /// No connection, or an answer that did not arrive whole or in time.
    Network(String),
    /// The server says no.
    Refused { status: u16, detail: String, retry_after: Option<Duration> },
    /// There is an answer, but not one of this kind of server.
    Foreign(String),
    /// The server is shutting down; the next one will be asked.
    Draining,
    /// Events are gone before they were read.
    Gap(Gap),
    /// What was asked for cannot be asked.
    Invalid(String),
    /// The token cannot be read.
    Token(String),
    /// Tried again and again for so long.
    GaveUp { after: Duration, last: Box<Error> },
    /// Told to stop before there was an answer.
    Stopped,
    /// The operating system has no descriptor or no randomness left.
    System(std::io::Error),
}

/// What a reader has missed.
#[derive(Clone, Debug)]
pub struct Gap {
    /// `trimmed`, `epoch` or `future`.
    pub why: String,
    /// How many events of each topic, where that is known.
    pub lost: BTreeMap<String, Option<u64>>,
    /// The cursor to go on from, losing nothing more.
    pub resume: String,
}

impl Error {
    /// Whether the same request may succeed later.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Error::Network(_) | Error::Foreign(_) | Error::Draining | Error::Token(_) => true,
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
            Error::Network(why) | Error::Foreign(why) | Error::Invalid(why) | Error::Token(why) => {
                f.write_str(why)
            }
            Error::Refused { status, detail, .. } => {
                write!(f, "the server says {status}: {detail}")
            }
            Error::Draining => f.write_str("the server is shutting down"),
            Error::Gap(gap) => gap.fmt(f),
            Error::GaveUp { after, last } => {
                write!(f, "gave up after {} s: {last}", after.as_secs())
            }
            Error::Stopped => f.write_str("stopped before there was an answer"),
            Error::System(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("gap: ")?;
        match &*self.why {
            "epoch" => f.write_str("the log has begun anew, and what the old one held is gone")?,
            "future" => f.write_str("the log ends before what was already read")?,
            _ => f.write_str("events were trimmed before they were read")?,
        }
        for (place, (topic, count)) in self.lost.iter().enumerate() {
            f.write_str(if place == 0 { ": " } else { ", " })?;
            match count {
                Some(count) => write!(f, "{count} in {}", plain(topic))?,
                None => write!(f, "an unknown number in {}", plain(topic))?,
            }
        }
        Ok(())
    }
}

/// What is done about a failure that may pass: it is told, with the pause before the next try.
pub type OnTrouble = Box<dyn FnMut(&Error, Duration) + Send>;

/// A text from elsewhere, such that a terminal shows it and does nothing else.
pub fn plain(text: &str) -> String {
    let shown = text.trim().chars().take(SERVER_TEXT_CHARS);
    shown.map(|c| if c.is_control() { ' ' } else { c }).collect()
}
