//! The other half of long polling: a reader that loses nothing, and a publisher that repeats
//! nothing, whatever happens to the connection between them and the server.
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
//! # What it promises
//!
//! - **Nothing lost, nothing twice.** [`Follow`] asks for what comes after its cursor, and moves
//!   the cursor only when an answer is there whole. A program that keeps the cursor after it has
//!   dealt with the events repeats, if it is killed, at most those since it kept it.
//! - **A hole is an [`Error::Gap`]**, never silence. The next call goes on behind it.
//! - **It goes on by itself.** What may pass (a refused connection, a dead network, `503`) is tried
//!   again, after a random pause that grows, and not before `Retry-After`; what will not pass (an
//!   unknown topic, a missing right) is returned.
//! - **A publish happens once**: every try of it has the same `Idempotency-Key`.
//!
//! # The rooms
//!
//! `url` where the server is · `link` the connection · `answer` from its bytes to an answer ·
//! `exchange` one request and its answer · `backoff` the pauses · `event` what an answer holds ·
//! `follow` and `publish` the two loops · `command` what the program makes of them.

mod answer;
mod backoff;
pub mod command;
mod event;
mod exchange;
mod follow;
mod link;
mod publish;
mod trouble;
mod url;

pub use event::{Data, Event, Page};
pub use follow::{Follow, Subscription};
pub use publish::{Message, Publisher, Receipt};
pub use trouble::{Error, Gap};
pub use url::Url;
