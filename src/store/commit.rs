//! Group commit: queued commands become one commit, the commit is written, and only then the log
//! changes and the commands are answered.
//!
//! One thread changes the log of a store, so nothing happens between the check that decides about a
//! publish and its append. A command that depends on another one in the same commit waits for the
//! next commit and is checked again then. So if the first publish with a key fails, a second one
//! with the same key counts as the first.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::compact::{CompactedRun, CompactionJob};
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

/// A command for the thread that writes the store.
pub enum StoreCommand<T> {
    Publish(PendingPublish<T>),
    /// Trims all events of a topic.
    Trim(Name, ReplySender<Result<(), WriteError>>),
    /// Trims events that are too old, and does the work that is due without a publish.
    Expire,
    /// A compaction job has ended.
    Compacted(Vec<CompactedRun>),
    /// Shuts the store down cleanly. Has no reply: the sender is dropped when that is done.
    Close(ReplySender<Result<(), WriteError>>),
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
    /// The senders of [`StoreCommand::Close`]. Not empty: the store is closed.
    pub closed: Vec<ReplySender<Result<(), WriteError>>>,
}

/// A commit that is being put together.
struct CommitBuilder<T> {
    commit: CommitBuffer,
    /// Events up to this seq are trimmed because of their age.
    expire_through: Option<Seq>,
    /// The commands in the commit, to be applied and answered once it is written.
    commands: Vec<StoreCommand<T>>,
    /// The last seq assigned, in this commit or before.
    last_seq: Seq,
    /// Keys used in this commit.
    keys: Vec<KeyId>,
    /// Topics that this commit creates.
    new_topics: Vec<Name>,
    /// Nothing may be added any more.
    full: bool,
}

impl<T> Store<T> {
    /// Takes as many commands as fit from the front of the queue, writes them as one commit,
    /// applies them to the log and answers them.
    pub fn group_commit(
        &mut self,
        queue: &mut VecDeque<StoreCommand<T>>,
        now: Instant,
    ) -> CommitResult {
        let mut result = CommitResult::default();
        let expire_through =
            if self.just_expired { None } else { self.log.expired_through(now, self.retain_age) };
        self.just_expired = expire_through.is_some();
        let mut builder = CommitBuilder::new(self.log.head().seq, expire_through);
        let mut maintain = false;
        while !builder.full {
            let Some(command) = queue.pop_front() else { break };
            match command {
                StoreCommand::Publish(publish) => {
                    if let Some(publish) = self.add_publish(&mut builder, publish, now) {
                        queue.push_front(StoreCommand::Publish(publish));
                        break;
                    }
                }
                StoreCommand::Trim(topic, reply) => {
                    // A trim that changes nothing is not written: repeating it must not make the
                    // store grow.
                    if builder.publishes_to(&topic) || self.log.has_events(&topic) {
                        builder.commit.push(|out| write_trim(out, &topic));
                        builder.commands.push(StoreCommand::Trim(topic, reply));
                    } else {
                        reply.send(Ok(()));
                    }
                }
                StoreCommand::Expire => maintain = true,
                StoreCommand::Compacted(runs) => {
                    self.journal.finish_compaction(runs, &self.metrics.store);
                }
                StoreCommand::Close(closed) => {
                    result.closed.push(closed);
                    break;
                }
            }
        }
        result.error = self.write(builder, now);
        if maintain && result.error.is_none() {
            // A failing disk is retried even if no client publishes.
            result.error = self.journal.recover(now, &self.metrics.store).err();
        }
        if result.error.is_none() && !result.closed.is_empty() {
            result.error = self.journal.close(now, &self.metrics.store).err();
        } else if self.journal.is_full(now) || maintain && self.journal.is_dead(now) {
            match self.journal.rotate(&self.log, now, &self.metrics.store) {
                Ok(compaction) => result.compaction = compaction,
                Err(error) => result.error = result.error.or(Some(error)),
            }
        }
        result
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
        let large = builder.commit.len() >= COMMIT_BYTES;
        if waits_for_key || large || builder.commands.len() >= COMMIT_PUBLISHES {
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
            let text = error.to_string();
            for command in builder.commands {
                match command {
                    StoreCommand::Publish(publish) => {
                        publish.reply.send(Err(WriteError::Storage(text.clone())));
                    }
                    StoreCommand::Trim(_, reply) => {
                        reply.send(Err(WriteError::Storage(text.clone())));
                    }
                    _ => {}
                }
            }
            return Some(error);
        }
        let mut trimmed = Vec::new();
        if let Some(through) = builder.expire_through {
            self.log.trim_through(through, &mut trimmed);
        }
        // Replies go out after the last change: the threads that they wake need the log's lock.
        let (mut published, mut deleted) = (Vec::with_capacity(builder.commands.len()), Vec::new());
        for command in builder.commands {
            match command {
                StoreCommand::Publish(publish) => {
                    published.push(self.apply_publish(publish, &mut trimmed));
                }
                StoreCommand::Trim(topic, reply) => {
                    self.log.trim(&topic, &mut trimmed);
                    deleted.push(reply);
                }
                _ => {}
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
            if key.is_some() {
                active.add_key(now.at);
            }
        }
        let appended = self.log.append(&topic, events, key.as_ref(), now, trimmed);
        (reply, appended.map_err(WriteError::Rejected))
    }
}

impl<T> CommitBuilder<T> {
    /// A commit after the event `last_seq`, which first expires events through a seq.
    fn new(last_seq: Seq, expire_through: Option<Seq>) -> CommitBuilder<T> {
        let mut commit = CommitBuffer::default();
        if let Some(through) = expire_through {
            commit.push(|out| write_expire(out, through));
        }
        CommitBuilder {
            commit,
            expire_through,
            commands: Vec::new(),
            last_seq,
            keys: Vec::new(),
            new_topics: Vec::new(),
            full: false,
        }
    }

    fn publishes_to(&self, topic: &Name) -> bool {
        self.commands.iter().any(|command| match command {
            StoreCommand::Publish(publish) => publish.topic == *topic,
            _ => false,
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
        self.commands.push(StoreCommand::Publish(publish));
    }
}
