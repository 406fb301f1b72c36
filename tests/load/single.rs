//! Loads with one request at a time: the round trip, the start, and reading a long history page by
//! page.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::args::Args;
use crate::processes::Child;
use crate::rates::fill;
use crate::stats::{least, median, micros, millis, most, quantile, rounded};
use crate::target::{Cursor, Target};
use crate::wire::{Conn, Outcome, SCRATCH};

const TOPIC: &str = "bench";

/// From sending a poll to publishing: long enough for the server to hold the poll and go to sleep.
const HOLD: Duration = Duration::from_micros(150);

/// Rounds whose publish overtook the poll measure something else. They are left out, and must stay
/// rare.
const OVERTAKEN_AT_MOST: f64 = 0.05;

/// The same request again and again on one connection, for counting what it costs.
pub fn sequence(target: Target, args: &mut Args) -> Outcome<Value> {
    let kind = args.text("kind").ok_or("--kind is needed: publish or poll")?;
    let count: usize = args.number("count", 1000)?;
    args.finish()?;
    let mut conn = Conn::open(target.port)?;
    let body = format!("event {:026}", 0);
    let publish = target.publish(TOPIC, &body);
    // A full ring, so that every publish trims.
    fill(target, &mut conn, 1000)?;
    target.check_publish(&conn.call(&publish)?, TOPIC)?;
    let poll = target.poll_with(TOPIC, &Cursor::Start, "&limit=1");
    let request = match &*kind {
        "publish" => publish,
        "poll" => poll,
        other => return Err(format!("--kind {other}: publish or poll").into()),
    };
    for _ in 0..count {
        let answer = conn.call(&request)?;
        if kind == "publish" {
            target.check_publish(&answer, TOPIC)?;
        }
    }
    Ok(json!({ "load": "sequence", "kind": kind, "count": count }))
}

pub fn round_trip(target: Target, args: &mut Args) -> Outcome<Value> {
    let rounds: usize = args.number("rounds", 3000)?;
    args.finish()?;
    let (mut publisher, mut poller) = (Conn::open(target.port)?, Conn::open(target.port)?);
    let (mut scratch, mut cursor) = (vec![0; SCRATCH], Cursor::Start);
    let (mut times, mut overtaken) = (Vec::with_capacity(rounds), 0);
    let warm_up = rounds / 10;
    for round in 0..rounds + warm_up {
        let body = format!("event {round:026}");
        let publish = target.publish(TOPIC, &body);
        poller.send(&target.poll(TOPIC, &cursor))?;
        // Spinning keeps this core awake, so that the time is the server's and not the idle
        // state's.
        let until = Instant::now() + HOLD;
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        let started = Instant::now();
        publisher.send(&publish)?;
        let answer = poller.answer(&mut scratch)?;
        let time = started.elapsed();
        let seen = target.check_poll(&answer, TOPIC, &body)?;
        let receipt = target.check_publish(&publisher.answer(&mut scratch)?, TOPIC)?;
        if receipt.seq != seen.seq {
            return Err(
                format!("published as {:?} but polled as {:?}", receipt.seq, seen.seq).into()
            );
        }
        cursor = seen.cursor;
        match receipt.released {
            0 => overtaken += 1,
            1 if round >= warm_up => times.push(micros(time)),
            1 => {}
            more => return Err(format!("the publish says it released {more} polls of one").into()),
        }
    }
    if f64::from(overtaken) > OVERTAKEN_AT_MOST * rounds as f64 {
        return Err(format!(
            "{overtaken} of {rounds} polls were not held yet when their event came"
        )
        .into());
    }
    Ok(json!({
        "load": "roundtrip", "rounds": times.len(), "overtaken": overtaken,
        "median_us": rounded(median(&times)), "p99_us": rounded(quantile(&times, 0.99)),
        "min_us": rounded(least(&times)), "max_us": rounded(most(&times)),
    }))
}

/// From the spawn of a command to the first `200` on `port`. The command must listen there.
pub fn start(target: Target, args: &mut Args) -> Outcome<Value> {
    let repeats: usize = args.number("repeats", 5)?;
    let command = args.rest()?;
    args.finish()?;
    let request = format!("GET /health HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n\r\n", target.port);
    let mut times = Vec::new();
    for _ in 0..repeats {
        let started = Instant::now();
        let mut child = Child::spawn(&command)?;
        let status = loop {
            // `open` would retry too, but with a coarser pause than this measurement can bear.
            if let Ok(mut conn) = Conn::open_once(target.port) {
                break conn.call(request.as_bytes())?.status;
            }
            if started.elapsed() > Duration::from_secs(10) || child.has_ended()? {
                return Err("the command did not come to answer".into());
            }
            std::thread::sleep(Duration::from_micros(50));
        };
        times.push(millis(started.elapsed()));
        if status != 200 {
            return Err(format!("the first answer's status was {status}").into());
        }
        child.stop()?;
    }
    Ok(json!({
        "load": "start", "repeats": repeats,
        "median_ms": rounded(median(&times)), "min_ms": rounded(least(&times)), "max_ms": rounded(most(&times)),
    }))
}

/// Reads `events` events from the start in pages of 1,000, following `next`, and checks that none
/// is missing.
pub fn pages(target: Target, args: &mut Args) -> Outcome<Value> {
    let events: usize = args.number("events", 10_000)?;
    let repeats: usize = args.number("repeats", 5)?;
    args.finish()?;
    let mut control = Conn::open(target.port)?;
    fill(target, &mut control, events)?;
    let (mut scratch, mut page_ms, mut whole_ms) = (vec![0; SCRATCH], Vec::new(), Vec::new());
    for _ in 0..repeats {
        let (mut cursor, mut seen, mut whole, mut expected) = (Cursor::Start, 0, 0.0, None);
        loop {
            let request = target.poll_with(TOPIC, &cursor, "&wait=0&limit=1000");
            let started = Instant::now();
            control.send(&request)?;
            let answer = control.answer(&mut scratch)?;
            let time = millis(started.elapsed());
            page_ms.push(time);
            whole += time;
            let page: Value = serde_json::from_slice(answer.body())?;
            let list = page["events"].as_array().ok_or("a page without events")?;
            for event in list {
                let seq = event["seq"].as_u64().ok_or("an event without seq")?;
                if expected.is_some_and(|expected| expected != seq) {
                    return Err(format!("seq {seq} came where {expected:?} was due").into());
                }
                expected = Some(seq + 1);
            }
            seen += list.len();
            cursor = Cursor::After(
                answer.header("next-cursor").ok_or("a page without Next-Cursor")?.into(),
            );
            if page["more"] != true {
                break;
            }
        }
        if seen != events {
            return Err(format!("{seen} events were read of {events}").into());
        }
        whole_ms.push(whole);
    }
    Ok(json!({
        "load": "pages", "events": events, "repeats": repeats,
        "page_ms": rounded(median(&page_ms)), "page_max_ms": rounded(most(&page_ms)),
        "whole_ms": rounded(median(&whole_ms)),
        "us_per_event": rounded(median(&whole_ms) * 1e3 / events.max(1) as f64),
    }))
}
