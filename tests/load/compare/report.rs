//! The comparison's report: tables, verdicts and a chart from the scenarios' lines of figures.

use std::fs;

use serde_json::{Value, json};

use super::chart;
use super::claims::{Claim, claims};
use super::format::{count, number, time};
use super::measurement::{Measurement, Measurements};
use crate::LoadResult;
use crate::args::Args;

const COLUMNS: [&str; 11] = [
    "clients",
    "way",
    "requests / client-minute",
    "connections",
    "bytes up, down / event",
    "bytes up, down / client-minute",
    "server CPU, ms/s",
    "latency, median",
    "99 %",
    "longest out of date",
    "events lost",
];

/// The columns of the summary: the most clients, with both workloads in one cell.
const SUMMARY_COLUMNS: [&str; 8] = [
    "way",
    "requests / client-minute",
    "bytes / event, up and down",
    "server CPU, ms/s",
    "latency, median",
    "latency, 99 %",
    "longest out of date",
    "events lost",
];

pub fn run(args: &mut Args) -> LoadResult<()> {
    let results = args.required("results")?;
    let about = args.text("about").unwrap_or_default();
    let (json_file, svg_file) = (args.text("json"), args.text("svg"));
    args.finish()?;
    let text = fs::read_to_string(&results)?;
    let lines: Vec<Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let (scenarios, caps): (Vec<Value>, Vec<Value>) =
        lines.into_iter().partition(|line| line["load"] == "scenario");
    let measured =
        Measurements(scenarios.iter().map(Measurement::parse).collect::<LoadResult<_>>()?);
    let delay = measured.0.iter().map(|m| m.publish_delay_ms).fold(0.0, f64::max);
    let about = format!(
        "{about} The publisher was late by up to {} for 99 % of a row's events.",
        time(delay)
    );
    println!("{about}\n");
    print_summary(&measured);
    let claims = claims(&measured, caps.first());
    print_claims(&claims);
    for workload in ["quiet", "busy", "far"] {
        print_table(workload, &measured);
    }
    if let Some(file) = json_file {
        let verdicts: Vec<Value> = claims.iter().map(Claim::json).collect();
        let caps = caps.first();
        let report =
            json!({ "about": about, "rows": scenarios, "caps": caps, "verdicts": verdicts });
        fs::write(file, serde_json::to_string_pretty(&report)? + "\n")?;
    }
    if let Some(file) = svg_file {
        fs::write(file, chart::svg(&measured))?;
    }
    Ok(())
}

fn print_table_head(columns: &[&str]) {
    println!("| {} |\n|{}", columns.join(" | "), " --- |".repeat(columns.len()));
}

fn print_summary(measured: &Measurements) {
    let clients = measured.max_clients();
    println!("### In short: {clients} clients; of each pair the first is quiet, the second busy\n");
    print_table_head(&SUMMARY_COLUMNS);
    for busy in measured.table("busy", clients) {
        let quiet = measured.find("quiet", &busy.method, clients);
        let pair = |figure: &dyn Fn(&Measurement) -> String| {
            format!("{}, {}", quiet.map_or_else(|| "–".into(), figure), figure(busy))
        };
        let cells = [
            busy.title.clone(),
            pair(&|m| number(m.per_client_minute(m.requests))),
            pair(&|m| number(m.per_event(m.sent + m.received))),
            pair(&|m| number(m.cpu)),
            pair(&|m| time(m.median_ms)),
            pair(&|m| time(m.p99_ms)),
            pair(&|m| time(m.max_staleness_ms)),
            pair(&lost),
        ];
        println!("| {} |", cells.join(" | "));
    }
    println!();
}

fn print_table(workload: &str, measured: &Measurements) {
    let Some(m) = measured.0.iter().find(|m| m.workload == workload) else { return };
    let frequency = match m.rate {
        rate if rate < 1.0 => format!("an event every {} s", number(1.0 / rate)),
        rate => format!("{} events a second", number(rate)),
    };
    let topic = match workload {
        "far" => format!("busy topic, {} ms away, there and back", m.round_trip_ms),
        near => format!("{near} topic"),
    };
    println!("### A {topic}: {frequency}, at random times\n");
    print_table_head(&COLUMNS);
    for clients in measured.client_counts() {
        measured.table(workload, clients).into_iter().for_each(|m| println!("{}", table_row(m)));
    }
    println!();
}

/// The share of events that were lost, and of those that arrived twice.
fn lost(m: &Measurement) -> String {
    let share = |events: u64| match events {
        0 => "0".into(),
        events => format!("{} %", number(100.0 * events as f64 / m.expected_deliveries() as f64)),
    };
    match m.duplicates {
        0 => share(m.lost),
        duplicates => format!("{}; {} twice", share(m.lost), share(duplicates)),
    }
}

fn table_row(m: &Measurement) -> String {
    let up_and_down = |figure: &dyn Fn(u64) -> f64| {
        let [up, down] = [m.sent, m.received].map(|bytes| number(figure(bytes)));
        format!("{up}, {down}")
    };
    [
        format!("| {}", m.clients),
        m.title.clone(),
        number(m.per_client_minute(m.requests)),
        count(m.connections),
        up_and_down(&|bytes| m.per_event(bytes)),
        up_and_down(&|bytes| m.per_client_minute(bytes)),
        number(m.cpu),
        time(m.median_ms),
        time(m.p99_ms),
        time(m.max_staleness_ms),
        format!("{} |", lost(m)),
    ]
    .join(" | ")
}

fn print_claims(claims: &[Claim]) {
    println!("### Common claims about long polling, and what these rows say\n");
    print_table_head(&["claim", "verdict", "because"]);
    for Claim { statement, verdict, because } in claims {
        println!("| {statement} | **{}** | {because} |", verdict.word());
    }
    println!();
}
