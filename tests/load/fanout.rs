//! One publish to many held polls, and what holding them costs in memory.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::args::Args;
use crate::flock::{Flock, seed, wait_held, wait_waiting};
use crate::processes;
use crate::stats::{least, median, millis, most, quantile, rounded};
use crate::target::{Cursor, Seen, Target};
use crate::wire::{Conn, Outcome, SCRATCH};

const TOPIC: &str = "bench";
const FIRST: &str = "the event that makes the topic..";

/// Publishes one event to `flock`, checks every answer, and gives each answer's time in ms and the
/// next cursor.
fn release(
    target: Target,
    control: &mut Conn,
    flock: &mut Flock,
    polls: usize,
    body: &str,
) -> Outcome<(Vec<f64>, Cursor)> {
    let publish = target.publish(TOPIC, body);
    let mut first: Option<Seen> = None;
    let started = Instant::now();
    control.send(&publish)?;
    let times = flock.gather(started, |answer| {
        let seen = target.check_poll(answer, TOPIC, body)?;
        match &first {
            Some(before) if before.seq != seen.seq || before.cursor != seen.cursor => {
                Err("two polls of one event were given different positions".into())
            }
            _ => {
                first = Some(seen);
                Ok(())
            }
        }
    })?;
    let receipt = target.check_publish(&control.answer(&mut vec![0; SCRATCH])?, TOPIC)?;
    let seen = first.ok_or("no poll was answered")?;
    if receipt.seq != seen.seq {
        return Err(format!("published as {:?} but polled as {:?}", receipt.seq, seen.seq).into());
    }
    if receipt.released != polls {
        return Err(
            format!("the publish says it released {} of {polls} polls", receipt.released).into()
        );
    }
    Ok((times.into_iter().map(millis).collect(), seen.cursor))
}

pub fn run(target: Target, args: &mut Args) -> Outcome<Value> {
    let polls: usize = args.number("polls", 1000)?;
    let repeats: usize = args.number("repeats", 20)?;
    args.finish()?;
    let mut control = Conn::open(target.port)?;
    let cursor = seed(target, &mut control, TOPIC, FIRST)?;
    let mut flock = Flock::open(target.port, polls, |_| target.poll(TOPIC, &cursor))?;
    let (mut last, mut middle, mut first) = (Vec::new(), Vec::new(), Vec::new());
    // The first time round warms buffers and allocators up and does not count.
    for repeat in 0..=repeats {
        wait_waiting(target, &mut control, TOPIC, polls)?;
        let body = format!("event {repeat:026}");
        let (times, cursor) = release(target, &mut control, &mut flock, polls, &body)?;
        if repeat > 0 {
            last.push(most(&times));
            middle.push(median(&times));
            first.push(least(&times));
        }
        if repeat < repeats {
            flock.poll_all(&target.poll(TOPIC, &cursor))?;
        }
    }
    Ok(json!({
        "load": "fanout", "polls": polls, "repeats": repeats,
        "last_ms": rounded(median(&last)),
        "last_min_ms": rounded(least(&last)),
        "last_p90_ms": rounded(quantile(&last, 0.9)),
        "last_max_ms": rounded(most(&last)),
        "client_p50_ms": rounded(median(&middle)),
        "first_ms": rounded(median(&first)),
    }))
}

pub fn memory(target: Target, args: &mut Args) -> Outcome<Value> {
    let polls: usize = args.number("polls", 1000)?;
    let root: u32 = args.number("pid", 0)?;
    let quiet: u32 = args.number("quiet", 0)?;
    args.finish()?;
    let mut control = Conn::open(target.port)?;
    wait_held(target, &mut control, 0)?;
    let idle = processes::memory(root)?;
    let cursor = seed(target, &mut control, TOPIC, FIRST)?;
    let mut flock = Flock::open(target.port, polls, |_| target.poll(TOPIC, &cursor))?;
    wait_waiting(target, &mut control, TOPIC, polls)?;
    let held = processes::memory(root)?;
    let before = processes::used(root)?;
    std::thread::sleep(Duration::from_secs(quiet.into()));
    let after = processes::used(root)?;
    let seconds = f64::from(quiet.max(1));
    // Only polls that are answered afterwards were really held.
    release(target, &mut control, &mut flock, polls, "the end of this measurement ....")?;
    let each = (held.resident_kib as f64 - idle.resident_kib as f64) * 1024.0 / polls.max(1) as f64;
    Ok(json!({
        "load": "memory", "polls": polls, "processes": held.processes,
        "idle_mib": rounded(idle.resident_kib as f64 / 1024.0),
        "held_mib": rounded(held.resident_kib as f64 / 1024.0),
        "per_poll_bytes": each.round(),
        "idle_shared_once_mib": rounded(idle.proportional_kib as f64 / 1024.0),
        "held_shared_once_mib": rounded(held.proportional_kib as f64 / 1024.0),
        "quiet_seconds": quiet,
        "quiet_cpu_percent": rounded(after.cpu.saturating_sub(before.cpu).as_secs_f64() * 100.0 / seconds),
        "quiet_wakes_per_second": rounded((after.sleeps - before.sleeps) as f64 / seconds),
    }))
}
