//! Loads with one request at a time: the round trip from publish to poll, the time to start,
//! reading a long history in pages, and the same request repeated.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::LoadResult;
use crate::args::Args;
use crate::conn::{Conn, READ_BUFFER};
use crate::processes::ChildProcess;
use crate::stats::{max, median, micros, millis, min, quantile, rounded};
use crate::target::{Cursor, Target};
use crate::throughput::publish_events;

const TOPIC: &str = "bench";

/// From sending a poll to publishing: long enough for the server to hold the poll and block.
const HOLD_TIME: Duration = Duration::from_micros(150);

/// The largest allowed share of rounds in which the publish overtook the poll. Such rounds measure
/// something else and are not counted.
const MAX_OVERTAKEN_SHARE: f64 = 0.05;

/// Repeats one request on one connection; scripts/instructions.sh counts its instructions.
pub fn sequence(target: Target, args: &mut Args) -> LoadResult<Value> {
    let kind = args.required("kind")?;
    let count: usize = args.number("count", 1000)?;
    args.finish()?;
    let mut conn = Conn::connect(target.port)?;
    let body = format!("event {:026}", 0);
    let publish = target.publish_request(TOPIC, &body);
    // The history is full, so that every publish trims the oldest event.
    publish_events(target, &mut conn, 1000)?;
    target.check_publish(&conn.call(&publish)?, TOPIC)?;
    let poll = target.poll_request_with(TOPIC, &Cursor::Start, "&limit=1");
    let request = match &*kind {
        "publish" => publish,
        "poll" => poll,
        other => return Err(format!("--kind {other}: expected publish or poll").into()),
    };
    for _ in 0..count {
        let response = conn.call(&request)?;
        if kind == "publish" {
            target.check_publish(&response, TOPIC)?;
        }
    }
    Ok(json!({ "load": "sequence", "kind": kind, "count": count }))
}

pub fn round_trip(target: Target, args: &mut Args) -> LoadResult<Value> {
    let rounds: usize = args.number("rounds", 3000)?;
    args.finish()?;
    let (mut publisher, mut poller) = (Conn::connect(target.port)?, Conn::connect(target.port)?);
    let (mut buffer, mut cursor) = (vec![0; READ_BUFFER], Cursor::Start);
    let (mut times, mut overtaken) = (Vec::with_capacity(rounds), 0);
    let warm_up = rounds / 10;
    for round in 0..rounds + warm_up {
        let body = format!("event {round:026}");
        let publish = target.publish_request(TOPIC, &body);
        poller.send(&target.poll_request(TOPIC, &cursor))?;
        // Spinning keeps this core out of its idle states, whose exit latency would be measured as
        // the server's.
        let publish_at = Instant::now() + HOLD_TIME;
        while Instant::now() < publish_at {
            std::hint::spin_loop();
        }
        let started = Instant::now();
        publisher.send(&publish)?;
        let response = poller.read_response(&mut buffer)?;
        let time = started.elapsed();
        let event = target.check_poll(&response, TOPIC, &body)?;
        let receipt = target.check_publish(&publisher.read_response(&mut buffer)?, TOPIC)?;
        if receipt.seq != event.seq {
            return Err(format!(
                "published with seq {:?} but polled with seq {:?}",
                receipt.seq, event.seq
            )
            .into());
        }
        cursor = event.cursor;
        match receipt.released {
            0 => overtaken += 1,
            1 if round >= warm_up => times.push(micros(time)),
            1 => {}
            more => {
                return Err(
                    format!("the publish reports {more} released polls instead of 1").into()
                );
            }
        }
    }
    if f64::from(overtaken) > MAX_OVERTAKEN_SHARE * rounds as f64 {
        return Err(format!(
            "{overtaken} of {rounds} polls were not held yet when their event was published"
        )
        .into());
    }
    Ok(json!({
        "load": "roundtrip", "rounds": times.len(), "overtaken": overtaken,
        "median_us": rounded(median(&times)), "p99_us": rounded(quantile(&times, 0.99)),
        "min_us": rounded(min(&times)), "max_us": rounded(max(&times)),
    }))
}

/// The time from spawning a command to its first `200`. It has to listen on the target's port.
pub fn start(target: Target, args: &mut Args) -> LoadResult<Value> {
    let repeats: usize = args.number("repeats", 5)?;
    let command = args.command()?;
    args.finish()?;
    let request = format!("GET /health HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n\r\n", target.port);
    let mut times = Vec::new();
    for _ in 0..repeats {
        let started = Instant::now();
        let mut child = ChildProcess::spawn(&command)?;
        let status = loop {
            // `connect` also retries, but its pause is too long for this measurement.
            if let Ok(mut conn) = Conn::connect_once(target.port) {
                break conn.call(request.as_bytes())?.status;
            }
            if started.elapsed() > Duration::from_secs(10) || child.has_ended()? {
                return Err("the command does not accept connections".into());
            }
            std::thread::sleep(Duration::from_micros(50));
        };
        times.push(millis(started.elapsed()));
        if status != 200 {
            return Err(format!("the first response has status {status}").into());
        }
        child.stop()?;
    }
    Ok(json!({
        "load": "start", "repeats": repeats,
        "median_ms": rounded(median(&times)), "min_ms": rounded(min(&times)), "max_ms": rounded(max(&times)),
    }))
}

/// The time to read `events` events from the start in pages of 1,000; checks that none is missing.
pub fn pages(target: Target, args: &mut Args) -> LoadResult<Value> {
    let events: usize = args.number("events", 10_000)?;
    let repeats: usize = args.number("repeats", 5)?;
    args.finish()?;
    let mut control = Conn::connect(target.port)?;
    publish_events(target, &mut control, events)?;
    let (mut buffer, mut page_ms, mut whole_ms) = (vec![0; READ_BUFFER], Vec::new(), Vec::new());
    for _ in 0..repeats {
        let (mut cursor, mut count, mut total, mut expected) = (Cursor::Start, 0, 0.0, None);
        loop {
            let request = target.poll_request_with(TOPIC, &cursor, "&wait=0&limit=1000");
            let started = Instant::now();
            control.send(&request)?;
            let response = control.read_response(&mut buffer)?;
            let time = millis(started.elapsed());
            page_ms.push(time);
            total += time;
            let page: Value = serde_json::from_slice(response.body())?;
            let list = page["events"].as_array().ok_or("a page without events")?;
            for event in list {
                let seq = event["seq"].as_u64().ok_or("an event without seq")?;
                if expected.is_some_and(|expected| expected != seq) {
                    return Err(format!("seq {seq} arrived instead of {expected:?}").into());
                }
                expected = Some(seq + 1);
            }
            count += list.len();
            cursor = Cursor::After(
                response.header("next-cursor").ok_or("a page without Next-Cursor")?.into(),
            );
            if page["more"] != true {
                break;
            }
        }
        if count != events {
            return Err(format!("{count} events were read instead of {events}").into());
        }
        whole_ms.push(total);
    }
    Ok(json!({
        "load": "pages", "events": events, "repeats": repeats,
        "page_ms": rounded(median(&page_ms)), "page_max_ms": rounded(max(&page_ms)),
        "whole_ms": rounded(median(&whole_ms)),
        "us_per_event": rounded(median(&whole_ms) * 1e3 / events.max(1) as f64),
    }))
}
