//! The publish loop: send, and send again with the same idempotency key until the outcome is known.
//!
//! Without a response, a publish may or may not have happened. Only the server knows, and only if
//! it recognises both attempts as one publish. So every publish has an idempotency key, the
//! caller's or a random one, and retries end before the server forgets keys: a later attempt could
//! publish a second event.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::backoff::Backoff;
use super::error::{Error, RetryCallback};
use super::http_client::{HttpClient, RetryKey};
use super::untrusted::JsonMembers;
use super::url::Url;
use crate::limits::{IDEMPOTENCY_KEY_CHARS, PUBLISH_TIMEOUT, RETRY_FOR_MAX};
use crate::names::{NAME_RULE, Name};
use crate::shutdown::Shutdown;

/// The content of a publish: one event, or a batch.
#[derive(Clone, Debug)]
pub struct Message {
    content_type: &'static str,
    body: Vec<u8>,
    /// The event type of each event.
    pub event_type: Option<Name>,
    /// The idempotency key; `None` for a random one.
    pub key: Option<String>,
}

impl Message {
    fn new(content_type: &'static str, body: Vec<u8>) -> Message {
        Message { content_type, body, event_type: None, key: None }
    }

    /// One event with a text; readers receive it as bytes if it is not UTF-8.
    #[must_use]
    pub fn text(text: impl Into<Vec<u8>>) -> Message {
        Message::new("text/plain; charset=utf-8", text.into())
    }

    /// One event with a JSON value.
    #[must_use]
    pub fn json(json: impl Into<Vec<u8>>) -> Message {
        Message::new("application/json", json.into())
    }

    /// A batch of NDJSON: one event per line. The server publishes all of them or none.
    #[must_use]
    pub fn lines(lines: impl Into<Vec<u8>>) -> Message {
        Message::new("application/x-ndjson", lines.into())
    }
}

/// The server's response to a publish.
#[derive(Clone, Debug)]
pub struct Receipt {
    /// The seq of the last event.
    pub seq: u64,
    /// The cursor after the last event.
    pub cursor: String,
    /// Whether an earlier attempt had already published this, although its response was lost.
    pub duplicate: bool,
    /// The whole response as the server wrote it: JSON on one line.
    pub json: String,
}

/// Publishes to one server.
pub struct Publisher {
    http: HttpClient,
    /// The time for all attempts of one publish; at most [`RETRY_FOR_MAX`].
    retry_for: Duration,
    shutdown: Shutdown,
    on_retry: RetryCallback,
}

impl Publisher {
    /// A publisher that connects with its first publish.
    ///
    /// # Errors
    /// When the operating system has no file descriptor left.
    pub fn new(url: &Url) -> Result<Publisher, Error> {
        Publisher::with_token_file(url, None)
    }

    /// A publisher that sends the token in this file.
    ///
    /// # Errors
    /// When the token file cannot be read.
    pub fn with_token_file(url: &Url, token_file: Option<PathBuf>) -> Result<Publisher, Error> {
        let shutdown = Shutdown::new().map_err(Error::System)?;
        // The shutdown signal ends an attempt to connect and a pause, but not an exchange: the
        // program waits for the response to a publish that it has sent, because a late outcome is
        // better than an unknown one.
        let never = Shutdown::new().map_err(Error::System)?;
        let mut http = HttpClient::new(url, token_file, PUBLISH_TIMEOUT, never)?;
        http.set_connect_shutdown(shutdown.clone());
        Ok(Publisher {
            http,
            retry_for: Duration::from_secs(60),
            shutdown,
            on_retry: Box::new(|_, _| {}),
        })
    }

    /// Sets the time for all attempts of one publish. The default is one minute. The maximum is
    /// [`RETRY_FOR_MAX`], because the server remembers a key for a limited time. The time also passes
    /// while the machine sleeps.
    #[must_use]
    pub fn retry_for(mut self, time: Duration) -> Publisher {
        self.retry_for = time.min(RETRY_FOR_MAX);
        self
    }

    /// Sets a signal that ends attempts to connect, and the pauses between attempts.
    #[must_use]
    pub fn with_shutdown(mut self, shutdown: Shutdown) -> Publisher {
        self.http.set_connect_shutdown(shutdown.clone());
        self.shutdown = shutdown;
        self
    }

    /// Sets a callback for transient failures; it receives the pause before the next attempt.
    #[must_use]
    pub fn on_retry(
        mut self,
        callback: impl FnMut(&Error, Duration) + Send + 'static,
    ) -> Publisher {
        self.on_retry = Box::new(callback);
        self
    }

    /// Publishes once, with as many attempts as necessary.
    ///
    /// # Errors
    /// A permanent failure; or [`Error::GaveUp`] when the time is over, or would be over before the
    /// end of `Retry-After`. The outcome is then unknown; a message with a key of the caller's can be
    /// published again without a second event, as long as the server remembers the key.
    pub fn publish(&mut self, topic: &str, message: &Message) -> Result<Receipt, Error> {
        if Name::new(topic).is_none() {
            return Err(Error::Invalid(format!("topic {topic:?}: expected {NAME_RULE}")));
        }
        let key = match &message.key {
            Some(key) => validate_key(key)?.to_owned(),
            None => random_key().map_err(Error::System)?,
        };
        let key = RetryKey::new(key);
        let mut backoff = Backoff::default();
        loop {
            let error = match self.attempt(topic, &key, message) {
                Ok(receipt) => return Ok(receipt),
                Err(error) if !error.is_transient() => return Err(error),
                Err(error) => error,
            };
            let age = key.age();
            let remaining = self.retry_for.saturating_sub(age);
            if self.shutdown.is_triggered() {
                return Err(Error::Stopped);
            }
            let pause = backoff.next(error.retry_after());
            if remaining <= pause {
                return Err(Error::GaveUp { after: age, last: Box::new(error) });
            }
            (self.on_retry)(&error, pause);
            if self.shutdown.wait_until(Instant::now() + pause) {
                return Err(Error::Stopped);
            }
        }
    }

    fn attempt(
        &mut self,
        topic: &str,
        key: &RetryKey,
        message: &Message,
    ) -> Result<Receipt, Error> {
        let mut fields = vec![("Content-Type", message.content_type)];
        if let Some(event_type) = &message.event_type {
            fields.push(("Event-Type", event_type));
        }
        let target = format!("/topics/{topic}");
        let response = self.http.post(&target, key, &fields, &message.body)?;
        let receipt = match response.status {
            200 | 201 if response.is_json => Receipt::parse(response.body),
            200 | 201 => None,
            _ => return Err(response.to_error()),
        };
        receipt.ok_or_else(|| self.http.bad_body())
    }
}

impl Receipt {
    fn parse(body: Vec<u8>) -> Option<Receipt> {
        let json = String::from_utf8(body).ok()?;
        let members = JsonMembers::parse(json.as_bytes())?;
        Some(Receipt {
            seq: members.get("seq")?,
            cursor: members.get("cursor")?,
            duplicate: members.get("duplicate").unwrap_or(false),
            json: json.trim_end().to_owned(),
        })
    }
}

fn validate_key(key: &str) -> Result<&str, Error> {
    let printable = key.bytes().all(|b| (b' '..=b'~').contains(&b));
    // Spaces at either end would not be part of the header field's value.
    let is_valid =
        (1..=IDEMPOTENCY_KEY_CHARS).contains(&key.len()) && printable && key.trim() == key;
    let rule = || {
        let rule = format!(
            "1 to {IDEMPOTENCY_KEY_CHARS} printable ASCII characters, no space at either end"
        );
        Error::Invalid(format!("key {key:?}: expected {rule}"))
    };
    is_valid.then_some(key).ok_or_else(rule)
}

/// A key of 128 random bits: no two publishes of any client share it.
fn random_key() -> std::io::Result<String> {
    let mut bits = [0; 16];
    let count = rustix::rand::getrandom(&mut bits, rustix::rand::GetRandomFlags::empty())?;
    if count < bits.len() {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(format!("{:032x}", u128::from_le_bytes(bits)))
}
