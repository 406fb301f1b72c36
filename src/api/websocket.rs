//! WebSocket (RFC 6455): a stream whose client may talk back, by publishing.
//!
//! Frames are `tungstenite`'s. Those of a page are shared as any page is.

use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};

use super::publish::PublishRequest;
use super::render::{push_event, push_events, push_gap};
use super::{Api, Caller, Reply};
use crate::access::Right;
use crate::cursor::Cursor;
use crate::http::{HeaderName, RequestHead, Response};
use crate::json::JsonObject;
use crate::log::LogSlice;
use crate::names::{Pattern, TopicSet};
use crate::problem::{Cause, Problem};
use crate::semaphore::Permit;

/// The only version that there is.
const VERSION: &str = "13";
/// Characters of the handshake's key: 16 bytes as base64.
const IDEMPOTENCY_KEY_CHARS: usize = 24;

/// The answer to a handshake.
///
/// # Errors
/// When it is none, or of another version.
pub fn opening(head: &RequestHead) -> Result<Response, Problem> {
    if head.get(HeaderName::SecWebSocketVersion)? != Some(VERSION) {
        let detail = "header Sec-WebSocket-Version has to be 13";
        return Err(Problem::new(Cause::UpgradeRequired, detail)
            .with_header("Sec-WebSocket-Version", VERSION)
            .with_header("Upgrade", "websocket")
            .with_header("Connection", "Upgrade"));
    }
    let key =
        head.get(HeaderName::SecWebSocketKey)?.filter(|key| key.len() == IDEMPOTENCY_KEY_CHARS);
    let key = key.ok_or_else(|| {
        Problem::bad_request("header Sec-WebSocket-Key has to be 16 random bytes in base64")
    })?;
    Ok(Response::without_body(101)
        .with_header("Upgrade", "websocket")
        .with_header("Connection", "Upgrade")
        .with_header("Sec-WebSocket-Accept", &derive_accept_key(key.as_bytes())))
}

/// A gap if one was found, then events, a frame each: at most `room`, or one; and how many.
pub fn part(slice: &LogSlice, room: usize) -> (Vec<u8>, usize) {
    let mut frames = Vec::new();
    if let Some(gap) = &slice.gap {
        let mut json = Vec::new();
        let mut object = JsonObject::begin(&mut json);
        object.with("gap", |out| push_gap(out, gap));
        object.end();
        frames = text(json);
    }
    let taken = push_events(&mut frames, slice, room, &|out, place, event| {
        let mut json = Vec::new();
        push_event(&mut json, event);
        // One member more.
        json.pop();
        json.extend_from_slice(b",\"cursor\":\"");
        json.extend_from_slice(slice.next(place + 1).text().as_bytes());
        json.extend_from_slice(b"\"}");
        out.extend_from_slice(&text(json));
    });
    (frames, taken)
}

fn bytes(frame: Frame) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(frame.len());
    // Writing to a Vec cannot fail.
    let _ = frame.format(&mut bytes);
    bytes
}

/// A text as a frame.
#[must_use]
pub fn text(json: Vec<u8>) -> Vec<u8> {
    bytes(Frame::message(json, OpCode::Data(Data::Text), true))
}

/// A ping that says the cursor, to those who can see it.
pub fn ping(cursor: Cursor) -> Vec<u8> {
    bytes(Frame::ping(cursor.text().into_bytes()))
}

/// The last frame.
#[must_use]
pub fn close(code: CloseCode) -> Vec<u8> {
    bytes(Frame::close(Some(CloseFrame { code, reason: "".into() })))
}

impl Api {
    /// A place among the `WebSocket`s.
    pub(super) fn may_open_socket(&self) -> Result<Permit, Problem> {
        self.sockets.try_acquire(1).ok_or_else(|| {
            let most = self.sockets.capacity();
            let detail = format!("{most} WebSockets are open already; poll, or come back later");
            Problem::new(Cause::PollCap, detail)
        })
    }

    /// Publishes what a client says on its WebSocket, and returns the frame that answers it.
    #[must_use]
    pub fn publish_said(&self, topics: &TopicSet, said: Vec<u8>, caller: &Caller<'_>) -> Vec<u8> {
        let (member, json) = match self.try_publish_said(topics, said, caller) {
            Ok(answer) => ("published", answer.body_text().to_vec()),
            Err(problem) => {
                self.metrics.count_refusal(problem.cause());
                ("error", problem.body().trim_ascii_end().to_vec())
            }
        };
        let mut out = Vec::new();
        let mut object = JsonObject::begin(&mut out);
        object.raw(member, &json);
        object.end();
        text(out)
    }

    fn try_publish_said(
        &self,
        topics: &TopicSet,
        said: Vec<u8>,
        caller: &Caller<'_>,
    ) -> Result<Response, Problem> {
        let [Pattern::Topic(topic)] = topics.patterns() else {
            return Err(Problem::bad_request(
                "a publish goes to one topic: only where the URL names a single one, without *",
            ));
        };
        let need = || (Right::Publish, vec![Pattern::Topic(topic.clone())]);
        self.access.recheck(caller.grant, need)?;
        match self.publish(&PublishRequest::text(topic.clone()), said, caller)? {
            Reply::Response(answer) => Ok(answer),
            _ => Err(Problem::new(Cause::Internal, "a publish was answered with something else")),
        }
    }
}
