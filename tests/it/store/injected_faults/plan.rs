//! The plan of one trial, which follows from its seed alone: which fault, when, and what comes
//! after it.

use std::fmt;
use std::time::Duration;

use rustix::io::Errno;

use super::shim::operations::{
    ALL, CREATE, OPEN, READ, REMOVE, RENAME, SYNC, SYNC_DIRECTORY, TRUNCATE, WRITE,
};
use super::shim::{Effect, InjectedFault, Place, Times};

/// A row of the table of faults.
pub struct FaultKind {
    pub name: &'static str,
    first: i64,
    later: i64,
    effect: Effect,
    errors: &'static [Errno],
    /// Operations of this kind that may succeed before the first failure.
    skip: u8,
    places: &'static [Place],
}

const ANY: &[Place] = &[Place::Anywhere];
const EACH: &[Place] = &[Place::Anywhere, Place::Commit, Place::Rotation, Place::Compaction];
const NAMES: &[Place] = &[Place::Anywhere, Place::Rotation, Place::Compaction];

const fn kind(
    name: &'static str,
    operations: i64,
    errors: &'static [Errno],
    skip: u8,
    places: &'static [Place],
) -> FaultKind {
    FaultKind {
        name,
        first: operations,
        later: operations,
        effect: Effect::None,
        errors,
        skip,
        places,
    }
}

pub const KINDS: &[FaultKind] = &[
    kind("sync", SYNC, &[Errno::IO], 30, EACH),
    FaultKind { effect: Effect::DataLost, ..kind("sync, data lost", SYNC, &[Errno::IO], 30, EACH) },
    kind("write, no space", WRITE, &[Errno::NOSPC], 30, EACH),
    kind("write, over quota", WRITE, &[Errno::DQUOT], 30, EACH),
    kind("write, read-only", WRITE, &[Errno::ROFS], 30, EACH),
    FaultKind {
        effect: Effect::ShortWrite,
        ..kind("short write", WRITE, &[Errno::NOSPC, Errno::DQUOT, Errno::IO], 30, EACH)
    },
    kind("open, too many", OPEN, &[Errno::MFILE, Errno::NFILE], 6, NAMES),
    kind("rename", RENAME, &[Errno::IO, Errno::NOSPC, Errno::ROFS], 3, NAMES),
    kind("unlink", REMOVE, &[Errno::IO, Errno::ROFS], 3, ANY),
    kind("directory sync", SYNC_DIRECTORY, &[Errno::IO], 4, NAMES),
    // The file is cut only after another failure.
    FaultKind {
        later: TRUNCATE,
        ..kind("sync, then truncate", SYNC, &[Errno::IO, Errno::ROFS], 20, ANY)
    },
    FaultKind { later: READ, ..kind("sync, then read", SYNC, &[Errno::IO], 20, ANY) },
    kind("disk full", WRITE | CREATE | RENAME, &[Errno::NOSPC], 30, ANY),
    kind("disk read-only", ALL & !READ & !OPEN, &[Errno::ROFS], 30, ANY),
    kind("disk gone", ALL, &[Errno::IO], 30, ANY),
];

/// What follows the fault.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Continuation {
    /// The fault ends, and the server has to take publishes again; then it ends in order.
    Recovery,
    /// The fault ends, and the server has to take publishes again; then it is killed.
    RecoveryThenKill,
    /// The server is killed while the fault lasts, unless that has ended by itself.
    Kill,
    /// The server ends in order while the fault lasts, unless that has ended by itself.
    End,
}

impl Continuation {
    pub const EACH: [Continuation; 4] = [
        Continuation::Recovery,
        Continuation::Kill,
        Continuation::End,
        Continuation::RecoveryThenKill,
    ];

    pub fn recovers(self) -> bool {
        matches!(self, Continuation::Recovery | Continuation::RecoveryThenKill)
    }

    pub fn kills(self) -> bool {
        matches!(self, Continuation::Kill | Continuation::RecoveryThenKill)
    }
}

/// The two promises of `--sync`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    Always,
    Interval,
}

/// One trial.
pub struct TrialPlan {
    pub seed: u64,
    pub kind: &'static FaultKind,
    pub fault: InjectedFault,
    pub durability: Durability,
    /// Small enough that events are trimmed by bytes, or large enough that none is.
    pub retain_bytes: u64,
    /// Acknowledged publishes before the fault is armed.
    pub warm_up: usize,
    /// From the first failure to the continuation.
    pub delay: Duration,
    pub continuation: Continuation,
    /// The first start afterwards meets this fault.
    pub at_start: Option<InjectedFault>,
}

impl TrialPlan {
    /// Successive seeds go through all pairs of a fault and a continuation.
    pub fn new(seed: u64) -> TrialPlan {
        // Neighbouring seeds begin alike, without this.
        let mut random = fastrand::Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let kind = &KINDS[(seed % KINDS.len() as u64) as usize];
        let continuations = Continuation::EACH;
        let continuation =
            continuations[(seed / KINDS.len() as u64) as usize % continuations.len()];
        let times = match random.u8(..3) {
            0 => Times::Once,
            1 => Times::Several(random.u8(2..=6)),
            _ => Times::Forever,
        };
        let fault = InjectedFault {
            first: kind.first,
            later: kind.later,
            place: *random.choice(kind.places).unwrap(),
            error: random.choice(kind.errors).unwrap().raw_os_error(),
            effect: kind.effect,
            skip: random.u8(..=kind.skip),
            times,
        };
        // A disk may lose what it did not sync: that is acknowledged with an interval.
        let may_lose = kind.effect == Effect::DataLost;
        let interval = !may_lose && random.u8(..4) == 0;
        // A store that fails is tried once a second: some trials wait for several attempts.
        let delay = match random.u8(..4) {
            0 => random.u64(..20),
            1 => random.u64(..300),
            2 => random.u64(..1_500),
            _ => random.u64(..4_000),
        };
        let at_start = (random.u8(..3) == 0).then(|| InjectedFault {
            first: ALL,
            later: ALL,
            place: Place::Anywhere,
            error: random.choice([Errno::IO, Errno::NOSPC, Errno::ROFS]).unwrap().raw_os_error(),
            effect: Effect::None,
            skip: random.u8(..40),
            times: if random.bool() { Times::Once } else { Times::Forever },
        });
        TrialPlan {
            seed,
            kind,
            fault,
            durability: if interval { Durability::Interval } else { Durability::Always },
            retain_bytes: if random.bool() { 512 << 10 } else { 4 << 20 },
            warm_up: random.usize(3..60),
            delay: Duration::from_millis(delay),
            continuation,
            at_start,
        }
    }
}

impl fmt::Display for TrialPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let InjectedFault { place, error, skip, times, .. } = &self.fault;
        let error = std::io::Error::from_raw_os_error(*error);
        write!(
            f,
            "seed {}: {} ({error}), {times:?}, at {place:?} after {skip} operations and {} \
             publishes, --sync {:?}; {} ms later {:?}",
            self.seed,
            self.kind.name,
            self.warm_up,
            self.durability,
            self.delay.as_millis(),
            self.continuation,
        )?;
        if let Some(fault) = &self.at_start {
            let error = std::io::Error::from_raw_os_error(fault.error);
            write!(f, "; first start: {error}, {:?} after {}", fault.times, fault.skip)?;
        }
        Ok(())
    }
}
