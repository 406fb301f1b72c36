//! Closed-loop throughput: each of 16 connections has exactly one request outstanding, a publish or
//! a poll that returns an event immediately.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::LoadResult;
use crate::args::Args;
use crate::conn::{Conn, READ_BUFFER, RESPONSE_TIMEOUT, Received, Response};
use crate::epoll::Epoll;
use crate::held_polls::{HeldPolls, create_topic, wait_until_held};
use crate::stats::{millis, rounded};
use crate::target::{Cursor, ServerKind, Target};

const TOPIC: &str = "bench";
/// The floor server accepts only events of 32 bytes.
const BODY: &str = "thirty-two bytes make this event";
const BODY_BEFORE_CURSOR: &str = "the event just before the cursor";

/// Responses during the warm-up are not counted: allocators and branch predictors are still cold.
const WARM_UP: Duration = Duration::from_millis(300);

/// One publish response in this many is checked in full; of all others, status and seq are checked.
const FULL_CHECK_EVERY: u64 = 256;

/// The most events in one publish.
const BATCH: usize = 1000;

/// What the server holds while publishes are measured.
struct Background {
    /// The number of topics that the publishes go to in turn.
    topics: usize,
    /// Events in the topic's history.
    retained: usize,
    /// Held polls of a prefix that no publish matches.
    prefix_polls: usize,
    /// Held polls that each wait for another topic.
    other_polls: usize,
}

impl Background {
    fn polls(&self) -> usize {
        self.prefix_polls + self.other_polls
    }

    /// Creates it; the polls are held until the returned connections are dropped.
    fn set_up(&self, target: Target, control: &mut Conn) -> LoadResult<Vec<HeldPolls>> {
        for topic in 0..self.topics.saturating_sub(1) {
            let request = target.publish_request(&format!("topic.{topic}"), BODY);
            target.check_publish_quick(&control.call(&request)?)?;
        }
        publish_events(target, control, self.retained)?;
        let mut held = Vec::new();
        if self.other_polls > 0 {
            let request = |i| target.poll_request(&format!("other.{i}"), &Cursor::Start);
            held.push(HeldPolls::open(target.port, self.other_polls, request)?);
        }
        if self.prefix_polls > 0 {
            if target.kind == ServerKind::Nchan {
                return Err("nchan has no polls of a prefix".into());
            }
            let request = |_| target.poll_request("elsewhere.*", &Cursor::Start);
            held.push(HeldPolls::open(target.port, self.prefix_polls, request)?);
        }
        wait_until_held(target, control, self.polls())?;
        Ok(held)
    }
}

struct Throughput {
    /// All responses, those during the warm-up included.
    responses: u64,
    counted: u64,
    per_second: f64,
    /// The longest time without any response, which shows a server that stalls.
    longest_gap: Duration,
}

/// Counts responses after the warm-up.
struct Meter {
    starts: Instant,
    ends: Instant,
    responses: u64,
    /// The first and the last batch of responses that count, as time and responses until then.
    first: Option<(Instant, u64)>,
    last: (Instant, u64),
    last_batch: Instant,
    longest_gap: Duration,
}

impl Meter {
    fn new(time: Duration) -> Meter {
        let starts = Instant::now() + WARM_UP;
        Meter {
            starts,
            ends: starts + time,
            responses: 0,
            first: None,
            last: (starts, 0),
            last_batch: starts,
            longest_gap: Duration::ZERO,
        }
    }

    fn is_over(&self) -> bool {
        self.last.0 >= self.ends
    }

    /// Records the time after a batch of responses has been read.
    fn record_batch(&mut self) {
        let now = Instant::now();
        if now >= self.starts {
            self.longest_gap = self.longest_gap.max(now - self.last_batch);
        }
        self.last_batch = now;
        if now < self.ends || !self.is_over() {
            self.last = (now, self.responses);
        }
        if self.first.is_none() && now >= self.starts {
            self.first = Some(self.last);
        }
    }

    fn throughput(self) -> LoadResult<Throughput> {
        let first = self.first.ok_or("the run was shorter than its warm-up")?;
        let counted = self.last.1 - first.1;
        let per_second = counted as f64 / (self.last.0 - first.0).as_secs_f64();
        let Meter { responses, longest_gap, .. } = self;
        Ok(Throughput { responses, counted, per_second, longest_gap })
    }
}

/// Sends request `n` of all as soon as a connection is free for it. Calls `check` for each response
/// that differs from the last checked one, with the index of its connection.
fn run_closed_loop<'r>(
    port: u16,
    connections: usize,
    time: Duration,
    mut request: impl FnMut(u64) -> &'r [u8],
    mut check: impl FnMut(&Response, usize) -> LoadResult<()>,
) -> LoadResult<Throughput> {
    let mut epoll = Epoll::new()?;
    let mut conns = Vec::new();
    let mut sent = 0;
    for token in 0..connections {
        let mut conn = Conn::connect(port)?;
        conn.set_nonblocking()?;
        epoll.add(&conn, token)?;
        conn.send(request(sent))?;
        sent += 1;
        conns.push(conn);
    }
    let mut meter = Meter::new(time);
    let (mut buffer, mut checked, mut ready) = (vec![0; READ_BUFFER], Vec::new(), Vec::new());
    while meter.responses < sent {
        epoll.wait(RESPONSE_TIMEOUT, &mut ready)?;
        if ready.is_empty() {
            let missing = sent - meter.responses;
            return Err(format!("{missing} requests are still unanswered").into());
        }
        for &token in &ready {
            match conns[token].receive(&mut buffer, &checked)? {
                Received::Incomplete => continue,
                Received::AsExpected => {}
                Received::Response(response) => {
                    check(&response, token)?;
                    checked.clear();
                    checked.extend_from_slice(response.bytes());
                }
            }
            meter.responses += 1;
            if !meter.is_over() {
                conns[token].send(request(sent))?;
                sent += 1;
            }
        }
        meter.record_batch();
    }
    meter.throughput()
}

/// Publishes `count` events to the bench topic, in batches where the server accepts them.
pub fn publish_events(target: Target, control: &mut Conn, count: usize) -> LoadResult<()> {
    let mut missing = count;
    while missing > 0 {
        let batch = if target.kind == ServerKind::Longpoll { missing.min(BATCH) } else { 1 };
        let response = if batch > 1 {
            let lines = format!("\"{BODY}\"\n").repeat(batch);
            control.call(&target.publish_request_as(TOPIC, &lines, "application/x-ndjson"))?
        } else {
            control.call(&target.publish_request(TOPIC, BODY))?
        };
        target.check_publish_quick(&response)?;
        missing -= batch;
    }
    Ok(())
}

pub fn publish(target: Target, args: &mut Args) -> LoadResult<Value> {
    let connections: usize = args.number("connections", 16)?;
    let time = Duration::from_secs_f64(args.number("seconds", 2.0)?);
    let background = Background {
        topics: args.number("topics", 1)?,
        retained: args.number("retained", 0)?,
        prefix_polls: args.number("prefix-polls", 0)?,
        other_polls: args.number("other-polls", 0)?,
    };
    args.finish()?;
    let mut control = Conn::connect(target.port)?;
    let held_polls = background.set_up(target, &mut control)?;
    let mut requests = vec![target.publish_request(TOPIC, BODY)];
    requests.extend(
        (1..background.topics)
            .map(|topic| target.publish_request(&format!("topic.{}", topic - 1), BODY)),
    );

    let is_nchan = target.kind == ServerKind::Nchan;
    let before = if is_nchan { target.published_messages(&mut control)? as u64 } else { 0 };
    let mut latest = vec![0; connections];
    let (mut low, mut high, mut checks) = (u64::MAX, 0, 0u64);
    let throughput = run_closed_loop(
        target.port,
        connections,
        time,
        |n| &requests[(n % requests.len() as u64) as usize],
        |response, conn| {
            checks += 1;
            if checks % FULL_CHECK_EVERY == 0 && requests.len() == 1 {
                target.check_publish(response, TOPIC)?;
            }
            if let Some(seq) = target.check_publish_quick(response)? {
                let before = std::mem::replace(&mut latest[conn], seq);
                if seq <= before {
                    return Err(format!("seq {seq} after {before} on one connection").into());
                }
                (low, high) = (low.min(seq), high.max(seq));
            }
            Ok(())
        },
    )?;
    // There is no other publisher, so the seqs have no gaps.
    let stored = match target.kind {
        ServerKind::Longpoll => high - low + 1,
        ServerKind::Nchan => target.published_messages(&mut control)? as u64 - before,
    };
    let published = throughput.responses;
    if stored != published {
        return Err(format!("{published} publishes were acknowledged but {stored} stored").into());
    }
    wait_until_held(target, &mut control, background.polls())?;
    drop(held_polls);
    let Background { topics, retained, prefix_polls, other_polls } = background;
    let mut figures = json!({
        "load": "publish", "connections": connections, "topics": topics, "retained": retained,
        "prefix_polls": prefix_polls, "other_polls": other_polls,
    });
    add_figures(&mut figures, &throughput);
    Ok(figures)
}

pub fn poll(target: Target, args: &mut Args) -> LoadResult<Value> {
    let connections: usize = args.number("connections", 16)?;
    let time = Duration::from_secs_f64(args.number("seconds", 2.0)?);
    args.finish()?;
    let mut control = Conn::connect(target.port)?;
    let cursor = create_topic(target, &mut control, TOPIC, BODY_BEFORE_CURSOR)?;
    let publish = control.call(&target.publish_request(TOPIC, BODY))?;
    let receipt = target.check_publish(&publish, TOPIC)?;
    let request = target.poll_request(TOPIC, &cursor);
    let throughput = run_closed_loop(
        target.port,
        connections,
        time,
        |_| &request,
        |response, _| {
            if target.check_poll(response, TOPIC, BODY)?.seq != receipt.seq {
                return Err("a poll returned the wrong event".into());
            }
            Ok(())
        },
    )?;
    let mut figures = json!({ "load": "poll", "connections": connections });
    add_figures(&mut figures, &throughput);
    Ok(figures)
}

fn add_figures(figures: &mut Value, throughput: &Throughput) {
    figures["counted"] = throughput.counted.into();
    figures["thousand_per_second"] = rounded(throughput.per_second / 1e3).into();
    figures["us_each"] = rounded(1e6 / throughput.per_second).into();
    figures["longest_gap_ms"] = rounded(millis(throughput.longest_gap)).into();
}
