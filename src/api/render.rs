//! Renders a page: the events of a slice as the bytes of a response, or of a part of a stream.
//!
//! Nothing is sent before all of it is known: status, length, events and cursor go out together, so
//! a status is never wrong. The response's cursor is that of the last event that fits into it.

use std::sync::Arc;
use std::time::Duration;

use super::event_json::{GapMembers, push_event, push_events, push_gap};
use super::page::{BodyFormat, PageKey, PageShape, RenderedPage};
use super::page_memory::PageMemory;
use crate::http::{EncodeOptions, Response};
use crate::json::JsonObject;
use crate::limits::GAP_HEADER_BYTES;
use crate::log::{BodyKind, Event, Gap, LogSlice};
use crate::time::Seconds;

/// Why a poll is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PollReason {
    Data,
    /// The granted wait is over; this is how long it was.
    Timeout(Duration),
    Drain,
}

impl PollReason {
    /// The reason's name in the protocol.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            PollReason::Data => "data",
            PollReason::Timeout(_) => "timeout",
            PollReason::Drain => "drain",
        }
    }
}

/// Renders a page of as many events as fit into a page and its `memory`, but at least one.
pub fn render(
    key: &PageKey,
    slice: &LogSlice,
    reason: PollReason,
    mut memory: PageMemory,
) -> Arc<RenderedPage> {
    let (bytes, count) = match key.shape {
        PageShape::Response(format) => response(key, format, slice, reason, &mut memory),
        PageShape::Part(framing) => framing.part(slice, &mut memory),
    };
    let gap = slice.gap.as_ref().map(|gap| (gap.why, total_lost(gap)));
    let first_at = slice.events.first().map(|event| event.at);
    Arc::new(RenderedPage {
        next: slice.next(count),
        first_at,
        gap,
        is_cut: memory.ran_out() && count < slice.events.len(),
        _memory: memory.into_permit(bytes.capacity()),
        bytes,
    })
}

/// A whole response, and how many events it has.
fn response(
    key: &PageKey,
    format: BodyFormat,
    slice: &LogSlice,
    reason: PollReason,
    memory: &mut PageMemory,
) -> (Vec<u8>, usize) {
    let first = slice.events.first();
    let (content_type, body, count) = match format {
        BodyFormat::Json => {
            let (body, count) = json_body(slice, reason, memory);
            ("application/json", body, count)
        }
        BodyFormat::Ndjson => {
            let mut body = Vec::new();
            let count = push_events(&mut body, slice, memory, &|out, _, event| {
                push_event(out, event);
                out.push(b'\n');
            });
            ("application/x-ndjson", body, count)
        }
        BodyFormat::Raw => {
            let body = first.map_or(Vec::new(), |event| event.content.body.to_vec());
            (raw_content_type(first), body, slice.events.len().min(1))
        }
    };
    let mut response = Response::new(200, content_type, body)
        .with_header("Next-Cursor", &slice.next(count).text())
        .with_header("Poll-Reason", reason.label())
        .with_header("Cache-Control", "no-store, no-transform");
    if let PollReason::Timeout(granted) = reason {
        response = response.with_header("Poll-Wait", &Seconds(granted).to_string());
    }
    if format == BodyFormat::Raw {
        // A publisher's content must not run as a script in a reader's browser.
        response = response.with_header("Content-Security-Policy", "sandbox");
        if key.cors.is_none() {
            // Another site's page may load this without CORS, as an image or a script; browsers
            // then withhold it from that page.
            response = response.with_header("Cross-Origin-Resource-Policy", "same-origin");
        }
    }
    if let Some(gap) = slice.gap.as_ref().filter(|_| format != BodyFormat::Json) {
        response = response.with_header("Poll-Gap", &gap_header(gap));
    }
    if let Some(wait) = key.applied_wait {
        response = response.with_header("Preference-Applied", &format!("wait={wait}"));
    }
    let options =
        EncodeOptions { include_body: true, allowed_origin: key.cors.as_deref(), close: false };
    (response.encode(options), count)
}

fn json_body(slice: &LogSlice, reason: PollReason, memory: &mut PageMemory) -> (Vec<u8>, usize) {
    let mut body = Vec::new();
    let mut count = 0;
    let mut object = JsonObject::begin(&mut body);
    object.with("events", |out| {
        out.push(b'[');
        count = push_events(out, slice, memory, &|out, index, event| {
            if index > 0 {
                out.push(b',');
            }
            push_event(out, event);
        });
        out.push(b']');
    });
    let behind = slice.behind(count);
    object
        .unescaped("next", &slice.next(count).text())
        .boolean("more", behind > 0)
        .number("behind", behind)
        .unescaped("reason", reason.label());
    if let Some(gap) = &slice.gap {
        object.with("gap", |out| push_gap(out, gap));
    }
    object.end();
    body.push(b'\n');
    (body, count)
}

fn raw_content_type(event: Option<&Arc<Event>>) -> &str {
    let Some(event) = event else { return "text/plain; charset=utf-8" };
    match (&event.content.content_type, event.content.kind) {
        (Some(published), _) => published,
        (None, BodyKind::Json) => "application/json",
        (None, BodyKind::Text) => "text/plain; charset=utf-8",
        (None, BodyKind::Binary) => "application/octet-stream",
    }
}

/// How many events are lost to a gap, as far as the log still knows.
pub fn total_lost(gap: &Gap) -> u64 {
    gap.lost.iter().flatten().filter_map(|(_, count)| count.map(u64::from)).sum()
}

/// The gap object on one line, without the counts if those would not fit into a header.
fn gap_header(gap: &Gap) -> String {
    let members = GapMembers::of(gap);
    let mut text = Vec::new();
    members.push(&mut text);
    if text.len() > GAP_HEADER_BYTES {
        text.clear();
        members.without_counts().push(&mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}
