//! The lost wake-up, provoked. Lesson 5 compiles this with `rustc` alone, and runs it as
//!
//!     lost-wake-up broken|right chance|forced ROUNDS
//!
//! In each round one thread polls and another publishes, once. A poll that keeps waiting while its
//! event is in the log has lost its wake-up.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use std::{env, hint, thread};

/// How long a poll waits. A poll that waits this long while its event is in the log would wait for
/// ever.
const WAIT: Duration = Duration::from_millis(300);

/// Lost wake-ups after which a run stops: each one takes a whole `WAIT`.
const MAX_LOST: u64 = 3;

/// A log, reduced to its newest seq, and a way to wait for the next one.
trait Server: Sync {
    fn publish(&self, seq: u64);
    /// Waits for an event after `cursor`; returns false at the deadline. It calls `between` after the
    /// look at the log and before the wait, where a real server has other things to do.
    fn poll(&self, cursor: u64, deadline: Instant, between: &dyn Fn()) -> bool;
}

/// Looks, unlocks, and then waits for a notification. It reads well, and it passes every test that
/// runs it once.
#[derive(Default)]
struct Broken {
    newest: Mutex<u64>,
    /// Guards nothing; a `Condvar` needs a mutex.
    queue: Mutex<()>,
    notified: Condvar,
}

impl Server for Broken {
    fn publish(&self, seq: u64) {
        *lock(&self.newest) = seq;
        self.notified.notify_all();
    }

    fn poll(&self, cursor: u64, deadline: Instant, between: &dyn Fn()) -> bool {
        if *lock(&self.newest) > cursor {
            return true;
        }
        between();
        // A notification before this line reaches nobody: a Condvar wakes the threads that wait, and
        // remembers nothing.
        let queue = lock(&self.queue);
        let (_queue, waited) = wait(&self.notified, queue, deadline);
        !waited.timed_out()
    }
}

/// The same look, and a wait queue that remembers the seq of its last notification. It does not
/// matter when the poll begins to wait: if the queue was notified past its cursor, it does not wait.
#[derive(Default)]
struct Right {
    newest: Mutex<u64>,
    /// The state of the wait queue: the seq up to which it was notified.
    notified_through: Mutex<u64>,
    notified: Condvar,
}

impl Server for Right {
    fn publish(&self, seq: u64) {
        // First the log, then the queue: a poll that is woken finds the event. The queue's lock is
        // released before the notification: a thread that wakes finds it free.
        *lock(&self.newest) = seq;
        *lock(&self.notified_through) = seq;
        self.notified.notify_all();
    }

    fn poll(&self, cursor: u64, deadline: Instant, between: &dyn Fn()) -> bool {
        if *lock(&self.newest) > cursor {
            return true;
        }
        between();
        let mut notified_through = lock(&self.notified_through);
        // The test and the beginning of the wait are one step: `wait` releases the lock only by
        // waiting, and the queue cannot be notified without the lock.
        while *notified_through <= cursor {
            let (relocked, waited) = wait(&self.notified, notified_through, deadline);
            notified_through = relocked;
            if waited.timed_out() {
                return false;
            }
        }
        true
    }
}

/// The state that the two threads of a run share.
struct Run<'a> {
    server: &'a dyn Server,
    /// The newest round that may begin; its number is the seq that it publishes.
    begun: AtomicU64,
    /// The newest round that has ended.
    ended: AtomicU64,
    /// The seq of the last publish that has returned, and the time of its return.
    published: Mutex<(u64, Instant)>,
}

impl Run<'_> {
    /// Polls until the event is there. Returns true if a wake-up was lost.
    fn poll(&self, seq: u64, between: &dyn Fn()) -> bool {
        while !self.server.poll(seq - 1, Instant::now() + WAIT, between) {
            // On a busy machine the publisher may only be late: then it is no loss.
            let (published, at) = *lock(&self.published);
            if published == seq && at.elapsed() > WAIT / 2 {
                return true;
            }
        }
        false
    }

    fn publish(&self, seq: u64) {
        self.server.publish(seq);
        *lock(&self.published) = (seq, Instant::now());
    }

    /// Runs both threads without coordination, with delays of 0 to 63 spins before the publish.
    /// Stops at the first lost wake-up. Returns (rounds, lost).
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

    /// Puts the whole publish between the look and the wait, with a handshake. Stops after
    /// `MAX_LOST`. Returns (rounds, lost).
    fn forced(&self, rounds: u64) -> (u64, u64) {
        let (looked, has_looked) = sync_channel(0);
        let (published, has_published) = sync_channel(0);
        thread::scope(|scope| {
            scope.spawn(move || self.publish_in_between(&has_looked, &published));
            let mut lost = 0;
            for seq in 1..=rounds {
                let between = || {
                    if looked.send(seq).is_ok() {
                        let _ = has_published.recv();
                    }
                };
                lost += u64::from(self.poll(seq, &between));
                if lost == MAX_LOST {
                    drop(looked);
                    return (seq, lost);
                }
            }
            drop(looked);
            (rounds, lost)
        })
    }

    fn publish_in_between(&self, has_looked: &Receiver<u64>, published: &SyncSender<()>) {
        for seq in has_looked {
            self.publish(seq);
            let _ = published.send(());
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no thread panics while it holds a lock")
}

fn wait<'a, T>(
    notified: &Condvar,
    guard: MutexGuard<'a, T>,
    deadline: Instant,
) -> (MutexGuard<'a, T>, std::sync::WaitTimeoutResult) {
    let left = deadline.saturating_duration_since(Instant::now());
    notified.wait_timeout(guard, left).expect("no thread panics while it holds a lock")
}

/// Spins instead of sleeping: waking up takes so long that the two threads would never meet.
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
