//! What a poll is answered with, as bytes.
//!
//! Nothing is sent before all of it is known: status, length, events and cursor go out together, so
//! that no status is ever a lie. An event's JSON goes out as it came in; it is not parsed again for
//! each reader. How much fits is decided here too, by bytes, and the cursor is that of the last
//! event that did.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::page::{BodyFormat, PageKey, PageShape, RenderedPage};
#[cfg(feature = "streams")]
use super::stream;
use crate::http::{EncodeOptions, Response};
use crate::json::{self, JsonObject};
use crate::limits::GAP_HEADER_BYTES;
use crate::log::{BodyKind, Event, Gap, LogSlice};
use crate::semaphore::Permit;
use crate::time::Seconds;

/// Why a poll was answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PollReason {
    Data,
    /// After so long.
    Timeout(Duration),
    Drain,
}

impl PollReason {
    /// As the wire says it.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            PollReason::Data => "data",
            PollReason::Timeout(_) => "timeout",
            PollReason::Drain => "drain",
        }
    }
}

/// Renders a page of at most `room`, or of one event.
pub fn render(
    key: &PageKey,
    slice: &LogSlice,
    reason: PollReason,
    mut room: Permit,
) -> Arc<RenderedPage> {
    let (bytes, taken) = match key.shape {
        PageShape::Response(format) => answer(key, format, slice, reason, room.size()),
        #[cfg(feature = "streams")]
        PageShape::Part(wire) => stream::part(wire, slice, room.size()),
    };
    room.resize(bytes.capacity());
    let gap = slice.gap.as_ref().map(|gap| (gap.why, lost_in_all(gap)));
    let first_at = slice.events.first().map(|event| event.at);
    #[cfg(not(feature = "streams"))]
    let _ = taken;
    Arc::new(RenderedPage {
        bytes,
        #[cfg(feature = "streams")]
        next: slice.next(taken),
        first_at,
        gap,
        _room: room,
    })
}

/// A whole answer, and how many events it has.
fn answer(
    key: &PageKey,
    format: BodyFormat,
    slice: &LogSlice,
    reason: PollReason,
    most: usize,
) -> (Vec<u8>, usize) {
    let first = slice.events.first();
    let (content_type, body, taken) = match format {
        BodyFormat::Json => {
            let (body, taken) = json_body(slice, reason, most);
            ("application/json", body, taken)
        }
        BodyFormat::Ndjson => {
            let mut body = Vec::new();
            let taken = push_events(&mut body, slice, most, &|out, _, event| {
                push_event(out, event);
                out.push(b'\n');
            });
            ("application/x-ndjson", body, taken)
        }
        BodyFormat::Raw => {
            let body = first.map_or(Vec::new(), |event| event.content.body.to_vec());
            (raw_content_type(first), body, slice.events.len().min(1))
        }
    };
    let mut answer = Response::new(200, content_type, body)
        .with_header("Next-Cursor", &slice.next(taken).text())
        .with_header("Poll-Reason", reason.label())
        .with_header("Cache-Control", "no-store, no-transform");
    if let PollReason::Timeout(granted) = reason {
        answer = answer.with_header("Poll-Wait", &Seconds(granted).to_string());
    }
    if format == BodyFormat::Raw {
        // What a publisher sent must not run in a reader's browser.
        answer = answer.with_header("Content-Security-Policy", "sandbox");
        if key.cors.is_none() {
            // Nor be shown or run by another site's page, which needs no leave to ask for it.
            answer = answer.with_header("Cross-Origin-Resource-Policy", "same-origin");
        }
    }
    if let Some(gap) = slice.gap.as_ref().filter(|_| format != BodyFormat::Json) {
        answer = answer.with_header("Poll-Gap", &gap_header(gap));
    }
    if let Some(wait) = key.preferred {
        answer = answer.with_header("Preference-Applied", &format!("wait={wait}"));
    }
    let frame =
        EncodeOptions { include_body: true, allowed_origin: key.cors.as_deref(), close: false };
    (answer.encode(frame), taken)
}

fn json_body(slice: &LogSlice, reason: PollReason, room: usize) -> (Vec<u8>, usize) {
    let mut body = Vec::new();
    let mut taken = 0;
    let mut object = JsonObject::begin(&mut body);
    object.with("events", |out| {
        out.push(b'[');
        taken = push_events(out, slice, room, &|out, place, event| {
            if place > 0 {
                out.push(b',');
            }
            push_event(out, event);
        });
        out.push(b']');
    });
    let behind = slice.behind(taken);
    object
        .unescaped("next", &slice.next(taken).text())
        .boolean("more", behind > 0)
        .number("behind", behind)
        .unescaped("reason", reason.label());
    if let Some(gap) = &slice.gap {
        object.with("gap", |out| push_gap(out, gap));
    }
    object.end();
    body.push(b'\n');
    (body, taken)
}

/// Appends events until the next would exceed `room`, at least one if there is one. `push` gets
/// each with its place.
pub fn push_events(
    out: &mut Vec<u8>,
    slice: &LogSlice,
    room: usize,
    push: &dyn Fn(&mut Vec<u8>, usize, &Event),
) -> usize {
    let start = out.len();
    for (taken, event) in slice.events.iter().enumerate() {
        let end = out.len();
        push(out, taken, event);
        if taken > 0 && out.len() - start > room {
            out.truncate(end);
            return taken;
        }
    }
    slice.events.len()
}

/// Appends an event as an object, on one line.
pub fn push_event(out: &mut Vec<u8>, event: &Event) {
    let content = &event.content;
    let mut object = JsonObject::begin(out);
    object.number("seq", event.seq).unescaped("topic", event.topic()).time("time", event.time);
    if let Some(event_type) = &content.event_type {
        object.unescaped("type", event_type);
    }
    if let Some(content_type) =
        content.content_type.as_ref().filter(|_| content.kind != BodyKind::Json)
    {
        object.string("content_type", content_type);
    }
    match (content.kind, std::str::from_utf8(&content.body)) {
        (BodyKind::Json, _) => object.raw("data", &content.body),
        (BodyKind::Text, Ok(text)) => object.string("data", text),
        (BodyKind::Binary | BodyKind::Text, _) => {
            object.string("data_base64", &BASE64.encode(&content.body))
        }
    };
    object.end();
}

fn raw_content_type(event: Option<&Arc<Event>>) -> &str {
    let Some(event) = event else { return "text/plain; charset=utf-8" };
    match (&event.content.content_type, event.content.kind) {
        (Some(own), _) => own,
        (None, BodyKind::Json) => "application/json",
        (None, BodyKind::Text) => "text/plain; charset=utf-8",
        (None, BodyKind::Binary) => "application/octet-stream",
    }
}

/// How many events a gap has lost, as far as that is known.
pub fn lost_in_all(gap: &Gap) -> u64 {
    gap.lost.iter().flatten().filter_map(|(_, count)| *count).sum()
}

/// The gap object's members, each as JSON.
pub fn gap_members(gap: &Gap) -> [(&'static str, Vec<u8>); 4] {
    let lost = gap.lost.as_ref().map(|lost| {
        let mut out = Vec::new();
        let mut object = JsonObject::begin(&mut out);
        for (topic, count) in lost {
            match count {
                Some(count) => object.number(topic, *count),
                None => object.raw(topic, NULL),
            };
        }
        object.end();
        out
    });
    let oldest = gap.oldest.map(|oldest| json::encode_string(&oldest.to_string()));
    [
        ("why", json::encode_string(gap.why.label())),
        ("lost", lost.unwrap_or_else(|| NULL.to_vec())),
        ("oldest", oldest.unwrap_or_else(|| NULL.to_vec())),
        ("resume", json::encode_string(&gap.resume.to_string())),
    ]
}

const NULL: &[u8] = b"null";

/// Appends the gap object, on one line.
pub fn push_gap(out: &mut Vec<u8>, gap: &Gap) {
    push_members(out, &gap_members(gap));
}

fn push_members(out: &mut Vec<u8>, members: &[(&'static str, Vec<u8>)]) {
    let mut object = JsonObject::begin(out);
    for (name, value) in members {
        object.raw(name, value);
    }
    object.end();
}

/// The gap object on one line; without the counts where those would not fit into a header.
fn gap_header(gap: &Gap) -> String {
    let mut members = gap_members(gap);
    let mut text = Vec::new();
    push_members(&mut text, &members);
    if text.len() > GAP_HEADER_BYTES {
        members[1].1 = NULL.to_vec();
        text.clear();
        push_members(&mut text, &members);
    }
    String::from_utf8_lossy(&text).into_owned()
}
