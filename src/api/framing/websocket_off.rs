//! Stands for `websocket.rs` in a build without the feature: the framing type has no value, so no
//! function here can be called.

use super::end::StreamEnd;
use crate::cursor::Cursor;
use crate::log::LogSlice;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum WebSocketFraming {}

pub fn part(framing: WebSocketFraming, _: &LogSlice, _: usize) -> (Vec<u8>, usize) {
    match framing {}
}

pub fn heartbeat(framing: WebSocketFraming, _: Cursor) -> Vec<u8> {
    match framing {}
}

pub fn end(framing: WebSocketFraming, _: StreamEnd) -> Vec<u8> {
    match framing {}
}
