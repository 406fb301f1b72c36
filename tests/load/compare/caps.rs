//! Polls held up to the server's cap, further polls beyond it, and a publish to all held polls.

use std::time::Instant;

use serde_json::{Value, json};

use super::method::TOPIC;
use crate::LoadResult;
use crate::args::Args;
use crate::conn::{Conn, READ_BUFFER};
use crate::held_polls::{HeldPolls, create_topic, wait_until_waiting};
use crate::processes::footprint;
use crate::stats::{max, median, millis, rounded};
use crate::target::{Target, unexpected_response};

const FIRST_BODY: &str = "the event that creates the topic";
/// Publishes to the idle server: they warm it up, and are the figure to compare with.
const IDLE_PUBLISHES: usize = 20;

/// Sends `count` more polls, which the server has to refuse. Returns how many of the refusals have
/// a `Retry-After` of at least 1 s.
fn count_refusals_with_retry_after(
    target: Target,
    count: usize,
    request: &[u8],
) -> LoadResult<usize> {
    let mut with_retry_after = 0;
    for _ in 0..count {
        let response = Conn::connect(target.port)?.call(request)?;
        if response.status != 503 {
            return unexpected_response("a poll beyond the cap is not refused", &response);
        }
        let seconds = response.header("retry-after").and_then(|text| text.parse::<u64>().ok());
        with_retry_after += usize::from(seconds.is_some_and(|seconds| seconds > 0));
    }
    Ok(with_retry_after)
}

/// The server's `--max-polls` has to be `--polls`.
pub fn run(target: Target, args: &mut Args) -> LoadResult<Value> {
    let polls: usize = args.number("polls", 500)?;
    let beyond: usize = args.number("beyond", 50)?;
    let pid: u32 = args.number("pid", 0)?;
    args.finish()?;
    let mut control = Conn::connect(target.port)?;
    let mut idle_ms = Vec::new();
    for number in 0..IDLE_PUBLISHES {
        let started = Instant::now();
        let request = target.publish_request("other", &format!("event {number} while idle"));
        target.check_publish(&control.call(&request)?, "other")?;
        idle_ms.push(millis(started.elapsed()));
    }
    let cursor = create_topic(target, &mut control, TOPIC, FIRST_BODY)?;
    let idle = footprint(pid)?;
    let request = target.poll_request(TOPIC, &cursor);
    let mut held_polls = HeldPolls::open(target.port, polls, |_| request.clone())?;
    wait_until_waiting(target, &mut control, TOPIC, polls)?;
    let held = footprint(pid)?;
    let with_retry_after = count_refusals_with_retry_after(target, beyond, &request)?;
    let body = "the event for all held polls";
    let started = Instant::now();
    control.send(&target.publish_request(TOPIC, body))?;
    let times = held_polls
        .read_all(started, |response| target.check_poll(response, TOPIC, body).map(drop))?;
    let response = control.read_response(&mut vec![0; READ_BUFFER])?;
    let receipt = target.check_publish(&response, TOPIC)?;
    if receipt.released != polls {
        return Err(format!("a publish released {} of {polls} polls", receipt.released).into());
    }
    let times: Vec<f64> = times.into_iter().map(millis).collect();
    let growth_kib = held.resident_kib.saturating_sub(idle.resident_kib);
    Ok(json!({
        "load": "caps", "polls": polls, "beyond": beyond,
        "refused_with_retry_after": with_retry_after,
        "kib_per_poll": rounded(growth_kib as f64 / polls as f64),
        "threads_per_poll": rounded((held.threads - idle.threads) as f64 / polls as f64),
        "publish_idle_ms": rounded(median(&idle_ms)), "last_answer_ms": rounded(max(&times)),
    }))
}
