//! Streams: polls that go on, as server-sent events or over a WebSocket.

#[cfg_attr(not(feature = "websocket"), path = "websocket_off.rs")]
mod websocket;
mod query;
mod event_stream;

pub use event_stream::{EventStream, StartedStream, StreamPart, Streams};
pub use query::StreamQuery;
pub use websocket::WebSocketPermit;
