//! Server-sent events (WHATWG HTML, section 9.2) as bytes.
//!
//! Every event's `id` is a cursor, and browsers send the last one back by themselves: so the format
//! has built in what a long poll's client has to do by hand. JSON is written without line ends, so
//! an event is always one `data` line.

use super::render::{push_event, push_events, push_gap};
use crate::cursor::Cursor;
use crate::json::push_number;
use crate::limits::RETRY_AFTER_SECONDS;
use crate::log::LogSlice;

/// A gap if one was found, then events: at most `room`, or one; and how many.
pub fn part(slice: &LogSlice, room: usize) -> (Vec<u8>, usize) {
    let mut text = Vec::new();
    if let Some(gap) = &slice.gap {
        push_id(&mut text, gap.resume);
        text.extend_from_slice(b"event: gap\ndata: ");
        push_gap(&mut text, gap);
        text.extend_from_slice(END);
    }
    let taken = push_events(&mut text, slice, room, &|out, place, event| {
        push_id(out, slice.next(place + 1));
        if let Some(event_type) = &event.content.event_type {
            out.extend_from_slice(b"event: ");
            out.extend_from_slice(event_type.as_bytes());
            out.push(b'\n');
        }
        out.extend_from_slice(b"data: ");
        push_event(out, event);
        out.extend_from_slice(END);
    });
    (text, taken)
}

/// A cursor alone: a browser keeps it, and no event is seen.
pub fn cursor(cursor: Cursor) -> Vec<u8> {
    let mut text = Vec::new();
    push_id(&mut text, cursor);
    text.push(b'\n');
    text
}

/// When to come back, at random: a browser would otherwise do so at once, as all others do.
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
