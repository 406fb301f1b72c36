//! The integration tests, as one binary: they run the real server and talk to it over real sockets.
//! Each folder mirrors one of `src`; `tests/README.md` says which test belongs where.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::float_cmp,
    reason = "a test fails by panicking, and the numbers in responses are exact"
)]

mod support;

mod access;
mod api;
#[cfg(feature = "client")]
mod client;
mod config;
mod docs;
mod house;
mod http;
mod log;
mod server;
#[cfg(feature = "store")]
mod store;
#[cfg(feature = "streams")]
mod stream;
#[cfg(feature = "systemd")]
mod systemd;
mod waiters;
#[cfg(feature = "console")]
mod web;
