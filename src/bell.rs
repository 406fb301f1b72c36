//! Waiting: the only place in this program that blocks on a condition variable.
//!
//! The log knows *what* happened. A bell only says *that* something happened, and remembers it: a
//! poll that looks at the log, finds nothing and goes to its bell cannot miss what was published
//! in between, because [`Seat::wait`] returns at once when the bell has rung past its cursor.
//! That needs this order, which [`crate::api`] keeps:
//!
//! 1. the poll takes a seat, *then* reads the log, then waits;
//! 2. the publisher appends to the log, *then* rings.
//!
//! Polls of one topic, or of one prefix, share its bell; a poll of several hangs one bell of its
//! own on all of them. Bells exist while somebody sits at them.
//!
//! *Locks.* [`Room`]'s map, then one bell. Neither is held together with the log's. A ringer
//! unlocks the bell and then notifies: a thread woken before would only wait for the lock again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use crate::names::{Name, Pattern, TopicSet};

/// Why a wait ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Woken {
    /// Something was published after the cursor: look again.
    Rung,
    /// The deadline has come.
    Deadline,
    /// The server is shutting down.
    Drained,
    /// The client has hung up.
    Left,
}

/// All bells. `W` is what a waiter leaves with its seat for those who ring or look after it.
pub struct Room<W> {
    hung: Mutex<Hung<W>>,
    drained: AtomicBool,
    waiting: AtomicUsize,
}

/// Which bells ring for what.
struct Hung<W> {
    topics: HashMap<Arc<str>, Bells<W>>,
    prefixes: HashMap<Arc<str>, Bells<W>>,
    next_own: u64,
}

/// The bell that polls of one pattern share is number 0; the others belong to one poll each.
type Bells<W> = BTreeMap<u64, Arc<Bell<W>>>;
const SHARED: u64 = 0;

struct Bell<W> {
    seats: Mutex<Seats<W>>,
    rung: Condvar,
}

struct Seats<W> {
    /// The highest seq that was rung here.
    last: u64,
    /// In the order of arrival.
    taken: BTreeMap<u64, Sitter<W>>,
    next: u64,
}

struct Sitter<W> {
    waiter: Arc<W>,
    /// The seq that it waits beyond, while it waits and nobody has released it.
    past: Option<u64>,
    left: bool,
}

/// A seat at a bell; given back when dropped.
pub struct Seat<'a, W> {
    room: &'a Room<W>,
    topics: TopicSet,
    own: u64,
    bell: Arc<Bell<W>>,
    number: u64,
}

/// Somebody's seat, seen from outside; it may have been given back by the time it is used.
pub struct SeatRef<W> {
    bell: Arc<Bell<W>>,
    number: u64,
    /// What its holder left with it.
    pub waiter: Arc<W>,
}

impl<W> Default for Room<W> {
    fn default() -> Room<W> {
        Room {
            hung: Mutex::new(Hung {
                topics: HashMap::new(),
                prefixes: HashMap::new(),
                next_own: SHARED + 1,
            }),
            drained: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
        }
    }
}

impl<W> Hung<W> {
    /// Where the bells of a pattern hang, and under which name.
    fn hook<'p>(
        &mut self,
        pattern: &'p Pattern,
    ) -> (&mut HashMap<Arc<str>, Bells<W>>, &'p Arc<str>) {
        match pattern {
            Pattern::Topic(name) => (&mut self.topics, name.text()),
            Pattern::Prefix(prefix) => (&mut self.prefixes, prefix),
        }
    }

    fn bells_at(&mut self, pattern: &Pattern) -> &mut Bells<W> {
        let (bells, name) = self.hook(pattern);
        bells.entry(Arc::clone(name)).or_default()
    }

    fn take_down(&mut self, pattern: &Pattern, own: u64) {
        let (bells, name) = self.hook(pattern);
        if let Some(hung) = bells.get_mut(name) {
            hung.remove(&own);
            if hung.is_empty() {
                bells.remove(name);
            }
        }
    }

    /// The bells that ring for a topic. A poll's own bell may come twice.
    fn for_topic<'h>(&'h self, topic: &str) -> impl Iterator<Item = &'h Arc<Bell<W>>> {
        let longest = if self.prefixes.is_empty() { None } else { Some(topic.len()) };
        let prefixes = longest.into_iter().flat_map(|longest| 0..=longest);
        self.topics
            .get(topic)
            .into_iter()
            .chain(prefixes.filter_map(|len| self.prefixes.get(&topic[..len])))
            .flat_map(BTreeMap::values)
    }
}

impl<W> Room<W> {
    /// Takes a seat at the bell of these topics. To be done before looking at the log.
    pub fn sit(&self, topics: &TopicSet, waiter: W) -> Seat<'_, W> {
        let sitter = Sitter { waiter: Arc::new(waiter), past: None, left: false };
        let mut hung = self.hung.lock();
        let (own, bell) = if let [pattern] = topics.patterns() {
            let bell = hung.bells_at(pattern).entry(SHARED).or_insert_with(Bell::new);
            (SHARED, Arc::clone(bell))
        } else {
            let (own, bell) = (hung.next_own, Bell::new());
            hung.next_own += 1;
            for pattern in topics.patterns() {
                hung.bells_at(pattern).insert(own, Arc::clone(&bell));
            }
            (own, bell)
        };
        // Before the map is unlocked, or the bell might be taken down as empty.
        let number = bell.seat(sitter);
        drop(hung);
        Seat { room: self, topics: topics.clone(), own, bell, number }
    }

    /// Says that the topic has events up to `seq`, and wakes who waits for that. Returns how many
    /// held polls this answers: those whose waiter `answers` says yes for, each counted once
    /// however often it is rung.
    pub fn ring(&self, topic: &Name, seq: u64, answers: impl Fn(&W) -> bool) -> usize {
        let bells: Vec<_> = self.hung.lock().for_topic(topic).cloned().collect();
        bells.iter().map(|bell| bell.ring(seq, &answers)).sum()
    }

    /// How many wait now. Whoever is counted here will be found by the next ring.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// How many polls are held for a topic.
    pub fn held(&self, topic: &Name) -> usize {
        let mut bells: Vec<_> = self.hung.lock().for_topic(topic).cloned().collect();
        bells.sort_unstable_by_key(Arc::as_ptr);
        bells.dedup_by_key(|bell| Arc::as_ptr(bell));
        let waiting = |bell: &Arc<Bell<W>>| {
            let seats = bell.seats.lock();
            seats.taken.values().filter(|sitter| sitter.past.is_some()).count()
        };
        bells.iter().map(waiting).sum()
    }

    /// Every seat that is taken now.
    pub fn seats(&self) -> Vec<SeatRef<W>> {
        let mut seats = Vec::new();
        for bell in self.all_bells() {
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
        for bell in self.all_bells() {
            bell.nudge();
        }
    }

    /// Each bell once: one that hangs in several places is taken where its number comes first.
    fn all_bells(&self) -> Vec<Arc<Bell<W>>> {
        let hung = self.hung.lock();
        let places = hung.topics.values().chain(hung.prefixes.values());
        let mut bells: Vec<_> = places.flat_map(BTreeMap::values).cloned().collect();
        bells.sort_unstable_by_key(Arc::as_ptr);
        bells.dedup_by_key(|bell| Arc::as_ptr(bell));
        bells
    }
}

impl<W> Bell<W> {
    fn new() -> Arc<Bell<W>> {
        let seats = Seats { last: 0, taken: BTreeMap::new(), next: 0 };
        Arc::new(Bell { seats: Mutex::new(seats), rung: Condvar::new() })
    }

    fn seat(&self, sitter: Sitter<W>) -> u64 {
        let mut seats = self.seats.lock();
        let number = seats.next;
        seats.next += 1;
        seats.taken.insert(number, sitter);
        number
    }

    fn ring(&self, seq: u64, answers: impl Fn(&W) -> bool) -> usize {
        let mut seats = self.seats.lock();
        seats.last = seats.last.max(seq);
        let mut released = 0;
        for sitter in seats.taken.values_mut() {
            if sitter.past.is_some_and(|past| past < seq) && answers(&sitter.waiter) {
                sitter.past = None;
                released += 1;
            }
        }
        drop(seats);
        self.rung.notify_all();
        released
    }

    /// Wakes everybody here so that they look around.
    fn nudge(&self) {
        drop(self.seats.lock());
        self.rung.notify_all();
    }
}

impl<W> Seats<W> {
    fn await_past(&mut self, number: u64, past: Option<u64>) {
        if let Some(sitter) = self.taken.get_mut(&number) {
            sitter.past = past;
        }
    }
}

impl<W> Seat<'_, W> {
    /// Waits until something after `past` was published, or for another reason to stop.
    #[must_use]
    pub fn wait(&self, past: u64, deadline: Instant) -> Woken {
        let mut seats = self.bell.seats.lock();
        seats.await_past(self.number, Some(past));
        self.room.waiting.fetch_add(1, Ordering::SeqCst);
        let mut late = false;
        let woken = loop {
            // News first: whoever was counted as released is released.
            if seats.last > past {
                break Woken::Rung;
            } else if seats.taken.get(&self.number).is_none_or(|sitter| sitter.left) {
                break Woken::Left;
            } else if self.room.drained.load(Ordering::SeqCst) {
                break Woken::Drained;
            } else if late {
                break Woken::Deadline;
            }
            late = self.bell.rung.wait_until(&mut seats, deadline).timed_out();
        };
        self.room.waiting.fetch_sub(1, Ordering::SeqCst);
        seats.await_past(self.number, None);
        woken
    }
}

impl<W> Drop for Seat<'_, W> {
    fn drop(&mut self) {
        let mut hung = self.room.hung.lock();
        let mut seats = self.bell.seats.lock();
        seats.taken.remove(&self.number);
        let empty = seats.taken.is_empty();
        drop(seats);
        if empty {
            for pattern in self.topics.patterns() {
                hung.take_down(pattern, self.own);
            }
        }
    }
}

impl<W> SeatRef<W> {
    /// Ends this seat's wait because its client has hung up.
    pub fn dismiss(&self) {
        if let Some(sitter) = self.bell.seats.lock().taken.get_mut(&self.number) {
            sitter.left = true;
        }
        self.bell.nudge();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn topics(list: &str) -> TopicSet {
        TopicSet::parse(list).unwrap()
    }

    fn far() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[test]
    fn a_bell_remembers_what_was_rung_before_the_wait() {
        let room = Room::default();
        let seat = room.sit(&topics("a"), ());
        room.ring(&Name::new("a").unwrap(), 5, |()| true);
        assert_eq!(seat.wait(4, far()), Woken::Rung);
        assert_eq!(seat.wait(5, Instant::now()), Woken::Deadline);
    }

    #[test]
    fn a_topic_rings_its_own_bell_and_those_of_its_prefixes_only() {
        let room = Room::default();
        let seats = ["a.b", "a.*", "*", "x,a.b", "a.", "b*", "a.b.c", "x,y"]
            .map(|list| (list, room.sit(&topics(list), ())));
        room.ring(&Name::new("a.b").unwrap(), 1, |()| true);
        let rung: Vec<_> = seats
            .iter()
            .filter(|(_, seat)| seat.wait(0, Instant::now()) == Woken::Rung)
            .map(|(list, _)| *list)
            .collect();
        assert_eq!(rung, ["a.b", "a.*", "*", "x,a.b"]);
    }

    #[test]
    fn bells_are_gone_when_nobody_sits() {
        let room = Room::default();
        let seats = ["a", "a", "a,b*", "*"].map(|list| room.sit(&topics(list), ()));
        assert_eq!(room.seats().len(), 4);
        drop(seats);
        let hung = room.hung.lock();
        assert!(hung.topics.is_empty() && hung.prefixes.is_empty());
    }

    #[test]
    fn a_drained_room_holds_nobody() {
        let room = Room::default();
        let seat = room.sit(&topics("a"), ());
        room.drain();
        assert_eq!(seat.wait(0, far()), Woken::Drained);
        assert_eq!(room.sit(&topics("b"), ()).wait(0, far()), Woken::Drained);
    }

    #[test]
    fn each_held_poll_is_released_once() {
        let room = Arc::new(Room::default());
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let room = Arc::clone(&room);
                std::thread::spawn(move || room.sit(&topics("a,b"), ()).wait(0, far()))
            })
            .collect();
        let a = Name::new("a").unwrap();
        while room.held(&a) < 4 {
            std::thread::yield_now();
        }
        assert_eq!(room.ring(&a, 1, |()| false), 0);
        let released: usize = (2..10).map(|seq| room.ring(&a, seq, |()| true)).sum();
        assert!(released <= 4);
        for thread in threads {
            assert_eq!(thread.join().unwrap(), Woken::Rung);
        }
    }
}
