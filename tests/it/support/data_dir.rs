//! Servers with a data directory, and a guard that stops the threads of a test.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Server;

/// Starts a server with `--data` and these flags.
pub fn start_with_data(data: &Path, flags: &[&str]) -> Server {
    Server::start(&[&["--data", data.to_str().unwrap()], flags].concat())
}

/// A file system of 1 MiB; `None` where the test may not mount one.
pub fn mount_small_file_system(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = Command::new("umount").arg(&path).output();
    std::fs::create_dir_all(&path).unwrap();
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(&path);
    mount.output().is_ok_and(|output| output.status.success()).then_some(path)
}

/// Sets a flag when dropped, so that the threads of a test stop also when it panics.
pub struct StopOnDrop<'a>(pub &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
