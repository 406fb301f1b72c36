//! A publish: append the events, notify the polls that wait for them, deliver their responses.
//!
//! It promises that once the publisher has its response, the events are in the log (with
//! `--sync always` also on the disk), and every held poll that they release has its response or is
//! about to write it. The append takes all events of a request or none. The order is append, *then*
//! notify: a poll that is woken finds the events. The publisher's own thread writes the responses
//! of the held polls; [`super::deliver`] says why.
//!
//! If a response is lost, retrying with the same idempotency key does not publish again.
//! [`crate::log`] recognises the key in `idempotency.rs`, under the lock of the append; the second
//! publisher then waits here, in [`EventPublisher::repeat`], for the first one's receipt.

use std::sync::Arc;

use super::caller::Caller;
use super::deliver::deliver;
use super::held_poll::{HeldPoll, HeldPolls};
use super::page_reader::PageReader;
use super::publish_request::PublishRequest;
use super::receipt::PublishReceipt;
use crate::http::Response;
use crate::log::{
    AppendError, AppendRequest, Appended, Fingerprinter, IdempotencyKey, KeyId, LogWriter,
    SharedOutcome, Timestamp, WriteError,
};
use crate::metrics::Metrics;
use crate::names::Name;
use crate::problem::{Cause, Problem};
use crate::shutdown::Shutdown;

/// Publishes events.
pub struct EventPublisher {
    pub(super) writer: Arc<dyn LogWriter<PublishReceipt>>,
    pub(super) fingerprints: Fingerprinter,
    /// Renders the pages for the polls that a publish releases.
    pub(super) reader: Arc<PageReader>,
    /// The held polls to notify.
    pub(super) waiters: Arc<HeldPolls>,
    pub(super) metrics: Arc<Metrics>,
    /// Set while the server drains; a publish is then refused.
    pub(super) shutdown: Shutdown,
    /// Bytes of one event (`--max-event`).
    pub(super) max_event: usize,
    /// Only for the text of a refusal; the log applies it (`--max-topics`).
    pub(super) max_topics: usize,
}

impl EventPublisher {
    /// Appends the events of a body and answers the polls that wait for them.
    ///
    /// # Errors
    /// If the body is wrong, the server is draining, or the log or the disk refuses the events.
    /// Nothing is published then.
    pub fn publish(
        &self,
        request: &PublishRequest,
        body: Vec<u8>,
        caller: &Caller<'_>,
    ) -> Result<Response, Problem> {
        if self.shutdown.is_triggered() {
            return Err(Problem::new(
                Cause::Draining,
                "the server is shutting down; nothing was published",
            ));
        }
        let key = self.idempotency_key(request, &body, caller);
        let events = request.events(body, self.max_event)?;
        let count = events.len();
        // Locked until the receipt is complete: a repeat waits for it.
        let mut outcome = key.as_ref().map(|key| key.outcome.lock());
        let now = Timestamp::read();
        let batch_count = request.is_batch().then_some(count as u32);
        let append =
            AppendRequest { topic: &request.topic, events, key: key.as_ref(), count: batch_count };
        let appended = self.writer.append(append, now);
        let cursor = match appended.map_err(|error| self.write_refused(&error))? {
            Appended::New(cursor) => cursor,
            Appended::Duplicate(first) => {
                drop(outcome);
                return self.repeat(request, &first);
            }
        };
        let mut receipt =
            PublishReceipt { cursor, time: now.wall, released: 0, count: batch_count };
        self.metrics.publishes.add(1);
        self.metrics.published_events.add(count as u64);
        // Stored before the delivery as well: a panic there must not lose the receipt.
        if let Some(outcome) = &mut outcome {
            **outcome = Some(receipt.clone());
        }
        let matches_type = |held: &HeldPoll| held.key.types.matches(request.event_type.as_ref());
        let mut released = self.waiters.notify(&request.topic, cursor.seq, matches_type);
        receipt.released = released.count() as u32;
        deliver(&self.reader, &self.metrics, &mut released, cursor);
        // Wakes the threads of the released polls.
        drop(released);
        if let Some(outcome) = &mut outcome {
            **outcome = Some(receipt.clone());
        }
        Ok(receipt.response(&request.topic, 201, self.writer.is_durable()))
    }

    /// Trims all events of a topic.
    ///
    /// # Errors
    /// If the disk refuses it.
    pub fn trim(&self, topic: &Name) -> Result<Response, Problem> {
        self.writer.trim(topic).map_err(|error| self.write_refused(&error))?;
        Ok(Response::no_content())
    }

    /// The key of a publish as the log knows it: the fingerprint of token, topic and key, and that
    /// of the content. The token is part of it so that another client cannot occupy a key by
    /// guessing it; no token has an empty name.
    fn idempotency_key(
        &self,
        request: &PublishRequest,
        body: &[u8],
        caller: &Caller<'_>,
    ) -> Option<IdempotencyKey<PublishReceipt>> {
        request.key.as_ref().map(|key| {
            let owner = caller.grant.token.as_ref().map_or("", |token| &token.name);
            let parts = [owner.as_bytes(), request.topic.as_bytes(), key.as_bytes()];
            IdempotencyKey {
                id: KeyId(self.fingerprints.of(&parts)),
                fingerprint: request.fingerprint(&self.fingerprints, body),
                outcome: Arc::default(),
            }
        })
    }

    /// Answers a publish whose key is known as the first one was answered; waits until that one has
    /// its receipt.
    fn repeat(
        &self,
        request: &PublishRequest,
        first: &SharedOutcome<PublishReceipt>,
    ) -> Result<Response, Problem> {
        let receipt = first.lock().clone().ok_or_else(|| {
            Problem::new(Cause::Internal, "the first publish with this key did not complete")
        })?;
        self.metrics.publish_repeats.add(1);
        Ok(receipt.response(&request.topic, 200, self.writer.is_durable()))
    }

    fn write_refused(&self, error: &WriteError) -> Problem {
        match error {
            WriteError::Rejected(AppendError::KeyReused) => Problem::new(
                Cause::KeyReused,
                "this Idempotency-Key was used for another publish here; expected a new key for a new event",
            ),
            WriteError::Rejected(AppendError::TooManyTopics) => Problem::new(
                Cause::TopicCap,
                format!(
                    "{} topics have events already, the limit of --max-topics",
                    self.max_topics
                ),
            ),
            WriteError::Storage(why) => Problem::new(
                Cause::Storage,
                format!("nothing was done, because {why}; try again later, with the same key"),
            ),
        }
    }
}
