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
#[cfg(feature = "client")]
mod client_answers;
#[cfg(feature = "client")]
mod client_args;
#[cfg(feature = "client")]
mod client_chaos;
#[cfg(feature = "client")]
mod client_connection;
#[cfg(feature = "client")]
mod client_exec;
#[cfg(feature = "client")]
mod client_follow;
#[cfg(feature = "client")]
mod client_library;
#[cfg(feature = "client")]
mod client_publish;
#[cfg(feature = "client")]
mod client_state;
#[cfg(feature = "client")]
mod client_trouble;
mod clients;
mod config;
mod crowds;
#[cfg(feature = "client")]
mod docs;
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
#[cfg(feature = "systemd")]
mod service;
#[cfg(feature = "store")]
mod store_crash;
#[cfg(feature = "store")]
mod store_damage;
#[cfg(feature = "store")]
mod store_doubts;
#[cfg(feature = "store")]
mod store_ends;
#[cfg(feature = "store")]
mod store_faults;
#[cfg(feature = "store")]
mod store_fixture;
#[cfg(feature = "store")]
mod store_repair;
#[cfg(feature = "store")]
mod store_runs;
#[cfg(feature = "store")]
mod store_twice;
mod sites;
#[cfg(feature = "streams")]
mod streams_ends;
#[cfg(all(feature = "store", feature = "websocket"))]
mod streams_hostile;
#[cfg(feature = "streams")]
mod streams_sse;
#[cfg(feature = "websocket")]
mod streams_websocket;
mod strictness;
mod tidy;
mod tokens;
mod topics;
#[cfg(all(feature = "store", feature = "systemd"))]
mod upgrade;
#[cfg(feature = "console")]
mod web;
