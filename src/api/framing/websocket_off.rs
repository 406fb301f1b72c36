//! Stands for `websocket.rs` in a build without the feature: the framing type has no value, so no
//! function here can be called.

use super::end::StreamEnd;
use crate::api::page_memory::PageMemory;
use crate::cursor::Cursor;
use crate::log::LogSlice;

pub use self::NoWebSocketFraming as WebSocketFraming;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum NoWebSocketFraming {}

pub fn part(framing: NoWebSocketFraming, _: &LogSlice, _: &mut PageMemory) -> (Vec<u8>, usize) {
    match framing {}
}

pub fn heartbeat(framing: NoWebSocketFraming, _: Cursor) -> Vec<u8> {
    match framing {}
}

pub fn end(framing: NoWebSocketFraming, _: StreamEnd) -> Vec<u8> {
    match framing {}
}
