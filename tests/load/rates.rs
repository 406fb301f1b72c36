//! Sixteen connections with exactly one request outstanding on each: publishes, or polls that are
//! answered at once.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::args::Args;
use crate::flock::{Flock, seed, wait_held};
use crate::stats::{millis, rounded};
use crate::target::{Cursor, Dialect, Target};
use crate::wire::{Answer, Conn, Got, Outcome, PATIENCE, SCRATCH, Watch};

const TOPIC: &str = "bench";
const BODY: &str = "thirty-two bytes make this event";

/// Answers before this do not count: allocators and branch predictors are still cold.
const WARM_UP: Duration = Duration::from_millis(300);

/// One answer in this many is checked in full; all are checked for status and seq.
const FULL_CHECK: u64 = 256;

/// Before a load of publishes: what the server has to carry meanwhile.
struct Burden {
    topics: usize,
    retained: usize,
    prefix_polls: usize,
    other_polls: usize,
}

struct Rate {
    answers: u64,
    counted: u64,
    per_second: f64,
    /// The longest time without any answer: a server that stalls shows here first.
    longest_gap: Duration,
}

/// `request(n)` is the nth request of all; `check` sees every answer that differs from the last one
/// it passed.
fn drive<'r>(
    port: u16,
    connections: usize,
    time: Duration,
    mut request: impl FnMut(u64) -> &'r [u8],
    mut check: impl FnMut(&Answer, usize) -> Outcome<()>,
) -> Outcome<Rate> {
    let mut watch = Watch::new()?;
    let mut conns = Vec::new();
    let (mut sent, mut answers) = (0, 0);
    for token in 0..connections {
        let mut conn = Conn::open(port)?;
        conn.unblock()?;
        watch.add_conn(&conn, token)?;
        conn.send(request(sent))?;
        sent += 1;
        conns.push(conn);
    }
    let counting_from = Instant::now() + WARM_UP;
    let until = counting_from + time;
    let (mut first, mut last) = (None, (counting_from, 0));
    let (mut scratch, mut pattern, mut ready) = (vec![0; SCRATCH], Vec::new(), Vec::new());
    let (mut longest_gap, mut last_batch) = (Duration::ZERO, counting_from);
    while answers < sent {
        watch.wait(PATIENCE, &mut ready)?;
        if ready.is_empty() {
            return Err(format!("{} requests are still unanswered", sent - answers).into());
        }
        for &token in &ready {
            match conns[token].receive(&mut scratch, &pattern)? {
                Got::Nothing => continue,
                Got::Same => {}
                Got::Answer(answer) => {
                    check(&answer, token)?;
                    pattern.clear();
                    pattern.extend_from_slice(answer.bytes());
                }
            }
            answers += 1;
            if last.0 < until {
                conns[token].send(request(sent))?;
                sent += 1;
            }
        }
        let now = Instant::now();
        if now >= counting_from {
            longest_gap = longest_gap.max(now - last_batch);
        }
        last_batch = now;
        if now < until || last.0 < until {
            last = (now, answers);
        }
        if first.is_none() && now >= counting_from {
            first = Some(last);
        }
    }
    let first = first.ok_or("the run was shorter than its warm-up")?;
    let counted = last.1 - first.1;
    let per_second = counted as f64 / (last.0 - first.0).as_secs_f64();
    Ok(Rate { answers, counted, per_second, longest_gap })
}

fn prepare(target: Target, control: &mut Conn, burden: &Burden) -> Outcome<Vec<Flock>> {
    for topic in 0..burden.topics.saturating_sub(1) {
        let answer = control.call(&target.publish(&format!("topic.{topic}"), BODY))?;
        target.check_publish_quick(&answer)?;
    }
    fill(target, control, burden.retained)?;
    let mut flocks = Vec::new();
    if burden.other_polls > 0 {
        let request = |token| target.poll(&format!("other.{token}"), &Cursor::Start);
        flocks.push(Flock::open(target.port, burden.other_polls, request)?);
    }
    if burden.prefix_polls > 0 {
        if target.dialect == Dialect::Nchan {
            return Err("nchan has no polls of a prefix".into());
        }
        let request = |_| target.poll("elsewhere.*", &Cursor::Start);
        flocks.push(Flock::open(target.port, burden.prefix_polls, request)?);
    }
    wait_held(target, control, burden.other_polls + burden.prefix_polls)?;
    Ok(flocks)
}

/// Publishes `count` events to the bench topic, in batches where the server takes them.
pub fn fill(target: Target, control: &mut Conn, count: usize) -> Outcome<()> {
    let mut left = count;
    while left > 0 {
        let batch = if target.dialect == Dialect::Longpoll { left.min(1000) } else { 1 };
        let answer = if batch > 1 {
            let lines = format!("\"{BODY}\"\n").repeat(batch);
            control.call(&target.publish_as(TOPIC, &lines, "application/x-ndjson"))?
        } else {
            control.call(&target.publish(TOPIC, BODY))?
        };
        target.check_publish_quick(&answer)?;
        left -= batch;
    }
    Ok(())
}

pub fn publish(target: Target, args: &mut Args) -> Outcome<Value> {
    let connections: usize = args.number("connections", 16)?;
    let time = Duration::from_secs_f64(args.number("seconds", 2.0)?);
    let burden = Burden {
        topics: args.number("topics", 1)?,
        retained: args.number("retained", 0)?,
        prefix_polls: args.number("prefix-polls", 0)?,
        other_polls: args.number("other-polls", 0)?,
    };
    args.finish()?;
    let mut control = Conn::open(target.port)?;
    let flocks = prepare(target, &mut control, &burden)?;
    let mut requests = vec![target.publish(TOPIC, BODY)];
    requests.extend(
        (1..burden.topics).map(|topic| target.publish(&format!("topic.{}", topic - 1), BODY)),
    );

    let before =
        if target.dialect == Dialect::Nchan { target.published(&mut control)? as u64 } else { 0 };
    let mut latest = vec![0; connections];
    let (mut low, mut high, mut checked) = (u64::MAX, 0, 0u64);
    let rate = drive(
        target.port,
        connections,
        time,
        |n| &requests[(n % requests.len() as u64) as usize],
        |answer, token| {
            checked += 1;
            if checked % FULL_CHECK == 0 && requests.len() == 1 {
                target.check_publish(answer, TOPIC)?;
            }
            if let Some(seq) = target.check_publish_quick(answer)? {
                if seq <= latest[token] {
                    return Err(format!(
                        "seq {seq} came after {} on one connection",
                        latest[token]
                    )
                    .into());
                }
                latest[token] = seq;
                (low, high) = (low.min(seq), high.max(seq));
            }
            Ok(())
        },
    )?;
    // Nobody else publishes, so the seqs must be one unbroken run.
    let stored = match target.dialect {
        Dialect::Longpoll => high - low + 1,
        Dialect::Nchan => target.published(&mut control)? as u64 - before,
    };
    if stored != rate.answers {
        return Err(
            format!("{} publishes were acknowledged but {stored} stored", rate.answers).into()
        );
    }
    wait_held(target, &mut control, burden.other_polls + burden.prefix_polls)?;
    drop(flocks);
    Ok(json!({
        "load": "publish", "connections": connections, "topics": burden.topics, "retained": burden.retained,
        "prefix_polls": burden.prefix_polls, "other_polls": burden.other_polls, "counted": rate.counted,
        "thousand_per_second": rounded(rate.per_second / 1e3), "us_each": rounded(1e6 / rate.per_second),
        "longest_gap_ms": rounded(millis(rate.longest_gap)),
    }))
}

pub fn poll(target: Target, args: &mut Args) -> Outcome<Value> {
    let connections: usize = args.number("connections", 16)?;
    let time = Duration::from_secs_f64(args.number("seconds", 2.0)?);
    args.finish()?;
    let mut control = Conn::open(target.port)?;
    let before = "the event just before the cursor";
    let cursor = seed(target, &mut control, TOPIC, before)?;
    let receipt = target.check_publish(&control.call(&target.publish(TOPIC, BODY))?, TOPIC)?;
    let request = target.poll(TOPIC, &cursor);
    let rate = drive(
        target.port,
        connections,
        time,
        |_| &request,
        |answer, _| {
            if target.check_poll(answer, TOPIC, BODY)?.seq != receipt.seq {
                return Err("a poll was given the wrong event".into());
            }
            Ok(())
        },
    )?;
    Ok(json!({
        "load": "poll", "connections": connections, "counted": rate.counted,
        "thousand_per_second": rounded(rate.per_second / 1e3), "us_each": rounded(1e6 / rate.per_second),
        "longest_gap_ms": rounded(millis(rate.longest_gap)),
    }))
}
