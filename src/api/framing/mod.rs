//! How each stream transport frames events on the connection: only bytes, no connection and no
//! waiting.

mod end;
pub mod sse;
#[cfg_attr(not(feature = "websocket"), path = "websocket_off.rs")]
pub mod websocket;
mod stream_framing;

pub use end::StreamEnd;
pub use stream_framing::StreamFraming;
