//! A disk in memory that fails when it is told to, and forgets what was not synced when its power
//! is cut.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use longpoll::store::storage::{Storage, StorageFile};
use parking_lot::Mutex;

/// The disk; a clone is the same one.
#[derive(Clone, Default)]
pub struct Ram(Arc<Mutex<State>>);

/// What happens at an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// It fails, and nothing is done. What a sync should have made last is lost.
    Refused,
    /// A write fails after half of its bytes; the rest as above.
    Short,
    /// The power goes before it is done.
    PowerCut,
}

/// Which of the writes that were not synced a power cut leaves in a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Left {
    None,
    All,
    /// The others are lost: there are zeros where they should be.
    LastOnly,
    AllButFirst,
    /// All, and of the last the first half.
    TornEnd,
    /// All, and of the last the second half, with zeros before it.
    TornStart,
}

pub const LEFT: [Left; 6] =
    [Left::None, Left::All, Left::LastOnly, Left::AllButFirst, Left::TornEnd, Left::TornStart];

/// Which changes of names that were not synced a power cut leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Names {
    None,
    All,
    /// What was removed is gone, and nothing that was made or renamed is there.
    RemovalsOnly,
    AllButFirst,
    LastOnly,
}

pub const NAMES: [Names; 5] =
    [Names::None, Names::All, Names::RemovalsOnly, Names::AllButFirst, Names::LastOnly];

#[derive(Default)]
struct State {
    files: Vec<Content>,
    names: BTreeMap<String, usize>,
    safe_names: BTreeMap<String, usize>,
    /// What was done to names since they were synced.
    renamed: Vec<Renamed>,
    operations: usize,
    faults: Vec<(usize, Fault)>,
    off: bool,
    /// Bytes that files may still grow by, if that is bounded.
    room: Option<usize>,
}

#[derive(Default, Clone)]
struct Content {
    /// As it reads now, and as it is on the disk.
    seen: Vec<u8>,
    safe: Vec<u8>,
    /// What was not synced yet.
    unsynced: Vec<Change>,
    /// What a failed sync has lost: it is seen until memory forgets it.
    lost: bool,
}

/// A name is of this file from now on, or of none; another name may be gone with it.
#[derive(Clone)]
struct Renamed {
    name: String,
    file: Option<usize>,
    instead_of: Option<String>,
}

impl Renamed {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        if let Some(before) = &self.instead_of {
            names.remove(before);
        }
        match self.file {
            Some(file) => names.insert(self.name.clone(), file),
            None => names.remove(&self.name),
        };
    }
}

#[derive(Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

impl Change {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Change::Write(at, bytes) => {
                let end = at + bytes.len();
                if to.len() < end {
                    to.resize(end, 0);
                }
                to[*at..end].copy_from_slice(bytes);
            }
            Change::Truncate(length) => to.resize(*length, 0),
        }
    }

    /// The part of a write between these shares of its bytes; zeros may come before it.
    fn part(&self, from: usize, to: usize) -> Change {
        match self {
            Change::Write(at, bytes) => {
                let (from, to) = (bytes.len() * from / 2, bytes.len() * to / 2);
                Change::Write(at + from, bytes[from..to].to_vec())
            }
            Change::Truncate(length) => Change::Truncate(*length),
        }
    }
}

impl Ram {
    /// Lets something happen at the operation of this number, the next one being 0; beside what is
    /// to happen at others.
    pub fn fail_at(&self, operation: usize, fault: Fault) {
        let mut state = self.0.lock();
        let number = state.operations + operation;
        state.faults.push((number, fault));
    }

    /// From now on files may grow by so many bytes.
    pub fn fill_up(&self, but_for: usize) {
        self.0.lock().room = Some(but_for);
    }

    /// Operations so far: whatever changes something, or makes it last.
    pub fn operations(&self) -> usize {
        self.0.lock().operations
    }

    /// Whether the power was cut.
    pub fn is_off(&self) -> bool {
        self.0.lock().off
    }

    /// What is left after a power cut.
    pub fn after_power_cut(&self, left: Left, names_left: Names) -> Ram {
        let state = self.0.lock();
        let mut names = state.safe_names.clone();
        let last = state.renamed.len().saturating_sub(1);
        for (place, renamed) in state.renamed.iter().enumerate() {
            let is_left = match names_left {
                Names::None => false,
                Names::All => true,
                Names::RemovalsOnly => renamed.file.is_none(),
                Names::AllButFirst => place > 0,
                Names::LastOnly => place == last,
            };
            if is_left {
                renamed.apply(&mut names);
            }
        }
        // What has no name any more is not there.
        let is_there = |number| names.values().any(|named| *named == number);
        let files = state.files.iter().enumerate().map(|(number, file)| {
            if !is_there(number) {
                return Content::default();
            }
            let mut safe = file.safe.clone();
            for change in survivors(&file.unsynced, left) {
                change.apply(&mut safe);
            }
            Content { seen: safe.clone(), safe, ..Content::default() }
        });
        Ram(Arc::new(Mutex::new(State {
            files: files.collect(),
            safe_names: names.clone(),
            names,
            ..State::default()
        })))
    }

    /// The bytes of a file, to look at and to change.
    pub fn with<R>(&self, name: &str, look: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        let mut state = self.0.lock();
        let file = state.names[name];
        let looked = look(&mut state.files[file].seen);
        let content = &mut state.files[file];
        content.safe.clone_from(&content.seen);
        looked
    }

    /// The same files on a disk of their own.
    pub fn copy(&self) -> Ram {
        self.after_power_cut(Left::All, Names::All)
    }

    pub fn names(&self) -> Vec<String> {
        self.0.lock().names.keys().cloned().collect()
    }

    fn rename_to(&self, name: &str, file: Option<usize>, instead_of: Option<&str>) {
        let mut state = self.0.lock();
        let instead_of = instead_of.map(str::to_owned);
        let renamed = Renamed { name: name.to_owned(), file, instead_of };
        renamed.apply(&mut state.names);
        state.renamed.push(renamed);
    }

    fn file(&self, name: &str) -> io::Result<usize> {
        self.0.lock().names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Counts an operation; says whether it may be done.
    fn operation(&self) -> Result<(), Fault> {
        let mut state = self.0.lock();
        if state.off {
            return Err(Fault::Refused);
        }
        let number = state.operations;
        state.operations += 1;
        let due = state.faults.iter().find(|(at, _)| *at == number);
        let Some(&(_, fault)) = due else { return Ok(()) };
        state.off = fault == Fault::PowerCut;
        Err(fault)
    }
}

fn survivors(unsynced: &[Change], left: Left) -> Vec<Change> {
    let Some((last, before)) = unsynced.split_last() else { return Vec::new() };
    match left {
        Left::None => Vec::new(),
        Left::All => unsynced.to_vec(),
        Left::LastOnly => vec![last.clone()],
        Left::AllButFirst => unsynced[1..].to_vec(),
        Left::TornEnd => before.iter().cloned().chain([last.part(0, 1)]).collect(),
        Left::TornStart => before.iter().cloned().chain([last.part(1, 2)]).collect(),
    }
}

fn refused(fault: Fault) -> io::Error {
    match fault {
        Fault::PowerCut => io::Error::other("the power is off"),
        _ => rustix::io::Errno::NOSPC.into(),
    }
}

impl Storage for Ram {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.names())
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        Ok(Box::new(RamFile(self.clone(), self.file(name)?)))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        self.operation().map_err(refused)?;
        let mut state = self.0.lock();
        let file = state.files.len();
        state.files.push(Content::default());
        drop(state);
        self.rename_to(name, Some(file), None);
        Ok(Box::new(RamFile(self.clone(), file)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.operation().map_err(refused)?;
        self.rename_to(to, Some(self.file(from)?), Some(from));
        Ok(())
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        self.operation().map_err(refused)?;
        self.rename_to(to, Some(self.file(from)?), None);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.operation().map_err(refused)?;
        self.file(name)?;
        self.rename_to(name, None, None);
        Ok(())
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.operation().map_err(refused)?;
        let mut state = self.0.lock();
        state.safe_names = state.names.clone();
        state.renamed.clear();
        Ok(())
    }
}

struct RamFile(Ram, usize);

impl RamFile {
    fn may_grow_to(&self, length: usize) -> bool {
        let mut state = self.0.0.lock();
        let more = length.saturating_sub(state.files[self.1].seen.len());
        let left = state.room.map(|room| room.checked_sub(more));
        if let Some(Some(left)) = left {
            state.room = Some(left);
        }
        left != Some(None)
    }

    fn change(&self, change: Change) {
        let mut state = self.0.0.lock();
        let file = &mut state.files[self.1];
        change.apply(&mut file.seen);
        file.unsynced.push(change);
    }
}

impl StorageFile for RamFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.0.0.lock().files[self.1].seen.len() as u64)
    }

    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<usize> {
        let state = self.0.0.lock();
        let rest = state.files[self.1].seen.get(at as usize..).unwrap_or_default();
        let got = rest.len().min(bytes.len());
        bytes[..got].copy_from_slice(&rest[..got]);
        Ok(got)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        if !self.may_grow_to(at as usize + bytes.len()) {
            return Err(refused(Fault::Refused));
        }
        let write = Change::Write(at as usize, bytes.to_vec());
        match self.0.operation() {
            Ok(()) => self.change(write),
            Err(Fault::Refused) => return Err(refused(Fault::Refused)),
            Err(fault) => {
                // Some of it may have been on its way.
                self.change(write.part(0, 1));
                return Err(refused(fault));
            }
        }
        Ok(())
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.0.operation().map_err(refused)?;
        let mut state = self.0.0.lock();
        let freed = state.files[self.1].seen.len().saturating_sub(length as usize);
        state.room = state.room.map(|room| room + freed);
        drop(state);
        self.change(Change::Truncate(length as usize));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let done = self.0.operation();
        let mut state = self.0.0.lock();
        let file = &mut state.files[self.1];
        match done {
            Ok(()) => {
                for change in std::mem::take(&mut file.unsynced) {
                    change.apply(&mut file.safe);
                }
                Ok(())
            }
            Err(Fault::PowerCut) => Err(refused(Fault::PowerCut)),
            Err(fault) => {
                // As Linux does it: what could not be written counts as clean from now on.
                file.unsynced.clear();
                file.lost = true;
                Err(refused(fault))
            }
        }
    }

    fn drop_cache(&self) {
        let mut state = self.0.0.lock();
        let file = &mut state.files[self.1];
        if std::mem::take(&mut file.lost) {
            let mut disk = file.safe.clone();
            file.unsynced.iter().for_each(|change| change.apply(&mut disk));
            file.seen = disk;
        }
    }
}
