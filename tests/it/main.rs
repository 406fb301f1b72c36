//! The tests, as one program: the real server on a real socket, what is sent and what comes back.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::float_cmp,
    reason = "a test fails by panicking, and figures in answers are exact"
)]

mod support;

mod lessons;
mod model;
mod polls;
mod races;
mod tidy;
