//! Any text at all, as what a request is aimed at.
#![no_main]

#[path = "../query.rs"]
mod query;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| query::check(bytes));
