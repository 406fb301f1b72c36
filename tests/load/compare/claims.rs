//! What is commonly said of long polling, each with a verdict that is computed from the rows.

use serde_json::{Value, json};

use super::row::{Row, Rows, clients, grouped, shown, time};
use crate::stats::{least, most};

/// Figures of two runs that are closer than this factor are the same.
const SAME: f64 = 1.2;
/// Within so many ms people feel that something happens at once.
const AT_ONCE: f64 = 100.0;

#[derive(Clone, Copy, PartialEq)]
pub enum Verdict {
    True,
    Wrong,
    Depends,
}

impl Verdict {
    pub fn word(self) -> &'static str {
        match self {
            Verdict::True => "true",
            Verdict::Wrong => "wrong",
            Verdict::Depends => "depends",
        }
    }

    /// Of a claim that may hold in some of the cases only.
    fn of(cases: impl IntoIterator<Item = bool>) -> Verdict {
        let cases: Vec<bool> = cases.into_iter().collect();
        match cases.iter().filter(|holds| **holds).count() {
            0 => Verdict::Wrong,
            count if count == cases.len() => Verdict::True,
            _ => Verdict::Depends,
        }
    }
}

pub struct Claim {
    pub said: &'static str,
    pub verdict: Verdict,
    pub because: String,
}

impl Claim {
    pub fn json(&self) -> Value {
        json!({ "claim": self.said, "verdict": self.verdict.word(), "because": self.because })
    }
}

/// A claim whose rows were not measured is left out.
pub fn claims(rows: &Rows, caps: Option<&Value>) -> Vec<Claim> {
    let all = [
        less_load(rows),
        near_real_time(rows),
        connection_each_time(rows),
        connection_if_closed(rows),
        lost_between_polls(rows),
        order_careless(rows),
        order_by_cursor(rows),
        caps.and_then(exhausts),
        above_websocket(rows),
        headers_for_each(rows),
    ];
    all.into_iter().flatten().collect()
}

fn spread(values: &[f64]) -> String {
    match [least(values), most(values)].map(time) {
        [low, high] if low == high => low,
        [low, high] => format!("{low} to {high}"),
    }
}

fn place(row: &Row) -> String {
    match &*row.workload {
        "far" => format!("busy, {} ms away", row.round_trip),
        near => format!("{near}, {}", clients(row.clients)),
    }
}

fn less_load(rows: &Rows) -> Option<Claim> {
    let count = rows.most_clients();
    let (mut cases, mut because) = (Vec::new(), Vec::new());
    for workload in ["quiet", "busy"] {
        let long = rows.find(workload, "long", count)?;
        let figures =
            |row: &Row| format!("{} and {}", shown(row.per_minute(row.requests)), shown(row.cpu));
        let mut others = Vec::new();
        for short in rows.short(workload, count) {
            cases.push(long.cpu * SAME < short.cpu);
            others.push(format!("{} every {} s", figures(short), short.interval()));
        }
        because.push(format!("{workload} {}, polling {}", figures(long), others.join(", ")));
    }
    let busy = rows.find("busy", "long", count)?;
    Some(Claim {
        said: "reduces server load against polling",
        verdict: Verdict::of(cases),
        because: format!(
            "requests per client-minute and CPU in ms/s, {}: {}. It asks {} times per event, so \
             less often than polling only while events are rarer than polls would be",
            clients(count),
            because.join("; "),
            shown(busy.per_event(busy.requests)),
        ),
    })
}

fn near_real_time(rows: &Rows) -> Option<Claim> {
    let medians: Vec<f64> = rows.of("long").map(|row| row.median).collect();
    let slowest = rows.of("long").max_by(|a, b| a.p99.total_cmp(&b.p99))?;
    let short: Vec<String> = rows
        .short("busy", rows.most_clients())
        .iter()
        .map(|row| format!("{} every {} s", time(row.median), row.interval()))
        .collect();
    Some(Claim {
        said: "near real time",
        verdict: Verdict::of(rows.of("long").map(|row| row.p99 <= AT_ONCE)),
        because: format!(
            "medians {}, and 99 % within {} in the slowest row ({}); up to {AT_ONCE} ms feel like \
             at once. Polling: {}",
            spread(&medians),
            time(slowest.p99),
            place(slowest),
            short.join(", "),
        ),
    })
}

fn connection_each_time(rows: &Rows) -> Option<Claim> {
    let long: Vec<&Row> = rows.of("long").collect();
    let sum = |of: fn(&Row) -> u64| long.iter().map(|row| of(row)).sum::<u64>();
    (!long.is_empty()).then(|| Claim {
        said: "costs a new connection each time: with keep-alive",
        verdict: Verdict::of(long.iter().map(|row| row.connections > row.clients)),
        because: format!(
            "{} clients opened {} connections and sent {} requests on them",
            grouped(sum(|row| row.clients)),
            grouped(sum(|row| row.connections)),
            grouped(sum(|row| row.requests)),
        ),
    })
}

fn connection_if_closed(rows: &Rows) -> Option<Claim> {
    let count = rows.most_clients();
    let anew = rows.find("busy", "long-anew", count)?;
    let kept = rows.find("busy", "long", count)?;
    Some(Claim {
        said: "costs a new connection each time: without keep-alive",
        verdict: Verdict::of(rows.of("long-anew").map(|row| row.connections >= row.requests)),
        because: format!(
            "{} connections for {} requests (busy, {}); that takes {} times the CPU of keep-alive, and \
             the median is {} instead of {}",
            grouped(anew.connections),
            grouped(anew.requests),
            clients(count),
            shown(anew.cpu / kept.cpu),
            time(anew.median),
            time(kept.median),
        ),
    })
}

fn lost_between_polls(rows: &Rows) -> Option<Claim> {
    let share = |row: &Row| 100.0 * row.lost as f64 / (row.events * row.clients) as f64;
    let told =
        |row: &Row| format!("{} % ({}, {})", shown(share(row)), row.workload, clients(row.clients));
    let naive = rows.of("naive-long").max_by(|a, b| share(a).total_cmp(&share(b)))?;
    let short = rows
        .0
        .iter()
        .filter(|row| row.is_of("naive-short"))
        .max_by(|a, b| share(a).total_cmp(&share(b)))?;
    let kept: Vec<&Row> = rows.of("long").chain(rows.of("long-anew")).collect();
    let lost: u64 = kept.iter().map(|row| row.lost).sum();
    let due: u64 = kept.iter().map(|row| row.events * row.clients).sum();
    Some(Claim {
        said: "loses what is published between two polls",
        verdict: Verdict::of([naive.lost > 0, lost > 0]),
        because: format!(
            "without a cursor up to {}, and of short polls {}; with a cursor {lost} of {}",
            told(naive),
            told(short),
            grouped(due),
        ),
    })
}

fn order(rows: &Rows, method: &str, said: &'static str) -> Option<Claim> {
    let row = rows.of(method).next()?;
    Some(Claim {
        said,
        verdict: Verdict::of([row.repeated + row.backwards + row.lost > 0]),
        because: format!(
            "of {} events due, {} came twice, {} out of order, and {} never",
            grouped(row.events * row.clients),
            grouped(row.repeated),
            grouped(row.backwards),
            grouped(row.lost),
        ),
    })
}

fn order_careless(rows: &Rows) -> Option<Claim> {
    order(
        rows,
        "two-loose",
        "ordering is a problem with several open requests: each answer taken as it comes",
    )
}

fn order_by_cursor(rows: &Rows) -> Option<Claim> {
    order(
        rows,
        "two-strict",
        "ordering is a problem with several open requests: only what is beyond the cursor taken",
    )
}

fn exhausts(caps: &Value) -> Option<Claim> {
    let figure = |name: &str| caps[name].as_f64();
    let (kib, threads) = (figure("kib_per_poll")?, figure("threads_per_poll")?);
    let (beyond, told) = (figure("beyond")?, figure("told_when_to_come_back")?);
    Some(Claim {
        said: "can exhaust the server's resources",
        // What a held poll takes is true of every server; what is refused in time is not held.
        verdict: if told < beyond { Verdict::True } else { Verdict::Depends },
        because: format!(
            "a held poll takes {} KiB and {} thread: {} of them to the GiB. Here they have a cap: \
             with all {} places taken, {told} of {beyond} more were answered 503 with Retry-After, \
             and a publish still reached all that were held within {}",
            shown(kib),
            shown(threads),
            shown(1024.0 * 1024.0 / kib),
            grouped(caps["polls"].as_u64()?),
            time(figure("last_answer_ms")?),
        ),
    })
}

fn above_websocket(rows: &Rows) -> Option<Claim> {
    let mut pairs = Vec::new();
    for long in rows.of("long") {
        pairs.push((long, rows.find(&long.workload, "websocket", long.clients)?));
    }
    let told: Vec<String> = pairs
        .iter()
        .map(|(long, socket)| {
            format!("{} and {} ({})", time(long.median), time(socket.median), place(long))
        })
        .collect();
    (!pairs.is_empty()).then(|| Claim {
        said: "latency above WebSocket",
        verdict: Verdict::of(pairs.iter().map(|(long, ws)| long.median > ws.median * SAME)),
        because: format!(
            "medians of the two: {}. What comes while the next poll is on its way waits for it",
            told.join(", ")
        ),
    })
}

fn headers_for_each(rows: &Rows) -> Option<Claim> {
    let count = rows.most_clients();
    let (long, socket) =
        (rows.find("busy", "long", count)?, rows.find("busy", "websocket", count)?);
    let bytes = |row: &Row| row.per_event(row.sent + row.received);
    Some(Claim {
        said: "each event carries the headers of a request and an answer",
        verdict: Verdict::of([bytes(long) > bytes(socket) * SAME]),
        because: format!(
            "{} bytes per event instead of {} over WebSocket, with the fewest headers possible; \
             browsers send some hundred bytes more",
            shown(bytes(long)),
            shown(bytes(socket)),
        ),
    })
}
