//! Guards the streams: server-sent events and WebSocket.

mod ends;
#[cfg(all(feature = "store", feature = "websocket"))]
mod hostile_clients;
mod sse;
mod storm;
#[cfg(feature = "websocket")]
mod websocket;
