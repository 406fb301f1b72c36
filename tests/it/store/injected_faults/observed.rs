//! What the clients of a trial did and saw, in order. The verdict follows from this alone.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// One event to publish. Its id is unique in the trial.
#[derive(Clone, Debug)]
pub struct Draft {
    pub id: String,
    pub size: usize,
}

impl Draft {
    /// The content, which follows from the id and the size.
    pub fn body(&self) -> String {
        let pad = ["a", "bc", "def", "0123456789"][self.id.len() % 4].repeat(self.size);
        format!("{} {}", self.id, &pad[..self.size])
    }
}

/// A change that a client asks for.
#[derive(Clone, Debug)]
pub enum Change {
    Publish { drafts: Vec<Draft>, key: Option<String> },
    Delete,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// No answer that settles the request has arrived yet.
    Open,
    /// Publishes: the first event has this seq.
    Acknowledged {
        epoch: String,
        first: u64,
    },
    Refused,
}

/// One change and its outcome. All changes of a topic come from one client, one after the other.
#[derive(Clone, Debug)]
pub struct Operation {
    pub topic: String,
    pub change: Change,
    pub outcome: Outcome,
    /// When the last attempt began, in steps of the trial.
    pub began: u64,
    /// When the disk's last refusal (507) arrived.
    pub refused: Option<u64>,
    /// An attempt has sent its request and got no response.
    pub cut: bool,
    /// The first acknowledgement said that the events were there before.
    pub duplicate: bool,
    /// The number of the server that acknowledged it.
    pub run: usize,
    /// When the last attempt began, by the clock.
    pub sent_at: Option<Instant>,
    /// The last attempt has no answer yet.
    pub waiting: bool,
}

impl Operation {
    pub fn drafts(&self) -> &[Draft] {
        match &self.change {
            Change::Publish { drafts, .. } => drafts,
            Change::Delete => &[],
        }
    }

    /// Every attempt was refused, or never sent.
    pub fn is_refused(&self) -> bool {
        !self.cut && self.outcome == Outcome::Refused
    }

    /// The seq of each event, if the publish was acknowledged.
    pub fn acknowledged(&self) -> impl Iterator<Item = (u64, &Draft)> {
        let first = match &self.outcome {
            Outcome::Acknowledged { first, .. } => Some(*first),
            _ => None,
        };
        first.into_iter().flat_map(|first| (first..).zip(self.drafts()))
    }
}

/// An event as a reader got it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SeenEvent {
    pub epoch: String,
    pub seq: u64,
    pub topic: String,
    pub data: String,
    /// The number of the server of this trial that sent it.
    pub run: usize,
}

impl SeenEvent {
    pub fn id(&self) -> &str {
        self.data.split(' ').next().unwrap_or_default()
    }
}

/// What a trial may violate.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Rule {
    /// Acknowledged events are there, once, unchanged, in order, in the same epoch.
    Kept,
    /// What was refused, or trimmed, is nowhere.
    Refused,
    /// The poller gets each event once, in order.
    Polled,
    /// Each request, start and end has its answer, in time.
    Answered,
    /// `/health` and the metric say whether the store fails.
    Health,
    /// A start without faults succeeds, `inspect` finds no damage, and no file is left over.
    Restart,
    /// Neither the server nor the driver panics.
    Panics,
}

/// A rule that did not hold, and how that showed.
#[derive(Clone, Debug)]
pub struct Violation {
    pub rule: Rule,
    pub text: String,
}

/// What all clients of a trial share.
#[derive(Default)]
pub struct Observed {
    /// `None` while no server runs.
    pub address: Option<SocketAddr>,
    pub run: usize,
    pub operations: Vec<Operation>,
    /// What the poller got, in order.
    pub shown: Vec<SeenEvent>,
    /// How far the poller has read: an index of `epochs`, and a seq.
    pub read: Option<(usize, u64)>,
    /// Events that the server reported as gone to the poller, by topic; `None` where it did not know.
    pub gone: BTreeMap<String, Option<u64>>,
    /// All epochs that a client has seen, in order.
    pub epochs: Vec<String>,
    pub acknowledged: usize,
    pub refused: usize,
    /// What was found wrong at once, such as an answer that does not come.
    pub violations: Vec<Violation>,
    step: u64,
}

impl Observed {
    /// The next number in the order of what happens.
    pub fn next_step(&mut self) -> u64 {
        self.step += 1;
        self.step
    }

    pub fn epoch(&mut self, epoch: &str) -> usize {
        self.epochs.iter().position(|known| known == epoch).unwrap_or_else(|| {
            self.epochs.push(epoch.to_owned());
            self.epochs.len() - 1
        })
    }

    /// The places of the operations that wait for an answer.
    pub fn waiting(&self) -> Vec<usize> {
        let operations = self.operations.iter().enumerate();
        operations.filter(|(_, operation)| operation.waiting).map(|(place, _)| place).collect()
    }

    /// The publishes whose acknowledged attempt began after a step.
    pub fn acknowledged_since(&self, step: u64) -> impl Iterator<Item = &Operation> {
        self.operations.iter().filter(move |operation| {
            operation.began > step && matches!(operation.outcome, Outcome::Acknowledged { .. })
        })
    }
}

/// The observations, and the signal that there are more.
#[derive(Default)]
pub struct Observer {
    observed: Mutex<Observed>,
    more: Condvar,
    pub stop: AtomicBool,
    pub stop_publishing: AtomicBool,
}

impl Observer {
    pub fn lock(&self) -> MutexGuard<'_, Observed> {
        self.observed.lock().unwrap()
    }

    /// Changes the observations, and wakes the threads that wait for more.
    pub fn change<R>(&self, change: impl FnOnce(&mut Observed) -> R) -> R {
        let result = change(&mut self.lock());
        self.more.notify_all();
        result
    }

    pub fn violated(&self, rule: Rule, text: String) {
        self.change(|observed| observed.violations.push(Violation { rule, text }));
    }

    /// Waits until a condition holds, and returns whether it did within the guard.
    pub fn wait_until(&self, guard: Duration, mut holds: impl FnMut(&Observed) -> bool) -> bool {
        let deadline = Instant::now() + guard;
        let mut observed = self.lock();
        while !holds(&observed) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            observed = self.more.wait_timeout(observed, left).unwrap().0;
        }
        true
    }

    /// Waits for a running server; `None` when `stop` is set.
    pub fn address(&self, stop: &AtomicBool) -> Option<SocketAddr> {
        let mut observed = self.lock();
        loop {
            if stop.load(Ordering::Relaxed) {
                return None;
            }
            if observed.address.is_some() {
                return observed.address;
            }
            observed = self.more.wait_timeout(observed, Duration::from_millis(50)).unwrap().0;
        }
    }
}
