//! The helpers that the tests share: the program as a child process, a client that sends exactly
//! the bytes of a test, one HTTP reader, and the simulated disk.

mod client;
#[cfg(feature = "client")]
pub mod command;
#[cfg(feature = "store")]
pub mod data_dir;
#[cfg(feature = "store")]
pub mod disk_faults;
#[cfg(feature = "client")]
pub mod fake_server;
pub mod http_reader;
#[cfg(feature = "client")]
pub mod proxy;
mod server;
pub mod storm;
#[cfg(feature = "store")]
pub mod simulated_disk;
#[cfg(feature = "streams")]
pub mod sse;
pub mod temp_dir;
#[cfg(feature = "store")]
pub mod test_store;
pub mod tokens;
pub mod wall_clock;

pub use client::Client;
pub use http_reader::Response;
pub use server::{Server, program, systemd_command};

use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};

/// A test that waits longer than this for one step fails, on however slow a machine. No test
/// asserts a duration with it.
pub const TEST_TIMEOUT: Duration = Duration::from_secs(120);

/// Calls `holds` until it returns true. It should make a round trip to the server, so that this
/// loop does not spin.
pub fn wait_until(condition: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + TEST_TIMEOUT;
    while !holds() {
        assert!(Instant::now() < deadline, "never happened: {condition}");
        std::thread::yield_now();
    }
}

/// Raises this process's limit of descriptors to the hard limit, for a thousand connections.
pub fn raise_descriptor_limit() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}

/// Sends a signal, by its number, to a process.
pub fn send_signal(pid: u32, signal: i32) {
    let pid = Pid::from_raw(pid as i32).unwrap();
    kill_process(pid, Signal::from_named_raw(signal).unwrap()).unwrap();
}

#[cfg(any(feature = "client", feature = "store", feature = "systemd"))]
/// A path for one test; nothing exists there yet.
pub fn fresh_path(name: &str) -> std::path::PathBuf {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if path.exists() {
        std::fs::remove_dir_all(&path).unwrap();
    }
    path
}
