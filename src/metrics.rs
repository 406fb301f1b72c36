//! Counters, gauges and histograms, and their text format for Prometheus.
//!
//! Each is an atomic that the code updates where the event happens. Names follow the conventions of
//! Prometheus: base units, and `_total` on counters.

use std::fmt::{Display, Write as _};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::problem::{CAUSES, Cause};
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

/// The highest value that a number has had.
#[derive(Default)]
pub struct Peak(AtomicU64);

impl Peak {
    pub fn raise_to(&self, n: u64) {
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

/// Upper bounds of the buckets in microseconds. Wake latencies range from tens, for one waiter on
/// an idle machine, to hundreds of thousands, for ten thousand waiters.
const BUCKET_BOUNDS: [u64; 14] = [
    50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000,
    1_000_000,
];

/// A histogram of durations.
#[derive(Default)]
pub struct Histogram {
    /// One bucket for each bound, and one for longer durations.
    buckets: [AtomicU64; BUCKET_BOUNDS.len() + 1],
    total_micros: AtomicU64,
}

impl Histogram {
    pub fn observe(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKET_BOUNDS.partition_point(|bound| *bound < micros);
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.total_micros.fetch_add(micros, Relaxed);
    }
}

/// The metrics of the server. [`Metrics::render`] has the name and meaning of each.
#[derive(Default)]
pub struct Metrics {
    pub connections_accepted: Counter,
    pub connections_peak: Peak,
    pub connections_evicted: Counter,
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
    refusals: [Counter; CAUSES.len()],
    pub log_lines_dropped: Counter,
    pub store: StoreMetrics,
}

/// The metrics of the store, rendered only with `--data`.
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
    /// Counts a request that is answered with an error.
    pub fn count_refusal(&self, cause: Cause) {
        self.refusals[cause as usize].add(1);
    }

    /// Appends the metrics of the server.
    pub fn render(&self, text: &mut MetricsText) {
        let m = self;
        text.counter(
            "connections_accepted_total",
            "Connections accepted.",
            m.connections_accepted.get(),
        );
        text.gauge(
            "connections_peak",
            "Highest number of open connections.",
            m.connections_peak.get(),
        );
        text.counter(
            "connections_gave_way_total",
            "Connections closed while waiting for a request, to make room for new ones.",
            m.connections_evicted.get(),
        );
        text.counter("accept_errors_total", "Failed calls of accept.", m.accept_errors.get());
        text.counter("requests_total", "Requests read.", m.requests.get());
        text.counter("publishes_total", "Publishes acknowledged.", m.publishes.get());
        text.counter(
            "publish_repeats_total",
            "Publishes recognised as repeats by their idempotency key.",
            m.publish_repeats.get(),
        );
        text.counter("events_published_total", "Events appended.", m.published_events.get());
        text.gauge("polls_held_peak", "Highest number of held polls.", m.polls_held_peak.get());
        text.labelled_counter(
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
        if cfg!(feature = "streams") {
            self.render_streams(text);
        }
        self.render_gaps(text);
        text.labelled_counter(
            "refusals_total",
            "Requests refused, by cause.",
            "cause",
            CAUSES.iter().map(|(cause, label, ..)| (*label, m.refusals[*cause as usize].get())),
        );
        text.counter(
            "log_lines_dropped_total",
            "Log lines dropped because stderr was slow.",
            m.log_lines_dropped.get(),
        );
        text.histogram(
            "wake_seconds",
            "Time from an append to the answer of a held poll.",
            &m.wake,
        );
    }

    fn render_gaps(&self, text: &mut MetricsText) {
        let m = self;
        text.labelled_counter(
            "gaps_total",
            "Gaps reported to clients, by cause.",
            "why",
            [
                ("trimmed", m.gaps_trimmed.get()),
                ("epoch", m.gaps_epoch.get()),
                ("future", m.gaps_future.get()),
            ],
        );
        text.counter(
            "gap_lost_events_total",
            "Events lost to clients in gaps, as far as they could be counted.",
            m.gap_lost_events.get(),
        );
    }

    fn render_streams(&self, text: &mut MetricsText) {
        let m = self;
        text.counter("streams_begun_total", "Streams started.", m.streams_begun.get());
        text.labelled_counter(
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
    /// Appends the metrics of the store.
    pub fn render(&self, text: &mut MetricsText) {
        let recovery = Seconds(Duration::from_micros(self.recovery_micros.get()));
        text.histogram("store_fsync_seconds", "Duration of syncs to disk.", &self.fsync);
        text.counter("store_commits_total", "Commits written.", self.commits.get());
        text.counter("store_failures_total", "Writes and syncs that failed.", self.failures.get());
        text.counter(
            "store_segments_rewritten_total",
            "Segments rewritten without their dead records.",
            self.segments_rewritten.get(),
        );
        text.gauge("store_bytes", "Bytes in all segments.", self.bytes.get());
        text.gauge("store_segments", "Number of segments.", self.segments.get());
        text.gauge(
            "store_recovery_seconds",
            "Time that the last start took to read the store.",
            recovery,
        );
        text.gauge(
            "store_torn_bytes",
            "Bytes of a torn tail that the last start cut off.",
            self.torn_bytes.get(),
        );
    }
}

/// A page of metrics in the text format of Prometheus.
#[derive(Default)]
pub struct MetricsText(String);

impl MetricsText {
    fn head(&mut self, name: &str, help: &str, kind: &str) {
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(self.0, "# HELP longpoll_{name} {help}\n# TYPE longpoll_{name} {kind}");
    }

    pub fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, help, "gauge");
        let _ = writeln!(self.0, "longpoll_{name} {value}");
    }

    pub fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, help, "counter");
        let _ = writeln!(self.0, "longpoll_{name} {value}");
    }

    /// Appends a counter with one label, a sample for each of its values.
    pub fn labelled_counter<'a>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        samples: impl IntoIterator<Item = (&'a str, u64)>,
    ) {
        self.head(name, help, "counter");
        for (label_value, count) in samples {
            let _ = writeln!(self.0, "longpoll_{name}{{{label}=\"{label_value}\"}} {count}");
        }
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.head(name, help, "histogram");
        let mut count = 0;
        for (bound, bucket) in BUCKET_BOUNDS.iter().zip(&histogram.buckets) {
            count += bucket.load(Relaxed);
            let seconds = Seconds(Duration::from_micros(*bound));
            let _ = writeln!(self.0, "longpoll_{name}_bucket{{le=\"{seconds}\"}} {count}");
        }
        count += histogram.buckets[BUCKET_BOUNDS.len()].load(Relaxed);
        let sum = Seconds(Duration::from_micros(histogram.total_micros.load(Relaxed)));
        let _ = writeln!(
            self.0,
            "longpoll_{name}_bucket{{le=\"+Inf\"}} {count}\n\
             longpoll_{name}_sum {sum}\nlongpoll_{name}_count {count}"
        );
    }

    #[must_use]
    pub fn finish(self) -> String {
        self.0
    }
}
