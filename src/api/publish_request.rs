//! A publish request before its body arrives, and the events that its body becomes.
//!
//! All that can be wrong is found here, before anything is appended: topic, event type, idempotency
//! key and content type in [`PublishRequest::parse`], the body in [`PublishRequest::events`].

use super::query_params::QueryParams;
use crate::config::Config;
use crate::http::{HeaderName, RequestHead};
use crate::json;
use crate::limits::{BATCH_BYTES, BATCH_EVENTS, CONTENT_TYPE_CHARS, IDEMPOTENCY_KEY_CHARS};
use crate::log::{BodyKind, EventContent, Fingerprinter};
use crate::names::{NAME_RULE, Name, Pattern};
use crate::problem::{Cause, Problem};

/// A publish, without its body.
#[derive(Debug)]
pub struct PublishRequest {
    pub(super) topic: Name,
    pub(super) event_type: Option<Name>,
    media: MediaType,
    /// The `Idempotency-Key`.
    pub(super) key: Option<String>,
}

/// What the content type says about the body.
#[derive(Debug, PartialEq, Eq)]
enum MediaType {
    /// One JSON value. The content type is kept if it is not `application/json`.
    Json(Option<Box<str>>),
    /// A batch: one JSON value on each line.
    Ndjson,
    /// Stored as it is. The content type is kept if it is not plain text.
    Text(Option<Box<str>>),
    Bytes(Box<str>),
}

impl PublishRequest {
    /// Parses a publish's topic, parameters and header fields.
    ///
    /// # Errors
    /// Names the part that is wrong, and what is expected.
    pub fn parse(topic: &str, head: &RequestHead) -> Result<PublishRequest, Problem> {
        let topic = Name::new(topic).ok_or_else(|| {
            Problem::bad_request(format!(
                "topic {topic:?}: POST takes one topic; expected {NAME_RULE}"
            ))
        })?;
        let params = QueryParams::parse(head.query(), &["type"])?;
        let parameter = params.get("type");
        let field = head.get(HeaderName::EventType)?;
        if let (Some(a), Some(b)) = (parameter, field) {
            if a != b {
                let detail = format!(
                    "parameter type={a} and header Event-Type: {b} differ; expected one of them"
                );
                return Err(Problem::bad_request(detail));
            }
        }
        let event_type = parameter.or(field).map(|text| {
            Name::new(text).ok_or_else(|| {
                Problem::bad_request(format!("event type {text:?}: expected {NAME_RULE}"))
            })
        });
        match head.get(HeaderName::ContentEncoding)? {
            None | Some("identity") => {}
            Some(coding) => {
                let detail =
                    format!("header Content-Encoding: {coding}: expected a body without encoding");
                return Err(Problem::bad_request(detail));
            }
        }
        Ok(PublishRequest {
            topic,
            event_type: event_type.transpose()?,
            media: parse_media_type(head.get(HeaderName::ContentType)?)?,
            key: head.get(HeaderName::IdempotencyKey)?.map(parse_key).transpose()?,
        })
    }

    /// A publish of plain text to a topic, without type or key.
    #[must_use]
    pub fn plain_text(topic: Name) -> PublishRequest {
        PublishRequest { topic, event_type: None, media: MediaType::Text(None), key: None }
    }

    /// The topic as a pattern, for the right that the publish needs.
    pub fn pattern(&self) -> Pattern {
        Pattern::Topic(self.topic.clone())
    }

    pub fn is_batch(&self) -> bool {
        self.media == MediaType::Ndjson
    }

    /// The largest accepted body, in bytes.
    pub fn body_limit(&self, config: &Config) -> usize {
        match self.media {
            MediaType::Ndjson => BATCH_BYTES,
            _ => config.max_event,
        }
    }

    /// The fingerprint of all that is published: a repeat of a key must have the same one.
    pub fn fingerprint(&self, fingerprints: &Fingerprinter, body: &[u8]) -> u128 {
        let (media, content_type) = match &self.media {
            MediaType::Json(content_type) => ("json", content_type.as_deref()),
            MediaType::Ndjson => ("ndjson", None),
            MediaType::Text(content_type) => ("text", content_type.as_deref()),
            MediaType::Bytes(content_type) => ("bytes", Some(&**content_type)),
        };
        // Empty stands for none: neither a content type nor a name is ever empty.
        let content_type = content_type.unwrap_or_default().as_bytes();
        let event_type = self.event_type.as_deref().unwrap_or_default().as_bytes();
        fingerprints.of(&[media.as_bytes(), content_type, event_type, body])
    }

    /// The events of a body.
    ///
    /// # Errors
    /// Names the line of a batch that is wrong, and what is expected.
    pub fn events(&self, body: Vec<u8>, max_event: usize) -> Result<Vec<EventContent>, Problem> {
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

    fn batch(&self, body: &[u8], max_event: usize) -> Result<Vec<EventContent>, Problem> {
        let mut events = Vec::new();
        let lines = body.split(|b| *b == b'\n').map(<[u8]>::trim_ascii);
        for (index, line) in lines.enumerate().filter(|(_, line)| !line.is_empty()) {
            let number = index + 1;
            if events.len() == BATCH_EVENTS {
                let detail =
                    format!("line {number}: expected at most {BATCH_EVENTS} events in a batch");
                return Err(Problem::new(Cause::TooLarge, detail));
            }
            if line.len() > max_event {
                let length = line.len();
                let detail = format!(
                    "line {number} has {length} bytes; expected at most {max_event} (--max-event)"
                );
                return Err(Problem::new(Cause::TooLarge, detail));
            }
            json::validate(line)
                .map_err(|e| Problem::bad_request(format!("line {number} is not JSON: {e}")))?;
            events.push(self.content(BodyKind::Json, None, line.to_vec()));
        }
        if events.is_empty() {
            return Err(Problem::bad_request(
                "the batch is empty; expected one JSON value on each line",
            ));
        }
        Ok(events)
    }
}

fn is_printable_ascii(text: &str) -> bool {
    text.bytes().all(|b| (b' '..=b'~').contains(&b))
}

fn parse_key(text: &str) -> Result<String, Problem> {
    let is_key = (1..=IDEMPOTENCY_KEY_CHARS).contains(&text.len()) && is_printable_ascii(text);
    is_key.then(|| text.to_owned()).ok_or_else(|| {
        Problem::bad_request(format!(
            "header Idempotency-Key: expected 1 to {IDEMPOTENCY_KEY_CHARS} printable ASCII characters"
        ))
    })
}

fn parse_media_type(content_type: Option<&str>) -> Result<MediaType, Problem> {
    let text = content_type.unwrap_or_default();
    // The values of nearly all publishes; `curl -d` always sends the last of the first three.
    match text {
        "" | "text/plain" | "application/x-www-form-urlencoded" => {
            return Ok(MediaType::Text(None));
        }
        "application/json" => return Ok(MediaType::Json(None)),
        _ => {}
    }
    if text.len() > CONTENT_TYPE_CHARS || !is_printable_ascii(text) {
        let detail = format!(
            "header Content-Type: expected at most {CONTENT_TYPE_CHARS} printable ASCII characters"
        );
        return Err(Problem::bad_request(detail));
    }
    let (essence, parameters) = text.split_once(';').unwrap_or((text, ""));
    let essence = essence.trim();
    let is = |known: &str| essence.eq_ignore_ascii_case(known);
    let has_prefix =
        |known: &str| essence.get(..known.len()).is_some_and(|s| s.eq_ignore_ascii_case(known));
    let kept = || Box::from(text);
    Ok(if is("text/plain") && is_utf8(parameters) || is("application/x-www-form-urlencoded") {
        MediaType::Text(None)
    } else if is("application/json") {
        MediaType::Json(None)
    } else if is("application/x-ndjson") {
        MediaType::Ndjson
    } else if has_prefix("text/") {
        MediaType::Text(Some(kept()))
    } else if essence.to_ascii_lowercase().ends_with("+json") {
        MediaType::Json(Some(kept()))
    } else {
        MediaType::Bytes(kept())
    })
}

/// Whether the parameters of a content type state nothing but UTF-8.
fn is_utf8(parameters: &str) -> bool {
    let parameters = parameters.trim();
    let utf8 = ["", "charset=utf-8", "charset=\"utf-8\"", "charset=us-ascii"];
    utf8.iter().any(|known| parameters.eq_ignore_ascii_case(known))
}
