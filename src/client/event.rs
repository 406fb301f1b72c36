//! What a poll's response contains: a page of events, or a gap.
//!
//! A response is accepted whole or not at all. If a member is missing or has another type, another
//! kind of server sent the response, and its cursor could lead anywhere. Numbers and JSON values
//! keep the digits and the order that the publisher gave them, because they stay text.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::value::RawValue;

use super::untrusted::{JsonMembers, printable};
use crate::names::Name;

/// One event.
#[derive(Clone, Debug)]
pub struct ReceivedEvent {
    /// The position in the whole log.
    pub seq: u64,
    pub topic: Name,
    /// The time of the publish by the server's clock, in RFC 3339. Only `seq` gives the order.
    pub time: String,
    /// The event type, if the publisher set one.
    pub event_type: Option<Name>,
    /// The content type, if the event is neither JSON nor plain text.
    pub content_type: Option<String>,
    pub data: Data,
    /// The whole event as the server wrote it: JSON on one line.
    pub json: String,
}

/// The body of an event. A JSON string is represented as its text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Data {
    Text(String),
    /// A JSON value other than a string, with its digits and the order of its members unchanged.
    Json(String),
    /// A body that is not UTF-8.
    Bytes(Vec<u8>),
}

/// The events of one poll response.
#[derive(Clone, Debug)]
pub struct ReceivedPage {
    /// The events in log order.
    pub events: Vec<ReceivedEvent>,
    /// The cursor after the events.
    pub next: String,
    /// The whole page as the server wrote it: JSON on one line.
    pub json: String,
    pub(super) is_drain: bool,
}

/// Events that were lost before this client read them.
#[derive(Clone, Debug)]
pub struct ReceivedGap {
    /// `trimmed`, `epoch` or `future`.
    pub why: String,
    /// Number of events lost per topic; `None` when the server does not know it.
    pub lost: BTreeMap<String, Option<u64>>,
    /// The cursor that continues after the gap and loses nothing more.
    pub resume: String,
}

impl Data {
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Data::Text(text) | Data::Json(text) => text.as_bytes(),
            Data::Bytes(bytes) => bytes,
        }
    }
}

impl ReceivedPage {
    /// Parses a response body; `None` when it is not what a longpoll server sends.
    pub(super) fn parse(body: Vec<u8>) -> Option<ReceivedPage> {
        let text = String::from_utf8(body).ok()?;
        let page = JsonMembers::parse(text.as_bytes())?;
        let events: Vec<&RawValue> = page.get("events")?;
        let next: String = page.get("next")?;
        let is_drain = page.get::<String>("reason")? == "drain";
        let events: Option<_> =
            events.into_iter().map(|event| ReceivedEvent::parse(event.get())).collect();
        let events = events?;
        let json = text.trim_end().to_owned();
        is_cursor(&next).then_some(ReceivedPage { events, next, json, is_drain })
    }
}

impl ReceivedEvent {
    fn parse(text: &str) -> Option<ReceivedEvent> {
        let event = JsonMembers::parse(text.as_bytes())?;
        let name = |member| event.get::<String>(member).and_then(|name| Name::new(&name));
        let time: String = event.get("time")?;
        let data = match (event.text("data"), event.get::<String>("data_base64")) {
            (Some(data), _) if data.starts_with('"') => Data::Text(event.get("data")?),
            (Some(data), _) => Data::Json(data.to_owned()),
            (None, Some(base64)) => Data::Bytes(BASE64.decode(base64).ok()?),
            (None, None) => return None,
        };
        Some(ReceivedEvent {
            seq: event.get("seq")?,
            topic: name("topic")?,
            // The time becomes an environment variable of a command, and part of a line.
            time: time.bytes().all(|b| b.is_ascii_graphic()).then_some(time)?,
            event_type: name("type"),
            content_type: event.get("content_type"),
            data,
            json: text.to_owned(),
        })
    }
}

impl ReceivedGap {
    /// Parses the problem body of a `410`; `None` when the problem is not a gap.
    pub(super) fn parse(body: &[u8]) -> Option<ReceivedGap> {
        let problem = JsonMembers::parse(body)?;
        let lost: Option<BTreeMap<String, Option<u64>>> = problem.get("lost")?;
        let resume: String = problem.get("resume")?;
        let why = problem.get("why")?;
        let lost = lost.unwrap_or_default();
        is_cursor(&resume).then_some(ReceivedGap { why, lost, resume })
    }
}

impl fmt::Display for ReceivedGap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &*self.why {
            "epoch" => "gap: the log has a new epoch, and the events of the old one are gone",
            "future" => "gap: the cursor is beyond the end of the log",
            _ => "gap: events were trimmed before they were read",
        })?;
        for (index, (topic, count)) in self.lost.iter().enumerate() {
            f.write_str(if index == 0 { ": " } else { ", " })?;
            match count {
                Some(count) => write!(f, "{count} in {}", printable(topic))?,
                None => write!(f, "an unknown number in {}", printable(topic))?,
            }
        }
        Ok(())
    }
}

/// Whether a text can be sent to a server as a cursor; only the server knows what it means.
pub fn is_cursor(text: &str) -> bool {
    let is_safe =
        |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'~' | b':');
    (1..=256).contains(&text.len()) && text.bytes().all(is_safe)
}
