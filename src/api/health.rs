//! Is it well, and what has it done: `/health` and `/metrics`.
//!
//! Both are answered without a place among the held polls, so that they get through when nothing
//! else does. `/health` turns to `503` when a drain begins, which is how a balancer learns to send
//! nobody here any more.

use super::{Api, Reply};
use crate::http::Response;
use crate::json::JsonObject;
use crate::log::StorageStatus;
use crate::metrics::MetricsText;
use crate::problem::retry_after;

impl Api {
    pub(super) fn health(&self) -> Reply {
        let draining = self.shutdown.is_triggered();
        let mut body = Vec::new();
        let mut object = JsonObject::begin(&mut body);
        if draining {
            object.string("status", "draining");
        } else {
            object.string("status", "ok").string("version", crate::VERSION);
        }
        match self.writer.disk() {
            StorageStatus::None => {}
            StorageStatus::Ok => {
                object.unescaped("store", "ok");
            }
            // Polls are served all the same.
            StorageStatus::Failing(why) => {
                object.unescaped("store", "failing").string("store_failure", &why);
            }
        }
        object.end();
        body.push(b'\n');
        let status = if draining { 503 } else { 200 };
        let answer = Response::json(status, body);
        Reply::Response(if draining {
            answer.with_header("Retry-After", &retry_after())
        } else {
            answer
        })
    }

    pub(super) fn metrics_page(&self) -> Reply {
        let mut page = MetricsText::default();
        let log = self.log.totals();
        page.gauge("connections", "Connections open now.", self.connections.in_use());
        page.gauge("connections_max", "The cap on them.", self.connections.capacity());
        page.gauge("polls_held", "Polls held now.", self.waiters.waiting());
        page.gauge("polls_held_max", "The cap on them.", self.held.capacity());
        page.gauge("topics", "Topics.", log.topics);
        page.gauge("retained_events", "Events kept.", log.events);
        page.gauge("retained_bytes", "Bytes kept, as --retain-bytes counts them.", log.bytes);
        page.gauge("head_seq", "The seq given out last.", log.head);
        page.counter("events_trimmed_total", "Events let go.", log.trimmed);
        page.gauge("idempotency_keys", "Idempotency keys remembered.", log.keys);
        page.counter(
            "idempotency_keys_evicted_total",
            "Idempotency keys forgotten before their time.",
            log.keys_evicted,
        );
        page.gauge(
            "answers_in_flight_bytes",
            "Rendered poll answers, shared ones included.",
            self.pages.in_flight(),
        );
        if let Some((known, outdated)) = self.access.token_status() {
            page.gauge("tokens", "Tokens known.", known);
            page.gauge(
                "tokens_outdated",
                "1 when the file of tokens is wrong, and what it said before is in force.",
                u8::from(outdated),
            );
        }
        self.metrics.render(&mut page);
        self.writer.render(&mut page);
        let text = page.finish().into_bytes();
        let answer = Response::new(200, "text/plain; version=0.0.4; charset=utf-8", text);
        Reply::Response(answer.with_header("Cache-Control", "no-store"))
    }
}
