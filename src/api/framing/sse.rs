//! Server-sent events (WHATWG HTML, section 9.2) as bytes.
//!
//! Every event's `id` is a cursor, and a browser sends the last one back when it reconnects. The
//! format thus includes what a long-polling client has to do itself. JSON is written without line
//! breaks, so an event is always one `data` line.

use crate::api::event_json::{push_event, push_events, push_gap};
use crate::api::page_memory::PageMemory;
use crate::cursor::Cursor;
use crate::json::push_number;
use crate::limits::RETRY_AFTER_SECONDS;
use crate::log::LogSlice;

/// The gap of a slice, if it has one, then its events as far as `memory` goes, at least one; and how
/// many events that is.
pub fn part(slice: &LogSlice, memory: &mut PageMemory) -> (Vec<u8>, usize) {
    let mut text = Vec::new();
    if let Some(gap) = &slice.gap {
        push_id(&mut text, gap.resume);
        text.extend_from_slice(b"event: gap\ndata: ");
        push_gap(&mut text, gap);
        text.extend_from_slice(END);
    }
    let count = push_events(&mut text, slice, memory, &|out, index, event| {
        push_id(out, slice.next(index + 1));
        if let Some(event_type) = &event.content.event_type {
            out.extend_from_slice(b"event: ");
            out.extend_from_slice(event_type.as_bytes());
            out.push(b'\n');
        }
        out.extend_from_slice(b"data: ");
        push_event(out, event);
        out.extend_from_slice(END);
    });
    (text, count)
}

/// An `id` without data: a browser remembers it and dispatches no event.
pub fn heartbeat(cursor: Cursor) -> Vec<u8> {
    let mut text = Vec::new();
    push_id(&mut text, cursor);
    text.push(b'\n');
    text
}

/// A random `retry`, in milliseconds: without it, all browsers would reconnect at the same moment.
pub fn retry() -> Vec<u8> {
    let mut text = b"retry: ".to_vec();
    push_number(
        &mut text,
        fastrand::u64(RETRY_AFTER_SECONDS.start() * 1_000..=RETRY_AFTER_SECONDS.end() * 1_000),
    );
    text.extend_from_slice(END);
    text
}

const END: &[u8] = b"\n\n";

fn push_id(out: &mut Vec<u8>, cursor: Cursor) {
    out.extend_from_slice(b"id: ");
    out.extend_from_slice(cursor.text().as_bytes());
    out.push(b'\n');
}
