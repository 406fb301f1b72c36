//! How publishers change a log, whether it is kept in memory only or in a store.
//!
//! Publishers use one trait and cannot tell the two apart: an append returns when the events are as
//! durable as configured, and has happened completely or not at all. So the api needs no knowledge
//! of disks, and a server without a store pays nothing for one.

use std::time::Instant;

use super::event::{EventContent, Timestamp};
use super::idempotency::{IdempotencyKey, SharedOutcome};
use super::state::AppendError;
use crate::cursor::Cursor;
use crate::metrics::MetricsText;
use crate::names::Name;

/// Changes a log. [`Log`](super::Log) itself implements this for a log in memory; with a store, the
/// implementation is a thread that writes to the disk first and changes the log after that.
pub trait LogWriter<T>: Send + Sync {
    /// Appends events. Returns when they are as durable as configured.
    ///
    /// # Errors
    /// The log rejects the publish, or the storage fails. Nothing was appended.
    fn append(
        &self,
        request: AppendRequest<'_, T>,
        now: Timestamp,
    ) -> Result<Appended<T>, WriteError>;

    /// Trims every event of a topic.
    ///
    /// # Errors
    /// The storage fails.
    fn trim(&self, topic: &Name) -> Result<(), WriteError>;

    /// Trims expired events and drops expired keys. Call it periodically.
    fn expire(&self, now: Instant);

    /// Writes the metrics of the storage.
    fn render(&self, page: &mut MetricsText);

    /// Whether the storage works.
    fn storage_status(&self) -> StorageStatus;

    /// Whether an event is on the disk when its append returns.
    fn is_durable(&self) -> bool;

    /// Closes the storage. No append to a store succeeds after that.
    ///
    /// # Errors
    /// The storage did not close in time.
    fn close(&self) -> Result<(), String>;
}

/// A publish, as far as the log is concerned.
pub struct AppendRequest<'a, T> {
    pub topic: &'a Name,
    pub events: Vec<EventContent>,
    pub key: Option<&'a IdempotencyKey<T>>,
    /// Number of events, if they were published as a batch. Part of the response, so a store keeps
    /// it with the key.
    pub count: Option<u32>,
}

/// The result of a publish that the log did not reject.
pub enum Appended<T> {
    /// The events were appended; the cursor is that of the last one.
    New(Cursor),
    /// The same events were published before under this key.
    Duplicate(SharedOutcome<T>),
}

/// What an append would do; a store asks before it writes to the disk.
pub enum AppendPlan<T> {
    /// Return the outcome of the first publish under this key.
    Duplicate(SharedOutcome<T>),
    /// Fail: the key was used for another publish.
    KeyReused,
    /// Append to an existing topic.
    Append,
    /// Create the topic, and append.
    CreateTopic,
    /// Create the topic in place of an empty one, and append.
    ReplaceEmptyTopic,
    /// Fail: the topic would be one too many.
    TooManyTopics,
}

/// The state of the storage under a log.
#[derive(Debug, PartialEq, Eq)]
pub enum StorageStatus {
    /// There is none: the log is in memory only.
    None,
    Ok,
    /// Writes fail; the text is the storage's error.
    Failing(String),
}

/// Why a change was not made.
#[derive(Debug, PartialEq, Eq)]
pub enum WriteError {
    /// The log rejected it.
    Rejected(AppendError),
    /// The storage failed; the text is its error.
    Storage(String),
}
