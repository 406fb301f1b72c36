//! The same events by every way that a client can learn of them: short polls, long polls,
//! server-sent events, WebSocket; and what that costs. scripts/compare.sh drives this.

mod caps;
mod claims;
mod lane;
mod line;
mod method;
mod picture;
mod report;
mod row;
mod tally;

pub use caps::run as caps;
pub use lane::run as lane;
pub use report::run as report;
