//! Delivers the same events by every delivery method (short polls, long polls, server-sent events,
//! WebSocket) and compares what each costs. scripts/compare.sh drives this.

mod caps;
mod chart;
mod claims;
mod delivery_stats;
mod format;
mod measurement;
mod method;
mod report;
mod scenario;
mod subscriber_conn;

pub use caps::run as caps;
pub use report::run as report;
pub use scenario::run as scenario;
