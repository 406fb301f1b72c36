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

/// The fields of `struct control` in `shim.c`, and the place of the last one.
const FIELDS: usize = 8;
const FAILED_AT: u64 = 7 * 8;

impl FaultControl {
    pub fn create(path: PathBuf) -> FaultControl {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        let control = FaultControl { file, path };
        control.write([0; FIELDS]);
        control
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    fn write(&self, fields: [i64; FIELDS]) {
        let bytes: Vec<u8> = fields.iter().flat_map(|field| field.to_ne_bytes()).collect();
        self.file.write_all_at(&bytes, 0).unwrap();
    }

    pub fn arm(&self, fault: &InjectedFault) {
        let times = match fault.times {
            Times::Once => 1,
            Times::Several(times) => i64::from(times),
            Times::Forever => -1,
        };
        let (place, effect) = (fault.place as i64, fault.effect as i64);
        let (error, skip) = (i64::from(fault.error), i64::from(fault.skip));
        self.write([0, 0, place, error, effect, skip, times, 0]);
        // Last, so that no operation meets half of a fault.
        self.file.write_all_at(&fault.later.to_ne_bytes(), 8).unwrap();
        self.file.write_all_at(&fault.first.to_ne_bytes(), 0).unwrap();
    }

    /// Ends the fault.
    pub fn clear(&self) {
        self.file.write_all_at(&[0; 16], 0).unwrap();
    }

    /// Whether further operations would fail.
    pub fn is_armed(&self) -> bool {
        let mut bytes = [0; 8 * FIELDS];
        self.file.read_exact_at(&mut bytes, 0).unwrap();
        let field = |at: usize| i64::from_ne_bytes(bytes[at * 8..][..8].try_into().unwrap());
        field(1) != 0 && field(6) != 0
    }

    /// How many operations have failed since the fault was armed.
    pub fn failed(&self) -> i64 {
        let mut bytes = [0; 8];
        self.file.read_exact_at(&mut bytes, FAILED_AT).unwrap();
        i64::from_ne_bytes(bytes)
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
