//! Who changes a log: publishers themselves, or whoever writes things down for them first.
//!
//! Whoever publishes cannot tell the two apart: an append returns when the event is as safe as was
//! promised, and has happened whole or not at all. So the api knows nothing of disks, and a server
//! without a store pays nothing for one.

use std::time::Instant;

use super::{AppendError, Appended, EventContent, IdempotencyKey, Log, Timestamp};
use crate::metrics::MetricsText;
use crate::names::Name;

/// The way to change a log. Without a store that is the log itself; with one, it is a thread that
/// writes to the disk and changes the log after that.
pub trait LogWriter<T>: Send + Sync {
    /// Appends; returns when it is as safe as was promised.
    ///
    /// # Errors
    /// When the log or the disk does not take it. Then nothing of it happened.
    fn append(
        &self,
        handed: AppendRequest<'_, T>,
        now: Timestamp,
    ) -> Result<Appended<T>, WriteError>;

    /// `TrimHistory` everything in a topic.
    ///
    /// # Errors
    /// When the disk does not take it.
    fn trim(&self, topic: &Name) -> Result<(), WriteError>;

    /// Lets go of what is too old. To be called now and then.
    fn expire(&self, now: Instant);

    /// Writes what is to be known of it beside the log itself.
    fn render(&self, page: &mut MetricsText);

    /// How the disk does that it is kept on.
    fn disk(&self) -> StorageStatus;

    /// Whether what was appended is on the disk when the publisher hears of it.
    fn is_durable(&self) -> bool;

    /// Ends it in order; nothing can be appended to a store after that.
    fn close(&self);
}

/// What a publish hands in.
pub struct AppendRequest<'a, T> {
    pub topic: &'a Name,
    pub events: Vec<EventContent>,
    pub claim: Option<&'a IdempotencyKey<T>>,
    /// Of a batch, how many events it has.
    pub count: Option<u32>,
}

/// The disk that a log is kept on.
#[derive(Debug, PartialEq, Eq)]
pub enum StorageStatus {
    /// There is none: it is in memory only.
    None,
    Ok,
    /// It takes nothing; in its words.
    Failing(String),
}

/// Why something was not done.
#[derive(Debug, PartialEq, Eq)]
pub enum WriteError {
    /// The log does not take it.
    Rejected(AppendError),
    /// The disk does not; in its words.
    Storage(String),
}

impl<T: Send> LogWriter<T> for Log<T> {
    fn append(
        &self,
        handed: AppendRequest<'_, T>,
        now: Timestamp,
    ) -> Result<Appended<T>, WriteError> {
        let AppendRequest { topic, events, claim, .. } = handed;
        self.append(topic, events, claim, now).map_err(WriteError::Rejected)
    }

    fn trim(&self, topic: &Name) -> Result<(), WriteError> {
        self.trim(topic);
        Ok(())
    }

    fn expire(&self, now: Instant) {
        self.expire(now);
    }

    fn render(&self, _: &mut MetricsText) {}

    fn disk(&self) -> StorageStatus {
        StorageStatus::None
    }

    fn is_durable(&self) -> bool {
        false
    }

    fn close(&self) {}
}
