//! An attack on a server with small caps, beside a probe: how the probe is served, what the server
//! uses meanwhile, and whether it returns to its idle use afterwards.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::LoadResult;
use crate::args::Args;
use crate::attack::{Attack, AttackKind, Attackers, LARGE_BYTES, LARGE_TOPIC};
use crate::conn::{Conn, READ_BUFFER};
use crate::held_polls::wait_until_held;
use crate::probe::{self, ProbeStats};
use crate::processes::{ChildProcess, Footprint, footprint};
use crate::stats::millis;
use crate::target::{Cursor, ServerKind, Target};

/// Between two ticks of the attack, and between two measurements of the server.
const TICK: Duration = Duration::from_millis(10);
/// The time to release everything after an attack. Lingering closes take 1 s, hang-ups are noticed
/// within 2 s, and readers are given the write time-out.
const RECOVERY: Duration = Duration::from_secs(10);
/// A request wakes the acceptor, a worker that has to evict a connection, the worker that serves
/// it, and the probe. The server does not control how late the machine wakes each of them.
const WAKEUPS_PER_REQUEST: u32 = 4;
/// The memory that the allocator may keep after an attack, beyond what it kept before; more where
/// large bodies arrived on all connections.
const ALLOWED_GROWTH_KIB: u64 = 4 * 1024;
const ALLOWED_GROWTH_BODIES_KIB: u64 = 8 * 1024;
/// After 400 pages at once for each event, measured: 7 MiB in 15 s and 16 MiB in 90 s, where it ends.
const ALLOWED_GROWTH_STARS_KIB: u64 = 20 * 1024;
/// A number of descriptors that stays the same for this long does not fall any more.
const STEADY: Duration = Duration::from_millis(1_100);
const ACCEPTED: &str = "connections_accepted_total";
const BODY_BYTES: usize = 60_000;
/// Topics that exist during the attack on all topics: the default of `--max-topics`, less those of
/// the probe and of the warm-up.
const TOPICS: usize = 9_900;
const POLLS_WITH_DATA: &str = "polls_total{reason=\"data\"}";

/// The promises that hold during a case.
struct Case {
    name: String,
    max_response_time: Duration,
    allowed_growth_kib: u64,
    /// The metric that grows when the attack takes effect.
    effect_metric: &'static str,
}

impl Case {
    fn new(name: String, kind: Option<AttackKind>, write_timeout: Duration) -> Case {
        let (max_response_time, effect_metric) = match kind {
            // These connections are evicted, but not before they have waited for 250 ms.
            Some(AttackKind::Silent | AttackKind::Heads | AttackKind::Bodies) => {
                (Duration::from_secs(1), "connections_gave_way_total")
            }
            // "Immediately", on a machine that also runs other programs.
            Some(AttackKind::Polls) => {
                (Duration::from_millis(250), "refusals_total{cause=\"poll_cap\"}")
            }
            Some(AttackKind::Greedy) => {
                (Duration::from_millis(250), "refusals_total{cause=\"client_cap\"}")
            }
            Some(AttackKind::Stars) => (Duration::from_millis(250), POLLS_WITH_DATA),
            // The probe may have to retry once after the write time-out. No metric shows the effect
            // of these attackers: while others wait, their connections end after one response.
            Some(AttackKind::Readers) | None => {
                (write_timeout + Duration::from_millis(500), ACCEPTED)
            }
        };
        let allowed_growth_kib = match kind {
            Some(AttackKind::Bodies) => ALLOWED_GROWTH_BODIES_KIB,
            Some(AttackKind::Stars) => ALLOWED_GROWTH_STARS_KIB,
            _ => ALLOWED_GROWTH_KIB,
        };
        Case { name, max_response_time, allowed_growth_kib, effect_metric }
    }
}

/// The measurements during an attack.
struct Observed {
    probe: ProbeStats,
    /// The maximum of each resource.
    peak: Footprint,
    /// How late the machine woke a sleeping thread at worst.
    latest_wakeup: Duration,
}

/// The attacked server and its caps.
struct AttackedServer {
    target: Target,
    pid: u32,
    connections: usize,
    polls: usize,
}

pub fn run(args: &mut Args) -> LoadResult<ExitCode> {
    let name = args.required("case")?;
    let seconds: u64 = args.number("seconds", 30)?;
    let write_timeout = Duration::from_secs(args.number("write-timeout", 2)?);
    let server = AttackedServer {
        target: Target { port: args.number("port", 0)?, kind: ServerKind::Longpoll },
        pid: args.number("pid", 0)?,
        connections: args.number("max-connections", 64)?,
        polls: args.number("max-polls", 56)?,
    };
    let attackers: usize = args.number("attackers", 4 * server.connections)?;
    let kind = AttackKind::parse(&name);
    let command = if kind.is_none() { args.command()? } else { Vec::new() };
    args.finish()?;
    let case = Case::new(name, kind, write_timeout);
    server.warm_up()?;
    if kind == Some(AttackKind::Stars) {
        server.create_topics()?;
    }
    let before = server.idle_footprint()?;
    let effect_before = server.metric(case.effect_metric)?;
    let attack = || match kind {
        Some(kind) => Ok(Attack::BuiltIn(Attackers::new(kind, attackers, server.target.port))),
        None => ChildProcess::spawn(&command).map(Attack::Program),
    };
    let Observed { probe, peak, latest_wakeup } =
        server.attack_and_probe(attack, Duration::from_secs(seconds))?;
    let max_response_time = case.max_response_time + WAKEUPS_PER_REQUEST * latest_wakeup;
    let case = Case { max_response_time, ..case };
    let after = server.footprint_after(&before)?;
    let effect = server.metric(case.effect_metric)? - effect_before;
    let mut failures = broken_promises(&case, &probe, [&before, &after]);
    // The probe's own connections and polls count too.
    let own = match case.effect_metric {
        ACCEPTED => probe.requests + server.connections,
        POLLS_WITH_DATA => probe.requests,
        _ => 0,
    };
    if effect <= own {
        failures.push(format!("the attack had no effect: {} grew by {effect}", case.effect_metric));
    }
    if let Err(error) = server.check_all_connections() {
        failures.push(format!("not all connections are served again: {error}"));
    }
    println!("{}", markdown_row(&case, &probe, [&before, &peak, &after], &failures));
    Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl AttackedServer {
    /// Uses all connections and polls, so that every worker has been started and has served each
    /// kind of request.
    fn warm_up(&self) -> LoadResult<()> {
        let Target { port, .. } = self.target;
        let mut control = Conn::connect(port)?;
        self.publish(&mut control, LARGE_TOPIC, LARGE_BYTES)?;
        for _ in 0..2 {
            self.wait_for_connections(1, Instant::now() + RECOVERY)?;
            let request = self.target.poll_request_with("warm", &Cursor::Now, "&wait=55");
            let mut polls = Vec::new();
            for _ in 0..self.polls {
                let mut poll = Conn::connect(port)?;
                poll.send(&request)?;
                polls.push(poll);
            }
            wait_until_held(self.target, &mut control, self.polls)?;
            let mut publishers = Vec::new();
            for _ in self.polls + 1..self.connections {
                let mut publisher = Conn::connect(port)?;
                self.publish(&mut publisher, LARGE_TOPIC, LARGE_BYTES)?;
                publishers.push(publisher);
            }
            self.publish(&mut control, "warm", LARGE_BYTES)?;
            drop(publishers);
            for poll in &mut polls {
                let response = poll.read_response(&mut vec![0; READ_BUFFER])?;
                if response.status != 200 {
                    return Err(format!("a poll failed:\n{}", response.excerpt()).into());
                }
            }
        }
        drop(control);
        self.wait_for_connections(0, Instant::now() + RECOVERY)?;
        self.warm_up_bodies()
    }

    /// Has a large body arrive on many connections at once, at most as many as the server's budget
    /// for bodies allows.
    fn warm_up_bodies(&self) -> LoadResult<()> {
        let publish = self.target.publish_request("warm", &"x".repeat(BODY_BYTES));
        let (first, second) = publish.split_at(publish.len() / 2);
        let mut conns = Vec::new();
        for _ in 0..self.connections.min(64) - 2 {
            let mut conn = Conn::connect(self.target.port)?;
            conn.send(first)?;
            conns.push(conn);
        }
        conns.iter_mut().try_for_each(|conn| conn.send(second))?;
        for conn in &mut conns {
            let response = conn.read_response(&mut [0; 16 * 1024])?;
            self.target.check_publish(&response, "warm")?;
        }
        Ok(())
    }

    fn create_topics(&self) -> LoadResult<()> {
        let mut conn = Conn::connect(self.target.port)?;
        (0..TOPICS).try_for_each(|number| self.publish(&mut conn, &format!("t{number}"), 1))
    }

    fn publish(&self, conn: &mut Conn, topic: &str, bytes: usize) -> LoadResult<()> {
        let response = conn.call(&self.target.publish_request(topic, &"x".repeat(bytes)))?;
        self.target.check_publish(&response, topic).map(drop)
    }

    fn metric(&self, name: &str) -> LoadResult<usize> {
        let mut conn = Conn::connect(self.target.port)?;
        self.target.metric(&mut conn, name)
    }

    /// Waits until exactly `count` connections are open and no poll is held.
    fn wait_for_connections(&self, count: usize, deadline: Instant) -> LoadResult<()> {
        loop {
            // The request for the metric is itself on an open connection.
            let (open, held) = (self.metric("connections")? - 1, self.metric("polls_held")?);
            if (open, held) == (count, 0) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!("{open} connections and {held} polls are not released").into());
            }
            std::thread::sleep(TICK);
        }
    }

    /// What the server uses without connections, once its descriptors are steady.
    fn idle_footprint(&self) -> LoadResult<Footprint> {
        self.wait_for_connections(0, Instant::now() + RECOVERY)?;
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

    /// What the server uses without connections, as soon as that is within `before`, or at the end
    /// of the recovery time.
    fn footprint_after(&self, before: &Footprint) -> LoadResult<Footprint> {
        let deadline = Instant::now() + RECOVERY;
        self.wait_for_connections(0, deadline)?;
        loop {
            let now = footprint(self.pid)?;
            if now.is_within(before) || Instant::now() > deadline {
                return Ok(now);
            }
            std::thread::sleep(TICK);
        }
    }

    fn attack_and_probe(
        &self,
        attack: impl FnOnce() -> LoadResult<Attack>,
        time: Duration,
    ) -> LoadResult<Observed> {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let mut peak = footprint(self.pid)?;
            let mut attack = attack()?;
            attack.tick()?;
            let deadline = Instant::now() + time;
            let probe = scope.spawn(|| probe::run(self.target, &stop).map_err(|e| e.to_string()));
            let (mut outcome, mut latest_wakeup) = (Ok(()), Duration::ZERO);
            while outcome.is_ok() && Instant::now() < deadline && !probe.is_finished() {
                latest_wakeup = latest_wakeup.max(wakeup_delay());
                outcome = attack.tick();
                peak = peak.max(&footprint(self.pid)?);
            }
            stop.store(true, Ordering::Relaxed);
            // The attack continues until the probe's last request has been answered.
            while outcome.is_ok() && !probe.is_finished() {
                std::thread::sleep(TICK);
                outcome = attack.tick();
            }
            drop(attack);
            let probe = probe.join().map_err(|_| "the probe panicked")??;
            outcome.map(|()| Observed { probe, peak, latest_wakeup })
        })
    }

    /// Checks that the server serves as many connections as its cap allows. Retries, since earlier
    /// connections may still be closing; a lost worker never comes back.
    fn check_all_connections(&self) -> LoadResult<()> {
        let deadline = Instant::now() + RECOVERY;
        loop {
            match self.serve_all_connections_twice() {
                Err(_) if Instant::now() < deadline => std::thread::sleep(TICK),
                result => return result,
            }
        }
    }

    /// Opens as many connections as the cap allows and sends two requests on each. A connection
    /// that was evicted for another one would fail the second request.
    fn serve_all_connections_twice(&self) -> LoadResult<()> {
        let mut conns = Vec::new();
        for _ in 0..self.connections {
            conns.push(Conn::connect(self.target.port)?);
        }
        for _ in 0..2 {
            for conn in &mut conns {
                let response = conn.call(&self.target.health_request())?;
                if response.status != 200 {
                    return Err(response.excerpt().into());
                }
            }
        }
        Ok(())
    }
}

/// Sleeps for a tick and returns how much longer than that the sleep took: on a busy machine every
/// thread is woken late.
fn wakeup_delay() -> Duration {
    let started = Instant::now();
    std::thread::sleep(TICK);
    started.elapsed().saturating_sub(TICK)
}

fn broken_promises(
    case: &Case,
    probe: &ProbeStats,
    [before, after]: [&Footprint; 2],
) -> Vec<String> {
    let mut broken = Vec::new();
    if probe.answered < probe.requests || probe.requests == 0 {
        broken.push(format!("{} of {} requests answered", probe.answered, probe.requests));
    }
    if probe.slowest > case.max_response_time {
        let [took, limit] = [probe.slowest, case.max_response_time].map(millis);
        broken.push(format!("the slowest request took {took:.0} ms, the limit is {limit:.0} ms"));
    }
    if after.threads > before.threads {
        broken.push(format!("{} threads more", after.threads - before.threads));
    }
    if after.descriptors > before.descriptors {
        broken.push(format!("{} descriptors more", after.descriptors - before.descriptors));
    }
    if after.resident_kib > before.resident_kib + case.allowed_growth_kib {
        broken.push(format!("{} KiB more memory", after.resident_kib - before.resident_kib));
    }
    broken
}

/// One row of the Markdown table whose head scripts/siege.sh prints.
fn markdown_row(
    case: &Case,
    probe: &ProbeStats,
    stages: [&Footprint; 3],
    broken: &[String],
) -> String {
    let three = |figure: fn(&Footprint) -> String| stages.map(figure).join(", ");
    let mut row = format!(
        "| {} | {} | {} | {} | {:.0} ({:.0}) ",
        case.name,
        probe.requests,
        probe.answered,
        probe.refusals,
        millis(probe.slowest),
        millis(case.max_response_time)
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
