//! The framing of one stream: which transport's bytes a page, a heartbeat and the end become.

use super::end::StreamEnd;
use super::websocket::WebSocketFraming;
use super::{sse, websocket};
use crate::api::page_memory::PageMemory;
use crate::cursor::Cursor;
use crate::http::{LAST_CHUNK, encode_chunk};
use crate::log::LogSlice;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum StreamFraming {
    /// Server-sent events; the end of the connection ends them (HTTP/1.0).
    Sse,
    /// Server-sent events in chunks.
    ChunkedSse,
    WebSocket(WebSocketFraming),
}

impl StreamFraming {
    /// Renders the gap of a slice, if it has one, then its events as far as `memory` goes, at least
    /// one; returns the bytes and how many events they hold.
    pub fn part(self, slice: &LogSlice, memory: &mut PageMemory) -> (Vec<u8>, usize) {
        match self {
            StreamFraming::Sse => sse::part(slice, memory),
            StreamFraming::ChunkedSse => {
                let (text, count) = sse::part(slice, memory);
                (encode_chunk(&text), count)
            }
            StreamFraming::WebSocket(framing) => websocket::part(framing, slice, memory),
        }
    }

    /// The bytes that keep a silent stream alive and tell its client the cursor.
    pub fn heartbeat(self, cursor: Cursor) -> Vec<u8> {
        match self {
            StreamFraming::Sse => sse::heartbeat(cursor),
            StreamFraming::ChunkedSse => encode_chunk(&sse::heartbeat(cursor)),
            StreamFraming::WebSocket(framing) => websocket::heartbeat(framing, cursor),
        }
    }

    /// The last bytes of a stream that ends in order.
    pub fn end(self, end: StreamEnd) -> Vec<u8> {
        match (self, end) {
            (StreamFraming::Sse, StreamEnd::Drained) => sse::retry(),
            (StreamFraming::ChunkedSse, StreamEnd::Drained) => {
                [&*encode_chunk(&sse::retry()), LAST_CHUNK].concat()
            }
            (StreamFraming::Sse, _) => Vec::new(),
            (StreamFraming::ChunkedSse, _) => LAST_CHUNK.to_vec(),
            (StreamFraming::WebSocket(framing), end) => websocket::end(framing, end),
        }
    }

    /// Whether a publisher may write a page to the connection. On a WebSocket it may not: frames of
    /// the reading thread could come between two of its writes.
    pub fn publisher_may_write(self) -> bool {
        !matches!(self, StreamFraming::WebSocket(_))
    }
}
