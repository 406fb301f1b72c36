//! What the tests share: the real program on a port of its own, and a client that speaks in bytes.

mod client;
#[cfg(feature = "client")]
pub mod command;
#[cfg(feature = "client")]
pub mod proxy;
#[cfg(feature = "store")]
mod ram;
mod server;
#[cfg(feature = "store")]
mod shelf;
#[cfg(feature = "streams")]
pub mod sse;

pub use client::{Answer, Client};
#[cfg(feature = "store")]
pub use ram::{Fault, LEFT, Left, NAMES, Names, Ram};
pub use server::{Server, program, service};
#[cfg(feature = "store")]
pub use shelf::{RETENTION, Shelf, Step, View, script, start};

use std::time::{Duration, Instant};

/// Beyond this a test is stuck, however slow the machine. No test asserts a time by it.
pub const HANG: Duration = Duration::from_secs(120);

/// Asks until the answer is yes. Each asking takes a round trip to the server, so this does not
/// spin.
pub fn until(what: &str, mut yes: impl FnMut() -> bool) {
    let stuck = Instant::now() + HANG;
    while !yes() {
        assert!(Instant::now() < stuck, "never happened: {what}");
        std::thread::yield_now();
    }
}

#[cfg(any(feature = "client", feature = "store", feature = "systemd"))]
/// A place of a test's own, which is not there yet.
pub fn scratch(name: &str) -> std::path::PathBuf {
    let place = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if place.exists() {
        std::fs::remove_dir_all(&place).unwrap();
    }
    place
}
