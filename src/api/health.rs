//! Whether the server is healthy, and what it has done: `/health` and `/metrics`.
//!
//! Neither needs a permit to be held, so both are answered when no poll is accepted any more.
//! `/health` turns to `503` when a drain begins; a load balancer then sends no more requests.

use crate::http::Response;
use crate::json::JsonObject;
use crate::log::{LogTotals, StorageStatus};
use crate::metrics::MetricsText;
use crate::problem::retry_after;
use crate::semaphore::Semaphore;

/// The response to `/health`.
pub fn health(storage: StorageStatus, is_draining: bool) -> Response {
    let mut body = Vec::new();
    let mut object = JsonObject::begin(&mut body);
    if is_draining {
        object.string("status", "draining");
    } else {
        object.string("status", "ok").string("version", crate::VERSION);
    }
    match storage {
        StorageStatus::None => {}
        StorageStatus::Ok => {
            object.unescaped("store", "ok");
        }
        // The status stays `ok`: polls are still served.
        StorageStatus::Failing(why) => {
            object.unescaped("store", "failing").string("store_failure", &why);
        }
    }
    object.end();
    body.push(b'\n');
    let response = Response::json(if is_draining { 503 } else { 200 }, body);
    if is_draining { response.with_header("Retry-After", &retry_after()) } else { response }
}

/// What `/metrics` reports of the present; counters come from [`crate::metrics`] and the writer.
pub struct Gauges<'a> {
    pub connections: &'a Semaphore,
    pub held_polls: usize,
    pub max_held_polls: usize,
    pub log: LogTotals,
    pub response_bytes: usize,
    /// How many tokens are known, and whether their file is wrong; none without `--tokens`.
    pub tokens: Option<(usize, bool)>,
}

impl Gauges<'_> {
    /// Adds the gauges, and the totals of the log, to a page of metrics.
    pub fn render(&self, page: &mut MetricsText) {
        let log = &self.log;
        page.gauge("connections", "Open connections.", self.connections.in_use());
        page.gauge("connections_max", "Limit on open connections.", self.connections.capacity());
        page.gauge("polls_held", "Held polls.", self.held_polls);
        page.gauge("polls_held_max", "Limit on held polls.", self.max_held_polls);
        page.gauge("topics", "Topics.", log.topics);
        page.gauge("retained_events", "Retained events.", log.events);
        page.gauge("retained_bytes", "Retained bytes, as --retain-bytes counts them.", log.bytes);
        page.gauge("head_seq", "The seq of the newest event.", log.head);
        page.counter("events_trimmed_total", "Trimmed events.", log.trimmed.get());
        page.gauge("idempotency_keys", "Remembered idempotency keys.", log.keys);
        page.counter(
            "idempotency_keys_evicted_total",
            "Idempotency keys evicted before they expired.",
            log.keys_evicted,
        );
        page.gauge(
            "answers_in_flight_bytes",
            "Bytes of rendered responses in memory, cached ones included.",
            self.response_bytes,
        );
        if let Some((known, is_outdated)) = self.tokens {
            page.gauge("tokens", "Known tokens.", known);
            page.gauge(
                "tokens_outdated",
                "1 while the token file is invalid and its last valid content is in force.",
                u8::from(is_outdated),
            );
        }
    }
}

/// The response to `/metrics`.
pub fn metrics_response(page: MetricsText) -> Response {
    let text = page.finish().into_bytes();
    Response::new(200, "text/plain; version=0.0.4; charset=utf-8", text)
        .with_header("Cache-Control", "no-store")
}
