//! Who changes a log: publishers themselves, or whoever writes things down for them first.
//!
//! Whoever publishes cannot tell the two apart: an append returns when the event is as safe as was
//! promised, and has happened whole or not at all. So the api knows nothing of disks, and a server
//! without a store pays nothing for one.

use std::time::Instant;

use super::{Appended, Claim, Draft, Log, Now, Refused};
use crate::metrics::Page;
use crate::names::Name;

/// The way to change a log. Without a store that is the log itself; with one, it is a thread that
/// writes to the disk and changes the log after that.
pub trait Ledger<T>: Send + Sync {
    /// Appends; returns when it is as safe as was promised.
    ///
    /// # Errors
    /// When the log or the disk does not take it. Then nothing of it happened.
    fn append(&self, handed: Handed<'_, T>, now: Now) -> Result<Appended<T>, Refusal>;

    /// Trims everything in a topic.
    ///
    /// # Errors
    /// When the disk does not take it.
    fn trim(&self, topic: &Name) -> Result<(), Refusal>;

    /// Lets go of what is too old. To be called now and then.
    fn expire(&self, now: Instant);

    /// Writes what is to be known of it beside the log itself.
    fn render(&self, page: &mut Page);

    /// How the disk does that it is kept on.
    fn disk(&self) -> Disk;

    /// Whether what was appended is on the disk when the publisher hears of it.
    fn is_durable(&self) -> bool;

    /// Ends it in order; nothing can be appended to a store after that.
    fn close(&self);
}

/// What a publish hands in.
pub struct Handed<'a, T> {
    pub topic: &'a Name,
    pub drafts: Vec<Draft>,
    pub claim: Option<&'a Claim<T>>,
    /// Of a batch, how many events it has.
    pub count: Option<u32>,
}

/// The disk that a log is kept on.
#[derive(Debug, PartialEq, Eq)]
pub enum Disk {
    /// There is none: it is in memory only.
    None,
    Works,
    /// It takes nothing; in its words.
    Fails(String),
}

/// Why something was not done.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The log does not take it.
    Log(Refused),
    /// The disk does not; in its words.
    Disk(String),
}

impl<T: Send> Ledger<T> for Log<T> {
    fn append(&self, handed: Handed<'_, T>, now: Now) -> Result<Appended<T>, Refusal> {
        let Handed { topic, drafts, claim, .. } = handed;
        self.append(topic, drafts, claim, now).map_err(Refusal::Log)
    }

    fn trim(&self, topic: &Name) -> Result<(), Refusal> {
        self.trim(topic);
        Ok(())
    }

    fn expire(&self, now: Instant) {
        self.expire(now);
    }

    fn render(&self, _: &mut Page) {}

    fn disk(&self) -> Disk {
        Disk::None
    }

    fn is_durable(&self) -> bool {
        false
    }

    fn close(&self) {}
}
