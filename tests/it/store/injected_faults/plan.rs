//! The plan of one trial, which follows from its seed alone: which fault, when, and what comes
//! after it.

use std::fmt;
use std::time::Duration;

use rustix::io::Errno;

use super::shim::operations::{
    ALL, CREATE, OPEN, READ, REMOVE, RENAME, SYNC, SYNC_DIRECTORY, TRUNCATE, WRITE,
};
use super::shim::{Capacity, Effect, InjectedFault, Place, Times};

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

impl FaultKind {
    /// The disk is as large as the documentation says that the store needs, so this is no fault.
    pub fn needs_its_size(&self) -> bool {
        matches!(self.effect, Effect::Full(Capacity::Total(_)))
    }
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

/// `--retain-bytes` of trials that trim by bytes, and the least size of a segment.
const SMALL_RETAIN_BYTES: u32 = 300 << 10;
const SEGMENT_BYTES: u32 = 256 << 10;
/// What a trial keeps at most: the bytes of its events, the rest of the lines of some 400 of them,
/// and the lines of 1,000 keys.
const KEPT_BYTES: u32 = SMALL_RETAIN_BYTES + 400 * 130 + 1_000 * 200;
/// Topics, and the trims of events that are still counted one by one.
const SNAPSHOT_BYTES: u32 = 64 << 10;
/// The bound of `src/store/FORMAT.md`, "Disk space": twice what is kept, and three segments with
/// their snapshots.
const STATED_BYTES: u32 = 2 * KEPT_BYTES + 3 * (SEGMENT_BYTES + SNAPSHOT_BYTES);

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
    FaultKind {
        effect: Effect::Full(Capacity::More(0)),
        ..kind("disk fills up", WRITE, &[Errno::NOSPC], 0, ANY)
    },
    // The store has to get along with as much as its documentation says.
    FaultKind {
        effect: Effect::Full(Capacity::Total(STATED_BYTES)),
        ..kind("disk of the stated size", WRITE, &[Errno::NOSPC], 0, ANY)
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

/// What trims events in a trial, besides `--retain-events`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trimming {
    Count,
    Bytes,
    /// Events age within seconds, and topics without events make room for new ones.
    Age,
}

impl Trimming {
    /// `--retain-bytes`.
    pub fn bytes(self) -> u64 {
        if self == Trimming::Bytes { u64::from(SMALL_RETAIN_BYTES) } else { 4 << 20 }
    }

    /// The other flags.
    pub fn flags(self) -> &'static [&'static str] {
        if self == Trimming::Age { &["--retain-age", "2s", "--max-topics", "7"] } else { &[] }
    }
}

/// One trial.
pub struct TrialPlan {
    pub seed: u64,
    pub kind: &'static FaultKind,
    pub fault: InjectedFault,
    pub durability: Durability,
    pub trimming: Trimming,
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
        let fills = matches!(kind.effect, Effect::Full(_));
        let times = match random.u8(..3) {
            _ if fills => Times::Forever,
            0 => Times::Once,
            1 => Times::Several(random.u8(2..=6)),
            _ => Times::Forever,
        };
        let place = *random.choice(kind.places).unwrap();
        // Each rotation and each compaction has few operations.
        let seldom = matches!(place, Place::Rotation | Place::Compaction);
        let effect = match kind.effect {
            Effect::Full(Capacity::More(_)) => Effect::Full(Capacity::More(random.u32(..500_000))),
            effect => effect,
        };
        let fault = InjectedFault {
            first: kind.first,
            later: kind.later,
            place,
            error: random.choice(kind.errors).unwrap().raw_os_error(),
            effect,
            skip: random.u8(..=if seldom { 2 } else { kind.skip }),
            times,
        };
        // A disk may lose what it did not sync: that is acknowledged with an interval.
        let may_lose = kind.effect == Effect::DataLost;
        let interval = !may_lose && random.u8(..4) == 0;
        let trimming = match random.u8(..5) {
            _ if kind.needs_its_size() => Trimming::Bytes,
            0 | 1 => Trimming::Count,
            2 | 3 => Trimming::Bytes,
            _ => Trimming::Age,
        };
        // A store that fails is tried once a second: some trials wait for several attempts, or until
        // all events have aged.
        let delay = match random.u8(..4) {
            _ if kind.needs_its_size() => random.u64(1_000..6_000),
            0 => random.u64(..20),
            1 => random.u64(..300),
            2 if trimming != Trimming::Age => random.u64(..1_500),
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
            trimming,
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
             publishes, --sync {:?}, trims by {:?}; {} ms later {:?}",
            self.seed,
            self.kind.name,
            self.warm_up,
            self.durability,
            self.trimming,
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
