//! Guards the HTTP parser of `src/http`: requests are read as the RFCs say and in no other way.

mod fuzz_replay;
mod requests;
mod strictness;
