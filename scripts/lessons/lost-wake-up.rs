//! The lost wake-up, made to happen. Lesson 5 compiles this with `rustc` alone, and runs it as
//!
//!     lost-wake-up broken|right chance|forced ROUNDS
//!
//! In each round one thread polls and another publishes, once. A poll that goes on waiting beside
//! what it waits for has lost its wake-up.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use std::{env, hint, thread};

/// How long a poll waits. Whoever has waited for this long beside an event that is there would have
/// waited for ever.
const PATIENCE: Duration = Duration::from_millis(300);

/// Losses after which there is nothing more to prove.
const ENOUGH: u64 = 3;

/// A log of which only the newest seq matters here, and a way to wait for the next one.
trait Server: Sync {
    fn publish(&self, seq: u64);
    /// Waits for something after `cursor`. False: it was woken by its deadline. `between` stands
    /// between the look at the log and the wait, where a real server has other things to do.
    fn poll(&self, cursor: u64, deadline: Instant, between: &dyn Fn()) -> bool;
}

/// Looks, unlocks, and then waits for the bell to ring. It reads well, and it passes every test
/// that runs it once.
#[derive(Default)]
struct Broken {
    newest: Mutex<u64>,
    at_the_bell: Mutex<()>,
    bell: Condvar,
}

impl Server for Broken {
    fn publish(&self, seq: u64) {
        *lock(&self.newest) = seq;
        self.bell.notify_all();
    }

    fn poll(&self, cursor: u64, deadline: Instant, between: &dyn Fn()) -> bool {
        if *lock(&self.newest) > cursor {
            return true;
        }
        between();
        // What rang up to here has rung for nobody: a Condvar wakes those who wait, and forgets.
        let waiting = lock(&self.at_the_bell);
        let (_waiting, waited) = wait(&self.bell, waiting, deadline);
        !waited.timed_out()
    }
}

/// The same look, and a bell that remembers up to where it has rung. It does not matter when the
/// poll comes to wait: if the bell has rung past its cursor, it does not wait at all.
#[derive(Default)]
struct Right {
    newest: Mutex<u64>,
    rung: Mutex<u64>,
    bell: Condvar,
}

impl Server for Right {
    fn publish(&self, seq: u64) {
        // First the log, then the bell: whom the bell wakes finds the event. Unlock, then notify:
        // whom it wakes finds the lock free.
        *lock(&self.newest) = seq;
        *lock(&self.rung) = seq;
        self.bell.notify_all();
    }

    fn poll(&self, cursor: u64, deadline: Instant, between: &dyn Fn()) -> bool {
        if *lock(&self.newest) > cursor {
            return true;
        }
        between();
        let mut rung = lock(&self.rung);
        // The test and the beginning of the wait are one step: `wait` gives the lock back only when
        // it waits, and the bell cannot be rung without the lock.
        while *rung <= cursor {
            let (again, waited) = wait(&self.bell, rung, deadline);
            rung = again;
            if waited.timed_out() {
                return false;
            }
        }
        true
    }
}

/// What the two threads of a run share.
struct Run<'a> {
    server: &'a dyn Server,
    /// The round that may begin, and the last one that has ended; a round is named by its event.
    begun: AtomicU64,
    ended: AtomicU64,
    /// The last event whose publish is over, and since when.
    published: Mutex<(u64, Instant)>,
}

impl Run<'_> {
    /// Polls until the event is there. True: it had lost its wake-up.
    fn poll(&self, seq: u64, between: &dyn Fn()) -> bool {
        while !self.server.poll(seq - 1, Instant::now() + PATIENCE, between) {
            // The publisher may only have been late, on a busy machine.
            let (published, at) = *lock(&self.published);
            if published == seq && at.elapsed() > PATIENCE / 2 {
                return true;
            }
        }
        false
    }

    fn publish(&self, seq: u64) {
        self.server.publish(seq);
        *lock(&self.published) = (seq, Instant::now());
    }

    /// Both threads do as they like; the publisher comes a little later in each round than in the
    /// one before, and then anew. Ends at the first loss: (rounds, losses).
    fn by_chance(&self, rounds: u64) -> (u64, u64) {
        thread::scope(|scope| {
            let polling = scope.spawn(|| {
                for seq in 1..=rounds {
                    until(|| self.begun.load(SeqCst) >= seq);
                    let lost = self.poll(seq, &|| ());
                    self.ended.store(if lost { u64::MAX } else { seq }, SeqCst);
                    if lost {
                        return (seq, 1);
                    }
                }
                (rounds, 0)
            });
            for seq in 1..=rounds {
                self.begun.store(seq, SeqCst);
                (0..seq % 64).for_each(|_| hint::spin_loop());
                self.publish(seq);
                until(|| self.ended.load(SeqCst) >= seq);
                if self.ended.load(SeqCst) == u64::MAX {
                    break;
                }
            }
            polling.join().unwrap_or((rounds, 0))
        })
    }

    /// A handshake puts the whole publish between the look and the wait. Ends when it has lost
    /// enough: (rounds, losses).
    fn forced(&self, rounds: u64) -> (u64, u64) {
        let (looked, has_looked) = sync_channel(0);
        let (rang, has_rung) = sync_channel(0);
        thread::scope(|scope| {
            scope.spawn(move || self.publish_in_between(&has_looked, &rang));
            let mut lost = 0;
            for seq in 1..=rounds {
                let between = || {
                    if looked.send(seq).is_ok() {
                        let _ = has_rung.recv();
                    }
                };
                lost += u64::from(self.poll(seq, &between));
                if lost == ENOUGH {
                    drop(looked);
                    return (seq, lost);
                }
            }
            drop(looked);
            (rounds, lost)
        })
    }

    fn publish_in_between(&self, has_looked: &Receiver<u64>, rang: &SyncSender<()>) {
        for seq in has_looked {
            self.publish(seq);
            let _ = rang.send(());
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics with a lock in hand")
}

fn wait<'a, T>(
    bell: &Condvar,
    guard: MutexGuard<'a, T>,
    deadline: Instant,
) -> (MutexGuard<'a, T>, std::sync::WaitTimeoutResult) {
    let rest = deadline.saturating_duration_since(Instant::now());
    bell.wait_timeout(guard, rest).expect("nobody panics with a lock in hand")
}

/// Spins, because to sleep and be woken takes so long that the two threads would never meet.
fn until(done: impl Fn() -> bool) {
    for spun in 0_u64.. {
        if done() {
            return;
        }
        if spun % 1024 == 1023 {
            thread::yield_now();
        }
        hint::spin_loop();
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (broken, right) = (Broken::default(), Right::default());
    let [which, how, rounds] = words[..] else { return usage() };
    let server: &dyn Server = match which {
        "broken" => &broken,
        "right" => &right,
        _ => return usage(),
    };
    let Ok(rounds) = rounds.parse() else { return usage() };
    let run = Run {
        server,
        begun: AtomicU64::new(0),
        ended: AtomicU64::new(0),
        published: Mutex::new((0, Instant::now())),
    };
    let (rounds, lost) = match how {
        "chance" => run.by_chance(rounds),
        "forced" => run.forced(rounds),
        _ => return usage(),
    };
    println!("{{\"rounds\":{rounds},\"lost\":{lost}}}");
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    eprintln!("usage: lost-wake-up broken|right chance|forced ROUNDS");
    ExitCode::from(2)
}
