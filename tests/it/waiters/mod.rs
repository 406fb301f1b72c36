//! Guards the wait queues of `src/waiters.rs`: no wake-up is lost.

mod races;
mod storm;
