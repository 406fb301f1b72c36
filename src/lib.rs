//! A small long-polling server: it holds a request open until there is news, or until its
//! deadline, and loses nothing in between.
//!
//! # What it promises
//!
//! - **Nothing falls between two polls.** A client holds a [cursor], not a time. Whatever
//!   was published after it is in the next answer, in order, once.
//! - **What it cannot deliver, it says.** If events were trimmed before a reader came for them,
//!   the reader is told exactly that, and how many; never a silent hole.
//! - **It guards its host.** Every queue, buffer, table and time has a [limit](limits), and each
//!   limit says what happens at it.
//!
//! # What it is not
//!
//! Not persistent unless it has `--data` (cargo feature `store`): without, a restart is a new epoch, and every old cursor is
//! told so. No cluster: one process, one directory. No TLS: that is
//! a proxy's. No async runtime: a connection is a thread, and can be read from top to bottom.
//!
//! # The way of a request
//!
//! ```text
//!   bytes ──► door ──► api ──► log        publish: append, then ring
//!             │          │      │
//!             │          └──► bell         poll: sit, look, wait, look
//!   bytes ◄── door ◄── api ◄── log
//! ```
//!
//! Data goes one way, down to the log and back. Nothing below calls up. There is one sideways step:
//! a publish writes the answers of the polls that it releases, and wakes them. A stream is a poll
//! that goes back to its seat: the door asks the api for one piece after the other.
//!
//! # The chapters
//!
//! Each module uses only those before it, and this is also the order to read them in; each begins
//! with what it promises and why it is built so.
//!
//! 1. Words and bounds: [limits], [time], [json], [names], [cursor], [error].
//! 2. What all threads share: [metrics], [permits], [shutdown], [threads], [config], [diag],
//!    [service].
//! 3. A socket and HTTP, without an opinion: [mod@line], [http].
//! 4. Who asks: [access], [clients].
//! 5. What happened: [log]; and what is left of it after a crash: [store].
//! 6. Waiting for it: [bell].
//! 7. What a request means: [web], [api].
//! 8. From sockets to requests, and back: [door].
//!
//! Beside the server stands `client`, the loops at the other end of the wire; a cargo feature. It
//! shares only the small modules at the top of the list and, of [http], how a message is framed;
//! and has no locks.
//!
//! With half an hour only, read [cursor], [log], [bell], and in [api] how a poll and a publish meet.
//! `scripts/lessons` shows all of it from outside, one idea at a time; each lesson names the
//! functions that do what it shows.
//!
//! # The locks, and the order in which they are taken
//!
//! | lock | guards | taken before |
//! | --- | --- | --- |
//! | a WebSocket's turn | that a publish is answered before the last frame | all that follow |
//! | an idempotency key's outcome | what its first publish was answered with | all that follow |
//! | the [log]'s | events, topics, trims, keys | |
//! | the [bell] room's map | which bells hang where | a bell |
//! | a [bell]'s | who sits at it, and the last seq rung | |
//! | a held poll's permit | its place under `--max-polls` | |
//! | a slot of the shared pages | one rendered page | |
//! | what is wrong with the disk of a store | that, for who asks after its health | |
//! | the tokens, and what their file held | which are known | |
//! | the counts of the [clients] | how many connections each has | |
//! | a cause's turn in [diag] | when it was told last | |
//! | the [door]'s list of workers | the list | a worker's line |
//! | a worker's line | which connection it has | |
//! | a WebSocket's pen | who writes to its client, and that nothing is written after its end | |
//! | a mailbox of [threads] | what waits for a thread | |
//!
//! No input or output is done and nothing is rendered while the log's or a bell's is held, and the
//! two are never held together. Who wakes others unlocks first.
//!
//! # The door is our own; the vocabulary is `tiny_http`'s
//!
//! `tiny_http` gives the HTTP vocabulary: methods, and what status codes mean. Its `Server` is not
//! used, because it leaves connections of a burst unanswered, has no caps and no time-outs, and
//! does not notice who hangs up. The README has the measurements.

pub mod sync;
pub mod limits;
pub mod time;
pub mod json;
pub mod names;
pub mod cursor;
pub mod problem;
pub mod metrics;
pub mod semaphore;
pub mod shutdown;
pub mod threads;
pub mod config;
pub mod logger;
#[cfg(feature = "systemd")]
pub mod systemd;
pub mod conn;
pub mod http;
pub mod access;
pub mod client_limit;
pub mod log;
#[cfg(feature = "store")]
pub mod store;
pub mod waiters;
pub mod web;
pub mod api;
pub mod server;
#[cfg(feature = "client")]
pub mod client;

pub use server::serve;

/// The version, as `--version` and `/health` say it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
