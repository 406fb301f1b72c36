//! Waiting for news: the only place in this program that holds a request.
//!
//! The log knows *what* happened. A bell only says *that* something happened, and remembers it: a
//! poll that looks at the log, finds nothing and goes to its bell cannot miss what was published
//! in between, because [`Waiter::wait`] returns at once when the bell has rung past its cursor.
//! That needs this order, which [`crate::api`] keeps:
//!
//! 1. the poll takes a seat, *then* reads the log, then waits;
//! 2. the publisher appends to the log, *then* rings.
//!
//! To ring is to claim everybody whom the news answers. Between the claim and its end the ringer
//! may leave each of them something, such as an answer that is already written; then all are
//! woken at once. A claimed waiter stays put until then, whatever its deadline: at any moment
//! exactly one thread may write to its client.
//!
//! Polls of one topic, or of one prefix, share its bell; a poll of several hangs one bell of its
//! own on all of them. Bells exist while somebody sits at them.
//!
//! *Locks.* [`Waiters`]'s map, then one bell. Neither is held together with the log's. A ringer
//! unlocks the bell and then notifies: a thread woken before would only wait for the lock again.

mod topic_index;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use crate::cursor::Seq;
use crate::names::{Name, TopicSet};
use topic_index::TopicIndex;

/// Why a wait ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Woken<D> {
    /// Something was published after the cursor: look again.
    Notified,
    /// The ringer has left this.
    Answered(D),
    /// The deadline has come.
    Deadline,
    /// The server is shutting down.
    Drained,
    /// Somebody found that it should not wait any longer: its client has gone, or may not.
    Cancelled,
}

/// All bells. `W` is what a waiter leaves with its seat for those who ring or look after it, `D`
/// what a ringer may leave for a waiter.
pub struct Waiters<W, D> {
    index: Mutex<TopicIndex<W, D>>,
    drained: AtomicBool,
    waiting: AtomicUsize,
}

struct WaitQueue<W, D> {
    state: Mutex<QueueState<W, D>>,
    condvar: Condvar,
}

struct QueueState<W, D> {
    /// The highest seq that was rung here.
    last: Seq,
    /// By the number of the seat.
    taken: HashMap<u64, WaiterEntry<W, D>>,
    next: u64,
}

struct WaiterEntry<W, D> {
    payload: Arc<W>,
    state: WaiterState<D>,
    cancelled: bool,
}

/// What a sitter does.
enum WaiterState<D> {
    /// Looks at the log.
    Looking,
    /// Waits for what comes after this seq.
    Waiting(Seq),
    /// Was claimed by a ringer, who will say what for.
    Claimed,
    /// Was claimed, and the ringer is done with it.
    Released(Option<D>),
}

/// A seat at a bell; given back when dropped.
pub struct Waiter<'a, W, D> {
    waiters: &'a Waiters<W, D>,
    topics: TopicSet,
    own: u64,
    queue: Arc<WaitQueue<W, D>>,
    number: u64,
}

/// Somebody's seat, seen from outside; it may have been given back by the time it is used.
pub struct WaiterHandle<W, D> {
    queue: Arc<WaitQueue<W, D>>,
    number: u64,
    /// What its holder left with it.
    pub payload: Arc<W>,
}

/// Everybody whom a ring answers. When this is dropped, however that comes, they are woken.
#[must_use]
pub struct ReleasedWaiters<W, D>(Vec<ReleasedFromQueue<W, D>>);

struct ReleasedFromQueue<W, D> {
    queue: Arc<WaitQueue<W, D>>,
    released: Vec<ReleasedWaiter<W, D>>,
}

/// One of them.
pub struct ReleasedWaiter<W, D> {
    number: u64,
    /// What it left with its seat.
    pub payload: Arc<W>,
    /// The seq that it waits beyond.
    pub after: Seq,
    /// What is left for it; without anything it looks for itself.
    pub answer: Option<D>,
}

impl<W, D> Default for Waiters<W, D> {
    fn default() -> Waiters<W, D> {
        Waiters {
            index: Mutex::new(TopicIndex::default()),
            drained: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
        }
    }
}

impl<W, D> Waiters<W, D> {
    /// Takes a seat at the bell of these topics. To be done before looking at the log.
    pub fn register(&self, topics: &TopicSet, payload: W) -> Waiter<'_, W, D> {
        let entry = WaiterEntry {
            payload: Arc::new(payload),
            state: WaiterState::Looking,
            cancelled: false,
        };
        let mut index = self.index.lock();
        let (own, queue) = index.queue_for(topics);
        // Before the map is unlocked, or the bell might be taken down as empty.
        let number = queue.insert(entry);
        drop(index);
        Waiter { waiters: self, topics: topics.clone(), own, queue, number }
    }

    /// Says that the topic has events up to `seq`, and claims who waits for that: those whose
    /// waiter `answers` says yes for. Each is claimed once, however often it is rung. Everybody
    /// else at these bells is woken to look at what it has no use for, and to move its cursor.
    pub fn notify(
        &self,
        topic: &Name,
        seq: Seq,
        answers: impl Fn(&W) -> bool,
    ) -> ReleasedWaiters<W, D> {
        let queues = self.index.lock().queues_for_topic(topic);
        let released_one = |queue: Arc<WaitQueue<W, D>>| {
            let released = queue.state.lock().claim(seq, &answers);
            self.waiting.fetch_sub(released.len(), Ordering::SeqCst);
            ReleasedFromQueue { queue, released }
        };
        ReleasedWaiters(queues.into_iter().map(released_one).collect())
    }

    /// How many wait now and were not claimed. Whoever is counted here is found by the next ring.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// How many polls are held for a topic.
    pub fn held_for(&self, topic: &Name) -> usize {
        let queues = self.index.lock().queues_for_topic(topic);
        let waiting = |queue: &Arc<WaitQueue<W, D>>| {
            let state = queue.state.lock();
            state
                .taken
                .values()
                .filter(|entry| matches!(entry.state, WaiterState::Waiting(_)))
                .count()
        };
        queues.iter().map(waiting).sum()
    }

    /// Every seat that is taken now.
    pub fn handles(&self) -> Vec<WaiterHandle<W, D>> {
        let mut state = Vec::new();
        let queues = self.index.lock().all();
        for queue in queues {
            let taken = queue.state.lock();
            state.extend(taken.taken.iter().map(|(&number, entry)| WaiterHandle {
                queue: Arc::clone(&queue),
                number,
                payload: Arc::clone(&entry.payload),
            }));
        }
        state
    }

    /// Ends every wait, now and from now on.
    pub fn drain(&self) {
        self.drained.store(true, Ordering::SeqCst);
        let queues = self.index.lock().all();
        for queue in queues {
            queue.wake_all();
        }
    }
}

impl<W, D> WaitQueue<W, D> {
    fn new() -> Arc<WaitQueue<W, D>> {
        let state = QueueState { last: Seq::ZERO, taken: HashMap::new(), next: 0 };
        Arc::new(WaitQueue { state: Mutex::new(state), condvar: Condvar::new() })
    }

    fn insert(&self, entry: WaiterEntry<W, D>) -> u64 {
        let mut state = self.state.lock();
        let number = state.next;
        state.next += 1;
        state.taken.insert(number, entry);
        number
    }

    /// Wakes everybody here so that they look around.
    fn wake_all(&self) {
        drop(self.state.lock());
        self.condvar.notify_all();
    }
}

impl<W, D> QueueState<W, D> {
    fn claim(&mut self, seq: Seq, answers: impl Fn(&W) -> bool) -> Vec<ReleasedWaiter<W, D>> {
        self.last = self.last.max(seq);
        let mut released = Vec::new();
        for (&number, entry) in &mut self.taken {
            match entry.state {
                WaiterState::Waiting(after) if after < seq && answers(&entry.payload) => {
                    entry.state = WaiterState::Claimed;
                    let payload = Arc::clone(&entry.payload);
                    released.push(ReleasedWaiter { number, payload, after, answer: None });
                }
                _ => {}
            }
        }
        released
    }

    fn set(&mut self, number: u64, state: WaiterState<D>) {
        if let Some(entry) = self.taken.get_mut(&number) {
            entry.state = state;
        }
    }
}

impl<W, D> ReleasedWaiters<W, D> {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.iter().map(|at| at.released.len()).sum()
    }

    /// They, bell by bell. Who sits at one bell has asked for the same topics.
    pub fn by_queue(&mut self) -> impl Iterator<Item = &mut [ReleasedWaiter<W, D>]> {
        self.0.iter_mut().map(|at| &mut *at.released)
    }
}

impl<W, D> Drop for ReleasedWaiters<W, D> {
    fn drop(&mut self) {
        for ReleasedFromQueue { queue, released } in self.0.drain(..) {
            let mut state = queue.state.lock();
            for released_one in released {
                state.set(released_one.number, WaiterState::Released(released_one.answer));
            }
            drop(state);
            queue.condvar.notify_all();
        }
    }
}

impl<W, D> Waiter<'_, W, D> {
    /// Waits until something after `past` was published, or for another reason to stop.
    #[must_use]
    pub fn wait(&self, after: Seq, deadline: Instant) -> Woken<D> {
        let mut state = self.queue.state.lock();
        state.set(self.number, WaiterState::Waiting(after));
        self.waiters.waiting.fetch_add(1, Ordering::SeqCst);
        let mut late = false;
        let mut claimed = false;
        let woken = loop {
            let news = state.last > after;
            let Some(entry) = state.taken.get_mut(&self.number) else { break Woken::Cancelled };
            match std::mem::replace(&mut entry.state, WaiterState::Looking) {
                WaiterState::Released(answer) => {
                    claimed = true;
                    break answer.map_or(Woken::Notified, Woken::Answered);
                }
                WaiterState::Claimed => {
                    claimed = true;
                    entry.state = WaiterState::Claimed;
                    self.queue.condvar.wait(&mut state);
                    continue;
                }
                WaiterState::Looking | WaiterState::Waiting(_) => {}
            }
            if news {
                break Woken::Notified;
            } else if entry.cancelled {
                break Woken::Cancelled;
            } else if self.waiters.drained.load(Ordering::SeqCst) {
                break Woken::Drained;
            } else if late {
                break Woken::Deadline;
            }
            entry.state = WaiterState::Waiting(after);
            late = self.queue.condvar.wait_until(&mut state, deadline).timed_out();
        };
        // A claim has been taken off by the ringer, before its answer was seen by anybody.
        if !claimed {
            self.waiters.waiting.fetch_sub(1, Ordering::SeqCst);
        }
        woken
    }
}

impl<W, D> Waiter<'_, W, D> {
    /// This seat, for others to see.
    pub fn handle(&self) -> Option<WaiterHandle<W, D>> {
        let state = self.queue.state.lock();
        let entry = state.taken.get(&self.number)?;
        let (queue, payload) = (Arc::clone(&self.queue), Arc::clone(&entry.payload));
        Some(WaiterHandle { queue, number: self.number, payload })
    }

    /// Whether somebody found that its holder should not wait any longer: for those who have so
    /// much to do that they do not wait.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        let state = self.queue.state.lock();
        state.taken.get(&self.number).is_none_or(|entry| entry.cancelled)
    }
}

impl<W, D> Drop for Waiter<'_, W, D> {
    fn drop(&mut self) {
        let mut index = self.waiters.index.lock();
        let mut state = self.queue.state.lock();
        state.taken.remove(&self.number);
        let empty = state.taken.is_empty();
        drop(state);
        if empty {
            index.remove_queue(&self.topics, self.own);
        }
    }
}

impl<W, D> WaiterHandle<W, D> {
    /// Ends this seat's wait.
    pub fn cancel(&self) {
        if let Some(entry) = self.queue.state.lock().taken.get_mut(&self.number) {
            entry.cancelled = true;
        }
        self.queue.wake_all();
    }
}

#[cfg(test)]
mod tests;
