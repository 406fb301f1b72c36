//! The tests, as one program: the real server on a real socket, what is sent and what comes back.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::float_cmp,
    reason = "a test fails by panicking, and figures in answers are exact"
)]

mod support;

mod bounds;
mod clients;
mod config;
mod drain;
mod faults;
mod gaps;
mod host;
mod http;
mod keys;
mod lessons;
mod limits;
mod model;
mod pages;
mod polls;
mod problems;
mod publishes;
mod races;
mod replay;
mod sites;
mod strictness;
mod tidy;
mod tokens;
mod topics;
