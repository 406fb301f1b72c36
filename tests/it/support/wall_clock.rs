//! A wall clock of its own for a program under test, by libfaketime. The monotonic clock stays
//! right, as when a machine slept or its clock was set.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::temp_dir::TempDir;

/// A wall clock that the test sets.
pub struct WallClock {
    library: PathBuf,
    dir: TempDir,
}

impl WallClock {
    /// A clock that is right so far; `None` without libfaketime, for a test to be skipped.
    pub fn new() -> Option<WallClock> {
        let places = std::fs::read_dir("/usr/lib").ok()?.flatten();
        let mut libraries = places.map(|place| place.path().join("faketime/libfaketimeMT.so.1"));
        let Some(library) = libraries.find(|library| library.exists()) else {
            println!("SKIPPED: setting the clock takes Debian's faketime");
            return None;
        };
        let clock = WallClock { library, dir: TempDir::new() };
        clock.set("+0");
        Some(clock)
    }

    /// Sets the clock ahead, such as by `+1d`, or back; `+0 x500` makes it 500 times faster.
    pub fn set(&self, to: &str) {
        // A rename is atomic; the program may read the file at any moment.
        let (new, file) = (self.dir.path("new"), self.dir.path("clock"));
        std::fs::write(&new, to).unwrap();
        std::fs::rename(new, file).unwrap();
    }

    /// Makes a program read this clock.
    pub fn apply(&self, command: &mut Command) {
        let file = self.dir.path("clock");
        command.env("LD_PRELOAD", &self.library).env("FAKETIME_TIMESTAMP_FILE", Path::new(&file));
        command.envs([("FAKETIME_NO_CACHE", "1"), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")]);
    }
}
