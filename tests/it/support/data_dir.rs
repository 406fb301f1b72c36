//! Servers with a data directory, and a guard that stops the threads of a test.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Server;

/// Starts a server with `--data` and these flags.
pub fn start_with_data(data: &Path, flags: &[&str]) -> Server {
    Server::start(&[&["--data", data.to_str().unwrap()], flags].concat())
}

/// A file system in memory, unmounted when dropped.
pub struct SmallFileSystem(pub PathBuf);

impl SmallFileSystem {
    /// Mounts one of this size; `None` where the test may not mount one.
    pub fn mount(name: &str, kib: usize) -> Option<SmallFileSystem> {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = Command::new("umount").arg(&path).output();
        std::fs::create_dir_all(&path).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={kib}k"), "tmpfs"]).arg(&path);
        if mount.output().is_ok_and(|output| output.status.success()) {
            return Some(SmallFileSystem(path));
        }
        println!("SKIPPED: no tmpfs can be mounted; only the simulated disk covers this");
        None
    }

    /// Writes a file that takes all free bytes.
    pub fn fill(&self) -> PathBuf {
        let filler = self.0.join("filler");
        std::fs::write(&filler, vec![0; 64 << 20]).unwrap_err();
        filler
    }
}

impl Drop for SmallFileSystem {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

/// Sets a flag when dropped, so that the threads of a test stop also when it panics.
pub struct StopOnDrop<'a>(pub &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
