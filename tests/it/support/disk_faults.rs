//! The faults of the simulated disk, and what a power cut leaves of changes that were not synced.

/// The fault that an operation meets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The operation fails without an effect. If it is a sync, the unsynced writes are lost.
    Error,
    /// The operation fails without an effect. If it is a sync, a later one writes what it did not.
    Refused,
    /// A write fails after half of its bytes; other operations fail as with `Error`.
    ShortWrite,
    /// The power is cut before the operation has an effect.
    PowerCut,
}

/// Which unsynced writes of a file survive a power cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SurvivingWrites {
    None,
    All,
    /// The other writes are lost: zeros stand in their place.
    LastOnly,
    AllButFirst,
    /// All writes, but only the first half of the last one.
    TornEnd,
    /// All writes, but only the second half of the last one, with zeros before it.
    TornStart,
}

impl SurvivingWrites {
    pub const EACH: [SurvivingWrites; 6] = [
        SurvivingWrites::None,
        SurvivingWrites::All,
        SurvivingWrites::LastOnly,
        SurvivingWrites::AllButFirst,
        SurvivingWrites::TornEnd,
        SurvivingWrites::TornStart,
    ];
}

/// Which unsynced changes of directory entries survive a power cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SurvivingRenames {
    None,
    All,
    /// Removals survive; creations and renames do not.
    RemovalsOnly,
    AllButFirst,
    LastOnly,
}

impl SurvivingRenames {
    pub const EACH: [SurvivingRenames; 5] = [
        SurvivingRenames::None,
        SurvivingRenames::All,
        SurvivingRenames::RemovalsOnly,
        SurvivingRenames::AllButFirst,
        SurvivingRenames::LastOnly,
    ];
}
