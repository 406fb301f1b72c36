//! Guards the streams: server-sent events and WebSocket.

mod ends;
#[cfg(all(feature = "store", feature = "websocket"))]
mod hostile_clients;
#[cfg(feature = "websocket")]
mod frames;
mod sse;
mod storm;
#[cfg(feature = "websocket")]
mod websocket;
