//! A simulated disk in memory. It injects a fault at any operation, and a power cut drops the
//! writes and renames that were not synced, in each combination that a real disk may leave.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use longpoll::store::storage::{FileId, Storage, StorageFile};
use parking_lot::Mutex;

use super::disk_faults::{Fault, SurvivingRenames, SurvivingWrites};

/// The disk. Clones share its contents.
#[derive(Clone, Default)]
pub struct SimulatedDisk(Arc<Mutex<DiskState>>);

#[derive(Default)]
struct DiskState {
    files: Vec<Content>,
    names: BTreeMap<String, usize>,
    synced_names: BTreeMap<String, usize>,
    /// Changes of directory entries since the last sync of the directory.
    unsynced_renames: Vec<EntryChange>,
    operations: usize,
    faults: Vec<(usize, Fault)>,
    power_is_off: bool,
    /// The bytes by which files may still grow; `None` for no bound.
    free_bytes: Option<usize>,
}

#[derive(Default, Clone)]
struct Content {
    /// What a read returns now.
    cached: Vec<u8>,
    /// What is on the disk.
    synced: Vec<u8>,
    unsynced: Vec<Change>,
    /// A failed sync has lost writes; reads still return them until the page cache is dropped.
    sync_failed: bool,
}

/// A directory entry now names this file, or no file; a rename also removes the old entry.
#[derive(Clone)]
struct EntryChange {
    name: String,
    file: Option<usize>,
    old_name: Option<String>,
}

impl EntryChange {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        if let Some(old_name) = &self.old_name {
            names.remove(old_name);
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

    /// The part of a write between two halves of its bytes, counted 0, 1, 2.
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

impl SimulatedDisk {
    /// Injects a fault at an operation, the next one being 0. Faults at other operations stay.
    pub fn fail_at(&self, operation: usize, fault: Fault) {
        let mut state = self.0.lock();
        let number = state.operations + operation;
        state.faults.push((number, fault));
    }

    /// Limits the growth of all files together to this number of bytes from now on.
    pub fn limit_free_bytes(&self, bytes: usize) {
        self.0.lock().free_bytes = Some(bytes);
    }

    /// The number of operations so far that change or sync something.
    pub fn operations(&self) -> usize {
        self.0.lock().operations
    }

    /// The bytes of all files that have a name.
    pub fn bytes(&self) -> usize {
        let state = self.0.lock();
        state.names.values().map(|file| state.files[*file].cached.len()).sum()
    }

    /// Whether the power has been cut.
    pub fn is_off(&self) -> bool {
        self.0.lock().power_is_off
    }

    /// The disk as it is after a power cut.
    pub fn after_power_cut(
        &self,
        writes: SurvivingWrites,
        renames: SurvivingRenames,
    ) -> SimulatedDisk {
        let state = self.0.lock();
        let mut names = state.synced_names.clone();
        let last = state.unsynced_renames.len().saturating_sub(1);
        for (index, change) in state.unsynced_renames.iter().enumerate() {
            let survives = match renames {
                SurvivingRenames::None => false,
                SurvivingRenames::All => true,
                SurvivingRenames::RemovalsOnly => change.file.is_none(),
                SurvivingRenames::AllButFirst => index > 0,
                SurvivingRenames::LastOnly => index == last,
            };
            if survives {
                change.apply(&mut names);
            }
        }
        // A file without a directory entry is gone.
        let has_name = |number| names.values().any(|named| *named == number);
        let files = state.files.iter().enumerate().map(|(number, file)| {
            if !has_name(number) {
                return Content::default();
            }
            let mut synced = file.synced.clone();
            for change in surviving(&file.unsynced, writes) {
                change.apply(&mut synced);
            }
            Content { cached: synced.clone(), synced, ..Content::default() }
        });
        SimulatedDisk(Arc::new(Mutex::new(DiskState {
            files: files.collect(),
            synced_names: names.clone(),
            names,
            ..DiskState::default()
        })))
    }

    /// Gives access to the bytes of a file; changes count as synced.
    pub fn with_file<R>(&self, name: &str, access: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        let mut state = self.0.lock();
        let file = state.names[name];
        let result = access(&mut state.files[file].cached);
        let content = &mut state.files[file];
        content.synced.clone_from(&content.cached);
        result
    }

    /// An independent disk with the same files.
    pub fn copy(&self) -> SimulatedDisk {
        self.after_power_cut(SurvivingWrites::All, SurvivingRenames::All)
    }

    pub fn names(&self) -> Vec<String> {
        self.0.lock().names.keys().cloned().collect()
    }

    fn set_entry(&self, name: &str, file: Option<usize>, old_name: Option<&str>) {
        let mut state = self.0.lock();
        let old_name = old_name.map(str::to_owned);
        let replaced = state.names.get(name).copied();
        let change = EntryChange { name: name.to_owned(), file, old_name };
        change.apply(&mut state.names);
        state.unsynced_renames.push(change);
        let replaced = replaced.filter(|file| state.names.values().all(|named| named != file));
        let freed = replaced.map_or(0, |file| state.files[file].cached.len());
        state.free_bytes = state.free_bytes.map(|free| free + freed);
    }

    fn file(&self, name: &str) -> io::Result<usize> {
        self.0.lock().names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Counts an operation and returns the fault that it meets.
    fn start_operation(&self) -> Result<(), Fault> {
        let mut state = self.0.lock();
        if state.power_is_off {
            return Err(Fault::Error);
        }
        let number = state.operations;
        state.operations += 1;
        let due = state.faults.iter().find(|(at, _)| *at == number);
        let Some(&(_, fault)) = due else { return Ok(()) };
        state.power_is_off = fault == Fault::PowerCut;
        Err(fault)
    }
}

fn surviving(unsynced: &[Change], writes: SurvivingWrites) -> Vec<Change> {
    let Some((last, before)) = unsynced.split_last() else { return Vec::new() };
    match writes {
        SurvivingWrites::None => Vec::new(),
        SurvivingWrites::All => unsynced.to_vec(),
        SurvivingWrites::LastOnly => vec![last.clone()],
        SurvivingWrites::AllButFirst => unsynced[1..].to_vec(),
        SurvivingWrites::TornEnd => before.iter().cloned().chain([last.part(0, 1)]).collect(),
        SurvivingWrites::TornStart => before.iter().cloned().chain([last.part(1, 2)]).collect(),
    }
}

fn io_error(fault: Fault) -> io::Error {
    match fault {
        Fault::PowerCut => io::Error::other("the power is off"),
        _ => rustix::io::Errno::NOSPC.into(),
    }
}

impl Storage for SimulatedDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.names())
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        Ok(Box::new(SimulatedFile(self.clone(), self.file(name)?)))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        self.start_operation().map_err(io_error)?;
        let mut state = self.0.lock();
        let file = state.files.len();
        state.files.push(Content::default());
        drop(state);
        self.set_entry(name, Some(file), None);
        Ok(Box::new(SimulatedFile(self.clone(), file)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.start_operation().map_err(io_error)?;
        self.set_entry(to, Some(self.file(from)?), Some(from));
        Ok(())
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        self.start_operation().map_err(io_error)?;
        self.set_entry(to, Some(self.file(from)?), None);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.start_operation().map_err(io_error)?;
        self.file(name)?;
        self.set_entry(name, None, None);
        Ok(())
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.start_operation().map_err(io_error)?;
        let mut state = self.0.lock();
        state.synced_names = state.names.clone();
        state.unsynced_renames.clear();
        Ok(())
    }

    fn file_id(&self, name: &str) -> io::Result<FileId> {
        Ok(FileId(0, self.file(name)? as u64))
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(self.0.lock().free_bytes.map_or(u64::MAX, |free| free as u64))
    }
}

struct SimulatedFile(SimulatedDisk, usize);

impl SimulatedFile {
    /// Takes the growth of this file from the free bytes; returns whether they suffice.
    fn grow_to(&self, length: usize) -> bool {
        let mut state = self.0.0.lock();
        let growth = length.saturating_sub(state.files[self.1].cached.len());
        let left = state.free_bytes.map(|free| free.checked_sub(growth));
        if let Some(Some(left)) = left {
            state.free_bytes = Some(left);
        }
        left != Some(None)
    }

    fn change(&self, change: Change) {
        let mut state = self.0.0.lock();
        let file = &mut state.files[self.1];
        change.apply(&mut file.cached);
        file.unsynced.push(change);
    }
}

impl StorageFile for SimulatedFile {
    fn id(&self) -> io::Result<FileId> {
        Ok(FileId(0, self.1 as u64))
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.0.lock().files[self.1].cached.len() as u64)
    }

    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<usize> {
        let state = self.0.0.lock();
        let rest = state.files[self.1].cached.get(at as usize..).unwrap_or_default();
        let got = rest.len().min(bytes.len());
        bytes[..got].copy_from_slice(&rest[..got]);
        Ok(got)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        if !self.grow_to(at as usize + bytes.len()) {
            return Err(io_error(Fault::Error));
        }
        let write = Change::Write(at as usize, bytes.to_vec());
        match self.0.start_operation() {
            Ok(()) => self.change(write),
            Err(fault @ (Fault::Error | Fault::Refused)) => return Err(io_error(fault)),
            Err(fault) => {
                // Half of the bytes were already written.
                self.change(write.part(0, 1));
                return Err(io_error(fault));
            }
        }
        Ok(())
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.0.start_operation().map_err(io_error)?;
        let mut state = self.0.0.lock();
        let freed = state.files[self.1].cached.len().saturating_sub(length as usize);
        state.free_bytes = state.free_bytes.map(|free| free + freed);
        drop(state);
        self.change(Change::Truncate(length as usize));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let done = self.0.start_operation();
        let mut state = self.0.0.lock();
        let file = &mut state.files[self.1];
        match done {
            Ok(()) => {
                for change in std::mem::take(&mut file.unsynced) {
                    change.apply(&mut file.synced);
                }
                Ok(())
            }
            Err(fault @ (Fault::PowerCut | Fault::Refused)) => Err(io_error(fault)),
            Err(fault) => {
                // As on Linux: pages that could not be written count as clean from now on.
                file.unsynced.clear();
                file.sync_failed = true;
                Err(io_error(fault))
            }
        }
    }

    fn drop_cache(&self) {
        let mut state = self.0.0.lock();
        let file = &mut state.files[self.1];
        if std::mem::take(&mut file.sync_failed) {
            let mut content = file.synced.clone();
            file.unsynced.iter().for_each(|change| change.apply(&mut content));
            file.cached = content;
        }
    }
}
