//! Waiting for events: the only place in this program that holds a request.
//!
//! The log knows *what* happened. A wait queue only knows *that* something happened: it stores the
//! highest seq that it was notified of. A poll and a publish each take two steps, in an order that
//! [`crate::api`] keeps:
//!
//! 1. The poll [registers](Waiters::register) a waiter and then reads the log. If it finds nothing,
//!    it [waits](Waiter::wait) for a seq after its cursor.
//! 2. The publish appends to the log and then [notifies](Waiters::notify) the topic's queues.
//!
//! No wake-up can be lost. A poll that reads the log after the append finds the event there. A poll
//! that reads before the append has registered by then, so the publish finds its queue and stores
//! its seq in it. If the poll waits already, it is woken. If it does not wait yet, its `wait`
//! returns at once, because the stored seq is greater than its cursor. A condition variable without
//! that seq forgets a notification that arrives before the wait; lesson 5 shows it.
//!
//! *Who writes the response.* `notify` releases each waiter that the event answers. Until
//! [`ReleasedWaiters`] is dropped, the publisher's thread alone may write to the clients of the
//! released waiters, and may attach to each waiter the response that it has written. The drop wakes
//! all of them at once: a waiter with a response finishes sending it, a waiter without one reads
//! the log and writes its own. A released waiter stays blocked until then, even past its deadline,
//! so exactly one thread at a time may write to a client.
//!
//! *Queues.* Polls of the same topic, or of the same prefix, share a queue. A poll of several
//! patterns has a queue of its own, indexed under each of them. A queue exists while it has a
//! waiter.
//!
//! *Lock order.* The index of [`Waiters`], then one queue. Neither is held together with the log's
//! lock. A publish unlocks a queue and then notifies its condition variable: a thread that is woken
//! earlier blocks on the lock again.

mod topic_index;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::cursor::Seq;
use crate::names::{Name, TopicSet};
use crate::sync::{Condvar, Mutex};
use topic_index::{QueueId, TopicIndex};

/// Why a wait ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Woken<D> {
    /// An event was published after the cursor: read the log again.
    Notified,
    /// A publisher has written this response, or the beginning of it.
    Answered(D),
    /// The deadline has passed.
    Deadline,
    /// The server is shutting down.
    Drained,
    /// The waiter was [cancelled](cancel_all): the client has disconnected or lost its right to read.
    Cancelled,
}

/// All wait queues. `W` is the payload that a waiter registers with, for the threads that notify or
/// inspect it; `D` is the response that a publisher may attach to a released waiter.
pub struct Waiters<W, D> {
    index: Mutex<TopicIndex<WaitQueue<W, D>>>,
    drained: AtomicBool,
}

struct WaitQueue<W, D> {
    state: Mutex<QueueState<W, D>>,
    condvar: Condvar,
}

struct QueueState<W, D> {
    /// The highest seq that this queue was notified of.
    last_notified: Seq,
    waiters: HashMap<WaiterId, WaiterEntry<W, D>>,
    last_id: u64,
}

/// Identifies a waiter within its queue.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct WaiterId(u64);

struct WaiterEntry<W, D> {
    payload: Arc<W>,
    state: WaiterState<D>,
    cancelled: bool,
}

/// The states of a waiter, in the order in which it passes through them.
enum WaiterState<D> {
    /// Its thread is not in [`Waiter::wait`]: it reads the log or writes to its client.
    Running,
    /// Its thread waits for an event after this seq.
    Waiting(Seq),
    /// A publisher has released it and may be writing to its client.
    Released,
    /// The publisher has finished. Without a response, the waiter's thread reads the log itself.
    Finished(Option<D>),
}

/// A registration in a wait queue; removed on drop.
pub struct Waiter<'a, W, D> {
    waiters: &'a Waiters<W, D>,
    topics: TopicSet,
    /// `None` for a shared queue.
    queue_id: Option<QueueId>,
    queue: Arc<WaitQueue<W, D>>,
    id: WaiterId,
}

/// Another thread's view of a waiter, which may be gone by the time the handle is used.
pub struct WaiterHandle<W, D> {
    queue: Arc<WaitQueue<W, D>>,
    id: WaiterId,
    /// What the waiter registered with.
    pub payload: Arc<W>,
}

/// The waiters that one publish answers. Dropping this wakes them, also when the publisher's thread
/// panics.
#[must_use]
pub struct ReleasedWaiters<W, D>(Vec<ReleasedFromQueue<W, D>>);

struct ReleasedFromQueue<W, D> {
    queue: Arc<WaitQueue<W, D>>,
    waiters: Vec<ReleasedWaiter<W, D>>,
}

/// A waiter to whose client the publisher may write.
pub struct ReleasedWaiter<W, D> {
    id: WaiterId,
    /// What the waiter registered with.
    pub payload: Arc<W>,
    /// The waiter waits for events after this seq.
    pub after: Seq,
    /// The response that the publisher has written; `None` leaves it to the waiter's thread.
    pub delivery: Option<D>,
}

impl<W, D> Default for Waiters<W, D> {
    fn default() -> Waiters<W, D> {
        Waiters { index: Mutex::default(), drained: AtomicBool::new(false) }
    }
}

impl<W, D> Waiters<W, D> {
    /// Registers a waiter for these topics. Call it before reading the log.
    pub fn register(&self, topics: &TopicSet, payload: W) -> Waiter<'_, W, D> {
        let entry = WaiterEntry {
            payload: Arc::new(payload),
            state: WaiterState::Running,
            cancelled: false,
        };
        let mut index = self.index.lock();
        let (queue_id, queue) = index.queue_for(topics);
        // Insert before the index is unlocked; otherwise the queue may be removed as empty.
        let id = queue.insert(entry);
        drop(index);
        Waiter { waiters: self, topics: topics.clone(), queue_id, queue, id }
    }

    /// Notifies the topic's queues of events up to `seq`, and releases the waiting waiters for
    /// whose payload `matches` returns true. Each waiter is released by one publish only. When the
    /// result is dropped, the other waiters of these queues are woken too: they advance their
    /// cursors past events that they do not need.
    pub fn notify(
        &self,
        topic: &Name,
        seq: Seq,
        matches: impl Fn(&W) -> bool,
    ) -> ReleasedWaiters<W, D> {
        let queues = self.index.lock().queues_for_topic(topic);
        let release = |queue: Arc<WaitQueue<W, D>>| {
            let waiters = queue.state.lock().release(seq, &matches);
            ReleasedFromQueue { queue, waiters }
        };
        ReleasedWaiters(queues.into_iter().map(release).collect())
    }

    /// Number of waiters that wait and are not released; a `notify` of their topics releases them.
    /// This is not the number of permits that held polls have: a poll has its permit before it
    /// waits. Counted on demand, so that waiting and notifying maintain no counter.
    pub fn waiting(&self) -> usize {
        count_waiting(&self.index.lock().all())
    }

    /// Number of polls that are held for a topic: [`Waiters::waiting`] for its queues only.
    pub fn held_for(&self, topic: &Name) -> usize {
        count_waiting(&self.index.lock().queues_for_topic(topic))
    }

    /// A handle to every registered waiter.
    pub fn handles(&self) -> Vec<WaiterHandle<W, D>> {
        let mut handles = Vec::new();
        let queues = self.index.lock().all();
        for queue in queues {
            let state = queue.state.lock();
            handles.extend(state.waiters.iter().map(|(&id, entry)| WaiterHandle {
                queue: Arc::clone(&queue),
                id,
                payload: Arc::clone(&entry.payload),
            }));
        }
        handles
    }

    /// Ends every wait, present and future, with [`Woken::Drained`].
    pub fn drain(&self) {
        self.drained.store(true, Ordering::SeqCst);
        let queues = self.index.lock().all();
        for queue in queues {
            queue.wake_all();
        }
    }
}

fn count_waiting<W, D>(queues: &[Arc<WaitQueue<W, D>>]) -> usize {
    let is_waiting = |entry: &&WaiterEntry<W, D>| matches!(entry.state, WaiterState::Waiting(_));
    queues.iter().map(|queue| queue.state.lock().waiters.values().filter(is_waiting).count()).sum()
}

impl<W, D> Default for WaitQueue<W, D> {
    fn default() -> WaitQueue<W, D> {
        let state = QueueState { last_notified: Seq::ZERO, waiters: HashMap::new(), last_id: 0 };
        WaitQueue { state: Mutex::new(state), condvar: Condvar::new() }
    }
}

impl<W, D> WaitQueue<W, D> {
    fn insert(&self, entry: WaiterEntry<W, D>) -> WaiterId {
        let mut state = self.state.lock();
        state.last_id += 1;
        let id = WaiterId(state.last_id);
        state.waiters.insert(id, entry);
        id
    }

    /// Wakes every waiter of this queue, to check why. A waiter holds the lock from its check until
    /// the condition variable blocks it: after taking the lock once, no check is still under way
    /// that missed the change.
    fn wake_all(&self) {
        drop(self.state.lock());
        self.condvar.notify_all();
    }
}

impl<W, D> QueueState<W, D> {
    fn release(&mut self, seq: Seq, matches: impl Fn(&W) -> bool) -> Vec<ReleasedWaiter<W, D>> {
        self.last_notified = self.last_notified.max(seq);
        let mut released = Vec::new();
        for (&id, entry) in &mut self.waiters {
            match entry.state {
                WaiterState::Waiting(after) if after < seq && matches(&entry.payload) => {
                    entry.state = WaiterState::Released;
                    let payload = Arc::clone(&entry.payload);
                    released.push(ReleasedWaiter { id, payload, after, delivery: None });
                }
                _ => {}
            }
        }
        released
    }
}

impl<W, D> ReleasedWaiters<W, D> {
    /// Number of released waiters.
    pub fn count(&self) -> usize {
        self.0.iter().map(|from| from.waiters.len()).sum()
    }

    /// Released waiters grouped by queue; the waiters of one queue have requested the same topics.
    pub fn by_queue(&mut self) -> impl Iterator<Item = &mut [ReleasedWaiter<W, D>]> {
        self.0.iter_mut().map(|from| &mut *from.waiters)
    }
}

impl<W, D> Drop for ReleasedWaiters<W, D> {
    fn drop(&mut self) {
        for ReleasedFromQueue { queue, waiters } in self.0.drain(..) {
            let mut state = queue.state.lock();
            for released in waiters {
                if let Some(entry) = state.waiters.get_mut(&released.id) {
                    entry.state = WaiterState::Finished(released.delivery);
                }
            }
            drop(state);
            queue.condvar.notify_all();
        }
    }
}

impl<W, D> Waiter<'_, W, D> {
    /// Waits until an event after `after` is published, or until another reason to stop. The other
    /// reasons take precedence over a notification: a waiter that is notified again and again still
    /// leaves in time. A caller that must not miss an event of the last moment reads the log once
    /// more.
    #[must_use]
    pub fn wait(&self, after: Seq, deadline: Instant) -> Woken<D> {
        let mut state = self.queue.state.lock();
        let mut timed_out = false;
        loop {
            let mut notified = state.last_notified > after;
            let Some(entry) = state.waiters.get_mut(&self.id) else { return Woken::Cancelled };
            match std::mem::replace(&mut entry.state, WaiterState::Running) {
                WaiterState::Finished(Some(delivery)) => return Woken::Answered(delivery),
                WaiterState::Finished(None) => notified = true,
                WaiterState::Released => {
                    entry.state = WaiterState::Released;
                    // Without a deadline: the publisher may be writing to this client.
                    self.queue.condvar.wait(&mut state);
                    continue;
                }
                WaiterState::Running | WaiterState::Waiting(_) => {}
            }
            // The condition variable looks at the clock only while it blocks.
            let is_late = timed_out || (notified && Instant::now() >= deadline);
            if entry.cancelled {
                return Woken::Cancelled;
            } else if self.waiters.drained.load(Ordering::SeqCst) {
                return Woken::Drained;
            } else if is_late {
                return Woken::Deadline;
            } else if notified {
                return Woken::Notified;
            }
            entry.state = WaiterState::Waiting(after);
            timed_out = self.queue.condvar.wait_until(&mut state, deadline).timed_out();
        }
    }

    /// A handle to this waiter for other threads.
    pub fn handle(&self) -> Option<WaiterHandle<W, D>> {
        let state = self.queue.state.lock();
        let entry = state.waiters.get(&self.id)?;
        let (queue, payload) = (Arc::clone(&self.queue), Arc::clone(&entry.payload));
        Some(WaiterHandle { queue, id: self.id, payload })
    }

    /// Whether the waiter was cancelled. [`Waiter::wait`] reports it too; this is for a stream that
    /// always has events to send and therefore never waits.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        let state = self.queue.state.lock();
        state.waiters.get(&self.id).is_none_or(|entry| entry.cancelled)
    }
}

impl<W, D> Drop for Waiter<'_, W, D> {
    fn drop(&mut self) {
        let mut index = self.waiters.index.lock();
        let mut state = self.queue.state.lock();
        state.waiters.remove(&self.id);
        let is_empty = state.waiters.is_empty();
        drop(state);
        if is_empty {
            index.remove_queue(&self.topics, self.queue_id);
        }
    }
}

impl<W, D> WaiterHandle<W, D> {
    /// Ends the waiter's present or next wait with [`Woken::Cancelled`].
    pub fn cancel(&self) {
        cancel_all([self]);
    }
}

/// Cancels several waiters and wakes each of their queues once. When thousands of clients of one
/// queue disconnect together, waking that queue for each of them would keep the machine busy for
/// seconds, because all that are still in it wake each time: 2,000 took 3 to 15 s, instead of less
/// than the second between two checks.
pub fn cancel_all<'h, W: 'h, D: 'h>(handles: impl IntoIterator<Item = &'h WaiterHandle<W, D>>) {
    let mut queues = Vec::new();
    for handle in handles {
        if let Some(entry) = handle.queue.state.lock().waiters.get_mut(&handle.id) {
            entry.cancelled = true;
        }
        queues.push(&handle.queue);
    }
    // `Waiters::handles` returns those of one queue together.
    queues.dedup_by(|queue, previous| Arc::ptr_eq(queue, previous));
    for queue in queues {
        queue.wake_all();
    }
}

#[cfg(test)]
mod tests;
