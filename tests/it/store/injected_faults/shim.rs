//! Builds `shim.c`, and controls it in a running server through a file that both map.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Kinds of file operations, as bits; the same as in `shim.c`.
pub mod operations {
    pub const WRITE: i64 = 1;
    pub const SYNC: i64 = 2;
    pub const OPEN: i64 = 4;
    pub const CREATE: i64 = 8;
    pub const RENAME: i64 = 16;
    pub const REMOVE: i64 = 32;
    pub const SYNC_DIRECTORY: i64 = 64;
    pub const TRUNCATE: i64 = 128;
    pub const READ: i64 = 256;
    pub const ALL: i64 = 511;
}

/// The thread and the files whose operations fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    Anywhere,
    Commit,
    Rotation,
    Compaction,
}

/// What a failing operation does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    None,
    /// A write writes half of its bytes, and the next one fails.
    ShortWrite,
    /// A sync replaces by zeros what was written since the last one.
    DataLost,
    /// The disk has a capacity, and only writes beyond it fail.
    Full(Capacity),
}

/// The bytes that all files of a store may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Capacity {
    /// So many more than when the fault begins.
    More(u32),
    Total(u32),
}

/// How many operations fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Times {
    Once,
    Several(u8),
    Forever,
}

/// Which operations fail, from when on, and how.
#[derive(Clone, Debug)]
pub struct InjectedFault {
    /// The operations of which the first one that fails is one.
    pub first: i64,
    /// The operations that fail from then on.
    pub later: i64,
    pub place: Place,
    pub error: i32,
    pub effect: Effect,
    /// Operations that succeed before the first one fails.
    pub skip: u8,
    pub times: Times,
}

/// The control file of one server.
pub struct FaultControl {
    file: File,
    path: PathBuf,
}

/// The fields of `struct control` in `shim.c`, and the places of some.
const FIELDS: usize = 10;
const LATER: u64 = 1;
const TIMES: u64 = 6;
const FAILED: u64 = 7;
const USED: u64 = 9;

impl FaultControl {
    pub fn create(path: PathBuf) -> FaultControl {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        let control = FaultControl { file, path };
        control.write(&[0; FIELDS], 0);
        control
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes fields from this one on.
    fn write(&self, fields: &[i64], first: u64) {
        let bytes: Vec<u8> = fields.iter().flat_map(|field| field.to_ne_bytes()).collect();
        self.file.write_all_at(&bytes, first * 8).unwrap();
    }

    fn read(&self, field: u64) -> i64 {
        let mut bytes = [0; 8];
        self.file.read_exact_at(&mut bytes, field * 8).unwrap();
        i64::from_ne_bytes(bytes)
    }

    pub fn arm(&self, fault: &InjectedFault) {
        let times = match fault.times {
            Times::Once => 1,
            Times::Several(times) => i64::from(times),
            Times::Forever => -1,
        };
        let (effect, capacity) = match fault.effect {
            Effect::None => (0, 0),
            Effect::ShortWrite => (1, 0),
            Effect::DataLost => (2, 0),
            Effect::Full(Capacity::More(bytes)) => (3, self.read(USED) + i64::from(bytes)),
            Effect::Full(Capacity::Total(bytes)) => (3, i64::from(bytes)),
        };
        let (place, error) = (fault.place as i64, i64::from(fault.error));
        let skip = i64::from(fault.skip);
        self.write(&[0, 0, place, error, effect, skip, times, 0, capacity], 0);
        // Last, so that no operation meets half of a fault.
        self.write(&[fault.later], LATER);
        self.write(&[fault.first], 0);
    }

    /// Ends the fault.
    pub fn clear(&self) {
        self.write(&[0, 0], 0);
    }

    /// Whether a server with the shim has written anything yet.
    pub fn is_loaded(&self) -> bool {
        self.read(USED) > 0
    }

    /// Whether further operations would fail.
    pub fn is_armed(&self) -> bool {
        self.read(LATER) != 0 && self.read(TIMES) != 0
    }

    /// How many operations have failed since the fault was armed.
    pub fn failed(&self) -> i64 {
        self.read(FAILED)
    }
}

/// Compiles the shim with the C compiler that links Rust programs too.
pub fn build_shim(directory: &Path) -> PathBuf {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/store/injected_faults/shim.c");
    let library = directory.join("shim.so");
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let mut command = Command::new(compiler);
    command.args(["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-o"]);
    let status = command.arg(&library).arg(source).arg("-ldl").status();
    assert!(status.expect("a C compiler").success(), "the shim does not compile");
    library
}
