//! Publish: check the body, append it, ring the bell.
//!
//! When it is answered, the event is in the log (and with `--sync always` on the disk), and every
//! held poll that it releases has its answer or is about to write it. Everything that can be wrong
//! is found before the append, which is all or nothing. The order is append, *then* ring: whom the
//! bell wakes finds the event. And the publisher itself writes the answers of those who wait, see
//! `deliver`.

use std::sync::Arc;
use std::time::SystemTime;

use super::params::QueryParams;
use super::{Api, Caller, HeldPoll, Reply};
use crate::config::Config;
use crate::cursor::Cursor;
use crate::http::{HeaderName, RequestHead, Response};
use crate::json::{self, JsonObject};
use crate::limits::{BATCH_BYTES, BATCH_EVENTS, CONTENT_TYPE_CHARS, IDEMPOTENCY_KEY_CHARS};
use crate::log::{
    AppendError, AppendRequest, Appended, BodyKind, EventContent, Fingerprinter, IdempotencyKey,
    SharedOutcome, Timestamp, WriteError,
};
use crate::names::{NAME_RULE, Name, Pattern};
use crate::problem::{Cause, Problem};

/// A publish as it was asked for, without its body.
#[derive(Debug)]
pub struct PublishRequest {
    topic: Name,
    event_type: Option<Name>,
    media: MediaType,
    key: Option<String>,
}

/// What the body is, by its content type.
#[derive(Debug, PartialEq, Eq)]
enum MediaType {
    /// One JSON value; the content type is kept when it says more than that.
    Json(Option<Box<str>>),
    /// One JSON value a line.
    Ndjson,
    /// Stored as given; the content type is kept when it is not plain text.
    Text(Option<Box<str>>),
    Bytes(Box<str>),
}

/// What a publish is answered with.
#[derive(Clone)]
pub struct PublishReceipt {
    cursor: Cursor,
    time: SystemTime,
    released: u32,
    /// Of a batch.
    count: Option<u32>,
}

impl PublishRequest {
    /// Reads a publish's topic, parameters and headers.
    ///
    /// # Errors
    /// Names what is wrong, and what is allowed.
    pub fn read(topic: &str, head: &RequestHead) -> Result<PublishRequest, Problem> {
        let topic = Name::new(topic).ok_or_else(|| {
            Problem::bad_request(format!(
                "topic {topic:?}: a publish goes to one topic, {NAME_RULE}"
            ))
        })?;
        let params = QueryParams::read(head.query(), &["type"])?;
        let by_query = params.get("type");
        let by_header = head.get(HeaderName::EventType)?;
        if let (Some(a), Some(b)) = (by_query, by_header) {
            if a != b {
                let detail = format!("parameter type={a} and header Event-Type: {b} differ");
                return Err(Problem::bad_request(detail));
            }
        }
        let event_type = by_query.or(by_header).map(|text| {
            Name::new(text).ok_or_else(|| {
                Problem::bad_request(format!("event type {text:?} is not {NAME_RULE}"))
            })
        });
        match head.get(HeaderName::ContentEncoding)? {
            None | Some("identity") => {}
            Some(coding) => {
                let detail = format!(
                    "Content-Encoding {coding:?} is not understood; send the body as it is"
                );
                return Err(Problem::bad_request(detail));
            }
        }
        Ok(PublishRequest {
            topic,
            event_type: event_type.transpose()?,
            media: media(head.get(HeaderName::ContentType)?)?,
            key: head.get(HeaderName::IdempotencyKey)?.map(key).transpose()?,
        })
    }

    /// A text for a topic, and nothing else.
    #[cfg(feature = "websocket")]
    pub fn text(topic: Name) -> PublishRequest {
        PublishRequest { topic, event_type: None, media: MediaType::Text(None), key: None }
    }

    /// The topic that it goes to.
    pub fn pattern(&self) -> Pattern {
        Pattern::Topic(self.topic.clone())
    }

    /// The largest body.
    pub fn body_limit(&self, config: &Config) -> usize {
        match self.media {
            MediaType::Ndjson => BATCH_BYTES,
            _ => config.max_event,
        }
    }

    /// Identifies what is published: a repeat of a key has to be the same in all of this.
    fn fingerprint(&self, fingerprints: &Fingerprinter, body: &[u8]) -> u128 {
        let (media, own) = match &self.media {
            MediaType::Json(own) => ("json", own.as_deref()),
            MediaType::Ndjson => ("ndjson", None),
            MediaType::Text(own) => ("text", own.as_deref()),
            MediaType::Bytes(own) => ("bytes", Some(&**own)),
        };
        // Neither a content type nor a name is ever empty.
        let own = own.unwrap_or_default().as_bytes();
        let event_type = self.event_type.as_deref().unwrap_or_default().as_bytes();
        fingerprints.of(&[media.as_bytes(), own, event_type, body])
    }

    fn content(
        &self,
        kind: BodyKind,
        content_type: Option<Box<str>>,
        body: Vec<u8>,
    ) -> EventContent {
        EventContent {
            event_type: self.event_type.clone(),
            kind,
            content_type,
            body: body.into_boxed_slice(),
        }
    }

    /// The events of a body.
    fn events(&self, body: Vec<u8>, max_event: usize) -> Result<Vec<EventContent>, Problem> {
        let utf8 =
            if std::str::from_utf8(&body).is_ok() { BodyKind::Text } else { BodyKind::Binary };
        match &self.media {
            MediaType::Ndjson => self.batch(&body, max_event),
            MediaType::Json(content_type) => {
                json::validate(&body)
                    .map_err(|e| Problem::bad_request(format!("the body is not JSON: {e}")))?;
                Ok(vec![self.content(BodyKind::Json, content_type.clone(), body)])
            }
            MediaType::Text(content_type) => {
                Ok(vec![self.content(utf8, content_type.clone(), body)])
            }
            MediaType::Bytes(content_type) => {
                Ok(vec![self.content(utf8, Some(content_type.clone()), body)])
            }
        }
    }

    fn batch(&self, body: &[u8], max_event: usize) -> Result<Vec<EventContent>, Problem> {
        let mut events = Vec::new();
        let lines = body.split(|b| *b == b'\n').map(<[u8]>::trim_ascii);
        for (index, line) in lines.enumerate().filter(|(_, line)| !line.is_empty()) {
            let number = index + 1;
            if events.len() == BATCH_EVENTS {
                let detail = format!("line {number}: a batch has at most {BATCH_EVENTS} events");
                return Err(Problem::new(Cause::TooLarge, detail));
            }
            if line.len() > max_event {
                let detail =
                    format!("line {number} has {} bytes; allowed are {max_event}", line.len());
                return Err(Problem::new(Cause::TooLarge, detail));
            }
            json::validate(line)
                .map_err(|e| Problem::bad_request(format!("line {number} is not JSON: {e}")))?;
            events.push(self.content(BodyKind::Json, None, line.to_vec()));
        }
        if events.is_empty() {
            return Err(Problem::bad_request("the batch has no event; send one JSON value a line"));
        }
        Ok(events)
    }
}

fn key(text: &str) -> Result<String, Problem> {
    let ok = (1..=IDEMPOTENCY_KEY_CHARS).contains(&text.len())
        && text.bytes().all(|b| (b' '..=b'~').contains(&b));
    ok.then(|| text.to_owned()).ok_or_else(|| {
        Problem::bad_request(format!(
            "header Idempotency-Key has to be 1 to {IDEMPOTENCY_KEY_CHARS} printable ASCII characters"
        ))
    })
}

/// What a content type stands for.
fn media(content_type: Option<&str>) -> Result<MediaType, Problem> {
    let text = content_type.unwrap_or_default();
    // Nearly all say one of these, and so; curl's -d says the last, whatever it sends.
    match text {
        "" | "text/plain" | "application/x-www-form-urlencoded" => {
            return Ok(MediaType::Text(None));
        }
        "application/json" => return Ok(MediaType::Json(None)),
        _ => {}
    }
    if text.len() > CONTENT_TYPE_CHARS || !text.bytes().all(|b| (b' '..=b'~').contains(&b)) {
        let detail = format!(
            "header Content-Type has to be at most {CONTENT_TYPE_CHARS} printable ASCII characters"
        );
        return Err(Problem::bad_request(detail));
    }
    let (essence, parameters) = text.split_once(';').unwrap_or((text, ""));
    let essence = essence.trim();
    let is = |known: &str| essence.eq_ignore_ascii_case(known);
    let begins =
        |known: &str| essence.get(..known.len()).is_some_and(|s| s.eq_ignore_ascii_case(known));
    let own = || Box::from(text);
    Ok(if is("text/plain") && is_utf8(parameters) || is("application/x-www-form-urlencoded") {
        MediaType::Text(None)
    } else if is("application/json") {
        MediaType::Json(None)
    } else if is("application/x-ndjson") {
        MediaType::Ndjson
    } else if begins("text/") {
        MediaType::Text(Some(own()))
    } else if essence.to_ascii_lowercase().ends_with("+json") {
        MediaType::Json(Some(own()))
    } else {
        MediaType::Bytes(own())
    })
}

/// Whether content type parameters say no more than that a text is UTF-8.
fn is_utf8(parameters: &str) -> bool {
    let parameters = parameters.trim();
    let plain = ["", "charset=utf-8", "charset=\"utf-8\"", "charset=us-ascii"];
    plain.iter().any(|known| parameters.eq_ignore_ascii_case(known))
}

impl Api {
    /// Appends what was sent and wakes who waits for it.
    pub(super) fn publish(
        &self,
        ask: &PublishRequest,
        body: Vec<u8>,
        caller: &Caller<'_>,
    ) -> Result<Reply, Problem> {
        if self.shutdown.is_triggered() {
            return Err(Problem::new(
                Cause::Draining,
                "the server is shutting down; nothing was published",
            ));
        }
        let key = ask.key.as_ref().map(|key| {
            // Others cannot take a key away by guessing it. No token's name is empty.
            let owner = caller.grant.token.as_ref().map_or("", |token| &token.name);
            let parts = [owner.as_bytes(), ask.topic.as_bytes(), key.as_bytes()];
            (self.fingerprints.of(&parts), ask.fingerprint(&self.fingerprints, &body))
        });
        let events = ask.events(body, self.max_event)?;
        let count = events.len();
        let claim = key.map(|(id, fingerprint)| IdempotencyKey {
            id,
            fingerprint,
            outcome: Arc::default(),
        });
        // Locked until the outcome is complete: a repeat waits for it.
        let mut outcome = claim.as_ref().map(|claim| claim.outcome.lock());
        let now = Timestamp::read();
        let batch = (ask.media == MediaType::Ndjson).then_some(count as u32);
        let handed =
            AppendRequest { topic: &ask.topic, events, claim: claim.as_ref(), count: batch };
        let appended = self.writer.append(handed, now);
        let cursor = match appended.map_err(|refusal| self.refuse_publish(&refusal))? {
            Appended::New(cursor) => cursor,
            Appended::Duplicate(first) => {
                drop(outcome);
                return self.repeat(ask, &first);
            }
        };
        let mut published = PublishReceipt { cursor, time: now.wall, released: 0, count: batch };
        self.metrics.publishes.add(1);
        self.metrics.published_events.add(count as u64);
        // Known from here on, whatever happens to those who are told of it.
        if let Some(outcome) = &mut outcome {
            **outcome = Some(published.clone());
        }
        let answers = |waiter: &HeldPoll| waiter.key.types.matches(ask.event_type.as_ref());
        let mut released = self.waiters.notify(&ask.topic, cursor.seq, answers);
        published.released = released.count() as u32;
        self.deliver(&mut released, cursor);
        drop(released);
        if let Some(outcome) = &mut outcome {
            **outcome = Some(published.clone());
        }
        Ok(published.answer(&ask.topic, 201, self.writer.is_durable()))
    }

    /// Answers a publish whose key is known: as the first was, once that is known.
    fn repeat(
        &self,
        ask: &PublishRequest,
        first: &SharedOutcome<PublishReceipt>,
    ) -> Result<Reply, Problem> {
        let published = first.lock().clone().ok_or_else(|| {
            Problem::new(Cause::Internal, "the first publish under this key failed in the middle")
        })?;
        self.metrics.publish_repeats.add(1);
        Ok(published.answer(&ask.topic, 200, self.writer.is_durable()))
    }

    pub(super) fn refuse_publish(&self, refusal: &WriteError) -> Problem {
        match refusal {
            WriteError::Rejected(AppendError::KeyReused) => Problem::new(
                Cause::KeyReused,
                "this Idempotency-Key was used here for something else; a new event needs a new key",
            ),
            WriteError::Rejected(AppendError::TooManyTopics) => Problem::new(
                Cause::TopicCap,
                format!("there are {} topics with events already (--max-topics)", self.max_topics),
            ),
            WriteError::Storage(why) => Problem::new(
                Cause::Storage,
                format!("nothing was done, because {why}; try again later, with the same key"),
            ),
        }
    }
}

impl PublishReceipt {
    /// What an earlier run of the program answered, as far as that is known: which polls it
    /// released went with it.
    #[cfg(feature = "store")]
    pub(super) fn again(cursor: Cursor, time: SystemTime, count: Option<u32>) -> PublishReceipt {
        PublishReceipt { cursor, time, released: 0, count }
    }

    fn answer(&self, topic: &Name, status: u16, durable: bool) -> Reply {
        let mut body = Vec::with_capacity(256);
        let mut object = JsonObject::begin(&mut body);
        let cursor = self.cursor.text();
        object
            .unescaped("topic", topic)
            .number("seq", self.cursor.seq)
            .unescaped("cursor", &cursor)
            .time("time", self.time)
            .number("released", self.released.into())
            .boolean("durable", durable);
        if let Some(count) = self.count {
            object.number("count", count.into());
        }
        if status == 200 {
            object.boolean("duplicate", true);
        }
        object.end();
        body.push(b'\n');
        Reply::Response(Response::json(status, body).with_header("Next-Cursor", &cursor))
    }
}
