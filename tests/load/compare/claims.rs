//! Common claims about long polling, each with a verdict that is computed from the measurements.

use serde_json::{Value, json};

use super::format::{clients, count, number, time};
use super::measurement::{Measurement, Measurements};
use crate::stats::{max, min};

/// Figures that differ by less than this factor count as equal.
const EQUAL_WITHIN: f64 = 1.2;
/// A delay up to this many ms feels instant to people.
const INSTANT_MS: f64 = 100.0;

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

    /// The verdict on a claim that may hold in all, some or none of the cases.
    fn from_cases(cases: impl IntoIterator<Item = bool>) -> Verdict {
        let cases: Vec<bool> = cases.into_iter().collect();
        match cases.iter().filter(|holds| **holds).count() {
            0 => Verdict::Wrong,
            count if count == cases.len() => Verdict::True,
            _ => Verdict::Depends,
        }
    }
}

pub struct Claim {
    pub statement: &'static str,
    pub verdict: Verdict,
    pub because: String,
}

impl Claim {
    pub fn json(&self) -> Value {
        json!({ "claim": self.statement, "verdict": self.verdict.word(), "because": self.because })
    }
}

/// Leaves out a claim whose scenarios were not measured.
pub fn claims(measured: &Measurements, caps: Option<&Value>) -> Vec<Claim> {
    let all = [
        reduces_load(measured),
        near_real_time(measured),
        new_connections_with_keep_alive(measured),
        new_connections_without_keep_alive(measured),
        loses_between_polls(measured),
        unordered_if_unfiltered(measured),
        unordered_if_filtered(measured),
        caps.and_then(exhausts_resources),
        slower_than_websocket(measured),
        headers_per_event(measured),
    ];
    all.into_iter().flatten().collect()
}

fn range(values: &[f64]) -> String {
    match [min(values), max(values)].map(time) {
        [low, high] if low == high => low,
        [low, high] => format!("{low} to {high}"),
    }
}

fn workload_title(m: &Measurement) -> String {
    match &*m.workload {
        "far" => format!("busy, {} ms away", m.round_trip_ms),
        near => format!("{near}, {}", clients(m.clients)),
    }
}

fn reduces_load(measured: &Measurements) -> Option<Claim> {
    let most = measured.max_clients();
    let (mut cases, mut because) = (Vec::new(), Vec::new());
    for workload in ["quiet", "busy"] {
        let long = measured.find(workload, "long", most)?;
        let figures = |m: &Measurement| {
            format!("{} and {}", number(m.per_client_minute(m.requests)), number(m.cpu))
        };
        let mut others = Vec::new();
        for short in measured.short_polls(workload, most) {
            cases.push(long.cpu * EQUAL_WITHIN < short.cpu);
            others.push(format!("{} every {} s", figures(short), short.interval_seconds()));
        }
        because.push(format!("{workload} {}, polling {}", figures(long), others.join(", ")));
    }
    let busy = measured.find("busy", "long", most)?;
    Some(Claim {
        statement: "reduces server load against polling",
        verdict: Verdict::from_cases(cases),
        because: format!(
            "requests per client-minute and CPU in ms/s, {}: {}. Long polling sends {} requests per \
             event, so it sends fewer than polling only while events are rarer than polls would be",
            clients(most),
            because.join("; "),
            number(busy.per_event(busy.requests)),
        ),
    })
}

fn near_real_time(measured: &Measurements) -> Option<Claim> {
    let medians: Vec<f64> = measured.of_method("long").map(|m| m.median_ms).collect();
    let slowest = measured.of_method("long").max_by(|a, b| a.p99_ms.total_cmp(&b.p99_ms))?;
    let short: Vec<String> = measured
        .short_polls("busy", measured.max_clients())
        .iter()
        .map(|m| format!("{} every {} s", time(m.median_ms), m.interval_seconds()))
        .collect();
    Some(Claim {
        statement: "near real time",
        verdict: Verdict::from_cases(measured.of_method("long").map(|m| m.p99_ms <= INSTANT_MS)),
        because: format!(
            "medians {}, and 99 % within {} in the slowest row ({}); up to {INSTANT_MS} ms feel \
             instant. Polling: {}",
            range(&medians),
            time(slowest.p99_ms),
            workload_title(slowest),
            short.join(", "),
        ),
    })
}

fn new_connections_with_keep_alive(measured: &Measurements) -> Option<Claim> {
    let long: Vec<&Measurement> = measured.of_method("long").collect();
    let sum = |of: fn(&Measurement) -> u64| long.iter().map(|m| of(m)).sum::<u64>();
    (!long.is_empty()).then(|| Claim {
        statement: "costs a new connection each time: with keep-alive",
        verdict: Verdict::from_cases(long.iter().map(|m| m.connections > m.clients)),
        because: format!(
            "{} clients opened {} connections and sent {} requests on them",
            count(sum(|m| m.clients)),
            count(sum(|m| m.connections)),
            count(sum(|m| m.requests)),
        ),
    })
}

fn new_connections_without_keep_alive(measured: &Measurements) -> Option<Claim> {
    let most = measured.max_clients();
    let anew = measured.find("busy", "long-anew", most)?;
    let kept = measured.find("busy", "long", most)?;
    Some(Claim {
        statement: "costs a new connection each time: without keep-alive",
        verdict: Verdict::from_cases(
            measured.of_method("long-anew").map(|m| m.connections >= m.requests),
        ),
        because: format!(
            "{} connections for {} requests (busy, {}); that takes {} times the CPU of keep-alive, and \
             the median is {} instead of {}",
            count(anew.connections),
            count(anew.requests),
            clients(most),
            number(anew.cpu / kept.cpu),
            time(anew.median_ms),
            time(kept.median_ms),
        ),
    })
}

fn loses_between_polls(measured: &Measurements) -> Option<Claim> {
    let share = |m: &Measurement| 100.0 * m.lost as f64 / m.expected_deliveries() as f64;
    let describe = |m: &Measurement| {
        format!("{} % ({}, {})", number(share(m)), m.workload, clients(m.clients))
    };
    let naive = measured.of_method("naive-long").max_by(|a, b| share(a).total_cmp(&share(b)))?;
    let short = measured
        .0
        .iter()
        .filter(|m| m.is_in_family("naive-short"))
        .max_by(|a, b| share(a).total_cmp(&share(b)))?;
    let kept: Vec<&Measurement> =
        measured.of_method("long").chain(measured.of_method("long-anew")).collect();
    let lost: u64 = kept.iter().map(|m| m.lost).sum();
    let due: u64 = kept.iter().map(|m| m.expected_deliveries()).sum();
    Some(Claim {
        statement: "loses what is published between two polls",
        verdict: Verdict::from_cases([naive.lost > 0, lost > 0]),
        because: format!(
            "without a cursor up to {}, and of short polls {}; with a cursor {lost} of {}",
            describe(naive),
            describe(short),
            count(due),
        ),
    })
}

fn order(measured: &Measurements, method: &str, statement: &'static str) -> Option<Claim> {
    let m = measured.of_method(method).next()?;
    Some(Claim {
        statement,
        verdict: Verdict::from_cases([m.duplicates + m.out_of_order + m.lost > 0]),
        because: format!(
            "of {} events due, {} arrived twice, {} out of order, and {} never",
            count(m.expected_deliveries()),
            count(m.duplicates),
            count(m.out_of_order),
            count(m.lost),
        ),
    })
}

fn unordered_if_unfiltered(measured: &Measurements) -> Option<Claim> {
    order(
        measured,
        "two-loose",
        "ordering is a problem with several open requests: each answer used as it arrives",
    )
}

fn unordered_if_filtered(measured: &Measurements) -> Option<Claim> {
    order(
        measured,
        "two-strict",
        "ordering is a problem with several open requests: only events after the cursor used",
    )
}

fn exhausts_resources(caps: &Value) -> Option<Claim> {
    let figure = |name: &str| caps[name].as_f64();
    let (kib, threads) = (figure("kib_per_poll")?, figure("threads_per_poll")?);
    let (beyond, refused) = (figure("beyond")?, figure("refused_with_retry_after")?);
    Some(Claim {
        statement: "can exhaust the server's resources",
        // A held poll costs something on every server; a poll that is refused is not held.
        verdict: if refused < beyond { Verdict::True } else { Verdict::Depends },
        because: format!(
            "a held poll takes {} KiB and {} thread: {} of them to the GiB. This server has a cap: \
             with all {} places taken, {refused} of {beyond} further polls were answered 503 with \
             Retry-After, and a publish still reached all held polls within {}",
            number(kib),
            number(threads),
            number(1024.0 * 1024.0 / kib),
            count(caps["polls"].as_u64()?),
            time(figure("last_answer_ms")?),
        ),
    })
}

fn slower_than_websocket(measured: &Measurements) -> Option<Claim> {
    let mut pairs = Vec::new();
    for long in measured.of_method("long") {
        pairs.push((long, measured.find(&long.workload, "websocket", long.clients)?));
    }
    let medians: Vec<String> = pairs
        .iter()
        .map(|(long, socket)| {
            format!(
                "{} and {} ({})",
                time(long.median_ms),
                time(socket.median_ms),
                workload_title(long)
            )
        })
        .collect();
    (!pairs.is_empty()).then(|| Claim {
        statement: "latency above WebSocket",
        verdict: Verdict::from_cases(
            pairs.iter().map(|(long, ws)| long.median_ms > ws.median_ms * EQUAL_WITHIN),
        ),
        because: format!(
            "medians of the two: {}. An event published while the next poll is on its way \
             waits for that poll",
            medians.join(", ")
        ),
    })
}

fn headers_per_event(measured: &Measurements) -> Option<Claim> {
    let most = measured.max_clients();
    let (long, socket) =
        (measured.find("busy", "long", most)?, measured.find("busy", "websocket", most)?);
    let bytes = |m: &Measurement| m.per_event(m.sent + m.received);
    Some(Claim {
        statement: "each event carries the headers of a request and an answer",
        verdict: Verdict::from_cases([bytes(long) > bytes(socket) * EQUAL_WITHIN]),
        because: format!(
            "{} bytes per event instead of {} over WebSocket, with the fewest headers possible; \
             browsers send some hundred bytes more",
            number(bytes(long)),
            number(bytes(socket)),
        ),
    })
}
