//! Events, heartbeats and the end of a stream as frames of a WebSocket (RFC 6455). `tungstenite`
//! encodes the frames.

use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};

use super::end::StreamEnd;
use crate::api::event_json::{push_event, push_events, push_gap};
use crate::api::page_memory::PageMemory;
use crate::cursor::Cursor;
use crate::json::JsonObject;
use crate::log::LogSlice;

/// States that this build has WebSocket support: without the cargo feature the type has no value.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct WebSocketFraming;

/// The gap of a slice, if it has one, then its events as far as `memory` goes, at least one, each in
/// a frame of its own; and how many events that is.
pub fn part(_: WebSocketFraming, slice: &LogSlice, memory: &mut PageMemory) -> (Vec<u8>, usize) {
    let mut frames = Vec::new();
    if let Some(gap) = &slice.gap {
        let mut json = Vec::new();
        let mut object = JsonObject::begin(&mut json);
        object.with("gap", |out| push_gap(out, gap));
        object.end();
        frames = text_frame(json);
    }
    let count = push_events(&mut frames, slice, memory, &|out, index, event| {
        let mut json = Vec::new();
        push_event(&mut json, event);
        // Reopens the object for one more member.
        json.pop();
        json.extend_from_slice(b",\"cursor\":\"");
        json.extend_from_slice(slice.next(index + 1).text().as_bytes());
        json.extend_from_slice(b"\"}");
        out.extend_from_slice(&text_frame(json));
    });
    (frames, count)
}

/// A ping with the cursor as its payload, for clients that can see pings.
pub fn heartbeat(_: WebSocketFraming, cursor: Cursor) -> Vec<u8> {
    encode(Frame::ping(cursor.text().into_bytes()))
}

/// The stream's last frame. After a hang-up there is none: the thread that reads from the client
/// has sent it, or nobody would receive it.
pub fn end(_: WebSocketFraming, end: StreamEnd) -> Vec<u8> {
    match end {
        StreamEnd::Drained => close_frame(CloseCode::Away),
        StreamEnd::Revoked => close_frame(CloseCode::Policy),
        StreamEnd::HungUp => Vec::new(),
    }
}

/// A text frame that holds a whole message.
#[must_use]
pub fn text_frame(json: Vec<u8>) -> Vec<u8> {
    encode(Frame::message(json, OpCode::Data(Data::Text), true))
}

/// A close frame without a reason text.
#[must_use]
pub fn close_frame(code: CloseCode) -> Vec<u8> {
    encode(Frame::close(Some(CloseFrame { code, reason: "".into() })))
}

/// The answer to a ping with this payload.
#[must_use]
pub fn pong_frame(payload: Vec<u8>) -> Vec<u8> {
    encode(Frame::pong(payload))
}

fn encode(frame: Frame) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(frame.len());
    // Writing to a Vec cannot fail.
    let _ = frame.format(&mut bytes);
    bytes
}
