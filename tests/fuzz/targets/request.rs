//! The fuzz target for the request reader: any bytes that arrive on a connection.
#![no_main]

#[path = "../request.rs"]
mod request;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| request::check(bytes));
