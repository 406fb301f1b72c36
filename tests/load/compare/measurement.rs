//! The figures of the measured scenarios, as the report reads and selects them.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use serde_json::Value;

use crate::LoadResult;

/// The figures of one scenario.
#[derive(Clone)]
pub struct Measurement {
    /// `quiet`, `busy`, or `far`: busy, with a network delay.
    pub workload: String,
    pub method: String,
    pub title: String,
    pub clients: u64,
    /// Events published per second.
    pub rate: f64,
    /// The simulated network delay in both directions together.
    pub round_trip_ms: f64,
    pub seconds: f64,
    pub events: u64,
    pub requests: u64,
    pub connections: u64,
    pub sent: u64,
    pub received: u64,
    pub deliveries: u64,
    pub lost: u64,
    pub duplicates: u64,
    pub out_of_order: u64,
    /// The server's processor time in ms per second.
    pub cpu: f64,
    pub median_ms: f64,
    pub p99_ms: f64,
    pub max_staleness_ms: f64,
    /// How late the publisher was, 99th percentile.
    pub publish_delay_ms: f64,
}

impl Measurement {
    pub fn parse(line: &Value) -> LoadResult<Measurement> {
        let missing = |name: &str| format!("a scenario without {name}: {line}");
        let text = |name: &str| line[name].as_str().map(str::to_owned).ok_or(missing(name));
        let count = |name: &str| line[name].as_u64().ok_or(missing(name));
        // A figure without samples is null.
        let figure = |name: &str| line[name].as_f64().unwrap_or(f64::NAN);
        Ok(Measurement {
            workload: text("workload")?,
            method: text("method")?,
            title: text("title")?,
            clients: count("clients")?,
            rate: figure("rate"),
            round_trip_ms: figure("round_trip_ms"),
            seconds: figure("seconds"),
            events: count("events")?,
            requests: count("requests")?,
            connections: count("connections")?,
            sent: count("sent")?,
            received: count("received")?,
            deliveries: count("deliveries")?,
            lost: count("lost")?,
            duplicates: count("duplicates")?,
            out_of_order: count("out_of_order")?,
            cpu: figure("cpu_ms_per_second"),
            median_ms: figure("median_ms"),
            p99_ms: figure("p99_ms"),
            max_staleness_ms: figure("max_staleness_ms"),
            publish_delay_ms: figure("publish_delay_p99_ms"),
        })
    }

    /// The number of events that the clients should have received together.
    pub fn expected_deliveries(&self) -> u64 {
        self.events * self.clients
    }

    /// A count per minute and client.
    pub fn per_client_minute(&self, count: u64) -> f64 {
        count as f64 * 60.0 / self.seconds / self.clients as f64
    }

    pub fn per_event(&self, count: u64) -> f64 {
        count as f64 / self.deliveries as f64
    }

    /// The order of a table: methods without a cursor last, and short intervals first.
    fn compare(&self, other: &Measurement) -> Ordering {
        let family = |measurement: &Measurement| {
            let families = ["short", "long", "sse", "websocket", "naive", "two"];
            families
                .iter()
                .position(|name| measurement.method == *name || measurement.is_in_family(name))
        };
        let by_interval = self.interval_seconds().total_cmp(&other.interval_seconds());
        family(self).cmp(&family(other)).then(by_interval)
    }

    /// The polling interval; 0 for a method without one.
    pub fn interval_seconds(&self) -> f64 {
        let last = self.method.rsplit('-').next();
        last.and_then(|text| text.parse().ok()).unwrap_or_default()
    }

    /// Whether the method's name continues `family`, as `long-anew` continues `long`.
    pub fn is_in_family(&self, family: &str) -> bool {
        self.method.strip_prefix(family).is_some_and(|rest| rest.starts_with('-'))
    }
}

/// All measured scenarios.
pub struct Measurements(pub Vec<Measurement>);

impl Measurements {
    pub fn find(&self, workload: &str, method: &str, clients: u64) -> Option<&Measurement> {
        let matches =
            |m: &&Measurement| m.workload == workload && m.method == method && m.clients == clients;
        self.0.iter().find(matches)
    }

    /// Those of one workload and number of clients, in the order of the table.
    pub fn table(&self, workload: &str, clients: u64) -> Vec<&Measurement> {
        let matches = |m: &&Measurement| m.workload == workload && m.clients == clients;
        let mut table: Vec<&Measurement> = self.0.iter().filter(matches).collect();
        table.sort_by(|a, b| a.compare(b));
        table
    }

    pub fn of_method<'a>(&'a self, method: &'a str) -> impl Iterator<Item = &'a Measurement> {
        self.0.iter().filter(move |measurement| measurement.method == method)
    }

    /// Short polls with a cursor, of one workload and number of clients, short intervals first.
    pub fn short_polls(&self, workload: &str, clients: u64) -> Vec<&Measurement> {
        let mut table = self.table(workload, clients);
        table.retain(|measurement| measurement.is_in_family("short"));
        table
    }

    pub fn client_counts(&self) -> BTreeSet<u64> {
        self.0.iter().map(|measurement| measurement.clients).collect()
    }

    pub fn max_clients(&self) -> u64 {
        self.client_counts().last().copied().unwrap_or(0)
    }
}
