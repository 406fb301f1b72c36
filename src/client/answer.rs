//! An answer while it arrives: its head, then its body, whole or not at all.
//!
//! Nothing here knows a socket: whatever the pieces in which the bytes come, what is made of them
//! is the same. `httparse` splits the head; where the body ends is read as strictly as the door
//! reads it of requests.

#[cfg(test)]
mod tests;

use std::time::{Duration, SystemTime};

use httparse::Status;
use tiny_http::StatusCode;

use super::event::{Members, member};
use super::trouble::{Error, plain};
use crate::http::chunked::ChunkedDecoder;
use crate::http::{BodyFraming, FramingHeaders, HeaderName};
use crate::limits::{
    MAX_INTERIM_RESPONSES, MAX_RESPONSE_FIELDS, RESPONSE_BODY_BYTES, RESPONSE_HEAD_BYTES,
};
use crate::problem::{Cause, Problem};

/// What came back, whatever its status.
#[derive(PartialEq, Eq, Debug)]
pub struct Answer {
    pub status: u16,
    pub is_json: bool,
    pub body: Vec<u8>,
    retry_after: Option<Duration>,
    location: Option<String>,
}

/// An answer that is there.
#[derive(PartialEq, Eq, Debug)]
pub struct Whole {
    pub answer: Answer,
    /// Whether the connection can take another request.
    pub keeps_alive: bool,
}

/// An answer on its way in.
pub struct Arriving {
    /// What has arrived and was not used yet.
    input: Vec<u8>,
    next: Next,
    /// Answers that were not the last.
    interim: usize,
}

/// What comes next.
enum Next {
    Head,
    /// More of the body, which ends there.
    Body(Whole, End),
}

/// Where a body ends.
enum End {
    /// After so many more bytes.
    After(usize),
    Chunked(ChunkedDecoder),
    /// Where the connection does.
    WithConnection,
}

impl Arriving {
    /// Nothing yet.
    pub fn new() -> Arriving {
        Arriving { input: Vec::with_capacity(RESPONSE_HEAD_BYTES), next: Next::Head, interim: 0 }
    }

    /// Where to put what arrives; there is room left as long as [`Arriving::read`] gives nothing.
    pub fn room(&mut self) -> &mut Vec<u8> {
        &mut self.input
    }

    /// Whether not a byte has arrived.
    pub fn is_untouched(&self) -> bool {
        matches!(self.next, Next::Head) && self.interim == 0 && self.input.is_empty()
    }

    /// Whether the head is there.
    pub fn has_head(&self) -> bool {
        matches!(self.next, Next::Body(..))
    }

    /// Takes in what has arrived, and gives the answer when that is all of it.
    ///
    /// # Errors
    /// When no server of this kind answers so; says what the server does.
    pub fn read(&mut self) -> Result<Option<Whole>, String> {
        while let Next::Head = self.next {
            let Some(head) = Head::read(&self.input)? else { return Ok(None) };
            self.input.drain(..head.length);
            if !(100..200).contains(&head.status) {
                let end = head.end()?;
                self.next = Next::Body(head.whole(), end);
                break;
            }
            // Nobody asked for one, but RFC 9110, section 15.2, lets servers send them.
            self.interim += 1;
            if head.status == 101 || self.interim > MAX_INTERIM_RESPONSES {
                return Err(format!("answers {} and not what it was asked", head.status));
            }
        }
        self.read_body()
    }

    fn read_body(&mut self) -> Result<Option<Whole>, String> {
        let Next::Body(Whole { answer, .. }, end) = &mut self.next else { return Ok(None) };
        let used = match end {
            End::After(left) => {
                let here = self.input.len().min(*left);
                answer.body.extend_from_slice(&self.input[..here]);
                *left -= here;
                here
            }
            End::Chunked(chunks) => {
                let taken = chunks.decode(&self.input, &mut answer.body, RESPONSE_BODY_BYTES);
                taken.map_err(|problem| told(&problem))?
            }
            End::WithConnection => {
                answer.body.extend_from_slice(&self.input);
                self.input.len()
            }
        };
        if answer.body.len() > RESPONSE_BODY_BYTES {
            return Err(too_large());
        }
        self.input.drain(..used);
        let is_whole = match end {
            End::After(left) => *left == 0,
            End::Chunked(chunks) => chunks.is_done(),
            End::WithConnection => false,
        };
        Ok(if is_whole { self.take_whole() } else { None })
    }

    /// The answer, if it ends where the connection has just ended.
    pub fn end(mut self) -> Option<Whole> {
        match self.next {
            Next::Body(_, End::WithConnection) => self.take_whole(),
            _ => None,
        }
    }

    fn take_whole(&mut self) -> Option<Whole> {
        let Next::Body(mut whole, _) = std::mem::replace(&mut self.next, Next::Head) else {
            return None;
        };
        // What nobody asked for would be taken for the next answer.
        whole.keeps_alive &= self.input.is_empty();
        Some(whole)
    }
}

/// A head.
struct Head {
    /// Bytes that it took.
    length: usize,
    status: u16,
    framing: Option<BodyFraming>,
    keeps_alive: bool,
    is_json: bool,
    retry_after: Option<Duration>,
    location: Option<String>,
}

impl Head {
    /// Reads the head that `bytes` begin with; nothing when it goes on.
    fn read(bytes: &[u8]) -> Result<Option<Head>, String> {
        let bytes = &bytes[..bytes.len().min(RESPONSE_HEAD_BYTES)];
        let mut fields = [httparse::EMPTY_HEADER; MAX_RESPONSE_FIELDS];
        let mut head = httparse::Response::new(&mut fields);
        let length = match head.parse(bytes) {
            Ok(Status::Complete(length)) => length,
            Ok(Status::Partial) if bytes.len() < RESPONSE_HEAD_BYTES => return Ok(None),
            Ok(Status::Partial) => {
                return Err(format!(
                    "answers with a head of more than {RESPONSE_HEAD_BYTES} bytes"
                ));
            }
            Err(error) => return Err(no_http(error, bytes)),
        };
        let status = head.code.unwrap_or_default();
        if !(100..600).contains(&status) {
            return Err(format!("answers with the status {status:03}, which there is not"));
        }
        let http10 = head.version == Some(0);
        let mut facts = FramingHeaders::default();
        for field in &*head.headers {
            if let Some(known) = HeaderName::parse(field.name) {
                facts.parse_field(known, field.value).map_err(|problem| told(&problem))?;
            }
        }
        let field = |name: &str| {
            let mut fields = head.headers.iter();
            let field = fields.find(|field| field.name.eq_ignore_ascii_case(name))?;
            std::str::from_utf8(field.value).ok()
        };
        Ok(Some(Head {
            length,
            status,
            framing: facts.framing(http10).map_err(|problem| told(&problem))?,
            keeps_alive: !http10 && !facts.closes(),
            is_json: field("Content-Type").is_some_and(is_json),
            retry_after: field("Retry-After").and_then(retry_after),
            location: field("Location").map(plain),
        }))
    }

    fn end(&self) -> Result<End, String> {
        match self.framing {
            // They have none, whatever their fields say (RFC 9112, section 6.3).
            _ if matches!(self.status, 204 | 304) => Ok(End::After(0)),
            Some(BodyFraming::Sized(length)) if length > RESPONSE_BODY_BYTES as u64 => {
                Err(too_large())
            }
            Some(BodyFraming::Sized(length)) => Ok(End::After(length as usize)),
            Some(BodyFraming::Chunked) => Ok(End::Chunked(ChunkedDecoder::default())),
            // Without a length, an answer that was cut off looks like one that ended. Of a refusal
            // the status is enough.
            None if matches!(self.status, 200 | 201) => {
                Err("answers without saying how much".into())
            }
            None => Ok(End::WithConnection),
        }
    }

    fn whole(self) -> Whole {
        let Head { status, keeps_alive, is_json, retry_after, location, .. } = self;
        let answer = Answer { status, is_json, body: Vec::new(), retry_after, location };
        Whole { answer, keeps_alive }
    }
}

fn no_http(error: httparse::Error, bytes: &[u8]) -> String {
    match (error, bytes) {
        (httparse::Error::TooManyHeaders, _) => {
            format!("answers with more than {MAX_RESPONSE_FIELDS} header fields")
        }
        // An alert is all that a TLS server has to say to plain HTTP.
        (_, [0x15, ..]) => "speaks TLS there, and that belongs to a proxy".into(),
        _ => format!("does not speak HTTP: {error}"),
    }
}

/// What the strict readers found, told of an answer.
fn told(problem: &Problem) -> String {
    match problem.cause() {
        Cause::TooLarge => too_large(),
        _ => format!("does not speak HTTP: {}", problem.detail()),
    }
}

fn too_large() -> String {
    format!("answers with more than {RESPONSE_BODY_BYTES} bytes; is that a longpoll server?")
}

fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence == "application/json" || essence.ends_with("+json")
}

/// Seconds, or a date (RFC 9110, section 10.2.3).
fn retry_after(value: &str) -> Option<Duration> {
    let seconds = value.trim().parse().map(Duration::from_secs).ok();
    seconds.or_else(|| {
        let date = httpdate::parse_http_date(value.trim()).ok()?;
        Some(date.duration_since(SystemTime::now()).unwrap_or_default())
    })
}

impl Answer {
    /// The refusal that it is.
    pub fn refusal(&self) -> Error {
        let detail = match (&self.location, self.problem("detail")) {
            (Some(place), _) if (300..400).contains(&self.status) => {
                format!("go to {place}; redirects are not followed, give that URL if it is right")
            }
            (_, Some(detail)) => detail,
            _ => {
                let reason = StatusCode(self.status).default_reason_phrase();
                format!("{reason} (no longpoll server says it so)")
            }
        };
        Error::Refused {
            status: self.status,
            detail: plain(&detail),
            retry_after: self.retry_after,
        }
    }

    fn problem(&self, name: &str) -> Option<String> {
        let members: Members<'_> = serde_json::from_slice(&self.body).ok()?;
        member(&members, name)
    }
}
