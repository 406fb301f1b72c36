//! Waiting for news: the only place in this program that holds a request.
//!
//! The log knows *what* happened. A bell only says *that* something happened, and remembers it: a
//! poll that looks at the log, finds nothing and goes to its bell cannot miss what was published
//! in between, because [`Seat::wait`] returns at once when the bell has rung past its cursor.
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
//! *Locks.* [`Room`]'s map, then one bell. Neither is held together with the log's. A ringer
//! unlocks the bell and then notifies: a thread woken before would only wait for the lock again.

mod hung;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use crate::names::{Name, TopicSet};
use hung::Hung;

/// Why a wait ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Woken<D> {
    /// Something was published after the cursor: look again.
    Rung,
    /// The ringer has left this.
    Left(D),
    /// The deadline has come.
    Deadline,
    /// The server is shutting down.
    Drained,
    /// Somebody found that it should not wait any longer: its client has gone, or may not.
    Dismissed,
}

/// All bells. `W` is what a waiter leaves with its seat for those who ring or look after it, `D`
/// what a ringer may leave for a waiter.
pub struct Room<W, D> {
    hung: Mutex<Hung<W, D>>,
    drained: AtomicBool,
    waiting: AtomicUsize,
}

struct Bell<W, D> {
    seats: Mutex<Seats<W, D>>,
    rung: Condvar,
}

struct Seats<W, D> {
    /// The highest seq that was rung here.
    last: u64,
    /// By the number of the seat.
    taken: HashMap<u64, Sitter<W, D>>,
    next: u64,
}

struct Sitter<W, D> {
    waiter: Arc<W>,
    state: State<D>,
    dismissed: bool,
}

/// What a sitter does.
enum State<D> {
    /// Looks at the log.
    Looking,
    /// Waits for what comes after this seq.
    Waiting(u64),
    /// Was claimed by a ringer, who will say what for.
    Claimed,
    /// Was claimed, and the ringer is done with it.
    Released(Option<D>),
}

/// A seat at a bell; given back when dropped.
pub struct Seat<'a, W, D> {
    room: &'a Room<W, D>,
    topics: TopicSet,
    own: u64,
    bell: Arc<Bell<W, D>>,
    number: u64,
}

/// Somebody's seat, seen from outside; it may have been given back by the time it is used.
pub struct SeatRef<W, D> {
    bell: Arc<Bell<W, D>>,
    number: u64,
    /// What its holder left with it.
    pub waiter: Arc<W>,
}

/// Everybody whom a ring answers. When this is dropped, however that comes, they are woken.
#[must_use]
pub struct Claims<W, D>(Vec<ClaimsAtBell<W, D>>);

struct ClaimsAtBell<W, D> {
    bell: Arc<Bell<W, D>>,
    claims: Vec<Claim<W, D>>,
}

/// One of them.
pub struct Claim<W, D> {
    number: u64,
    /// What it left with its seat.
    pub waiter: Arc<W>,
    /// The seq that it waits beyond.
    pub past: u64,
    /// What is left for it; without anything it looks for itself.
    pub left: Option<D>,
}

impl<W, D> Default for Room<W, D> {
    fn default() -> Room<W, D> {
        Room {
            hung: Mutex::new(Hung::default()),
            drained: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
        }
    }
}

impl<W, D> Room<W, D> {
    /// Takes a seat at the bell of these topics. To be done before looking at the log.
    pub fn sit(&self, topics: &TopicSet, waiter: W) -> Seat<'_, W, D> {
        let sitter = Sitter { waiter: Arc::new(waiter), state: State::Looking, dismissed: false };
        let mut hung = self.hung.lock();
        let (own, bell) = hung.bell_for(topics);
        // Before the map is unlocked, or the bell might be taken down as empty.
        let number = bell.seat(sitter);
        drop(hung);
        Seat { room: self, topics: topics.clone(), own, bell, number }
    }

    /// Says that the topic has events up to `seq`, and claims who waits for that: those whose
    /// waiter `answers` says yes for. Each is claimed once, however often it is rung. Everybody
    /// else at these bells is woken to look at what it has no use for, and to move its cursor.
    pub fn ring(&self, topic: &Name, seq: u64, answers: impl Fn(&W) -> bool) -> Claims<W, D> {
        let bells = self.hung.lock().for_topic(topic);
        let claim = |bell: Arc<Bell<W, D>>| {
            let claims = bell.seats.lock().claim(seq, &answers);
            self.waiting.fetch_sub(claims.len(), Ordering::SeqCst);
            ClaimsAtBell { bell, claims }
        };
        Claims(bells.into_iter().map(claim).collect())
    }

    /// How many wait now and were not claimed. Whoever is counted here is found by the next ring.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// How many polls are held for a topic.
    pub fn held(&self, topic: &Name) -> usize {
        let bells = self.hung.lock().for_topic(topic);
        let waiting = |bell: &Arc<Bell<W, D>>| {
            let seats = bell.seats.lock();
            seats.taken.values().filter(|sitter| matches!(sitter.state, State::Waiting(_))).count()
        };
        bells.iter().map(waiting).sum()
    }

    /// Every seat that is taken now.
    pub fn seats(&self) -> Vec<SeatRef<W, D>> {
        let mut seats = Vec::new();
        let bells = self.hung.lock().all();
        for bell in bells {
            let taken = bell.seats.lock();
            seats.extend(taken.taken.iter().map(|(&number, sitter)| SeatRef {
                bell: Arc::clone(&bell),
                number,
                waiter: Arc::clone(&sitter.waiter),
            }));
        }
        seats
    }

    /// Ends every wait, now and from now on.
    pub fn drain(&self) {
        self.drained.store(true, Ordering::SeqCst);
        let bells = self.hung.lock().all();
        for bell in bells {
            bell.nudge();
        }
    }
}

impl<W, D> Bell<W, D> {
    fn new() -> Arc<Bell<W, D>> {
        let seats = Seats { last: 0, taken: HashMap::new(), next: 0 };
        Arc::new(Bell { seats: Mutex::new(seats), rung: Condvar::new() })
    }

    fn seat(&self, sitter: Sitter<W, D>) -> u64 {
        let mut seats = self.seats.lock();
        let number = seats.next;
        seats.next += 1;
        seats.taken.insert(number, sitter);
        number
    }

    /// Wakes everybody here so that they look around.
    fn nudge(&self) {
        drop(self.seats.lock());
        self.rung.notify_all();
    }
}

impl<W, D> Seats<W, D> {
    fn claim(&mut self, seq: u64, answers: impl Fn(&W) -> bool) -> Vec<Claim<W, D>> {
        self.last = self.last.max(seq);
        let mut claims = Vec::new();
        for (&number, sitter) in &mut self.taken {
            match sitter.state {
                State::Waiting(past) if past < seq && answers(&sitter.waiter) => {
                    sitter.state = State::Claimed;
                    let waiter = Arc::clone(&sitter.waiter);
                    claims.push(Claim { number, waiter, past, left: None });
                }
                _ => {}
            }
        }
        claims
    }

    fn set(&mut self, number: u64, state: State<D>) {
        if let Some(sitter) = self.taken.get_mut(&number) {
            sitter.state = state;
        }
    }
}

impl<W, D> Claims<W, D> {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.iter().map(|at| at.claims.len()).sum()
    }

    /// They, bell by bell. Who sits at one bell has asked for the same topics.
    pub fn by_bell(&mut self) -> impl Iterator<Item = &mut [Claim<W, D>]> {
        self.0.iter_mut().map(|at| &mut *at.claims)
    }
}

impl<W, D> Drop for Claims<W, D> {
    fn drop(&mut self) {
        for ClaimsAtBell { bell, claims } in self.0.drain(..) {
            let mut seats = bell.seats.lock();
            for claim in claims {
                seats.set(claim.number, State::Released(claim.left));
            }
            drop(seats);
            bell.rung.notify_all();
        }
    }
}

impl<W, D> Seat<'_, W, D> {
    /// Waits until something after `past` was published, or for another reason to stop.
    #[must_use]
    pub fn wait(&self, past: u64, deadline: Instant) -> Woken<D> {
        let mut seats = self.bell.seats.lock();
        seats.set(self.number, State::Waiting(past));
        self.room.waiting.fetch_add(1, Ordering::SeqCst);
        let mut late = false;
        let mut claimed = false;
        let woken = loop {
            let news = seats.last > past;
            let Some(sitter) = seats.taken.get_mut(&self.number) else { break Woken::Dismissed };
            match std::mem::replace(&mut sitter.state, State::Looking) {
                State::Released(left) => {
                    claimed = true;
                    break left.map_or(Woken::Rung, Woken::Left);
                }
                State::Claimed => {
                    claimed = true;
                    sitter.state = State::Claimed;
                    self.bell.rung.wait(&mut seats);
                    continue;
                }
                State::Looking | State::Waiting(_) => {}
            }
            if news {
                break Woken::Rung;
            } else if sitter.dismissed {
                break Woken::Dismissed;
            } else if self.room.drained.load(Ordering::SeqCst) {
                break Woken::Drained;
            } else if late {
                break Woken::Deadline;
            }
            sitter.state = State::Waiting(past);
            late = self.bell.rung.wait_until(&mut seats, deadline).timed_out();
        };
        // A claim has been taken off by the ringer, before its answer was seen by anybody.
        if !claimed {
            self.room.waiting.fetch_sub(1, Ordering::SeqCst);
        }
        woken
    }
}

impl<W, D> Seat<'_, W, D> {
    /// This seat, for others to see.
    pub fn seen(&self) -> Option<SeatRef<W, D>> {
        let seats = self.bell.seats.lock();
        let sitter = seats.taken.get(&self.number)?;
        let (bell, waiter) = (Arc::clone(&self.bell), Arc::clone(&sitter.waiter));
        Some(SeatRef { bell, number: self.number, waiter })
    }

    /// Whether somebody found that its holder should not wait any longer: for those who have so
    /// much to do that they do not wait.
    #[must_use]
    pub fn is_dismissed(&self) -> bool {
        let seats = self.bell.seats.lock();
        seats.taken.get(&self.number).is_none_or(|sitter| sitter.dismissed)
    }
}

impl<W, D> Drop for Seat<'_, W, D> {
    fn drop(&mut self) {
        let mut hung = self.room.hung.lock();
        let mut seats = self.bell.seats.lock();
        seats.taken.remove(&self.number);
        let empty = seats.taken.is_empty();
        drop(seats);
        if empty {
            hung.take_down(&self.topics, self.own);
        }
    }
}

impl<W, D> SeatRef<W, D> {
    /// Ends this seat's wait.
    pub fn dismiss(&self) {
        if let Some(sitter) = self.bell.seats.lock().taken.get_mut(&self.number) {
            sitter.dismissed = true;
        }
        self.bell.nudge();
    }
}

#[cfg(test)]
mod tests;
