//! What has to hold after a trial: each acknowledged event is there, once and unchanged, unless
//! retention or a client trimmed it; what was refused is nowhere; the poller saw exactly what is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::observed::{Change, Draft, Observed, Operation, Outcome, Rule, SeenEvent, Violation};
use super::plan::{Continuation, Durability, TrialPlan, Trimming};
use super::shim::operations::TRUNCATE;
use super::shim::{InjectedFault, Times};

/// `--retain-events` of every trial.
pub const RETAIN_EVENTS: usize = 60;

/// What `--retain-bytes` counts besides a body, and a little more.
const EVENT_OVERHEAD: u64 = 136;

/// The policy about refused changes, as `src/store/FORMAT.md` has it under "A full or failing disk":
/// what was written of them is truncated at once, and once more when the server ends. Only if that
/// fails too may the next start find them.
fn may_be_there_after_a_kill(fault: &InjectedFault) -> bool {
    fault.later & TRUNCATE != 0 && fault.times != Times::Once
}

/// The same policy for an end in order. `lasted` says that the fault lasted longer.
fn may_be_there_after_an_end(fault: &InjectedFault, lasted: bool) -> bool {
    fault.later & TRUNCATE != 0 && lasted
}

/// What the driver found in a trial.
#[derive(Default)]
pub struct Findings {
    /// All events of the last server, and when they were read.
    pub remains: Vec<SeenEvent>,
    pub read_at: Option<Instant>,
    /// Operations that failed.
    pub failed: i64,
    /// Operations would still have failed when the server had ended.
    pub lasted_to_the_end: bool,
    /// The trial has had all its steps.
    pub completed: bool,
}

/// The result of one trial.
#[derive(Default)]
pub struct Verdict {
    /// Operations that failed.
    pub failed: i64,
    pub acknowledged: usize,
    pub refused: usize,
    /// Refused changes that were there afterwards, as the policy allows.
    pub refused_but_there_after_a_kill: usize,
    pub refused_but_there_after_an_end: usize,
    pub violations: Vec<Violation>,
}

/// A trial's operations, by the events that they publish.
struct Judge<'t> {
    plan: &'t TrialPlan,
    observed: &'t Observed,
    findings: &'t Findings,
    /// Where each event is published: the operation, and the place in its batch.
    published: BTreeMap<&'t str, (usize, usize)>,
    /// Operations that were refused and took place nevertheless.
    refused_but_there: BTreeSet<usize>,
    verdict: Verdict,
}

/// Judges a trial. If it lacks its last steps, only what was seen counts.
pub fn judge(plan: &TrialPlan, observed: &Observed, findings: &Findings) -> Verdict {
    let mut published = BTreeMap::new();
    for (index, operation) in observed.operations.iter().enumerate() {
        for (place, draft) in operation.drafts().iter().enumerate() {
            published.insert(&*draft.id, (index, place));
        }
    }
    let verdict = Verdict {
        failed: findings.failed,
        acknowledged: observed.acknowledged,
        refused: observed.refused,
        violations: observed.violations.clone(),
        ..Verdict::default()
    };
    let mut judge =
        Judge { plan, observed, findings, published, refused_but_there: BTreeSet::new(), verdict };
    judge.check_epochs();
    judge.check_events("the poller got", &observed.shown);
    judge.check_events("the store has", &findings.remains);
    judge.check_duplicates();
    if findings.completed {
        judge.check_poller();
        judge.check_kept();
    }
    judge.verdict
}

impl Judge<'_> {
    fn violated(&mut self, rule: Rule, text: String) {
        self.verdict.violations.push(Violation { rule, text });
    }

    /// The epoch stays, unless an end without a sync may have lost something.
    fn check_epochs(&mut self) {
        let may_change = self.plan.durability == Durability::Interval
            && (self.plan.continuation != Continuation::Recovery || self.plan.at_start.is_some());
        if self.observed.epochs.len() > 1 && !may_change {
            self.violated(Rule::Kept, format!("the epoch has changed: {:?}", self.observed.epochs));
        }
    }

    /// Events as one reader got them: known, unchanged, in order, once, and none that was refused.
    fn check_events(&mut self, reader: &str, events: &[SeenEvent]) {
        let mut seen = BTreeSet::new();
        let mut before: Option<&SeenEvent> = None;
        for event in events {
            let SeenEvent { epoch, seq, topic, data, run } = event;
            let what = format!("{reader} seq {seq} in {topic}: {}", event.id());
            if before.is_some_and(|before| before.epoch == *epoch && before.seq >= *seq) {
                self.violated(Rule::Kept, format!("{what}: not in order"));
            }
            before = Some(event);
            let Some((index, place)) = self.published.get(event.id()).copied() else {
                self.violated(Rule::Kept, format!("{what}: nobody published it"));
                continue;
            };
            let operation = &self.observed.operations[index];
            if operation.topic != *topic || operation.drafts()[place].body() != *data {
                self.violated(Rule::Kept, format!("{what}: its content or its topic has changed"));
            }
            if !seen.insert((epoch, event.id())) {
                self.violated(Rule::Kept, format!("{what}: for the second time"));
            }
            match &operation.outcome {
                Outcome::Acknowledged { first, .. } if first + place as u64 != *seq => {
                    self.violated(Rule::Kept, format!("{what}: acknowledged as another seq"));
                }
                Outcome::Refused if operation.is_refused() => {
                    self.refused_but_there(index, *run, &what);
                }
                Outcome::Open if !operation.cut => {
                    self.violated(Rule::Refused, format!("{what}: it was never sent"));
                }
                _ => {}
            }
        }
    }

    /// A refused operation took place nevertheless, as a server showed: the first, or a later one.
    fn refused_but_there(&mut self, index: usize, run: usize, what: &str) {
        if !self.refused_but_there.insert(index) {
            return;
        }
        let refused = self.observed.operations[index].refused.unwrap_or(0);
        let mut later = self.observed.acknowledged_since(refused);
        let store_worked_again = later.any(|later| later.run == 1);
        if run > 1 && !store_worked_again {
            let (fault, lasted) = (&self.plan.fault, self.findings.lasted_to_the_end);
            let continuation = self.plan.continuation;
            if continuation == Continuation::Kill && may_be_there_after_a_kill(fault) {
                self.verdict.refused_but_there_after_a_kill += 1;
                return;
            }
            if continuation == Continuation::End && may_be_there_after_an_end(fault, lasted) {
                self.verdict.refused_but_there_after_an_end += 1;
                return;
            }
        }
        let when = if run == 1 { "in the same run" } else { "after the restart" };
        let since = if store_worked_again { ", and the store worked in between" } else { "" };
        self.violated(Rule::Refused, format!("{what}: refused, and there {when}{since}"));
    }

    /// An answer that says "duplicate" means that an earlier attempt took place.
    fn check_duplicates(&mut self) {
        let observed = self.observed;
        for (index, operation) in observed.operations.iter().enumerate() {
            if operation.duplicate && !operation.cut {
                let what = format!("a repeat of {}", operation.drafts()[0].id);
                self.refused_but_there(index, operation.run, &what);
            }
        }
    }

    /// The poller got all that was acknowledged, except events that a gap reported, and no seq is
    /// missing.
    fn check_poller(&mut self) {
        let observed = self.observed;
        let shown: BTreeSet<_> = observed.shown.iter().map(SeenEvent::id).collect();
        let mut missing = BTreeMap::<&str, Vec<&str>>::new();
        for operation in &observed.operations {
            let ids = operation.acknowledged().map(|(_, draft)| &*draft.id);
            let ids = ids.filter(|id| !shown.contains(id));
            missing.entry(&operation.topic).or_default().extend(ids);
        }
        for (topic, ids) in missing {
            let reported = observed.gone.get(topic).copied().unwrap_or(Some(0));
            if reported.is_some_and(|reported| reported < ids.len() as u64) {
                self.violated(Rule::Polled, format!("the poller never got {ids:?} in {topic}"));
            }
        }
        let first_epoch = observed.epochs.first();
        let followed = observed.shown.iter().filter(|event| Some(&event.epoch) == first_epoch);
        for (expected, event) in (1..).zip(followed) {
            if event.seq != expected && observed.gone.is_empty() {
                let text = format!("the poller got {} in place of {expected}", event.seq);
                return self.violated(Rule::Polled, text);
            }
        }
    }

    fn has_aged(&self, operation: &Operation) -> bool {
        let read_at = self.findings.read_at;
        let age = read_at.zip(operation.sent_at).map(|(read, sent)| read - sent);
        self.plan.trimming == Trimming::Age && age.is_some_and(|age| age > AGE)
    }

    /// Each acknowledged event is there, unless it was trimmed; what was trimmed is gone.
    fn check_kept(&mut self) {
        let (observed, remains) = (self.observed, &self.findings.remains);
        let kept: BTreeSet<_> = remains.iter().map(SeenEvent::id).collect();
        let existed = Existed::new(observed, remains);
        for (topic, seqs) in &existed.topics {
            let count = remains.iter().filter(|event| event.topic == **topic).count();
            if count > RETAIN_EVENTS {
                self.violated(Rule::Kept, format!("{topic} has {count} of {} events", seqs.len()));
            }
        }
        for (index, operation) in observed.operations.iter().enumerate() {
            let trims = trims_after(observed, index);
            for (seq, draft) in operation.acknowledged() {
                let is_kept = kept.contains(&*draft.id);
                let what = format!("seq {seq} in {}: {}", operation.topic, draft.id);
                if is_kept && trims.acknowledged {
                    self.violated(Rule::Refused, format!("{what}: trimmed by a client, and there"));
                }
                if is_kept
                    || trims.acknowledged
                    || trims.possible
                    || self.has_aged(operation)
                    || existed.is_trimmed(&operation.topic, seq, self.plan.trimming.bytes())
                {
                    continue;
                }
                match trims.refused {
                    Some(trim) => self.refused_but_there(trim, 2, "a DELETE"),
                    None => self.violated(Rule::Kept, format!("{what}: acknowledged, and lost")),
                }
            }
        }
    }
}

/// The age of an event that `--retain-age 2s` may trim, and a little less.
const AGE: Duration = Duration::from_millis(1_900);

/// The trims of a topic after one of its publishes, by their outcomes.
#[derive(Default)]
struct LaterTrims {
    acknowledged: bool,
    possible: bool,
    refused: Option<usize>,
}

fn trims_after(observed: &Observed, index: usize) -> LaterTrims {
    let mut trims = LaterTrims::default();
    let topic = &observed.operations[index].topic;
    for (at, operation) in observed.operations.iter().enumerate().skip(index + 1) {
        if operation.topic == *topic && matches!(operation.change, Change::Delete) {
            match operation.outcome {
                Outcome::Acknowledged { .. } => trims.acknowledged = true,
                _ if operation.cut => trims.possible = true,
                Outcome::Refused => trims.refused = Some(at),
                Outcome::Open => {}
            }
        }
    }
    trims
}

/// All events that are known to have existed, for what retention may have trimmed.
struct Existed<'t> {
    /// The seqs of each topic, sorted.
    topics: BTreeMap<&'t str, BTreeSet<u64>>,
    /// What each event counts for `--retain-bytes`, by seq.
    costs: BTreeMap<u64, u64>,
    /// What the events of publishes without an answer count, which may have existed too.
    uncertain: u64,
}

fn cost(length: usize) -> u64 {
    length as u64 + EVENT_OVERHEAD
}

impl<'t> Existed<'t> {
    fn new(observed: &'t Observed, remains: &'t [SeenEvent]) -> Existed<'t> {
        let mut existed = Existed { topics: BTreeMap::new(), costs: BTreeMap::new(), uncertain: 0 };
        let cut = observed.operations.iter().filter(|operation| operation.cut);
        let uncertain = cut.flat_map(Operation::drafts).map(|draft| cost(draft.body().len()));
        existed.uncertain = uncertain.sum();
        let published = observed.operations.iter().flat_map(|operation: &Operation| {
            let topic = &*operation.topic;
            operation
                .acknowledged()
                .map(move |(seq, draft): (u64, &Draft)| (topic, seq, draft.body().len()))
        });
        let remaining = remains.iter().map(|event| (&*event.topic, event.seq, event.data.len()));
        for (topic, seq, length) in published.chain(remaining) {
            existed.topics.entry(topic).or_default().insert(seq);
            existed.costs.insert(seq, cost(length));
        }
        existed
    }

    /// Whether retention may have trimmed an event by now.
    fn is_trimmed(&self, topic: &str, seq: u64, retain_bytes: u64) -> bool {
        let newer = self.topics[topic].range(seq + 1..).count();
        let bytes: u64 = self.costs.range(seq..).map(|(_, cost)| cost).sum();
        newer >= RETAIN_EVENTS || bytes + self.uncertain > retain_bytes
    }
}
