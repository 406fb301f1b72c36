//! Publish: send, and send again under the same key until the outcome is known.
//!
//! A request without an answer may or may not have been done; only the server can tell, and only if
//! it knows both tries as one. So every publish has a key, its own or a random one, and is tried
//! for no longer than the server remembers keys: beyond that a retry could be a second event.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::backoff::Backoff;
use super::event::{Members, member};
use super::exchange::Asker;
use super::trouble::{Error, OnTrouble};
use super::url::Url;
use crate::limits::{IDEMPOTENCY_KEY_CHARS, PUBLISH_TIMEOUT, RETRY_FOR_MAX};
use crate::names::{NAME_RULE, Name};
use crate::shutdown::Shutdown;

/// What is to be published: one event, or a batch of them.
#[derive(Clone, Debug)]
pub struct Message {
    content_type: &'static str,
    body: Vec<u8>,
    /// The type to tag it with.
    pub tag: Option<Name>,
    /// What makes two tries one event; random when there is none.
    pub key: Option<String>,
}

impl Message {
    fn new(content_type: &'static str, body: Vec<u8>) -> Message {
        Message { content_type, body, tag: None, key: None }
    }

    /// A text; if it is not UTF-8, readers get it as bytes.
    #[must_use]
    pub fn text(text: impl Into<Vec<u8>>) -> Message {
        Message::new("text/plain; charset=utf-8", text.into())
    }

    /// A JSON value.
    #[must_use]
    pub fn json(json: impl Into<Vec<u8>>) -> Message {
        Message::new("application/json", json.into())
    }

    /// JSON values, one a line, each an event: all of them or none.
    #[must_use]
    pub fn lines(lines: impl Into<Vec<u8>>) -> Message {
        Message::new("application/x-ndjson", lines.into())
    }
}

/// What the server says of a publish.
#[derive(Clone, Debug)]
pub struct Receipt {
    /// Of the last event.
    pub seq: u64,
    /// After the last event.
    pub cursor: String,
    /// Whether an earlier try had arrived, though its answer had not.
    pub duplicate: bool,
    /// All of it, as the server wrote it: JSON on one line.
    pub json: String,
}

/// Publishes to one server.
pub struct Publisher {
    asker: Asker,
    url: Url,
    /// For how long a publish is tried again; at most [`RETRY_FOR_MAX`].
    retry_for: Duration,
    stop: Shutdown,
    on_trouble: OnTrouble,
}

impl Publisher {
    /// A publisher that has not connected yet.
    ///
    /// # Errors
    /// When the operating system has nothing left for it.
    pub fn new(url: &Url) -> Result<Publisher, Error> {
        Publisher::with_token(url, None)
    }

    /// A publisher that shows a token.
    ///
    /// # Errors
    /// When the token cannot be read.
    pub fn with_token(url: &Url, token_file: Option<PathBuf>) -> Result<Publisher, Error> {
        let stop = Shutdown::new().map_err(Error::System)?;
        // What was sent is waited for even when told to stop: better late than unknown.
        let never = Shutdown::new().map_err(Error::System)?;
        Ok(Publisher {
            asker: Asker::new(url, token_file, PUBLISH_TIMEOUT, never)?,
            url: url.clone(),
            retry_for: Duration::from_secs(60),
            stop,
            on_trouble: Box::new(|_, _| {}),
        })
    }

    /// For how long what may pass is tried again, if not for a minute; at most
    /// [`RETRY_FOR_MAX`], because a key is not remembered for ever.
    #[must_use]
    pub fn retry_for(mut self, time: Duration) -> Publisher {
        self.retry_for = time.min(RETRY_FOR_MAX);
        self
    }

    /// Ends the pauses between tries when it is given.
    #[must_use]
    pub fn stop_by(mut self, stop: Shutdown) -> Publisher {
        self.stop = stop;
        self
    }

    /// Tells of failures that may pass, each with the pause before the next try.
    #[must_use]
    pub fn on_trouble(mut self, tell: impl FnMut(&Error, Duration) + Send + 'static) -> Publisher {
        self.on_trouble = Box::new(tell);
        self
    }

    /// Publishes once, with as many tries as it takes.
    ///
    /// # Errors
    /// What will not pass by itself, or did not in time. Then a message with a key of its own can
    /// be given again without fear of a second event.
    pub fn publish(&mut self, topic: &str, message: &Message) -> Result<Receipt, Error> {
        if Name::new(topic).is_none() {
            return Err(Error::Invalid(format!("topic {topic:?} is not {NAME_RULE}")));
        }
        let key = match &message.key {
            Some(key) => check_key(key)?.to_owned(),
            None => random_key().map_err(Error::System)?,
        };
        let mut fields = vec![("Content-Type", message.content_type)];
        if let Some(tag) = &message.tag {
            fields.push(("Event-Type", tag));
        }
        let mut backoff = Backoff::default();
        let until = Instant::now() + self.retry_for;
        loop {
            let error = match self.send(topic, &key, &fields, &message.body) {
                Ok(receipt) => return Ok(receipt),
                Err(error) if !error.may_pass() => return Err(error),
                Err(error) => error,
            };
            let left = until.saturating_duration_since(Instant::now());
            if left <= error.retry_after() {
                let last = Box::new(error);
                return Err(Error::GaveUp { after: self.retry_for, last });
            }
            let pause = backoff.next(error.retry_after()).min(left);
            (self.on_trouble)(&error, pause);
            if self.stop.wait_until(Instant::now() + pause) {
                return Err(Error::Stopped);
            }
        }
    }

    fn send(
        &mut self,
        topic: &str,
        key: &str,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Receipt, Error> {
        let answer = self.asker.post(&format!("/topics/{topic}"), key, fields, body)?;
        match answer.status {
            200 | 201 if answer.is_json => Receipt::parse(answer.body),
            200 | 201 => None,
            _ => return Err(answer.refusal()),
        }
        .ok_or_else(|| {
            let url = &self.url;
            Error::Foreign(format!("{url} answers, but not as a longpoll server does"))
        })
    }
}

impl Receipt {
    fn parse(body: Vec<u8>) -> Option<Receipt> {
        let json = String::from_utf8(body).ok()?;
        let members: Members<'_> = serde_json::from_slice(json.as_bytes()).ok()?;
        Some(Receipt {
            seq: member(&members, "seq")?,
            cursor: member(&members, "cursor")?,
            duplicate: member(&members, "duplicate").unwrap_or(false),
            json: json.trim_end().to_owned(),
        })
    }
}

fn check_key(key: &str) -> Result<&str, Error> {
    let printable = key.bytes().all(|b| (b' '..=b'~').contains(&b));
    // A field's value has no spaces at its ends.
    let ok = (1..=IDEMPOTENCY_KEY_CHARS).contains(&key.len()) && printable && key.trim() == key;
    let rule =
        || format!("key {key:?} is not 1 to {IDEMPOTENCY_KEY_CHARS} printable ASCII characters");
    ok.then_some(key).ok_or_else(|| Error::Invalid(rule()))
}

/// 128 random bits: no two publishes of anybody have the same.
fn random_key() -> std::io::Result<String> {
    let mut bits = [0; 16];
    let got = rustix::rand::getrandom(&mut bits, rustix::rand::GetRandomFlags::empty())?;
    if got < bits.len() {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(format!("{:032x}", u128::from_le_bytes(bits)))
}
