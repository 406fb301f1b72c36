//! A lane's figures as the report reads them.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use serde_json::Value;

use crate::wire::Outcome;

/// One line of the table.
#[derive(Clone)]
pub struct Row {
    /// `quiet`, `busy`, or `far`: busy, and its clients are away.
    pub workload: String,
    pub method: String,
    pub title: String,
    pub clients: u64,
    pub rate: f64,
    /// In ms; of a network that there was not.
    pub round_trip: f64,
    pub seconds: f64,
    pub events: u64,
    pub requests: u64,
    pub connections: u64,
    pub sent: u64,
    pub received: u64,
    pub deliveries: u64,
    pub lost: u64,
    pub repeated: u64,
    pub backwards: u64,
    /// Of the server, in ms per second.
    pub cpu: f64,
    pub median: f64,
    pub p99: f64,
    pub stalest: f64,
    /// By how many ms the publisher was woken too late, 99th percentile.
    pub late: f64,
}

impl Row {
    pub fn parse(line: &Value) -> Outcome<Row> {
        let text = |name: &str| {
            line[name].as_str().map(str::to_owned).ok_or(format!("a lane without {name}: {line}"))
        };
        let count =
            |name: &str| line[name].as_u64().ok_or(format!("a lane without {name}: {line}"));
        // A figure that nothing was measured for is null.
        let figure = |name: &str| line[name].as_f64().unwrap_or(f64::NAN);
        Ok(Row {
            workload: text("workload")?,
            method: text("method")?,
            title: text("title")?,
            clients: count("clients")?,
            rate: figure("rate"),
            round_trip: figure("round_trip_ms"),
            seconds: figure("seconds"),
            events: count("events")?,
            requests: count("requests")?,
            connections: count("connections")?,
            sent: count("sent")?,
            received: count("received")?,
            deliveries: count("deliveries")?,
            lost: count("lost")?,
            repeated: count("repeated")?,
            backwards: count("backwards")?,
            cpu: figure("cpu_ms_per_second"),
            median: figure("median_ms"),
            p99: figure("p99_ms"),
            stalest: figure("stalest_ms"),
            late: figure("late_ms"),
        })
    }

    /// Per minute of one client.
    pub fn per_minute(&self, count: u64) -> f64 {
        count as f64 * 60.0 / self.seconds / self.clients as f64
    }

    pub fn per_event(&self, count: u64) -> f64 {
        count as f64 / self.deliveries as f64
    }

    /// The order of a table: who keeps no cursor comes last, and short intervals first.
    fn before(&self, other: &Row) -> Ordering {
        let family = |row: &Row| {
            let families = ["short", "long", "sse", "websocket", "naive", "two"];
            families.iter().position(|name| row.method == *name || row.is_of(name))
        };
        let by_interval = self.interval().total_cmp(&other.interval());
        family(self).cmp(&family(other)).then(by_interval)
    }

    /// In seconds, where it is the client that waits.
    pub fn interval(&self) -> f64 {
        let last = self.method.rsplit('-').next();
        last.and_then(|text| text.parse().ok()).unwrap_or_default()
    }

    /// `long-anew` is in the family `long`, and so on.
    pub fn is_of(&self, family: &str) -> bool {
        self.method.strip_prefix(family).is_some_and(|rest| rest.starts_with('-'))
    }
}

/// All that were measured.
pub struct Rows(pub Vec<Row>);

impl Rows {
    pub fn find(&self, workload: &str, method: &str, clients: u64) -> Option<&Row> {
        let wanted =
            |row: &&Row| row.workload == workload && row.method == method && row.clients == clients;
        self.0.iter().find(wanted)
    }

    /// All with so many clients, in the order of their table.
    pub fn table(&self, workload: &str, clients: u64) -> Vec<&Row> {
        let wanted = |row: &&Row| row.workload == workload && row.clients == clients;
        let mut rows: Vec<&Row> = self.0.iter().filter(wanted).collect();
        rows.sort_by(|a, b| a.before(b));
        rows
    }

    pub fn of<'a>(&'a self, method: &'a str) -> impl Iterator<Item = &'a Row> {
        self.0.iter().filter(move |row| row.method == method)
    }

    /// Short polls of one workload and so many clients, short intervals first.
    pub fn short(&self, workload: &str, clients: u64) -> Vec<&Row> {
        let mut rows = self.table(workload, clients);
        rows.retain(|row| row.is_of("short"));
        rows
    }

    pub fn sizes(&self) -> BTreeSet<u64> {
        self.0.iter().map(|row| row.clients).collect()
    }

    pub fn most_clients(&self) -> u64 {
        self.sizes().last().copied().unwrap_or(0)
    }
}

/// Two places, or what is left of them in a large number.
pub fn shown(value: f64) -> String {
    match value {
        value if !value.is_finite() => "–".into(),
        value if value >= 9.95 => commas(&format!("{value:.0}")),
        value if value >= 0.995 => format!("{value:.1}"),
        0.0 => "0".into(),
        value => format!("{value:.2}"),
    }
}

/// 12345 as 12,345.
pub fn grouped(number: u64) -> String {
    commas(&number.to_string())
}

fn commas(digits: &str) -> String {
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A time given in ms.
pub fn time(ms: f64) -> String {
    match ms {
        ms if !ms.is_finite() => "–".into(),
        ms if ms >= 999.5 => format!("{:.1} s", ms / 1e3),
        ms => format!("{} ms", shown(ms)),
    }
}

pub fn clients(count: u64) -> String {
    if count == 1 { "1 client".into() } else { format!("{count} clients") }
}
