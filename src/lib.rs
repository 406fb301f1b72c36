//! A small long-polling server: it holds a request until there is an event or a deadline passes,
//! and tells each client exactly where to continue.
//!
//! - **No event is lost between two polls.** A client has a [cursor], not a time. Its next response
//!   has every event published after that cursor, in order, once.
//! - **A loss is reported.** If events were trimmed before a client read them, its next response
//!   says so, and how many; never a silent gap.
//! - **The host is protected.** Every queue, buffer, table and time has a [limit](limits), and each
//!   limit says what happens when it is reached.
//!
//! # What chapter zero lacks, in order
//!
//! `scripts/lessons/00-whole-server.rs` is the same idea in 200 lines, with five of the crates.
//! Read it first: each module below exists because that file lacks something. The list is also the
//! order to read in: a module uses only modules listed before it.
//!
//! 1. *Its limits are a few constants.* [sync], [limits], [time], [json], [names]: every limit with
//!    its reason, checked names, and mutexes whose order is checked in debug builds.
//! 2. *A restarted server takes an old cursor for one of its own.* [cursor]: an epoch beside the
//!    seq, and a type for each number. [problem]: one table of the errors that a client can get.
//! 3. *It cannot be observed, configured or stopped in stages.* [metrics], [semaphore], [shutdown],
//!    [threads], [config], [logger], [systemd].
//! 4. *`tiny_http` reads and writes without deadlines.* [conn]: a socket with a deadline for every
//!    operation. [mod@http]: messages, read strictly.
//! 5. *Every client may do everything, and one client may take every thread.* [access]: tokens,
//!    `Origin` and `Host`. [`client_limit`]: connections per client.
//! 6. *One topic list, no exact gap, retries that publish twice.* [log]: topics with their own
//!    history under one seq, the gap test, idempotency keys.
//! 7. *A restart forgets everything.* [store]: the log in a directory, crash-safe.
//! 8. *One condition variable wakes every poll for every event.* [waiters]: a wait queue for each
//!    topic and prefix. The race of lesson 5 is explained there.
//! 9. *Each poll renders its own response, and its own thread writes it.* [web], [api]: what each
//!    request means; one rendering for all equal polls, written by the publisher's thread.
//! 10. *A burst of connections goes unanswered, and a client that hangs up keeps its thread.*
//!     [server]: acceptors, admission, the worker pool, connections, housekeeping, drain.
//!
//! `client`, a cargo feature, is the other end of the wire: `longpoll follow` and `longpoll publish`,
//! and the same for Rust programs.
//!
//! # The path of a request
//!
//! ```text
//!  bytes ─► server ─► api ─► log       publish: append, unlock, notify the topic's wait queues
//!                      │
//!                      └──► waiters    poll: register, read the log, wait, read the log again
//!  bytes ◄─ server ◄─ api ◄─ log
//! ```
//!
//! Data goes one way: no module calls one that is listed after it. There is one step sideways: the
//! thread of a publisher writes the responses of the polls that it releases, then wakes their threads.
//!
//! # Glossary
//!
//! | term | meaning |
//! | --- | --- |
//! | topic | a named event log, created by its first publish |
//! | event | one published body with its seq, topic, time and optional type |
//! | seq | position of an event in the whole log, over all topics; never reused within an epoch |
//! | epoch | identity of one uninterrupted history: 64 random bits, new whenever seqs could repeat |
//! | cursor | `epoch.seq`: "I have every event up to here"; opaque; a third part counts trims seen |
//! | poll | a request for the events after a cursor |
//! | wait | how long a poll may be held, in seconds |
//! | hold | keep a poll without a response until there is an event; a held poll is a *waiter* |
//! | deadline | the instant at which a held poll is answered without an event, unless drained before |
//! | page | the rendered response to a poll; equal polls share one |
//! | permit | a part of a limit, such as `--max-polls`; released when dropped |
//! | trim | remove the oldest events, by count, age or bytes |
//! | gap | events after a cursor are trimmed, or it is of another epoch or beyond the newest event |
//! | drain | shut down: answer every held poll, accept no new request |
//!
//! # Locks, in the order in which they are taken
//!
//! A thread that holds a lock takes only locks of later rows. Debug builds check this: see [sync].
//!
//! | lock | guards | taken while it is held |
//! | --- | --- | --- |
//! | a WebSocket's publish lock | that a publish is answered before the close frame | all below |
//! | the outcome of an idempotency key | the response of the first publish with the key | all below |
//! | the [log]'s | events, topics, trims, keys | none |
//! | the index of [waiters] | which wait queues exist | a wait queue |
//! | a wait queue | its waiters, and the last seq that it was notified of | none |
//! | a slot of the page cache | one rendered page | none |
//! | the failure of a [store] | why the disk failed first, while it does, for `/health` | none |
//! | the token file's content | what was last read of it | the known tokens |
//! | the known tokens | the tokens in force | none |
//! | the counts of [`client_limit`] | connections per client | none |
//! | a rate-limited log line | when it was last written | none |
//! | the worker list | the workers of the pool | a worker's connection |
//! | a worker's connection | which connection the worker serves | none |
//! | a WebSocket's frame writer | that frames are written whole, and none after the last | none |
//!
//! While the log's lock or a wait queue's is held, there is no I/O and no rendering; the two are
//! never held together. A thread unlocks before it notifies.
//!
//! # Why the HTTP server is our own
//!
//! Of `tiny_http` only the vocabulary is used: methods and status codes. Its `Server` leaves
//! connections of a burst unanswered, has neither limits nor time-outs, and does not notice a client
//! that hangs up; lesson 0 shows it. `tests/load/README.md` has the measurements.

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

/// The version, as `--version` and `/health` report it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
