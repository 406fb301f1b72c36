//! From lines of figures to the tables, the verdicts, and the picture.

use std::fs;

use serde_json::{Value, json};

use super::claims::{Claim, claims};
use super::picture;
use super::row::{Row, Rows, grouped, shown, time};
use crate::args::Args;
use crate::wire::Outcome;

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

/// The rows in short: with the most clients, both workloads in one cell.
const IN_SHORT: [&str; 8] = [
    "way",
    "requests / client-minute",
    "bytes / event, up and down",
    "server CPU, ms/s",
    "latency, median",
    "latency, 99 %",
    "longest out of date",
    "events lost",
];

pub fn run(args: &mut Args) -> Outcome<()> {
    let results = args.text("results").ok_or("--results is needed")?;
    let about = args.text("about").unwrap_or_default();
    let (json_file, svg_file) = (args.text("json"), args.text("svg"));
    args.finish()?;
    let text = fs::read_to_string(&results)?;
    let lines: Vec<Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let (measured, caps): (Vec<Value>, Vec<Value>) =
        lines.into_iter().partition(|line| line["load"] == "lane");
    let rows = Rows(measured.iter().map(Row::parse).collect::<Outcome<_>>()?);
    let late = rows.0.iter().map(|row| row.late).fold(0.0, f64::max);
    let about = format!(
        "{about} The publisher was late by up to {} for 99 % of a row's events.",
        time(late)
    );
    println!("{about}\n");
    print_in_short(&rows);
    let claims = claims(&rows, caps.first());
    print_claims(&claims);
    for workload in ["quiet", "busy", "far"] {
        print_rows(workload, &rows);
    }
    if let Some(file) = json_file {
        let verdicts: Vec<Value> = claims.iter().map(Claim::json).collect();
        let caps = caps.first();
        let report =
            json!({ "about": about, "rows": measured, "caps": caps, "verdicts": verdicts });
        fs::write(file, serde_json::to_string_pretty(&report)? + "\n")?;
    }
    if let Some(file) = svg_file {
        fs::write(file, picture::svg(&rows))?;
    }
    Ok(())
}

fn print_head(columns: &[&str]) {
    println!("| {} |\n|{}", columns.join(" | "), " --- |".repeat(columns.len()));
}

fn print_in_short(rows: &Rows) {
    let clients = rows.most_clients();
    println!("### In short: {clients} clients; of each pair the first is quiet, the second busy\n");
    print_head(&IN_SHORT);
    for busy in rows.table("busy", clients) {
        let quiet = rows.find("quiet", &busy.method, clients);
        let pair = |figure: &dyn Fn(&Row) -> String| {
            format!("{}, {}", quiet.map_or_else(|| "–".into(), figure), figure(busy))
        };
        let cells = [
            busy.title.clone(),
            pair(&|row| shown(row.per_minute(row.requests))),
            pair(&|row| shown(row.per_event(row.sent + row.received))),
            pair(&|row| shown(row.cpu)),
            pair(&|row| time(row.median)),
            pair(&|row| time(row.p99)),
            pair(&|row| time(row.stalest)),
            pair(&lost),
        ];
        println!("| {} |", cells.join(" | "));
    }
    println!();
}

fn print_rows(workload: &str, rows: &Rows) {
    let Some(row) = rows.0.iter().find(|row| row.workload == workload) else { return };
    let often = match row.rate {
        rate if rate < 1.0 => format!("an event every {} s", shown(1.0 / rate)),
        rate => format!("{} events a second", shown(rate)),
    };
    let topic = match workload {
        "far" => format!("busy topic, {} ms away, there and back", row.round_trip),
        near => format!("{near} topic"),
    };
    println!("### A {topic}: {often}, at random times\n");
    print_head(&COLUMNS);
    for clients in rows.sizes() {
        rows.table(workload, clients).into_iter().for_each(|row| println!("{}", cells(row)));
    }
    println!();
}

/// Of all that were due, and what came twice.
fn lost(row: &Row) -> String {
    let share = |count: u64| match count {
        0 => "0".into(),
        count => format!("{} %", shown(100.0 * count as f64 / (row.events * row.clients) as f64)),
    };
    match row.repeated {
        0 => share(row.lost),
        repeated => format!("{}; {} twice", share(row.lost), share(repeated)),
    }
}

fn cells(row: &Row) -> String {
    let both = |of: &dyn Fn(u64) -> f64| {
        let [up, down] = [row.sent, row.received].map(|bytes| shown(of(bytes)));
        format!("{up}, {down}")
    };
    [
        format!("| {}", row.clients),
        row.title.clone(),
        shown(row.per_minute(row.requests)),
        grouped(row.connections),
        both(&|bytes| row.per_event(bytes)),
        both(&|bytes| row.per_minute(bytes)),
        shown(row.cpu),
        time(row.median),
        time(row.p99),
        time(row.stalest),
        format!("{} |", lost(row)),
    ]
    .join(" | ")
}

fn print_claims(claims: &[Claim]) {
    println!("### What is said of long polling, and what these rows say\n");
    print_head(&["claim", "verdict", "because"]);
    for Claim { said, verdict, because } in claims {
        println!("| {said} | **{}** | {because} |", verdict.word());
    }
    println!();
}
