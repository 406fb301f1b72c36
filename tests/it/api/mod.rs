//! Guards the requests of `src/api`: publish, poll, list, trim, and their error responses.

mod idempotency;
mod pages;
mod polls;
mod problems;
mod publishes;
mod topics;
