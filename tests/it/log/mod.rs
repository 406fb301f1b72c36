//! Guards the log of `src/log`: which events a reader gets, and when a gap is reported.

mod gaps;
mod model;
