//! Polls held to their cap, more beyond it, and a publish meanwhile.

use std::time::Instant;

use serde_json::{Value, json};

use super::method::TOPIC;
use crate::args::Args;
use crate::flock::{Flock, seed, wait_waiting};
use crate::processes::footprint;
use crate::stats::{median, millis, most, rounded};
use crate::target::{Target, wrong};
use crate::wire::{Conn, Outcome, SCRATCH};

const FIRST: &str = "the event that makes the topic";
/// Publishes before the polls come: they warm up, and are what the one at the cap is beside.
const BEFORE: usize = 20;

/// How many of `beyond` more polls are refused with a time to come back.
fn refused(target: Target, beyond: usize, request: &[u8]) -> Outcome<usize> {
    let mut told = 0;
    for _ in 0..beyond {
        let answer = Conn::open(target.port)?.call(request)?;
        if answer.status != 503 {
            return wrong("a poll beyond the cap is not refused", &answer);
        }
        let after = answer.header("retry-after").and_then(|text| text.parse::<u64>().ok());
        told += usize::from(after.is_some_and(|seconds| seconds > 0));
    }
    Ok(told)
}

/// The server's `--max-polls` has to be `--polls`.
pub fn run(target: Target, args: &mut Args) -> Outcome<Value> {
    let polls: usize = args.number("polls", 500)?;
    let beyond: usize = args.number("beyond", 50)?;
    let pid: u32 = args.number("pid", 0)?;
    args.finish()?;
    let mut control = Conn::open(target.port)?;
    let mut before = Vec::new();
    for number in 0..BEFORE {
        let started = Instant::now();
        let text = format!("event {number} on an idle server");
        target.check_publish(&control.call(&target.publish("other", &text))?, "other")?;
        before.push(millis(started.elapsed()));
    }
    let cursor = seed(target, &mut control, TOPIC, FIRST)?;
    let idle = footprint(pid)?;
    let request = target.poll(TOPIC, &cursor);
    let mut flock = Flock::open(target.port, polls, |_| request.clone())?;
    wait_waiting(target, &mut control, TOPIC, polls)?;
    let held = footprint(pid)?;
    let told = refused(target, beyond, &request)?;
    let body = "what all that are held wait for";
    let started = Instant::now();
    control.send(&target.publish(TOPIC, body))?;
    let times = flock.gather(started, |answer| target.check_poll(answer, TOPIC, body).map(drop))?;
    let receipt = target.check_publish(&control.answer(&mut vec![0; SCRATCH])?, TOPIC)?;
    if receipt.released != polls {
        return Err(format!("a publish released {} of {polls}", receipt.released).into());
    }
    let times: Vec<f64> = times.into_iter().map(millis).collect();
    let more = held.resident_kib.saturating_sub(idle.resident_kib);
    Ok(json!({
        "load": "caps", "polls": polls, "beyond": beyond, "told_when_to_come_back": told,
        "kib_per_poll": rounded(more as f64 / polls as f64),
        "threads_per_poll": rounded((held.threads - idle.threads) as f64 / polls as f64),
        "publish_idle_ms": rounded(median(&before)), "last_answer_ms": rounded(most(&times)),
    }))
}
