//! An attack on a server with small caps, next to a client that behaves well: what that client
//! sees, what the server needs meanwhile, and whether it all comes back afterwards.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::args::Args;
use crate::attack::{Attack, Crowd, Kind, LARGE, LARGE_BYTES};
use crate::flock::wait_held;
use crate::probe::{self, Seen};
use crate::processes::{Child, Footprint, footprint};
use crate::stats::millis;
use crate::target::{Dialect, Target};
use crate::wire::{Conn, Outcome};

/// Between two looks at the attackers and at the server.
const TICK: Duration = Duration::from_millis(10);
/// By then everything has to be back. Answered connections linger for 1 s, hang-ups are seen
/// within 2 s, and readers have their time for writing.
const BACK: Duration = Duration::from_secs(10);
/// A request goes from the probe to the acceptor, to a worker that has to let go, to one that
/// serves it, and back: each has to be woken, and that is not the server's to promise.
const HAND_OVERS: u32 = 4;
/// What an allocator may keep of freed memory, beside what it kept before; and what it may keep of
/// large bodies that were on their way in all places.
const KEPT_KIB: u64 = 4 * 1024;
const KEPT_OF_BODIES_KIB: u64 = 8 * 1024;
/// When the number of descriptors has stayed the same for so long, it will not fall any more.
const STEADY: Duration = Duration::from_millis(1_100);

/// What is promised to the probe while a case lasts.
struct Case {
    name: String,
    slowest: Duration,
    kept_kib: u64,
    /// A counter that shows that the attack took place; and what is missing otherwise.
    bites: &'static str,
}

/// What was seen while a case lasted.
struct Course {
    seen: Seen,
    /// The most that the server needed.
    peak: Footprint,
    /// The latest that this machine woke anybody up.
    late: Duration,
}

/// The server under siege.
struct Server {
    target: Target,
    pid: u32,
    connections: usize,
    polls: usize,
}

pub fn run(args: &mut Args) -> Outcome<ExitCode> {
    let name = args.text("case").ok_or("--case is needed")?;
    let seconds: u64 = args.number("seconds", 30)?;
    let write_timeout: u64 = args.number("write-timeout", 2)?;
    let server = Server {
        target: Target { port: args.number("port", 0)?, dialect: Dialect::Longpoll },
        pid: args.number("pid", 0)?,
        connections: args.number("max-connections", 64)?,
        polls: args.number("max-polls", 56)?,
    };
    let attackers: usize = args.number("attackers", 4 * server.connections)?;
    let kind = match &*name {
        "silent" => Some(Kind::Silent),
        "heads" => Some(Kind::Heads),
        "bodies" => Some(Kind::Bodies),
        "readers" => Some(Kind::Readers),
        "polls" => Some(Kind::Polls),
        "greedy" => Some(Kind::Greedy),
        _ => None,
    };
    let command = if kind.is_none() { args.rest()? } else { Vec::new() };
    args.finish()?;
    let (slowest, bites) = match kind {
        // They give way, but not before they have waited for 250 ms.
        Some(Kind::Silent | Kind::Heads | Kind::Bodies) => {
            (Duration::from_secs(1), "connections_gave_way_total")
        }
        // "At once", on a machine that does other things, too.
        Some(Kind::Polls) => (Duration::from_millis(250), "refusals_total{cause=\"poll_cap\"}"),
        Some(Kind::Greedy) => (Duration::from_millis(250), "refusals_total{cause=\"client_cap\"}"),
        // The probe may have to come back once after the time is over. That these attackers had an
        // effect is not to be expected: while others wait, their connections end with one answer.
        Some(Kind::Readers) | None => {
            (Duration::from_millis(write_timeout * 1_000 + 500), "connections_accepted_total")
        }
    };
    let kept_kib = if kind == Some(Kind::Bodies) { KEPT_OF_BODIES_KIB } else { KEPT_KIB };
    let case = Case { name, slowest, kept_kib, bites };
    server.warm_up()?;
    let before = server.at_rest()?;
    let bitten = server.counter(case.bites)?;
    let attack = || match kind {
        Some(kind) => Ok(Attack::Crowd(Crowd::new(kind, attackers, server.target.port))),
        None => Child::spawn(&command).map(Attack::Program),
    };
    let Course { seen, peak, late } = server.besiege(attack, Duration::from_secs(seconds))?;
    let case = Case { slowest: case.slowest + HAND_OVERS * late, ..case };
    let after = server.back_at(&before)?;
    let bites = server.counter(case.bites)? - bitten;
    let mut broken = broken(&case, &seen, [&before, &after]);
    // The probe's own connections are among those that were accepted.
    let own = if case.bites == "connections_accepted_total" {
        seen.asked + server.connections
    } else {
        0
    };
    if bites <= own {
        broken.push(format!("the attack did not take place: {} grew by {bites} only", case.bites));
    }
    if let Err(error) = server.all_places_serve() {
        broken.push(format!("not all places are back: {error}"));
    }
    println!("{}", row(&case, &seen, [&before, &peak, &after], &broken));
    Ok(if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Server {
    /// Fills all places once, so that every worker has been started and has done everything.
    fn warm_up(&self) -> Outcome<()> {
        let Target { port, .. } = self.target;
        let mut control = Conn::open(port)?;
        self.publish(&mut control, LARGE, LARGE_BYTES)?;
        for _ in 0..2 {
            self.alone_but_for(1, Instant::now() + BACK)?;
            let mut polls = Vec::new();
            for _ in 0..self.polls {
                let mut poll = Conn::open(port)?;
                poll.send(&self.target.poll_with("warm", &crate::target::Cursor::Now, "&wait=55"))?;
                polls.push(poll);
            }
            wait_held(self.target, &mut control, self.polls)?;
            let mut others = Vec::new();
            for _ in self.polls + 1..self.connections {
                let mut other = Conn::open(port)?;
                self.publish(&mut other, LARGE, LARGE_BYTES)?;
                others.push(other);
            }
            self.publish(&mut control, "warm", LARGE_BYTES)?;
            drop(others);
            for poll in &mut polls {
                let answer = poll.answer(&mut vec![0; 64 * 1024])?;
                if answer.status != 200 {
                    return Err(format!("a poll failed:\n{}", answer.excerpt()).into());
                }
            }
        }
        drop(control);
        self.alone(Instant::now() + BACK)?;
        self.warm_up_bodies()
    }

    /// Many places have a large body on its way at once; more than there is room for in all would
    /// be refused.
    fn warm_up_bodies(&self) -> Outcome<()> {
        let body = "x".repeat(60_000);
        let publish = self.target.publish("warm", &body);
        let (first, second) = publish.split_at(publish.len() / 2);
        let mut conns = Vec::new();
        for _ in 0..self.connections.min(64) - 2 {
            let mut conn = Conn::open(self.target.port)?;
            conn.send(first)?;
            conns.push(conn);
        }
        conns.iter_mut().try_for_each(|conn| conn.send(second))?;
        for conn in &mut conns {
            self.target.check_publish(&conn.answer(&mut [0; 16 * 1024])?, "warm")?;
        }
        Ok(())
    }

    fn publish(&self, conn: &mut Conn, topic: &str, bytes: usize) -> Outcome<()> {
        let answer = conn.call(&self.target.publish(topic, &"x".repeat(bytes)))?;
        self.target.check_publish(&answer, topic).map(drop)
    }

    fn counter(&self, name: &str) -> Outcome<usize> {
        let mut conn = Conn::open(self.target.port)?;
        self.target.metric(&mut conn, name)
    }

    /// Waits until nobody is there any more.
    fn alone(&self, deadline: Instant) -> Outcome<()> {
        self.alone_but_for(0, deadline)
    }

    fn alone_but_for(&self, others: usize, deadline: Instant) -> Outcome<()> {
        loop {
            // The one that asks is open, too.
            let (open, held) = (self.counter("connections")? - 1, self.counter("polls_held")?);
            if (open, held) == (others, 0) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!("{open} connections, {held} polls never come back").into());
            }
            std::thread::sleep(TICK);
        }
    }

    /// What the server needs when nobody is there any more.
    fn at_rest(&self) -> Outcome<Footprint> {
        self.alone(Instant::now() + BACK)?;
        let mut last = footprint(self.pid)?;
        let mut since = Instant::now();
        while since.elapsed() < STEADY {
            std::thread::sleep(TICK);
            let now = footprint(self.pid)?;
            if now.descriptors != last.descriptors {
                since = Instant::now();
            }
            last = now;
        }
        Ok(last)
    }

    /// The same, but as soon as it is no more than before. If it stays more, this returns that.
    fn back_at(&self, before: &Footprint) -> Outcome<Footprint> {
        let deadline = Instant::now() + BACK;
        self.alone(deadline)?;
        loop {
            let now = footprint(self.pid)?;
            if now.is_within(before) || Instant::now() > deadline {
                return Ok(now);
            }
            std::thread::sleep(TICK);
        }
    }

    /// Attacks and probes.
    fn besiege(&self, attack: impl FnOnce() -> Outcome<Attack>, time: Duration) -> Outcome<Course> {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let mut peak = footprint(self.pid)?;
            let mut attack = attack()?;
            attack.tick()?;
            let deadline = Instant::now() + time;
            let probe = scope.spawn(|| probe::run(self.target, &stop).map_err(|e| e.to_string()));
            let (mut outcome, mut late) = (Ok(()), Duration::ZERO);
            while outcome.is_ok() && Instant::now() < deadline && !probe.is_finished() {
                late = late.max(lateness());
                outcome = attack.tick();
                peak = peak.highest(&footprint(self.pid)?);
            }
            stop.store(true, Ordering::Relaxed);
            // It ends what it has begun while the attack still lasts.
            while outcome.is_ok() && !probe.is_finished() {
                std::thread::sleep(TICK);
                outcome = attack.tick();
            }
            drop(attack);
            let seen = probe.join().map_err(|_| "the probe panicked")??;
            outcome.map(|()| Course { seen, peak, late })
        })
    }

    /// Whether all places serve at once. A connection of the moment before may still be closing; a
    /// place that is lost stays so.
    fn all_places_serve(&self) -> Outcome<()> {
        let deadline = Instant::now() + BACK;
        loop {
            match self.all_places_serve_now() {
                Err(_) if Instant::now() < deadline => std::thread::sleep(TICK),
                done => return done,
            }
        }
    }

    /// As many connections as there may be are open at once, and each is served twice: had one
    /// given way to another, it would not be there the second time.
    fn all_places_serve_now(&self) -> Outcome<()> {
        let mut conns = Vec::new();
        for _ in 0..self.connections {
            conns.push(Conn::open(self.target.port)?);
        }
        for _ in 0..2 {
            for conn in &mut conns {
                let answer = conn.call(&self.target.health())?;
                if answer.status != 200 {
                    return Err(answer.excerpt().into());
                }
            }
        }
        Ok(())
    }
}

/// Sleeps for a tick, and says how much too long that took: machines that do other things let
/// everybody wait.
fn lateness() -> Duration {
    let begun = Instant::now();
    std::thread::sleep(TICK);
    begun.elapsed().saturating_sub(TICK)
}

/// Which promises were not kept.
fn broken(case: &Case, seen: &Seen, [before, after]: [&Footprint; 2]) -> Vec<String> {
    let mut broken = Vec::new();
    if seen.answered < seen.asked || seen.asked == 0 {
        broken.push(format!("{} of {} were answered", seen.answered, seen.asked));
    }
    if seen.slowest > case.slowest {
        let [took, may] = [seen.slowest, case.slowest].map(millis);
        broken.push(format!("the slowest took {took:.0} ms, it may be {may:.0}"));
    }
    if after.threads > before.threads {
        broken.push(format!("{} threads more", after.threads - before.threads));
    }
    if after.descriptors > before.descriptors {
        broken.push(format!("{} descriptors more", after.descriptors - before.descriptors));
    }
    if after.resident_kib > before.resident_kib + case.kept_kib {
        broken.push(format!("{} KiB more memory", after.resident_kib - before.resident_kib));
    }
    broken
}

/// The figures as a row of Markdown; scripts/siege.sh writes the head.
fn row(case: &Case, seen: &Seen, stages: [&Footprint; 3], broken: &[String]) -> String {
    let three = |what: fn(&Footprint) -> String| stages.map(what).join(", ");
    let mut row = format!(
        "| {} | {} | {} | {} | {:.0} ({:.0}) ",
        case.name,
        seen.asked,
        seen.answered,
        seen.refused,
        millis(seen.slowest),
        millis(case.slowest)
    );
    let verdict = if broken.is_empty() { "ok".into() } else { broken.join("; ") };
    // Writing to a String cannot fail.
    let _ = write!(
        row,
        "| {} | {} | {} | {verdict} |",
        three(|at| format!("{:.1}", at.resident_kib as f64 / 1024.0)),
        three(|at| at.threads.to_string()),
        three(|at| at.descriptors.to_string())
    );
    row
}
