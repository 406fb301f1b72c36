//! Fan-out: the time of one publish to many held polls, and the memory that the held polls take.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::LoadResult;
use crate::args::Args;
use crate::conn::{Conn, READ_BUFFER};
use crate::held_polls::{HeldPolls, create_topic, wait_until_held, wait_until_waiting};
use crate::processes;
use crate::stats::{max, median, millis, min, quantile, rounded};
use crate::target::{Cursor, PolledEvent, Target};

const TOPIC: &str = "bench";
const FIRST_BODY: &str = "the event that creates the topic";

/// Publishes one event to all held polls and checks every response. Returns the time of each
/// response in ms, and the cursor after the event.
fn publish_to_all(
    target: Target,
    control: &mut Conn,
    held_polls: &mut HeldPolls,
    polls: usize,
    body: &str,
) -> LoadResult<(Vec<f64>, Cursor)> {
    let publish = target.publish_request(TOPIC, body);
    let mut first: Option<PolledEvent> = None;
    let started = Instant::now();
    control.send(&publish)?;
    let times = held_polls.read_all(started, |response| {
        let event = target.check_poll(response, TOPIC, body)?;
        match &first {
            Some(known) if known.seq != event.seq || known.cursor != event.cursor => {
                Err("two polls returned one event with different cursors".into())
            }
            _ => {
                first = Some(event);
                Ok(())
            }
        }
    })?;
    let receipt =
        target.check_publish(&control.read_response(&mut vec![0; READ_BUFFER])?, TOPIC)?;
    let event = first.ok_or("no poll was answered")?;
    if receipt.seq != event.seq {
        return Err(format!(
            "published with seq {:?} but polled with seq {:?}",
            receipt.seq, event.seq
        )
        .into());
    }
    if receipt.released != polls {
        return Err(format!(
            "the publish reports {} released polls instead of {polls}",
            receipt.released
        )
        .into());
    }
    Ok((times.into_iter().map(millis).collect(), event.cursor))
}

pub fn fanout(target: Target, args: &mut Args) -> LoadResult<Value> {
    let polls: usize = args.number("polls", 1000)?;
    let repeats: usize = args.number("repeats", 20)?;
    args.finish()?;
    let mut control = Conn::connect(target.port)?;
    let cursor = create_topic(target, &mut control, TOPIC, FIRST_BODY)?;
    let mut held_polls =
        HeldPolls::open(target.port, polls, |_| target.poll_request(TOPIC, &cursor))?;
    let (mut last, mut medians, mut first) = (Vec::new(), Vec::new(), Vec::new());
    // Round 0 warms up buffers and allocators and is not counted.
    for repeat in 0..=repeats {
        wait_until_waiting(target, &mut control, TOPIC, polls)?;
        let body = format!("event {repeat:026}");
        let (times, cursor) = publish_to_all(target, &mut control, &mut held_polls, polls, &body)?;
        if repeat > 0 {
            last.push(max(&times));
            medians.push(median(&times));
            first.push(min(&times));
        }
        if repeat < repeats {
            held_polls.send_all(&target.poll_request(TOPIC, &cursor))?;
        }
    }
    Ok(json!({
        "load": "fanout", "polls": polls, "repeats": repeats,
        "last_ms": rounded(median(&last)),
        "last_min_ms": rounded(min(&last)),
        "last_p90_ms": rounded(quantile(&last, 0.9)),
        "last_max_ms": rounded(max(&last)),
        "client_p50_ms": rounded(median(&medians)),
        "first_ms": rounded(median(&first)),
    }))
}

pub fn memory(target: Target, args: &mut Args) -> LoadResult<Value> {
    let polls: usize = args.number("polls", 1000)?;
    let root: u32 = args.number("pid", 0)?;
    let quiet: u32 = args.number("quiet", 0)?;
    args.finish()?;
    let mut control = Conn::connect(target.port)?;
    wait_until_held(target, &mut control, 0)?;
    let idle = processes::memory_usage(root)?;
    let cursor = create_topic(target, &mut control, TOPIC, FIRST_BODY)?;
    let mut held_polls =
        HeldPolls::open(target.port, polls, |_| target.poll_request(TOPIC, &cursor))?;
    wait_until_waiting(target, &mut control, TOPIC, polls)?;
    let held = processes::memory_usage(root)?;
    let before = processes::cpu_usage(root)?;
    std::thread::sleep(Duration::from_secs(quiet.into()));
    let after = processes::cpu_usage(root)?;
    let seconds = f64::from(quiet.max(1));
    // Only a poll that receives an event afterwards was really held.
    publish_to_all(
        target,
        &mut control,
        &mut held_polls,
        polls,
        "the end of this measurement ....",
    )?;
    let bytes_per_poll =
        (held.resident_kib as f64 - idle.resident_kib as f64) * 1024.0 / polls.max(1) as f64;
    Ok(json!({
        "load": "memory", "polls": polls, "processes": held.processes,
        "idle_mib": rounded(idle.resident_kib as f64 / 1024.0),
        "held_mib": rounded(held.resident_kib as f64 / 1024.0),
        "per_poll_bytes": bytes_per_poll.round(),
        "idle_shared_once_mib": rounded(idle.proportional_kib as f64 / 1024.0),
        "held_shared_once_mib": rounded(held.proportional_kib as f64 / 1024.0),
        "quiet_seconds": quiet,
        "quiet_cpu_percent": rounded(after.cpu.saturating_sub(before.cpu).as_secs_f64() * 100.0 / seconds),
        "quiet_wakes_per_second": rounded((after.wakeups - before.wakeups) as f64 / seconds),
    }))
}
