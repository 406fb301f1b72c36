//! One published event, and what a publisher hands in to become one.
//!
//! An [`Event`] never changes, and is shared by all who read it. Its place is its `seq`; its times
//! are for people, and for its age.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::trims::TopicMeta;
use crate::limits::EVENT_OVERHEAD_BYTES;
use crate::names::Name;

/// One reading of both clocks. The log reads none itself: whoever calls it says what time it is.
#[derive(Clone, Copy, Debug)]
pub struct Timestamp {
    /// For ages and deadlines: never goes back.
    pub at: Instant,
    /// For people: what an event's `time` says.
    pub wall: SystemTime,
}

impl Timestamp {
    /// Reads both clocks.
    #[must_use]
    pub fn read() -> Timestamp {
        Timestamp { at: Instant::now(), wall: SystemTime::now() }
    }
}

/// How an event's bytes are shown in JSON.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum BodyKind {
    /// Checked JSON: shown as that value.
    Json,
    /// UTF-8: shown as a string.
    Text,
    /// Anything else: shown as base64.
    Binary,
}

/// What a publisher hands in.
#[derive(Clone, Debug)]
pub struct EventContent {
    pub event_type: Option<Name>,
    pub kind: BodyKind,
    /// Kept when the bytes are neither plain JSON nor plain text.
    pub content_type: Option<Box<str>>,
    pub body: Box<[u8]>,
}

/// One event of the log. Never changes.
#[derive(Debug)]
pub struct Event {
    /// Position in the whole log.
    pub seq: u64,
    /// When it was appended, for people.
    pub time: SystemTime,
    /// When it was appended, for ages.
    pub at: Instant,
    pub(super) meta: Arc<TopicMeta>,
    pub content: EventContent,
}

impl Event {
    /// The topic it was published to.
    #[must_use]
    pub fn topic(&self) -> &Name {
        &self.meta.name
    }

    /// What it counts against the byte budget.
    #[must_use]
    pub fn cost(&self) -> u64 {
        event_cost(&self.content)
    }
}

/// What an event with this content counts against the byte budget.
#[must_use]
pub fn event_cost(content: &EventContent) -> u64 {
    let event_type = content.event_type.as_ref().map_or(0, |event_type| event_type.len());
    let content_type = content.content_type.as_ref().map_or(0, |t| t.len());
    (content.body.len() + event_type + content_type + EVENT_OVERHEAD_BYTES) as u64
}
