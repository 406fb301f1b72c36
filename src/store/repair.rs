//! `longpoll repair DIR`: keeps everything that is whole, moves the rest aside, and begins a new
//! epoch, because what is missing cannot be told from what never was.
//!
//! The file of a segment with damage gets a second name, which begins with its own, and what is whole
//! in it takes its place. Each step leaves a directory that this can be run on again.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use super::compact::{Kept, Output};
use super::disk::{Directory, Disk};
use super::header::{Begun, Header, file_name};
use super::inspect::go_through;
use super::journal::Active;
use super::record::Record;
use super::recovery::{Settings, open, segments};
use super::scan::{Doing, Failure, read_sealed};
use super::{in_words, lock_directory};
use crate::config::{Config, RepairAsked, Sync};
use crate::cursor::{Cursor, Epoch, random_bytes};
use crate::log::{LastTrim, Now, Snapshot, TopicTrims};
use crate::metrics::Metrics;
use crate::names::Name;

/// Repairs a store, and says what was done.
///
/// # Errors
/// When it is in use, or the disk fails; or when only a new epoch was asked for and it is damaged.
pub fn repair<T>(
    directory: &Path,
    what: RepairAsked,
    outcome: impl Fn(Cursor, SystemTime, Option<u32>) -> T,
) -> io::Result<String> {
    if !directory.is_dir() {
        return Err(io::Error::other(format!("{} is no directory", directory.display())));
    }
    let lock = lock_directory(directory)?;
    let disk: Arc<dyn Disk> = Arc::new(Directory::new(directory));
    let failed = |failure| in_words(directory, &failure);
    let aside = match what {
        RepairAsked::Damage => salvage(&*disk, &lock.identity).map_err(failed)?,
        RepairAsked::NewEpoch => Vec::new(),
    };
    let settings = Settings {
        retention: None,
        sync: Sync::Always,
        identity: lock.identity.clone(),
        new_epoch: Some("it was asked for"),
    };
    let metrics = Arc::new(Metrics::default());
    let (mut store, _) = open(disk, &settings, &metrics, outcome, Now::read()).map_err(failed)?;
    let now = std::time::Instant::now();
    store.journal.close(now, &metrics.store).map_err(failed)?;
    let (events, head) = (store.log.totals().events, store.log.head());
    let mut said = vec![format!("{events} events are kept; a new epoch begins at {head}")];
    said.extend(aside.iter().map(|name| format!("{name} has what was there before")));
    Ok(said.join("\n") + "\n")
}

/// What is whole in a store.
struct Whole {
    /// The last event, and what is known of trims: of each topic, and of all by age.
    head: u64,
    kept: Kept,
    expired: u64,
    /// The header of the newest segment that still has its own.
    begun: Option<Box<Begun>>,
}

impl Whole {
    fn take(&mut self, record: Record) {
        match record {
            Record::Event(event) => {
                self.head = self.head.max(event.seq);
                self.kept.trimmed_through(event.topic);
            }
            Record::Topic(known) => {
                let through = self.kept.trimmed_through(known.topic);
                *through = known.last.seq.max(*through);
            }
            Record::Trim(topic) => *self.kept.trimmed_through(topic) = self.head,
            Record::Expire(through) => self.expired = self.expired.max(through),
            _ => {}
        }
    }

    /// The state of the log: what of it can no longer be known went with the old epoch.
    fn state(&mut self, identity: &str) -> Result<(Begun, Snapshot), Failure> {
        let defaults = Config::default();
        let made = |secret: [u8; 16]| Begun {
            epoch: Epoch::from_bits(0),
            next: 0,
            first: 0,
            number: 0,
            synced: true,
            identity: String::new(),
            secret: u128::from_le_bytes(secret),
            retain_events: defaults.retain_events as u64,
            retain_bytes: defaults.retain_bytes,
            max_topics: defaults.max_topics as u64,
            trims: 0,
            forgotten: LastTrim::default(),
        };
        let mut begun = match &self.begun {
            Some(begun) => (**begun).clone(),
            None => made(random_bytes().doing("make", "a secret")?),
        };
        begun.epoch = Epoch::random().doing("make", "an epoch")?;
        begun.number += 1;
        begun.trims = begun.trims.max(1);
        identity.clone_into(&mut begun.identity);
        let topic = |(topic, through): &(Name, u64)| TopicTrims {
            topic: topic.clone(),
            last: LastTrim { seq: *through, number: u64::from(*through > 0) },
            uncounted_through: *through,
        };
        let snapshot = Snapshot {
            head: self.head,
            trims: begun.trims,
            forgotten: begun.forgotten,
            topics: self.kept.topics().iter().map(topic).collect(),
            recent: Vec::new(),
        };
        Ok((begun, snapshot))
    }
}

/// Makes a store whole again. Returns the files in which the rest is.
fn salvage(disk: &dyn Disk, identity: &str) -> Result<Vec<String>, Failure> {
    let kept = Kept::new(&Snapshot::default(), SystemTime::now());
    let mut whole = Whole { head: 0, kept, expired: 0, begun: None };
    let firsts = segments(disk)?;
    // Up to where each of them is well by itself.
    let mut ends = Vec::new();
    for &first in &firsts {
        let name = file_name(first);
        let file = disk.open(&name).doing("open", &name)?;
        let contents = go_through(&*file, &mut |record| whole.take(record)).doing("read", &name)?;
        if let Some(Header::Begun(begun)) = contents.header {
            whole.begun = Some(begun);
        }
        let sealed = read_sealed(disk, first, &mut |_| {}).ok();
        ends.push(sealed.map(|sealed| match sealed.header {
            Header::Compacted { through } => through,
            Header::Begun(_) => sealed.last.unwrap_or(first - 1),
        }));
    }
    let Some(&newest) = firsts.last() else { return Ok(Vec::new()) };
    whole.head = whole.head.max(newest.saturating_sub(1));
    for (_, through) in whole.kept.topics() {
        *through = whole.expired.max(*through);
    }
    let next = whole.head + 1;
    let mut aside = Vec::new();
    for (place, &first) in firsts.iter().enumerate() {
        let through = firsts.get(place + 1).map_or(whole.head, |after| after - 1);
        if ends[place] == Some(through) {
            continue;
        }
        let name = file_name(first);
        aside.push(set_aside(disk, &name)?);
        if first < next {
            let mut output = Output::new(disk, first, through, &whole.kept)?;
            let file = disk.open(&name).doing("open", &name)?;
            go_through(&*file, &mut |record| output.take(record)).doing("read", &name)?;
            output.finish(disk)?;
        }
    }
    let (begun, snapshot) = whole.state(identity)?;
    let first = firsts[0].min(next);
    Active::begin(disk, &Begun { next, first, ..begun }, &snapshot)?;
    disk.sync_names().doing("sync", "the directory")?;
    Ok(aside)
}

/// Gives a segment's file a second name, under which nothing looks for it.
fn set_aside(disk: &dyn Disk, name: &str) -> Result<String, Failure> {
    let names = disk.list().doing("list", "the directory")?;
    let mut number = 1;
    loop {
        let aside = format!("{name}.damaged-{number}");
        if !names.contains(&aside) {
            disk.link(name, &aside).doing("set aside", name)?;
            return Ok(aside);
        }
        number += 1;
    }
}
