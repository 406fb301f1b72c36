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

use super::compact::{CompactedRun, CompactionJob};
use super::error::StoreError;
use super::journal::Journal;
use super::lines::CommitBuffer;
use super::record::{EventRecord, KeyStamp, write_expire, write_trim};
use crate::cursor::Seq;
use crate::limits::{COMMIT_BYTES, COMMIT_PUBLISHES};
use crate::log::{
    AppendError, AppendPlan, Appended, EventContent, IdempotencyKey, KeyId, Log, Timestamp,
    WriteError, event_cost,
};
use crate::metrics::Metrics;
use crate::names::Name;
use crate::threads::Mailbox;

/// Something that waits for the disk.
pub enum StoreCommand<T> {
    Publish(PendingPublish<T>),
    /// `TrimHistory` everything in a topic.
    Trim(Name, ReplySender<Result<(), WriteError>>),
    /// `TrimHistory` what is too old.
    Expire,
    /// A chore is done.
    Done(Vec<CompactedRun>),
    /// Ends the store in order.
    Close(ReplySender<()>),
}

/// To whoever waits. If it is dropped, they hear that nothing will come.
pub struct ReplySender<A>(Mailbox<A>);

impl<A> ReplySender<A> {
    /// It, and where it arrives.
    #[must_use]
    pub fn new() -> (ReplySender<A>, Mailbox<A>) {
        let arrives = Mailbox::new(1);
        (ReplySender(arrives.clone()), arrives)
    }

    pub fn send(self, answer: A) {
        self.0.post(answer);
    }
}

impl<A> Drop for ReplySender<A> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// To a publisher.
type PublishReply<T> = ReplySender<Result<Appended<T>, WriteError>>;

/// A publish that waits.
pub struct PendingPublish<T> {
    pub topic: Name,
    pub events: Vec<EventContent>,
    pub claim: Option<IdempotencyKey<T>>,
    /// Of a batch, how many events it has.
    pub count: Option<u32>,
    pub now: Timestamp,
    pub answer: PublishReply<T>,
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
pub struct RoundResult {
    pub failure: Option<StoreError>,
    pub chore: Option<CompactionJob>,
    /// Whoever wanted it closed.
    pub closed: Vec<ReplySender<()>>,
}

/// A commit that takes things in.
struct CommitBuilder<T> {
    commit: CommitBuffer,
    expire: Option<Seq>,
    taken: Vec<StoreCommand<T>>,
    /// The seq given out last, with those that are being written.
    head: Seq,
    keys: Vec<KeyId>,
    made: Vec<Name>,
    full: bool,
}

impl<T> Store<T> {
    /// Takes in what it can from the front, and answers it.
    pub fn round(&mut self, wishes: &mut VecDeque<StoreCommand<T>>, now: Instant) -> RoundResult {
        let mut round = RoundResult::default();
        let aged = if self.expired { None } else { self.log.expired_through(now, self.retain_age) };
        self.expired = aged.is_some();
        let mut draw = CommitBuilder {
            commit: CommitBuffer::default(),
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
                StoreCommand::Publish(publish) => {
                    if let Some(publish) = self.take_in(&mut draw, publish, now) {
                        wishes.push_front(StoreCommand::Publish(publish));
                        break;
                    }
                }
                StoreCommand::Trim(topic, answer) => {
                    // What changes nothing is not written, or a store could grow by it for ever.
                    if draw.publishes_to(&topic) || self.log.has_events(&topic) {
                        draw.commit.push(|out| write_trim(out, &topic));
                        draw.taken.push(StoreCommand::Trim(topic, answer));
                    } else {
                        answer.send(Ok(()));
                    }
                }
                StoreCommand::Expire => tidy = true,
                StoreCommand::Done(rewritten) => self.journal.done(rewritten, &self.metrics.store),
                StoreCommand::Close(closed) => {
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
    fn take_in(
        &self,
        draw: &mut CommitBuilder<T>,
        publish: PendingPublish<T>,
        now: Instant,
    ) -> Option<PendingPublish<T>> {
        let claim = publish.claim.as_ref();
        let waits_for_key = claim.is_some_and(|claim| draw.keys.contains(&claim.id));
        let enough = draw.commit.len() >= COMMIT_BYTES || draw.taken.len() >= COMMIT_PUBLISHES;
        if waits_for_key || enough {
            return Some(publish);
        }
        let mut plan = self.log.plan(&publish.topic, claim, now, draw.made.len());
        if matches!(
            plan,
            AppendPlan::CreateTopic | AppendPlan::ReplaceEmptyTopic | AppendPlan::TooManyTopics
        ) && draw.made.contains(&publish.topic)
        {
            plan = AppendPlan::Append;
        }
        match plan {
            AppendPlan::Duplicate(outcome) => {
                publish.answer.send(Ok(Appended::Duplicate(outcome)));
                return None;
            }
            AppendPlan::KeyReused => {
                publish.answer.send(Err(WriteError::Rejected(AppendError::KeyReused)));
                return None;
            }
            // Which topics are empty is sure only when nothing else is being written.
            AppendPlan::ReplaceEmptyTopic | AppendPlan::TooManyTopics
                if !draw.commit.is_empty() =>
            {
                return Some(publish);
            }
            AppendPlan::TooManyTopics => {
                publish.answer.send(Err(WriteError::Rejected(AppendError::TooManyTopics)));
                return None;
            }
            AppendPlan::ReplaceEmptyTopic => draw.full = true,
            AppendPlan::CreateTopic => {
                draw.made.push(publish.topic.clone());
            }
            AppendPlan::Append => {}
        }
        draw.publish(publish);
        None
    }

    /// Writes the commit, changes the log, and answers.
    fn write(&mut self, draw: CommitBuilder<T>, now: Instant) -> Option<StoreError> {
        if draw.commit.is_empty() {
            return None;
        }
        if let Err(failure) = self.journal.commit(draw.commit, now, &self.metrics.store) {
            self.expired = false;
            let why = failure.to_string();
            for wish in draw.taken {
                match wish {
                    StoreCommand::Publish(publish) => {
                        publish.answer.send(Err(WriteError::Storage(why.clone())));
                    }
                    StoreCommand::Trim(_, answer) => {
                        answer.send(Err(WriteError::Storage(why.clone())));
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
                StoreCommand::Publish(publish) => {
                    published.push(self.append(publish, &mut trimmed));
                }
                StoreCommand::Trim(topic, answer) => {
                    self.log.trim(&topic, &mut trimmed);
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
        publish: PendingPublish<T>,
        trimmed: &mut Vec<Arc<crate::log::Event>>,
    ) -> (PublishReply<T>, Result<Appended<T>, WriteError>) {
        let PendingPublish { topic, events, claim, now, answer, .. } = publish;
        if let Some(active) = self.journal.segments.active() {
            for content in &events {
                active.count(event_cost(content), true);
            }
            if claim.is_some() {
                active.count_key(now.at);
            }
        }
        let appended = self.log.append(&topic, events, claim.as_ref(), now, trimmed);
        (answer, appended.map_err(WriteError::Rejected))
    }
}

impl<T> CommitBuilder<T> {
    fn publishes_to(&self, topic: &Name) -> bool {
        self.taken.iter().any(|wish| matches!(wish, StoreCommand::Publish(p) if p.topic == *topic))
    }

    fn publish(&mut self, publish: PendingPublish<T>) {
        let stamp = publish.claim.as_ref().map(|claim| KeyStamp {
            id: claim.id,
            fingerprint: claim.fingerprint,
            count: publish.count,
        });
        let batch = publish.events.len();
        for (place, content) in publish.events.iter().enumerate() {
            self.head = self.head.next();
            let event = EventRecord {
                seq: self.head,
                topic: &publish.topic,
                time: publish.now.wall,
                batch: if place == 0 { batch } else { 1 },
                stamp: stamp.as_ref().filter(|_| place + 1 == batch),
                content,
            };
            self.commit.push(|out| event.write(out));
        }
        self.keys.extend(stamp.map(|stamp| stamp.id));
        self.taken.push(StoreCommand::Publish(publish));
    }
}
