//! The fuzz target for request targets: paths, queries and the `Prefer` header.
#![no_main]

#[path = "../query.rs"]
mod query;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| query::check(bytes));
