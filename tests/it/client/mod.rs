//! Guards the client commands and the client library of `src/client`.

mod args;
mod bad_network;
mod connection;
mod errors;
mod exec;
mod follow;
mod library;
mod name_resolution;
mod publish;
mod responses;
mod state;
