//! One published event, and the content that a publisher sends to create one.
//!
//! An [`Event`] is immutable and shared by all its readers. Its `seq` is its position in the log;
//! of its two times, one is shown to people and the other decides its age.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::trims::TopicMeta;
use crate::cursor::Seq;
use crate::limits::EVENT_OVERHEAD_BYTES;
use crate::names::Name;

/// One reading of both clocks. The log reads no clock; its callers pass the time.
#[derive(Clone, Copy, Debug)]
pub struct Timestamp {
    /// Monotonic, for ages and deadlines.
    pub at: Instant,
    /// Wall clock, for people: the `time` of an event.
    pub wall: SystemTime,
}

impl Timestamp {
    /// Reads both clocks.
    #[must_use]
    pub fn read() -> Timestamp {
        Timestamp { at: Instant::now(), wall: SystemTime::now() }
    }
}

/// How JSON shows an event's body.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum BodyKind {
    /// Validated JSON: as that value.
    Json,
    /// UTF-8: as a string.
    Text,
    /// Any other bytes: as base64.
    Binary,
}

/// What a publisher sends: an event without its position and times.
#[derive(Clone, Debug)]
pub struct EventContent {
    pub event_type: Option<Name>,
    pub kind: BodyKind,
    /// Stored only if the body is neither plain JSON nor plain text.
    pub content_type: Option<Box<str>>,
    pub body: Box<[u8]>,
}

/// An event in the log.
#[derive(Debug)]
pub struct Event {
    /// Position in the whole log.
    pub seq: Seq,
    /// When the event was appended, by the wall clock.
    pub time: SystemTime,
    /// When the event was appended, by the monotonic clock.
    pub at: Instant,
    pub(super) meta: Arc<TopicMeta>,
    pub content: EventContent,
}

impl Event {
    /// The topic to which the event was published.
    #[must_use]
    pub fn topic(&self) -> &Name {
        &self.meta.name
    }

    /// Bytes that the event counts against the log's byte budget; see [`event_cost`].
    #[must_use]
    pub fn cost(&self) -> u64 {
        event_cost(&self.content)
    }
}

/// Events that a change removed from the log. The caller of each change passes this list and drops
/// it after the log's lock is released: freeing thousands of events takes time, in which no reader
/// should have to wait. A store also reads from it which events its segments no longer need.
pub type TrimmedEvents = Vec<Arc<Event>>;

/// Bytes that an event with this content counts against `--retain-bytes`: body, type and content
/// type, plus a constant for what else an event occupies in memory.
#[must_use]
pub fn event_cost(content: &EventContent) -> u64 {
    let event_type = content.event_type.as_ref().map_or(0, |event_type| event_type.len());
    let content_type = content.content_type.as_ref().map_or(0, |t| t.len());
    (content.body.len() + event_type + content_type + EVENT_OVERHEAD_BYTES) as u64
}
