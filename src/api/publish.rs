//! Publish: check the body, append it, ring the bell.
//!
//! When it is answered, the event is in the log (and with `--sync always` on the disk), and every
//! held poll that it releases has its answer or is about to write it. Everything that can be wrong
//! is found before the append, which is all or nothing. The order is append, *then* ring: whom the
//! bell wakes finds the event. And the publisher itself writes the answers of those who wait, see
//! `deliver`.

use std::sync::Arc;
use std::time::SystemTime;

use super::params::Params;
use super::{Api, Caller, Reply, Waiter};
use crate::config::Config;
use crate::cursor::Cursor;
use crate::error::{Cause, Problem};
use crate::http::{Answer, Field, Head};
use crate::json::{self, Object};
use crate::limits::{BATCH_BYTES, BATCH_EVENTS, CONTENT_TYPE_CHARS, KEY_CHARS};
use crate::log::{
    Appended, Claim, Draft, Fingerprints, Form, Handed, Now, Outcome, Refusal, Refused,
};
use crate::names::{NAME_RULE, Name, Pattern};

/// A publish as it was asked for, without its body.
#[derive(Debug)]
pub struct Ask {
    topic: Name,
    tag: Option<Name>,
    media: Media,
    key: Option<String>,
}

/// What the body is, by its content type.
#[derive(Debug, PartialEq, Eq)]
enum Media {
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
pub struct Published {
    cursor: Cursor,
    time: SystemTime,
    released: u32,
    /// Of a batch.
    count: Option<u32>,
}

impl Ask {
    /// Reads a publish's topic, parameters and headers.
    ///
    /// # Errors
    /// Names what is wrong, and what is allowed.
    pub fn read(topic: &str, head: &Head) -> Result<Ask, Problem> {
        let topic = Name::new(topic).ok_or_else(|| {
            Problem::bad(format!("topic {topic:?}: a publish goes to one topic, {NAME_RULE}"))
        })?;
        let params = Params::read(head.query(), &["type"])?;
        let by_query = params.get("type");
        let by_header = head.one(Field::EventType)?;
        if let (Some(a), Some(b)) = (by_query, by_header) {
            if a != b {
                let detail = format!("parameter type={a} and header Event-Type: {b} differ");
                return Err(Problem::bad(detail));
            }
        }
        let tag = by_query.or(by_header).map(|text| {
            Name::new(text)
                .ok_or_else(|| Problem::bad(format!("event type {text:?} is not {NAME_RULE}")))
        });
        match head.one(Field::ContentEncoding)? {
            None | Some("identity") => {}
            Some(coding) => {
                let detail = format!(
                    "Content-Encoding {coding:?} is not understood; send the body as it is"
                );
                return Err(Problem::bad(detail));
            }
        }
        Ok(Ask {
            topic,
            tag: tag.transpose()?,
            media: media(head.one(Field::ContentType)?)?,
            key: head.one(Field::IdempotencyKey)?.map(key).transpose()?,
        })
    }

    /// A text for a topic, and nothing else.
    #[cfg(feature = "websocket")]
    pub fn text(topic: Name) -> Ask {
        Ask { topic, tag: None, media: Media::Text(None), key: None }
    }

    /// The topic that it goes to.
    pub fn pattern(&self) -> Pattern {
        Pattern::Topic(self.topic.clone())
    }

    /// The largest body.
    pub fn body_limit(&self, config: &Config) -> usize {
        match self.media {
            Media::Ndjson => BATCH_BYTES,
            _ => config.max_event,
        }
    }

    /// Identifies what is published: a repeat of a key has to be the same in all of this.
    fn fingerprint(&self, fingerprints: &Fingerprints, body: &[u8]) -> u128 {
        let (media, own) = match &self.media {
            Media::Json(own) => ("json", own.as_deref()),
            Media::Ndjson => ("ndjson", None),
            Media::Text(own) => ("text", own.as_deref()),
            Media::Bytes(own) => ("bytes", Some(&**own)),
        };
        // Neither a content type nor a name is ever empty.
        let own = own.unwrap_or_default().as_bytes();
        let tag = self.tag.as_deref().unwrap_or_default().as_bytes();
        fingerprints.of(&[media.as_bytes(), own, tag, body])
    }

    fn draft(&self, form: Form, content_type: Option<Box<str>>, body: Vec<u8>) -> Draft {
        Draft { tag: self.tag.clone(), form, content_type, body: body.into_boxed_slice() }
    }

    /// The events of a body.
    fn drafts(&self, body: Vec<u8>, max_event: usize) -> Result<Vec<Draft>, Problem> {
        let utf8 = if std::str::from_utf8(&body).is_ok() { Form::Text } else { Form::Binary };
        match &self.media {
            Media::Ndjson => self.batch(&body, max_event),
            Media::Json(content_type) => {
                json::check(&body)
                    .map_err(|e| Problem::bad(format!("the body is not JSON: {e}")))?;
                Ok(vec![self.draft(Form::Json, content_type.clone(), body)])
            }
            Media::Text(content_type) => Ok(vec![self.draft(utf8, content_type.clone(), body)]),
            Media::Bytes(content_type) => {
                Ok(vec![self.draft(utf8, Some(content_type.clone()), body)])
            }
        }
    }

    fn batch(&self, body: &[u8], max_event: usize) -> Result<Vec<Draft>, Problem> {
        let mut drafts = Vec::new();
        let lines = body.split(|b| *b == b'\n').map(<[u8]>::trim_ascii);
        for (index, line) in lines.enumerate().filter(|(_, line)| !line.is_empty()) {
            let number = index + 1;
            if drafts.len() == BATCH_EVENTS {
                let detail = format!("line {number}: a batch has at most {BATCH_EVENTS} events");
                return Err(Problem::new(Cause::TooLarge, detail));
            }
            if line.len() > max_event {
                let detail =
                    format!("line {number} has {} bytes; allowed are {max_event}", line.len());
                return Err(Problem::new(Cause::TooLarge, detail));
            }
            json::check(line)
                .map_err(|e| Problem::bad(format!("line {number} is not JSON: {e}")))?;
            drafts.push(self.draft(Form::Json, None, line.to_vec()));
        }
        if drafts.is_empty() {
            return Err(Problem::bad("the batch has no event; send one JSON value a line"));
        }
        Ok(drafts)
    }
}

fn key(text: &str) -> Result<String, Problem> {
    let ok =
        (1..=KEY_CHARS).contains(&text.len()) && text.bytes().all(|b| (b' '..=b'~').contains(&b));
    ok.then(|| text.to_owned()).ok_or_else(|| {
        Problem::bad(format!(
            "header Idempotency-Key has to be 1 to {KEY_CHARS} printable ASCII characters"
        ))
    })
}

/// What a content type stands for.
fn media(content_type: Option<&str>) -> Result<Media, Problem> {
    let text = content_type.unwrap_or_default();
    // Nearly all say one of these, and so; curl's -d says the last, whatever it sends.
    match text {
        "" | "text/plain" | "application/x-www-form-urlencoded" => return Ok(Media::Text(None)),
        "application/json" => return Ok(Media::Json(None)),
        _ => {}
    }
    if text.len() > CONTENT_TYPE_CHARS || !text.bytes().all(|b| (b' '..=b'~').contains(&b)) {
        let detail = format!(
            "header Content-Type has to be at most {CONTENT_TYPE_CHARS} printable ASCII characters"
        );
        return Err(Problem::bad(detail));
    }
    let (essence, parameters) = text.split_once(';').unwrap_or((text, ""));
    let essence = essence.trim();
    let is = |known: &str| essence.eq_ignore_ascii_case(known);
    let begins =
        |known: &str| essence.get(..known.len()).is_some_and(|s| s.eq_ignore_ascii_case(known));
    let own = || Box::from(text);
    Ok(if is("text/plain") && is_utf8(parameters) || is("application/x-www-form-urlencoded") {
        Media::Text(None)
    } else if is("application/json") {
        Media::Json(None)
    } else if is("application/x-ndjson") {
        Media::Ndjson
    } else if begins("text/") {
        Media::Text(Some(own()))
    } else if essence.to_ascii_lowercase().ends_with("+json") {
        Media::Json(Some(own()))
    } else {
        Media::Bytes(own())
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
        ask: &Ask,
        body: Vec<u8>,
        caller: &Caller<'_>,
    ) -> Result<Reply, Problem> {
        if self.shutdown.given() {
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
        let drafts = ask.drafts(body, self.max_event)?;
        let count = drafts.len();
        let claim = key.map(|(id, fingerprint)| Claim { id, fingerprint, outcome: Arc::default() });
        // Locked until the outcome is complete: a repeat waits for it.
        let mut outcome = claim.as_ref().map(|claim| claim.outcome.lock());
        let now = Now::read();
        let batch = (ask.media == Media::Ndjson).then_some(count as u32);
        let handed = Handed { topic: &ask.topic, drafts, claim: claim.as_ref(), count: batch };
        let appended = self.ledger.append(handed, now);
        let cursor = match appended.map_err(|refusal| self.refuse_publish(&refusal))? {
            Appended::Now(cursor) => cursor,
            Appended::Before(first) => {
                drop(outcome);
                return self.repeat(ask, &first);
            }
        };
        let mut published = Published { cursor, time: now.wall, released: 0, count: batch };
        self.metrics.publishes.add(1);
        self.metrics.published_events.add(count as u64);
        // Known from here on, whatever happens to those who are told of it.
        if let Some(outcome) = &mut outcome {
            **outcome = Some(published.clone());
        }
        let answers = |waiter: &Waiter| waiter.key.types.keeps(ask.tag.as_ref());
        let mut released = self.room.ring(&ask.topic, cursor.seq, answers);
        published.released = released.count() as u32;
        self.deliver(&mut released, cursor);
        drop(released);
        if let Some(outcome) = &mut outcome {
            **outcome = Some(published.clone());
        }
        Ok(published.answer(&ask.topic, 201, self.ledger.is_durable()))
    }

    /// Answers a publish whose key is known: as the first was, once that is known.
    fn repeat(&self, ask: &Ask, first: &Outcome<Published>) -> Result<Reply, Problem> {
        let published = first.lock().clone().ok_or_else(|| {
            Problem::new(Cause::Internal, "the first publish under this key failed in the middle")
        })?;
        self.metrics.publish_repeats.add(1);
        Ok(published.answer(&ask.topic, 200, self.ledger.is_durable()))
    }

    pub(super) fn refuse_publish(&self, refusal: &Refusal) -> Problem {
        match refusal {
            Refusal::Log(Refused::KeyReused) => Problem::new(
                Cause::KeyReused,
                "this Idempotency-Key was used here for something else; a new event needs a new key",
            ),
            Refusal::Log(Refused::TopicCap) => Problem::new(
                Cause::TopicCap,
                format!("there are {} topics with events already (--max-topics)", self.max_topics),
            ),
            Refusal::Disk(why) => Problem::new(
                Cause::Storage,
                format!("nothing was done, because {why}; try again later, with the same key"),
            ),
        }
    }
}

impl Published {
    /// What an earlier run of the program answered, as far as that is known: which polls it
    /// released went with it.
    #[cfg(feature = "store")]
    pub(super) fn again(cursor: Cursor, time: SystemTime, count: Option<u32>) -> Published {
        Published { cursor, time, released: 0, count }
    }

    fn answer(&self, topic: &Name, status: u16, durable: bool) -> Reply {
        let mut body = Vec::with_capacity(256);
        let mut object = Object::open(&mut body);
        let cursor = self.cursor.text();
        object
            .plain("topic", topic)
            .number("seq", self.cursor.seq)
            .plain("cursor", &cursor)
            .time("time", self.time)
            .number("released", self.released.into())
            .boolean("durable", durable);
        if let Some(count) = self.count {
            object.number("count", count.into());
        }
        if status == 200 {
            object.boolean("duplicate", true);
        }
        object.close();
        body.push(b'\n');
        Reply::Answer(Answer::json(status, body).with("Next-Cursor", &cursor))
    }
}
