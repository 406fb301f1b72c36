//! What becomes of those who wait: a commit takes in as many as it can, is written, and only then
//! is the log changed.
//!
//! There is one thread that changes the log of a store, so nothing comes between the look at the
//! log that decides about a publish and its append. Whatever depends on something that is only
//! being written waits for the next commit, and looks again then: so a repeat of a key that
//! failed counts as a first try.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::compact::{Chore, Rewritten};
use super::journal::Journal;
use super::line::Commit;
use super::record::{Event, Stamp, write_expire, write_trim};
use super::scan::Failure;
use crate::limits::{COMMIT_BYTES, COMMIT_PUBLISHES};
use crate::log::{Appended, Claim, Draft, Log, Now, Plan, Refusal, Refused, event_cost};
use crate::metrics::Metrics;
use crate::names::Name;
use crate::threads::Mailbox;

/// Something that waits for the disk.
pub enum Wish<T> {
    Publish(Publish<T>),
    /// Trims everything in a topic.
    Trim(Name, Reply<Result<(), Refusal>>),
    /// Trims what is too old.
    Expire,
    /// A chore is done.
    Done(Vec<Rewritten>),
    /// Ends the store in order.
    Close(Reply<()>),
}

/// To whoever waits. If it is dropped, they hear that nothing will come.
pub struct Reply<A>(Mailbox<A>);

impl<A> Reply<A> {
    /// It, and where it arrives.
    #[must_use]
    pub fn new() -> (Reply<A>, Mailbox<A>) {
        let arrives = Mailbox::new(1);
        (Reply(arrives.clone()), arrives)
    }

    pub fn send(self, answer: A) {
        self.0.post(answer);
    }
}

impl<A> Drop for Reply<A> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// To a publisher.
type Answer<T> = Reply<Result<Appended<T>, Refusal>>;

/// A publish that waits.
pub struct Publish<T> {
    pub topic: Name,
    pub drafts: Vec<Draft>,
    pub claim: Option<Claim<T>>,
    /// Of a batch, how many events it has.
    pub count: Option<u32>,
    pub now: Now,
    pub answer: Answer<T>,
}

/// The log, and the files under it.
pub struct Store<T> {
    pub journal: Journal,
    pub log: Arc<Log<T>>,
    pub retain_age: Duration,
    /// The last commit let go of what is too old. The next one does not: some publishes need a
    /// commit of their own, and there may always be more that is too old.
    pub expired: bool,
    pub metrics: Arc<Metrics>,
}

/// What a round brought beside its answers.
#[derive(Default)]
pub struct Round {
    pub failure: Option<Failure>,
    pub chore: Option<Chore>,
    /// Whoever wanted it closed.
    pub closed: Vec<Reply<()>>,
}

/// A commit that takes things in.
struct Draw<T> {
    commit: Commit,
    expire: Option<u64>,
    taken: Vec<Wish<T>>,
    /// The seq given out last, with those that are being written.
    head: u64,
    keys: Vec<u128>,
    made: Vec<Name>,
    full: bool,
}

impl<T> Store<T> {
    /// Takes in what it can from the front, and answers it.
    pub fn round(&mut self, wishes: &mut VecDeque<Wish<T>>, now: Instant) -> Round {
        let mut round = Round::default();
        let aged = if self.expired { None } else { self.log.aged_through(now, self.retain_age) };
        self.expired = aged.is_some();
        let mut draw = Draw {
            commit: Commit::default(),
            expire: aged,
            taken: Vec::new(),
            head: self.log.head().seq,
            keys: Vec::new(),
            made: Vec::new(),
            full: false,
        };
        if let Some(through) = draw.expire {
            draw.commit.push(|out| write_expire(out, through));
        }
        let mut tidy = false;
        while !draw.full {
            let Some(wish) = wishes.pop_front() else { break };
            match wish {
                Wish::Publish(publish) => {
                    if let Some(publish) = self.take_in(&mut draw, publish, now) {
                        wishes.push_front(Wish::Publish(publish));
                        break;
                    }
                }
                Wish::Trim(topic, answer) => {
                    // What changes nothing is not written, or a store could grow by it for ever.
                    if draw.publishes_to(&topic) || self.log.has_events(&topic) {
                        draw.commit.push(|out| write_trim(out, &topic));
                        draw.taken.push(Wish::Trim(topic, answer));
                    } else {
                        answer.send(Ok(()));
                    }
                }
                Wish::Expire => tidy = true,
                Wish::Done(rewritten) => self.journal.done(rewritten, &self.metrics.store),
                Wish::Close(closed) => {
                    round.closed.push(closed);
                    break;
                }
            }
        }
        round.failure = self.write(draw, now);
        if tidy && round.failure.is_none() {
            // Nobody may be publishing while it is said to fail.
            round.failure = self.journal.recover(now, &self.metrics.store).err();
        }
        if round.failure.is_none() && !round.closed.is_empty() {
            round.failure = self.journal.close(now, &self.metrics.store).err();
        } else if self.journal.is_full(now) || tidy && self.journal.is_dead(now) {
            match self.journal.rotate(&self.log, now, &self.metrics.store) {
                Ok(chore) => round.chore = chore,
                Err(failure) => round.failure = round.failure.or(Some(failure)),
            }
        }
        round
    }

    /// Takes a publish into the commit or answers it; gives it back if it has to wait.
    fn take_in(&self, draw: &mut Draw<T>, publish: Publish<T>, now: Instant) -> Option<Publish<T>> {
        let claim = publish.claim.as_ref();
        let waits_for_key = claim.is_some_and(|claim| draw.keys.contains(&claim.id));
        let enough = draw.commit.len() >= COMMIT_BYTES || draw.taken.len() >= COMMIT_PUBLISHES;
        if waits_for_key || enough {
            return Some(publish);
        }
        let mut plan = self.log.plan(&publish.topic, claim, now, draw.made.len());
        if matches!(plan, Plan::Make | Plan::Replace | Plan::TopicCap)
            && draw.made.contains(&publish.topic)
        {
            plan = Plan::Append;
        }
        match plan {
            Plan::Repeat(outcome) => {
                publish.answer.send(Ok(Appended::Before(outcome)));
                return None;
            }
            Plan::KeyReused => {
                publish.answer.send(Err(Refusal::Log(Refused::KeyReused)));
                return None;
            }
            // Which topics are empty is sure only when nothing else is being written.
            Plan::Replace | Plan::TopicCap if !draw.commit.is_empty() => return Some(publish),
            Plan::TopicCap => {
                publish.answer.send(Err(Refusal::Log(Refused::TopicCap)));
                return None;
            }
            Plan::Replace => draw.full = true,
            Plan::Make => {
                draw.made.push(publish.topic.clone());
            }
            Plan::Append => {}
        }
        draw.publish(publish);
        None
    }

    /// Writes the commit, changes the log, and answers.
    fn write(&mut self, draw: Draw<T>, now: Instant) -> Option<Failure> {
        if draw.commit.is_empty() {
            return None;
        }
        if let Err(failure) = self.journal.commit(draw.commit, now, &self.metrics.store) {
            self.expired = false;
            let why = failure.to_string();
            for wish in draw.taken {
                match wish {
                    Wish::Publish(publish) => {
                        publish.answer.send(Err(Refusal::Disk(why.clone())));
                    }
                    Wish::Trim(_, answer) => {
                        answer.send(Err(Refusal::Disk(why.clone())));
                    }
                    _ => {}
                }
            }
            return Some(failure);
        }
        let mut trimmed = Vec::new();
        if let Some(through) = draw.expire {
            self.log.trim_through(through, &mut trimmed);
        }
        // Answered when all is done: whoever wakes wants the log's lock.
        let (mut published, mut deleted) = (Vec::with_capacity(draw.taken.len()), Vec::new());
        for wish in draw.taken {
            match wish {
                Wish::Publish(publish) => published.push(self.append(publish, &mut trimmed)),
                Wish::Trim(topic, answer) => {
                    self.log.trim_noting(&topic, &mut trimmed);
                    deleted.push(answer);
                }
                _ => {}
            }
        }
        self.journal.segments.trimmed(&trimmed);
        for (answer, appended) in published {
            answer.send(appended);
        }
        for answer in deleted {
            answer.send(Ok(()));
        }
        None
    }

    fn append(
        &mut self,
        publish: Publish<T>,
        trimmed: &mut Vec<Arc<crate::log::Event>>,
    ) -> (Answer<T>, Result<Appended<T>, Refusal>) {
        let Publish { topic, drafts, claim, now, answer, .. } = publish;
        if let Some(active) = self.journal.segments.active() {
            for draft in &drafts {
                active.count(event_cost(draft), true);
            }
            if claim.is_some() {
                active.count_key(now.at);
            }
        }
        let appended = self.log.append_noting(&topic, drafts, claim.as_ref(), now, trimmed);
        (answer, appended.map_err(Refusal::Log))
    }
}

impl<T> Draw<T> {
    fn publishes_to(&self, topic: &Name) -> bool {
        self.taken.iter().any(|wish| matches!(wish, Wish::Publish(p) if p.topic == *topic))
    }

    fn publish(&mut self, publish: Publish<T>) {
        let stamp = publish.claim.as_ref().map(|claim| Stamp {
            id: claim.id,
            fingerprint: claim.fingerprint,
            count: publish.count,
        });
        let batch = publish.drafts.len();
        for (place, draft) in publish.drafts.iter().enumerate() {
            self.head += 1;
            let event = Event {
                seq: self.head,
                topic: &publish.topic,
                time: publish.now.wall,
                batch: if place == 0 { batch } else { 1 },
                stamp: stamp.as_ref().filter(|_| place + 1 == batch),
                draft,
            };
            self.commit.push(|out| event.write(out));
        }
        self.keys.extend(stamp.map(|stamp| stamp.id));
        self.taken.push(Wish::Publish(publish));
    }
}
