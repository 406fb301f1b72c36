//! The api: what each request means, without sockets and without HTTP parsing.
//!
//! A request is handled in two steps. [`Api::route`] decides everything that does not need the body,
//! so a client with an invalid request learns so before it sends any. [`Api::perform`] then performs
//! the operation, except for a poll without an event yet, which [`Api::hold`] holds.
//!
//! To learn how a poll and a publish meet, read `poll.rs`, `publish.rs` and `deliver.rs`.

#[cfg(not(feature = "websocket"))]
mod not_built;
mod caller;
mod query_params;
mod transport;
mod page_memory;
mod event_json;
#[cfg_attr(not(feature = "streams"), path = "framing_off.rs")]
mod framing;
mod page;
mod render;
mod page_cache;
mod receipt;
mod page_reader;
mod held_poll;
mod reply;
mod poll_query;
mod poll;
mod deliver;
mod publish_request;
mod publish;
#[cfg_attr(not(feature = "streams"), path = "stream_off.rs")]
mod stream;
mod topics;
mod health;
mod static_files;
mod operation;
mod log_handle;
#[cfg_attr(not(feature = "store"), path = "open_log_in_memory.rs")]
mod open_log;
mod router;
#[cfg(feature = "websocket")]
pub mod websocket;
#[cfg(test)]
mod tests;

pub use caller::Caller;
pub use held_poll::{Delivery, HeldPoll, PendingPoll};
pub use log_handle::LogHandle;
pub use open_log::{inspect, repair};
pub use operation::Operation;
pub use page::RenderedPage;
pub use receipt::PublishReceipt;
pub use reply::{Outcome, Reply};
pub use router::{Api, Routed};
#[cfg(feature = "streams")]
pub use stream::{EventStream, StreamPart, WebSocketPermit};
pub use stream::{StartedStream, StreamQuery};
