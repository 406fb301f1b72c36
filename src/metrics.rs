//! Counters and gauges, and how Prometheus reads them.
//!
//! Plain atomics: whoever does a thing counts it there and then. Names follow Prometheus'
//! conventions: base units, `_total` on counters.

use std::fmt::{Display, Write as _};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::problem::{Cause, TABLE};
use crate::time::Seconds;

/// A number that only grows.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number with a highest value.
#[derive(Default)]
pub struct Peak(AtomicU64);

impl Peak {
    pub fn reach(&self, n: u64) {
        self.0.fetch_max(n, Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Upper bounds of the wake latency's buckets, in microseconds: from a lone waiter on an idle
/// machine (tens) to ten thousand of them (hundreds of thousands).
const WAKE_BOUNDS: [u64; 14] = [
    50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000,
    1_000_000,
];

/// How long things took.
#[derive(Default)]
pub struct Histogram {
    /// One for each bound, and one beyond the last.
    buckets: [AtomicU64; WAKE_BOUNDS.len() + 1],
    micros: AtomicU64,
}

impl Histogram {
    pub fn observe(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = WAKE_BOUNDS.partition_point(|bound| *bound < micros);
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.micros.fetch_add(micros, Relaxed);
    }
}

/// What happened so far. Each field is the metric of its name in [`Metrics::render`].
#[derive(Default)]
pub struct Metrics {
    pub connections: Counter,
    pub connections_peak: Peak,
    pub connections_gave_way: Counter,
    pub accept_errors: Counter,
    pub requests: Counter,
    pub publishes: Counter,
    pub publish_repeats: Counter,
    pub published_events: Counter,
    pub polls_data: Counter,
    pub polls_timeout: Counter,
    pub polls_drain: Counter,
    pub polls_hung_up: Counter,
    pub polls_held_peak: Peak,
    pub streams_begun: Counter,
    pub streams_drain: Counter,
    pub streams_hung_up: Counter,
    pub streams_revoked: Counter,
    pub streams_slow: Counter,
    pub gaps_trimmed: Counter,
    pub gaps_epoch: Counter,
    pub gaps_future: Counter,
    pub gap_lost_events: Counter,
    pub wake: Histogram,
    refusals: [Counter; TABLE.len()],
    pub log_lines_dropped: Counter,
    pub store: StoreMetrics,
}

/// What the store did so far; shown when there is one.
#[derive(Default)]
pub struct StoreMetrics {
    pub fsync: Histogram,
    pub commits: Counter,
    pub failures: Counter,
    pub segments_rewritten: Counter,
    pub torn_bytes: Gauge,
    pub bytes: Gauge,
    pub segments: Gauge,
    pub recovery_micros: Gauge,
}

impl Metrics {
    /// Counts a request that was not served.
    pub fn refused(&self, cause: Cause) {
        self.refusals[cause as usize].add(1);
    }

    /// Writes everything that is counted here.
    pub fn render(&self, page: &mut MetricsText) {
        let m = self;
        page.counter("connections_accepted_total", "Connections taken in.", m.connections.get());
        page.gauge("connections_peak", "Most connections open at once.", m.connections_peak.get());
        page.counter(
            "connections_gave_way_total",
            "Connections closed while waiting for a request, to make room.",
            m.connections_gave_way.get(),
        );
        page.counter("accept_errors_total", "Failed accepts.", m.accept_errors.get());
        page.counter("requests_total", "Requests read.", m.requests.get());
        page.counter("publishes_total", "Publishes acknowledged.", m.publishes.get());
        page.counter(
            "publish_repeats_total",
            "Publishes recognised by their idempotency key.",
            m.publish_repeats.get(),
        );
        page.counter("events_published_total", "Events appended.", m.published_events.get());
        page.gauge("polls_held_peak", "Most polls held at once.", m.polls_held_peak.get());
        page.labelled(
            "polls_total",
            "Polls ended, by reason.",
            "reason",
            [
                ("data", m.polls_data.get()),
                ("timeout", m.polls_timeout.get()),
                ("drain", m.polls_drain.get()),
                ("hung_up", m.polls_hung_up.get()),
            ],
        );
        #[cfg(feature = "streams")]
        self.render_streams(page);
        page.labelled(
            "gaps_total",
            "Gaps told to readers, by cause.",
            "why",
            [
                ("trimmed", m.gaps_trimmed.get()),
                ("epoch", m.gaps_epoch.get()),
                ("future", m.gaps_future.get()),
            ],
        );
        page.counter(
            "gap_lost_events_total",
            "Events lost to readers in gaps, as far as they could be counted.",
            m.gap_lost_events.get(),
        );
        page.labelled(
            "refusals_total",
            "Requests refused, by cause.",
            "cause",
            TABLE.iter().map(|(cause, label, ..)| (*label, m.refusals[*cause as usize].get())),
        );
        page.counter(
            "log_lines_dropped_total",
            "Log lines dropped because stderr was slow.",
            m.log_lines_dropped.get(),
        );
        page.histogram("wake_seconds", "From an append to the answer of a held poll.", &m.wake);
    }

    #[cfg(feature = "streams")]
    fn render_streams(&self, page: &mut MetricsText) {
        let m = self;
        page.counter("streams_begun_total", "Streams begun.", m.streams_begun.get());
        page.labelled(
            "streams_total",
            "Streams ended, by reason.",
            "reason",
            [
                ("drain", m.streams_drain.get()),
                ("hung_up", m.streams_hung_up.get()),
                ("revoked", m.streams_revoked.get()),
                ("slow", m.streams_slow.get()),
            ],
        );
    }
}

impl StoreMetrics {
    /// Writes what is counted here.
    pub fn render(&self, page: &mut MetricsText) {
        let recovery = Seconds(Duration::from_micros(self.recovery_micros.get()));
        page.histogram("store_fsync_seconds", "How long the disk took to sync.", &self.fsync);
        page.counter("store_commits_total", "Commits written.", self.commits.get());
        page.counter(
            "store_failures_total",
            "Writes and syncs that the disk refused.",
            self.failures.get(),
        );
        page.counter(
            "store_segments_rewritten_total",
            "Segments rewritten without what was dead in them.",
            self.segments_rewritten.get(),
        );
        page.gauge("store_bytes", "Bytes of all segments.", self.bytes.get());
        page.gauge("store_segments", "Segments.", self.segments.get());
        page.gauge("store_recovery_seconds", "How long the last start read the store.", recovery);
        page.gauge(
            "store_torn_bytes",
            "Bytes of a torn end that the last start cut off.",
            self.torn_bytes.get(),
        );
    }
}

/// Metrics as text, being written.
#[derive(Default)]
pub struct MetricsText(String);

impl MetricsText {
    fn head(&mut self, name: &str, help: &str, kind: &str) {
        // Writing to a String cannot fail; here and below.
        let _ = writeln!(self.0, "# HELP longpoll_{name} {help}\n# TYPE longpoll_{name} {kind}");
    }

    /// A number that goes up and down.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, help, "gauge");
        let _ = writeln!(self.0, "longpoll_{name} {value}");
    }

    /// A number that only grows.
    pub fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, help, "counter");
        let _ = writeln!(self.0, "longpoll_{name} {value}");
    }

    /// A counter with one label.
    pub fn labelled<'a>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (&'a str, u64)>,
    ) {
        self.head(name, help, "counter");
        for (which, value) in values {
            let _ = writeln!(self.0, "longpoll_{name}{{{label}=\"{which}\"}} {value}");
        }
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.head(name, help, "histogram");
        let mut count = 0;
        for (bound, bucket) in WAKE_BOUNDS.iter().zip(&histogram.buckets) {
            count += bucket.load(Relaxed);
            let seconds = Seconds(Duration::from_micros(*bound));
            let _ = writeln!(self.0, "longpoll_{name}_bucket{{le=\"{seconds}\"}} {count}");
        }
        count += histogram.buckets[WAKE_BOUNDS.len()].load(Relaxed);
        let sum = Seconds(Duration::from_micros(histogram.micros.load(Relaxed)));
        let _ = writeln!(
            self.0,
            "longpoll_{name}_bucket{{le=\"+Inf\"}} {count}\n\
             longpoll_{name}_sum {sum}\nlongpoll_{name}_count {count}"
        );
    }

    /// The text.
    #[must_use]
    pub fn finish(self) -> String {
        self.0
    }
}
