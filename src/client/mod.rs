//! The client side of long polling: a follower that loses no event and a publisher that publishes
//! each event once, also when connections break.
//!
//! ```no_run
//! use longpoll::client::{Follow, Message, Publisher, Subscription};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let url: longpoll::client::Url = "http://127.0.0.1:8080".parse()?;
//! Publisher::new(&url)?.publish("news", &Message::text("hello"))?;
//!
//! let mut subscription = Subscription::new(url, "news,sensors.*")?;
//! subscription.since = "last:10".into();
//! for event in Follow::start(subscription)? {
//!     let event = event?;
//!     println!("{} {}: {}", event.seq, event.topic, String::from_utf8_lossy(event.data.bytes()));
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Guarantees
//!
//! - **No event is lost or delivered twice.** [`Follow`] requests the events after its cursor and
//!   advances the cursor only when a response has arrived whole. A program that saves the cursor
//!   after it has processed the events sees again, after a crash, only the events since the last
//!   save.
//! - **Lost events are an [`Error::Gap`]**, never silence. The next call continues after the gap.
//! - **Transient failures are retried.** After a refused connection, a dead network or a `503`, the
//!   client waits for a random and growing time, at least for `Retry-After`, and tries again.
//!   Permanent failures (an unknown topic, a missing right) are returned.
//! - **A publish happens once**: all its attempts carry the same `Idempotency-Key`.
//!
//! # Modules
//!
//! A module imports only from those before it; this is also the order to read them in.
//!
//! `url` the server's address · `untrusted` texts, JSON and files that the client did not write ·
//! `event` what a poll's response contains · `error` failures, and which of them to retry ·
//! `backoff` the pauses between retries · `moment` time across a suspend of the machine · `resolver`
//! the addresses of a host name · `connection` the socket · `response` from bytes to a response ·
//! `http_client` one request and its response · `follow` and `publish` the two loops · `command` the
//! two loops as programs.

mod url;
mod untrusted;
mod event;
mod error;
mod backoff;
mod moment;
mod resolver;
mod connection;
mod response;
mod http_client;
mod follow;
mod publish;
pub mod command;

pub use error::Error;
pub use event::{Data, ReceivedEvent, ReceivedGap, ReceivedPage};
pub use follow::{Follow, Subscription};
pub use publish::{Message, Publisher, Receipt};
pub use url::Url;
