//! Guards the log of `src/log`: which events a reader gets, and when it is told that some are lost.

mod gaps;
mod model;
