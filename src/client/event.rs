//! What a poll's answer holds.
//!
//! It is taken whole or not at all: an answer that lacks something, or has it in another form, did
//! not come from this kind of server, and a cursor out of it could lead anywhere. Numbers and JSON
//! keep the digits and the order that the publisher gave them, as they are not turned into anything
//! else.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::trouble::Gap;
use crate::names::Name;

/// An object's members, each still the text that it came as: numbers keep all their digits.
pub type Members<'a> = BTreeMap<&'a str, &'a RawValue>;

/// One event.
#[derive(Clone, Debug)]
pub struct Event {
    /// Its place in the whole log.
    pub seq: u64,
    pub topic: Name,
    /// When it was published: RFC 3339, by the server's clock. Only `seq` orders.
    pub time: String,
    /// Its type, when it was tagged.
    pub tag: Option<Name>,
    /// What it is, when it is neither JSON nor plain text.
    pub content_type: Option<String>,
    pub data: Data,
    /// All of it, as the server wrote it: JSON on one line.
    pub json: String,
}

/// What was published. A JSON string is as good as its text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Data {
    Text(String),
    /// A JSON value that is no string, with its digits and the order of its members untouched.
    Json(String),
    /// What is not UTF-8.
    Bytes(Vec<u8>),
}

/// One answer.
#[derive(Clone, Debug)]
pub struct Page {
    /// In the order of the log.
    pub events: Vec<Event>,
    /// The cursor after them.
    pub next: String,
    /// All of it, as the server wrote it: JSON on one line.
    pub json: String,
    pub(super) is_drain: bool,
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

impl Page {
    /// Reads an answer's body; nothing when it is not what a longpoll server sends.
    pub(super) fn parse(body: Vec<u8>) -> Option<Page> {
        let text = String::from_utf8(body).ok()?;
        let page: Members<'_> = serde_json::from_slice(text.as_bytes()).ok()?;
        let events: Vec<&RawValue> = member(&page, "events")?;
        let next: String = member(&page, "next")?;
        let reason: String = member(&page, "reason")?;
        let events: Vec<Event> =
            events.into_iter().map(|event| Event::parse(event.get())).collect::<Option<_>>()?;
        let is_drain = reason == "drain";
        is_cursor(&next).then(|| Page { events, next, json: text.trim_end().to_owned(), is_drain })
    }
}

impl Event {
    fn parse(text: &str) -> Option<Event> {
        let event: Members<'_> = serde_json::from_slice(text.as_bytes()).ok()?;
        let name = |key| member::<String>(&event, key).and_then(|name| Name::new(&name));
        let time: String = member(&event, "time")?;
        let data = match (event.get("data"), member::<String>(&event, "data_base64")) {
            (Some(data), _) if data.get().starts_with('"') => Data::Text(member(&event, "data")?),
            (Some(data), _) => Data::Json(data.get().to_owned()),
            (None, Some(base64)) => Data::Bytes(BASE64.decode(base64).ok()?),
            (None, None) => return None,
        };
        Some(Event {
            seq: member(&event, "seq")?,
            topic: name("topic")?,
            // It becomes an environment variable, and part of a line.
            time: time.bytes().all(|b| b.is_ascii_graphic()).then_some(time)?,
            tag: name("type"),
            content_type: member(&event, "content_type"),
            data,
            json: text.to_owned(),
        })
    }
}

impl Gap {
    /// Reads the problem body of a `410`; nothing when it is not about a gap.
    pub(super) fn parse(body: &[u8]) -> Option<Gap> {
        let problem: Members<'_> = serde_json::from_slice(body).ok()?;
        let lost: Option<BTreeMap<String, Option<u64>>> = member(&problem, "lost")?;
        let resume: String = member(&problem, "resume")?;
        let gap = Gap { why: member(&problem, "why")?, lost: lost.unwrap_or_default(), resume };
        is_cursor(&gap.resume).then_some(gap)
    }
}

/// A member's value; nothing when it is missing or something else.
pub fn member<'a, T: Deserialize<'a>>(members: &Members<'a>, name: &str) -> Option<T> {
    serde_json::from_slice(members.get(name)?.get().as_bytes()).ok()
}

/// Whether a text can be sent back as a cursor; what it means is the server's business.
pub fn is_cursor(text: &str) -> bool {
    let safe = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'~' | b':');
    (1..=256).contains(&text.len()) && text.bytes().all(safe)
}
