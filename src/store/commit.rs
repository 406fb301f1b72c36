//! Group commit: queued changes become one commit, the commit is written, and only then the log
//! changes and the publishers are answered.
//!
//! One thread changes the log of a store, so nothing happens between the check that decides about a
//! publish and its append. A publish that depends on another one in the same commit waits for that
//! commit, and is checked again for the next one. If the commit fails, so do both.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::compact::CompactionJob;
use super::error::StoreError;
use super::journal::Journal;
use super::lines::CommitBuffer;
use super::record::{EventRecord, StoredKey, write_expire, write_trim};
use crate::cursor::Seq;
use crate::limits::{COMMIT_BYTES, COMMIT_PUBLISHES};
use crate::log::{
    AppendError, AppendPlan, Appended, Event, EventContent, IdempotencyKey, KeyId, Log, Timestamp,
    WriteError, event_cost,
};
use crate::metrics::Metrics;
use crate::names::Name;

/// A change of the log, which waits for its commit.
pub enum Change<T> {
    Publish(PendingPublish<T>),
    /// Trims all events of a topic.
    Trim(Name, ReplySender<Result<(), WriteError>>),
}

impl<T> Change<T> {
    /// Answers the change with an error of the store.
    pub fn refuse(self, error: &StoreError) {
        let error = WriteError::Storage(error.to_string());
        match self {
            Change::Publish(publish) => publish.reply.send(Err(error)),
            Change::Trim(_, reply) => reply.send(Err(error)),
        }
    }
}

/// Sends the reply to one command. If it is dropped without a reply, the receiver gets an error
/// instead of waiting forever.
pub struct ReplySender<A>(Sender<A>);

impl<A> ReplySender<A> {
    /// The two ends of a reply.
    #[must_use]
    pub fn new() -> (ReplySender<A>, Receiver<A>) {
        let (sender, receiver) = bounded(1);
        (ReplySender(sender), receiver)
    }

    /// Sends the reply. It never blocks: the channel holds one reply, and this consumes the sender.
    pub fn send(self, reply: A) {
        // Fails only if the receiver is gone, which then needs no reply.
        let _ = self.0.send(reply);
    }
}

type PublishResult<T> = Result<Appended<T>, WriteError>;

/// A publish that waits for its commit.
pub struct PendingPublish<T> {
    pub topic: Name,
    pub events: Vec<EventContent>,
    pub key: Option<IdempotencyKey<T>>,
    /// Events in the batch, if it is one.
    pub count: Option<u32>,
    pub now: Timestamp,
    pub reply: ReplySender<PublishResult<T>>,
}

/// An open store: the log, and the files that it is kept in.
pub struct Store<T> {
    pub journal: Journal,
    pub log: Arc<Log<T>>,
    pub retain_age: Duration,
    /// The last commit trimmed aged events, and the next one does not: a publish may need a commit
    /// of its own, and could wait forever if events age all the time.
    pub just_expired: bool,
    pub metrics: Arc<Metrics>,
}

/// The result of a group commit, beside the replies.
#[derive(Default)]
pub struct CommitResult {
    pub error: Option<StoreError>,
    /// A compaction to run in the background.
    pub compaction: Option<CompactionJob>,
}

/// A commit that is being put together.
struct CommitBuilder<T> {
    commit: CommitBuffer,
    /// Events up to this seq are trimmed because of their age.
    expire_through: Option<Seq>,
    /// The changes in the commit, to be applied and answered once it is written.
    changes: Vec<Change<T>>,
    /// The last seq assigned, in this commit or before.
    last_seq: Seq,
    /// Keys used in this commit.
    keys: Vec<KeyId>,
    /// Topics that this commit creates.
    new_topics: Vec<Name>,
    /// Publishes and bytes beyond which nothing more is added.
    most_publishes: usize,
    most_bytes: usize,
    /// Nothing may be added any more.
    full: bool,
}

impl<T> Store<T> {
    /// Takes as many changes as fit from the front of the queue, writes them as one commit, applies
    /// them to the log and answers them.
    ///
    /// Each call answers at least one change, or the next call does: if the disk refuses the commit,
    /// a change that has to wait for it is refused as well.
    pub fn group_commit(&mut self, queue: &mut VecDeque<Change<T>>, now: Instant) -> CommitResult {
        self.journal.collect_compaction(&self.metrics.store);
        let expire_through =
            if self.just_expired { None } else { self.log.expired_through(now, self.retain_age) };
        self.just_expired = expire_through.is_some();
        let mut builder = self.begin_commit(expire_through);
        let mut waiting = None;
        while !builder.full && waiting.is_none() {
            match queue.pop_front() {
                Some(Change::Publish(publish)) => {
                    waiting = self.add_publish(&mut builder, publish, now);
                }
                Some(Change::Trim(topic, reply)) => self.add_trim(&mut builder, topic, reply),
                None => break,
            }
        }
        let mut result = CommitResult::default();
        // If the disk does not recover, the commit is going to be refused as a whole.
        let metrics = Arc::clone(&self.metrics);
        if builder.has_publishes() && self.journal.recover(now, &metrics.store).is_ok() {
            let bytes = builder.commit.len() as u64;
            if let Err(error) = self.journal.make_space(&self.log, bytes, now, &metrics.store) {
                if builder.most_publishes > 1 {
                    // One publish at a time from here on: some may fit.
                    let waiting = waiting.map(Change::Publish).into_iter();
                    let changes = waiting.chain(builder.changes.into_iter().rev());
                    changes.for_each(|change| queue.push_front(change));
                    self.just_expired = false;
                    return self.group_commit(queue, now);
                }
                builder = self.without_publishes(builder, &error);
                result.error = Some(error);
            }
        }
        let failure = self.write(builder, now);
        if let Some(publish) = waiting.map(Change::Publish) {
            match &failure {
                Some(error) => publish.refuse(error),
                None => queue.push_front(publish),
            }
        }
        result.error = failure.or(result.error);
        if self.journal.is_full(now) {
            self.rotate(now, &mut result);
        }
        result
    }

    /// Does the work that is due without a change: tries a failed disk again, checks the directory,
    /// and removes a store's files when nothing in them is live.
    pub fn maintain(&mut self, now: Instant) -> CommitResult {
        let mut result = CommitResult::default();
        let checked = self.journal.recover(now, &self.metrics.store);
        let checked = checked.and_then(|()| self.journal.check_identity(now, &self.metrics.store));
        let checked =
            checked.and_then(|()| self.journal.check_space(&self.log, now, &self.metrics.store));
        result.error = checked.err();
        if self.journal.is_dead(self.log.oldest_key()) {
            self.rotate(now, &mut result);
        }
        result
    }

    fn rotate(&mut self, now: Instant, result: &mut CommitResult) {
        match self.journal.rotate(&self.log, now, &self.metrics.store) {
            Ok(compaction) => result.compaction = compaction,
            Err(error) => result.error = result.error.take().or(Some(error)),
        }
    }

    /// Why publishes are refused; `None` while the store works.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        let journal = &self.journal;
        let failing = journal.failing.as_ref().or(journal.low_space.as_ref());
        failing.map(|failing| &*failing.error)
    }

    /// Adds a trim to the commit, or answers it.
    fn add_trim(
        &self,
        builder: &mut CommitBuilder<T>,
        topic: Name,
        reply: ReplySender<Result<(), WriteError>>,
    ) {
        // A trim that changes nothing is not written: repeating it must not make the store grow.
        if builder.publishes_to(&topic) || self.log.has_events(&topic) {
            builder.commit.push(|out| write_trim(out, &topic));
            builder.changes.push(Change::Trim(topic, reply));
        } else {
            reply.send(Ok(()));
        }
    }

    /// Begins a commit. It is not much larger than a segment, which is full only after it, and while
    /// the disk is nearly full it has one publish.
    fn begin_commit(&self, expire_through: Option<Seq>) -> CommitBuilder<T> {
        let segment = usize::try_from(self.journal.full_segment_bytes()).unwrap_or(usize::MAX);
        let mut commit = CommitBuffer::default();
        if let Some(through) = expire_through {
            commit.push(|out| write_expire(out, through));
        }
        CommitBuilder {
            commit,
            expire_through,
            changes: Vec::new(),
            last_seq: self.log.head().seq,
            keys: Vec::new(),
            new_topics: Vec::new(),
            most_publishes: if self.journal.low_space.is_some() { 1 } else { COMMIT_PUBLISHES },
            most_bytes: COMMIT_BYTES.min(segment),
            full: false,
        }
    }

    /// Refuses the publishes of a commit. What is left, expiry and trims, only makes space.
    fn without_publishes(&self, builder: CommitBuilder<T>, error: &StoreError) -> CommitBuilder<T> {
        let mut left = self.begin_commit(builder.expire_through);
        for change in builder.changes {
            match change {
                Change::Publish(_) => change.refuse(error),
                Change::Trim(topic, reply) => self.add_trim(&mut left, topic, reply),
            }
        }
        left
    }

    /// Adds a publish to the commit, or answers it. Returns it if it has to wait for the next
    /// commit.
    fn add_publish(
        &self,
        builder: &mut CommitBuilder<T>,
        publish: PendingPublish<T>,
        now: Instant,
    ) -> Option<PendingPublish<T>> {
        let key = publish.key.as_ref();
        let waits_for_key = key.is_some_and(|key| builder.keys.contains(&key.id));
        let large = builder.commit.len() >= builder.most_bytes;
        if waits_for_key || large || builder.changes.len() >= builder.most_publishes {
            return Some(publish);
        }
        let mut plan = self.log.plan(&publish.topic, key, now, builder.new_topics.len());
        if matches!(
            plan,
            AppendPlan::CreateTopic | AppendPlan::ReplaceEmptyTopic | AppendPlan::TooManyTopics
        ) && builder.new_topics.contains(&publish.topic)
        {
            plan = AppendPlan::Append;
        }
        match plan {
            AppendPlan::Duplicate(outcome) => {
                publish.reply.send(Ok(Appended::Duplicate(outcome)));
                return None;
            }
            AppendPlan::KeyReused => {
                publish.reply.send(Err(WriteError::Rejected(AppendError::KeyReused)));
                return None;
            }
            // Which topics are empty is known only when no other change is pending.
            AppendPlan::ReplaceEmptyTopic | AppendPlan::TooManyTopics
                if !builder.commit.is_empty() =>
            {
                return Some(publish);
            }
            AppendPlan::TooManyTopics => {
                publish.reply.send(Err(WriteError::Rejected(AppendError::TooManyTopics)));
                return None;
            }
            AppendPlan::ReplaceEmptyTopic => builder.full = true,
            AppendPlan::CreateTopic => builder.new_topics.push(publish.topic.clone()),
            AppendPlan::Append => {}
        }
        builder.add(publish);
        None
    }

    /// Writes the commit, applies its commands to the log, and answers them.
    fn write(&mut self, builder: CommitBuilder<T>, now: Instant) -> Option<StoreError> {
        if builder.commit.is_empty() {
            return None;
        }
        if let Err(error) = self.journal.commit(builder.commit, now, &self.metrics.store) {
            self.just_expired = false;
            builder.changes.into_iter().for_each(|change| change.refuse(&error));
            return Some(error);
        }
        let mut trimmed = Vec::new();
        if let Some(through) = builder.expire_through {
            self.log.trim_through(through, &mut trimmed);
        }
        // Replies go out after the last change: the threads that they wake need the log's lock.
        let (mut published, mut deleted) = (Vec::with_capacity(builder.changes.len()), Vec::new());
        for change in builder.changes {
            match change {
                Change::Publish(publish) => {
                    published.push(self.apply_publish(publish, &mut trimmed));
                }
                Change::Trim(topic, reply) => {
                    self.log.trim(&topic, &mut trimmed);
                    deleted.push(reply);
                }
            }
        }
        self.journal.segments.remove_events(&trimmed);
        for (reply, appended) in published {
            reply.send(appended);
        }
        for reply in deleted {
            reply.send(Ok(()));
        }
        None
    }

    fn apply_publish(
        &mut self,
        publish: PendingPublish<T>,
        trimmed: &mut Vec<Arc<Event>>,
    ) -> (ReplySender<PublishResult<T>>, PublishResult<T>) {
        let PendingPublish { topic, events, key, now, reply, .. } = publish;
        if let Some(active) = self.journal.segments.active() {
            for content in &events {
                active.add_event(event_cost(content), true);
            }
        }
        let appended = self.log.append(&topic, events, key.as_ref(), now, trimmed);
        if let (Ok(Appended::New(cursor)), true) = (&appended, key.is_some()) {
            self.journal.segments.add_key(cursor.seq);
        }
        (reply, appended.map_err(WriteError::Rejected))
    }
}

impl<T> CommitBuilder<T> {
    fn has_publishes(&self) -> bool {
        self.changes.iter().any(|change| matches!(change, Change::Publish(_)))
    }

    fn publishes_to(&self, topic: &Name) -> bool {
        self.changes.iter().any(|change| match change {
            Change::Publish(publish) => publish.topic == *topic,
            Change::Trim(..) => false,
        })
    }

    /// Writes the publish with the seqs that [`Log::append`] is going to assign after the sync: only
    /// this thread appends, in this order.
    fn add(&mut self, publish: PendingPublish<T>) {
        let key = publish.key.as_ref().map(|key| StoredKey {
            id: key.id,
            fingerprint: key.fingerprint,
            count: publish.count,
        });
        let batch = publish.events.len();
        for (place, content) in publish.events.iter().enumerate() {
            self.last_seq = self.last_seq.next();
            let event = EventRecord {
                seq: self.last_seq,
                topic: &publish.topic,
                time: publish.now.wall,
                batch: if place == 0 { batch } else { 1 },
                key: key.as_ref().filter(|_| place + 1 == batch),
                content,
            };
            self.commit.push(|out| event.write(out));
        }
        self.keys.extend(key.map(|key| key.id));
        self.changes.push(Change::Publish(publish));
    }
}
