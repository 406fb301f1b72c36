//! The benchmark's report from lines of figures: medians and ranges over the rounds, ratios between
//! servers, and fitted growth curves.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::ExitCode;

use serde_json::{Map, Value, json};

use crate::LoadResult;
use crate::args::Args;
use crate::stats::{fit_exponent, max, median, min, rounded};

/// The exit status when other programs disturbed the run; 1 means a wrong response.
const EXIT_DISTURBED: u8 = 3;

const SERVERS: [(&str, &str); 3] =
    [("floor", "floor"), ("nchan", "nginx+nchan"), ("longpoll", "longpoll")];
const RATIOS: [(&str, &str); 2] = [("longpoll", "nchan"), ("longpoll", "floor")];

const PINNINGS: [(&str, &str); 2] =
    [("pinned", "Server on one core, load on another"), ("free", "Server and load on all cores")];

/// A row of the table: one figure of one load.
struct RowSpec {
    load: &'static str,
    figure: &'static str,
    /// `{}` stands for the number of polls.
    title: &'static str,
    unit: &'static str,
    more_is_better: bool,
}

const fn row(
    load: &'static str,
    figure: &'static str,
    title: &'static str,
    unit: &'static str,
) -> RowSpec {
    RowSpec { load, figure, title, unit, more_is_better: false }
}

const ROWS: [RowSpec; 10] = [
    row("fanout", "last_ms", "fan-out to {} polls, last answer", "ms"),
    row("fanout", "client_p50_ms", "fan-out to {} polls, median answer", "ms"),
    RowSpec {
        more_is_better: true,
        ..row("publish", "thousand_per_second", "publish, 16 connections", "k/s")
    },
    RowSpec {
        more_is_better: true,
        ..row("poll", "thousand_per_second", "poll answered at once with 1 event", "k/s")
    },
    row("roundtrip", "median_us", "one publisher, one poller, median", "µs"),
    row("roundtrip", "p99_us", "one publisher, one poller, 99th percentile", "µs"),
    row("memory", "held_mib", "resident memory with {} polls held", "MiB"),
    row("memory", "idle_mib", "resident memory idle", "MiB"),
    row("memory", "per_poll_bytes", "resident memory per held poll", "B"),
    row("start", "median_ms", "start to first answer", "ms"),
];

/// A growth curve: one figure of one load at increasing sizes.
struct CurveSpec {
    name: &'static str,
    title: &'static str,
    /// What the x axis counts.
    along: &'static str,
    unit: &'static str,
    /// The fit ignores points below this x, where constant costs hide the growing part.
    fit_from: u64,
    value: fn(&Value) -> Option<f64>,
}

fn us_each(line: &Value) -> Option<f64> {
    line["us_each"].as_f64()
}

const CURVES: [CurveSpec; 7] = [
    CurveSpec {
        name: "fanout",
        title: "Fan-out, last answer",
        along: "polls held",
        unit: "ms",
        fit_from: 100,
        value: |line| line["last_ms"].as_f64(),
    },
    CurveSpec {
        name: "memory",
        title: "Resident memory above idle",
        along: "polls held",
        unit: "MiB",
        fit_from: 100,
        value: |line| Some(line["held_mib"].as_f64()? - line["idle_mib"].as_f64()?),
    },
    publish_curve("topics", "Publish against topics", "topics published to in turn"),
    publish_curve("retained", "Publish against history", "events retained, history full"),
    publish_curve("prefix", "Publish against polls of another prefix", "prefix polls held"),
    publish_curve(
        "other",
        "Publish against polls on other topics",
        "polls held, each on a topic of its own",
    ),
    CurveSpec {
        name: "pages",
        title: "Reading from the start in pages of 1,000",
        along: "events",
        unit: "ms",
        fit_from: 1000,
        value: |line| line["whole_ms"].as_f64(),
    },
];

const fn publish_curve(name: &'static str, title: &'static str, along: &'static str) -> CurveSpec {
    CurveSpec { name, title, along, unit: "µs", fit_from: 1, value: us_each }
}

/// Median and range over the rounds of one server.
fn summary(values: &[f64]) -> Value {
    json!({
        "median": rounded(median(values)), "min": rounded(min(values)), "max": rounded(max(values)),
        "rounds": values.len(),
    })
}

fn format_figure(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn cell(summary: &Value) -> String {
    let part = |name: &str| summary[name].as_f64().map_or_else(String::new, format_figure);
    if summary.is_null() {
        return "–".into();
    }
    format!("{} ({}–{})", part("median"), part("min"), part("max"))
}

/// The summary of one figure for each server, over the lines that `matches` selects.
fn by_server(
    lines: &[Value],
    matches: impl Fn(&Value) -> bool,
    value: impl Fn(&Value) -> Option<f64>,
) -> Map<String, Value> {
    let mut servers = Map::new();
    for (server, _) in SERVERS {
        let values: Vec<f64> = lines
            .iter()
            .filter(|line| line["server"] == server && matches(line))
            .filter_map(&value)
            .collect();
        if !values.is_empty() {
            servers.insert(server.into(), summary(&values));
        }
    }
    servers
}

fn ratios(servers: &Map<String, Value>) -> Map<String, Value> {
    let median = |server: &str| servers.get(server).and_then(|summary| summary["median"].as_f64());
    let mut ratios = Map::new();
    for (numerator, denominator) in RATIOS {
        if let (Some(above), Some(below)) = (median(numerator), median(denominator)) {
            if below != 0.0 {
                let name = format!("{numerator}/{denominator}");
                ratios.insert(name, json!(rounded(above / below)));
            }
        }
    }
    ratios
}

/// The rows of one pinning, each with its summaries; with ratios only if the machine was quiet.
fn table(lines: &[Value], pinning: &str, quiet: bool) -> Vec<Value> {
    let mut rows = Vec::new();
    for row in &ROWS {
        let is_of_row = |line: &Value| {
            line["load"] == row.load && line["pinning"] == pinning && line["row"].is_string()
        };
        let sizes: BTreeSet<u64> = lines
            .iter()
            .filter(|line| is_of_row(line))
            .map(|line| line["polls"].as_u64().unwrap_or(0))
            .collect();
        for size in sizes {
            let has_size =
                |line: &Value| is_of_row(line) && line["polls"].as_u64().unwrap_or(0) == size;
            let servers = by_server(lines, has_size, |line| line[row.figure].as_f64());
            let mut entry = json!({
                "title": row.title.replace("{}", &size.to_string()), "load": row.load, "figure": row.figure,
                "polls": size, "pinning": pinning, "unit": row.unit,
                "better": if row.more_is_better { "more" } else { "less" },
            });
            if quiet {
                entry["ratios"] = Value::Object(ratios(&servers));
            }
            entry["servers"] = Value::Object(servers);
            rows.push(entry);
        }
    }
    rows
}

fn print_table(title: &str, rows: &[Value], quiet: bool) {
    println!("### {title}\n");
    let names: Vec<&str> = SERVERS.iter().map(|(_, name)| *name).collect();
    print!("| work | unit | {} |", names.join(" | "));
    if quiet {
        print!(" longpoll / nchan | longpoll / floor |");
    }
    println!("\n|{}", " --- |".repeat(2 + SERVERS.len() + if quiet { RATIOS.len() } else { 0 }));
    for row in rows {
        let unit = match (row["unit"].as_str().unwrap_or_default(), &row["better"]) {
            (unit, better) if better == "more" => format!("{unit}, more is better"),
            (unit, _) => unit.to_string(),
        };
        print!("| {} | {unit} |", row["title"].as_str().unwrap_or_default());
        for (server, _) in SERVERS {
            print!(" {} |", cell(&row["servers"][server]));
        }
        for (numerator, denominator) in RATIOS.iter().filter(|_| quiet) {
            let ratio = row["ratios"][format!("{numerator}/{denominator}")].as_f64();
            print!(" {} |", ratio.map_or_else(|| "–".into(), |ratio| format!("{ratio:.2}")));
        }
        println!();
    }
    println!();
}

/// The growth order that an exponent stands for.
fn growth(k: f64) -> String {
    match k {
        k if k.abs() < 0.1 => format!("O(1), exponent {k:.2}"),
        k if (0.85..1.15).contains(&k) => format!("O(n), exponent {k:.2}"),
        k => format!("O(n^{k:.2})"),
    }
}

fn curves(lines: &[Value]) -> Vec<Value> {
    let mut curves = Vec::new();
    for curve in &CURVES {
        let of_curve = lines.iter().filter(|line| line["curve"] == curve.name);
        let positions: BTreeSet<u64> = of_curve.filter_map(|line| line["x"].as_u64()).collect();
        let mut points: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
        let mut rows = Vec::new();
        for x in positions {
            let is_point = |line: &Value| line["curve"] == curve.name && line["x"] == x;
            let servers = by_server(lines, is_point, curve.value);
            for (server, _) in SERVERS {
                if let Some(value) =
                    servers.get(server).and_then(|summary| summary["median"].as_f64())
                {
                    points.entry(server).or_default().push((x as f64, value));
                }
            }
            rows.push(json!({ "x": x, "servers": servers }));
        }
        if rows.is_empty() {
            continue;
        }
        let fits: Map<String, Value> = points
            .iter()
            .filter_map(|(server, points)| {
                let fitted: Vec<(f64, f64)> =
                    points.iter().copied().filter(|(x, _)| *x >= curve.fit_from as f64).collect();
                fit_exponent(&fitted).map(|k| {
                    ((*server).into(), json!({ "exponent": rounded(k), "growth": growth(k) }))
                })
            })
            .collect();
        curves.push(json!({
            "curve": curve.name, "title": curve.title, "along": curve.along, "unit": curve.unit,
            "fit_from": curve.fit_from, "points": rows, "fits": fits,
        }));
    }
    curves
}

fn print_curve(curve: &Value) {
    let text = |name: &str| curve[name].as_str().unwrap_or_default();
    println!("### {} ({})\n", text("title"), text("unit"));
    let present: Vec<_> = SERVERS
        .iter()
        .filter(|(server, _)| {
            curve["points"]
                .as_array()
                .is_some_and(|points| points.iter().any(|at| !at["servers"][server].is_null()))
        })
        .collect();
    let names: Vec<&str> = present.iter().map(|(_, name)| *name).collect();
    println!(
        "| {} | {} |\n|{}",
        text("along"),
        names.join(" | "),
        " --- |".repeat(1 + present.len())
    );
    for point in curve["points"].as_array().into_iter().flatten() {
        let cells: Vec<String> =
            present.iter().map(|(server, _)| cell(&point["servers"][server])).collect();
        println!("| {} | {} |", point["x"], cells.join(" | "));
    }
    let fits: Vec<&str> = present
        .iter()
        .map(|(server, _)| curve["fits"][server]["growth"].as_str().unwrap_or("–"))
        .collect();
    println!("| **fit** from {} up | {} |\n", curve["fit_from"], fits.join(" | "));
}

pub fn run(args: &mut Args) -> LoadResult<ExitCode> {
    let results = args.required("results")?;
    let json_file = args.text("json");
    let foreign: f64 = args.number("foreign", 0.0)?;
    let limit: f64 = args.number("busy-limit", 10.0)?;
    args.finish()?;
    let text = fs::read_to_string(&results)?;
    let lines: Vec<Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let quiet = foreign <= limit;

    let mut rows = Vec::new();
    println!("Median over the rounds (least–most).\n");
    for (pinning, title) in PINNINGS {
        let table = table(&lines, pinning, quiet);
        if !table.is_empty() {
            print_table(title, &table, quiet);
        }
        rows.extend(table);
    }
    let curves = curves(&lines);
    curves.iter().for_each(print_curve);
    if quiet {
        println!("Other work took {foreign:.1} % of the machine during the run (limit {limit} %).");
    } else {
        println!(
            "**No ratios: other work took {foreign:.1} % of the machine during the run, and the limit is {limit} %. \
             Do not compare these figures. Run again on a quiet machine.**"
        );
    }
    if let Some(file) = json_file {
        let report = json!({
            "foreign_percent": rounded(foreign), "busy_limit_percent": limit, "quiet": quiet,
            "rows": rows, "curves": curves, "lines": lines,
        });
        fs::write(file, serde_json::to_string_pretty(&report)? + "\n")?;
    }
    Ok(if quiet { ExitCode::SUCCESS } else { ExitCode::from(EXIT_DISTURBED) })
}
