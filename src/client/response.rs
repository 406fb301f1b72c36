//! A response as it arrives: its head, then its body, whole or not at all.
//!
//! The parser has no socket, and its result does not depend on the pieces in which the bytes
//! arrive. `httparse` splits the head. The end of the body is found by the same strict rules as the
//! server's for requests.

#[cfg(test)]
mod tests;

use std::time::{Duration, SystemTime};

use httparse::Status;
use tiny_http::StatusCode;

use super::error::Error;
use super::untrusted::{JsonMembers, printable};
use crate::http::chunked::ChunkedDecoder;
use crate::http::{BodyFraming, FramingHeaders, HeaderName};
use crate::limits::{
    MAX_INTERIM_RESPONSES, MAX_RESPONSE_FIELDS, RESPONSE_BODY_BYTES, RESPONSE_HEAD_BYTES,
};
use crate::problem::{Cause, Problem};

/// A response of any status.
#[derive(PartialEq, Eq, Debug)]
pub struct ClientResponse {
    pub status: u16,
    pub is_json: bool,
    pub body: Vec<u8>,
    retry_after: Option<Duration>,
    location: Option<String>,
}

/// A response that has arrived whole.
#[derive(PartialEq, Eq, Debug)]
pub struct CompleteResponse {
    pub response: ClientResponse,
    /// Whether the connection can carry another request.
    pub keeps_alive: bool,
}

/// Parses one response from the bytes that have arrived so far.
pub struct ResponseParser {
    /// Bytes that have arrived and are not parsed yet.
    input: Vec<u8>,
    state: ParserState,
    /// Number of interim responses (`100` to `199`) so far.
    interim_responses: usize,
}

/// The part of the response that is being parsed.
enum ParserState {
    Head,
    Body(CompleteResponse, BodyEnd),
}

/// Where a body ends.
enum BodyEnd {
    /// After this number of further bytes.
    Remaining(usize),
    LastChunk(ChunkedDecoder),
    ConnectionClose,
}

impl ResponseParser {
    pub fn new() -> ResponseParser {
        ResponseParser {
            input: Vec::with_capacity(RESPONSE_HEAD_BYTES),
            state: ParserState::Head,
            interim_responses: 0,
        }
    }

    /// The buffer to append input to. It has free capacity whenever [`ResponseParser::parse`] has
    /// returned `None`.
    pub fn input_buffer(&mut self) -> &mut Vec<u8> {
        &mut self.input
    }

    /// Whether no byte has arrived.
    pub fn is_empty(&self) -> bool {
        matches!(self.state, ParserState::Head)
            && self.interim_responses == 0
            && self.input.is_empty()
    }

    /// Whether the head of the final response has arrived.
    pub fn has_head(&self) -> bool {
        matches!(self.state, ParserState::Body(..))
    }

    /// Parses the input so far; returns the response once it is complete.
    ///
    /// # Errors
    /// When no longpoll server responds like this. The text continues a sentence that begins with
    /// the server's URL.
    pub fn parse(&mut self) -> Result<Option<CompleteResponse>, String> {
        while let ParserState::Head = self.state {
            let Some(head) = ResponseHead::parse(&self.input)? else { return Ok(None) };
            self.input.drain(..head.length);
            if !(100..200).contains(&head.status) {
                let end = head.body_end()?;
                self.state = ParserState::Body(head.into_response(), end);
                break;
            }
            // No request asks for an interim response, but a server may send one (RFC 9110,
            // section 15.2).
            self.interim_responses += 1;
            if head.status == 101 || self.interim_responses > MAX_INTERIM_RESPONSES {
                return Err(format!("sent status {} instead of a final response", head.status));
            }
        }
        self.parse_body()
    }

    fn parse_body(&mut self) -> Result<Option<CompleteResponse>, String> {
        let ParserState::Body(CompleteResponse { response, .. }, end) = &mut self.state else {
            return Ok(None);
        };
        let used = match end {
            BodyEnd::Remaining(remaining) => {
                let available = self.input.len().min(*remaining);
                response.body.extend_from_slice(&self.input[..available]);
                *remaining -= available;
                available
            }
            BodyEnd::LastChunk(chunks) => {
                let used = chunks.decode(&self.input, &mut response.body, RESPONSE_BODY_BYTES);
                used.map_err(|problem| describe(&problem))?
            }
            BodyEnd::ConnectionClose => {
                response.body.extend_from_slice(&self.input);
                self.input.len()
            }
        };
        if response.body.len() > RESPONSE_BODY_BYTES {
            return Err(too_large());
        }
        self.input.drain(..used);
        let is_complete = match end {
            BodyEnd::Remaining(remaining) => *remaining == 0,
            BodyEnd::LastChunk(chunks) => chunks.is_done(),
            BodyEnd::ConnectionClose => false,
        };
        Ok(if is_complete { self.take_response() } else { None })
    }

    /// The response, if the end of the connection completes it.
    pub fn finish(mut self) -> Option<CompleteResponse> {
        match self.state {
            ParserState::Body(_, BodyEnd::ConnectionClose) => self.take_response(),
            _ => None,
        }
    }

    fn take_response(&mut self) -> Option<CompleteResponse> {
        let state = std::mem::replace(&mut self.state, ParserState::Head);
        let ParserState::Body(mut complete, _) = state else { return None };
        // Leftover input would be parsed as the response to the next request.
        complete.keeps_alive &= self.input.is_empty();
        Some(complete)
    }
}

/// The head of a response: what the client uses of it.
struct ResponseHead {
    /// Size of the head in bytes.
    length: usize,
    status: u16,
    framing: Option<BodyFraming>,
    keeps_alive: bool,
    is_json: bool,
    retry_after: Option<Duration>,
    location: Option<String>,
}

impl ResponseHead {
    /// Parses the head that `input` begins with; `None` when it is not complete yet.
    fn parse(input: &[u8]) -> Result<Option<ResponseHead>, String> {
        let input = &input[..input.len().min(RESPONSE_HEAD_BYTES)];
        let mut fields = [httparse::EMPTY_HEADER; MAX_RESPONSE_FIELDS];
        let mut head = httparse::Response::new(&mut fields);
        let length = match head.parse(input) {
            Ok(Status::Complete(length)) => length,
            Ok(Status::Partial) if input.len() < RESPONSE_HEAD_BYTES => return Ok(None),
            Ok(Status::Partial) => {
                return Err(format!(
                    "sent a response head of more than {RESPONSE_HEAD_BYTES} bytes"
                ));
            }
            Err(error) => return Err(describe_parse_error(error, input)),
        };
        let status = head.code.unwrap_or_default();
        if !(100..600).contains(&status) {
            return Err(format!("sent the invalid status {status:03}"));
        }
        let http10 = head.version == Some(0);
        let mut framing_fields = FramingHeaders::default();
        for field in &*head.headers {
            if let Some(name) = HeaderName::parse(field.name.as_bytes()) {
                framing_fields
                    .parse_field(name, field.value)
                    .map_err(|problem| describe(&problem))?;
            }
        }
        let field = |name: &str| {
            let mut fields = head.headers.iter();
            let field = fields.find(|field| field.name.eq_ignore_ascii_case(name))?;
            std::str::from_utf8(field.value).ok()
        };
        Ok(Some(ResponseHead {
            length,
            status,
            framing: framing_fields.framing(http10).map_err(|problem| describe(&problem))?,
            keeps_alive: !http10 && !framing_fields.closes(),
            is_json: field("Content-Type").is_some_and(is_json),
            retry_after: field("Retry-After").and_then(parse_retry_after),
            location: field("Location").map(printable),
        }))
    }

    fn body_end(&self) -> Result<BodyEnd, String> {
        match self.framing {
            // These have no body, even with a Content-Length (RFC 9112, section 6.3).
            _ if matches!(self.status, 204 | 304) => Ok(BodyEnd::Remaining(0)),
            Some(BodyFraming::Sized(length)) if length > RESPONSE_BODY_BYTES as u64 => {
                Err(too_large())
            }
            Some(BodyFraming::Sized(length)) => Ok(BodyEnd::Remaining(length as usize)),
            Some(BodyFraming::Chunked) => Ok(BodyEnd::LastChunk(ChunkedDecoder::default())),
            // Without a length, a truncated body looks complete. Of a refusal the status is enough.
            None if matches!(self.status, 200 | 201) => {
                Err("sent a response without a length".into())
            }
            None => Ok(BodyEnd::ConnectionClose),
        }
    }

    fn into_response(self) -> CompleteResponse {
        let ResponseHead { status, keeps_alive, is_json, retry_after, location, .. } = self;
        let response = ClientResponse { status, is_json, body: Vec::new(), retry_after, location };
        CompleteResponse { response, keeps_alive }
    }
}

fn describe_parse_error(error: httparse::Error, input: &[u8]) -> String {
    match (error, input) {
        (httparse::Error::TooManyHeaders, _) => {
            format!("sent more than {MAX_RESPONSE_FIELDS} header fields")
        }
        // A TLS server answers plain HTTP with an alert record.
        (_, [0x15, ..]) => "speaks TLS; this client speaks plain HTTP only".into(),
        _ => format!("does not speak HTTP: {error}"),
    }
}

/// Words a framing problem, which the strict HTTP parsers report as of a request.
fn describe(problem: &Problem) -> String {
    match problem.cause() {
        Cause::TooLarge => too_large(),
        _ => format!("does not speak HTTP: {}", problem.detail()),
    }
}

fn too_large() -> String {
    format!("sent a response of more than {RESPONSE_BODY_BYTES} bytes; is it a longpoll server?")
}

fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence == "application/json" || essence.ends_with("+json")
}

/// Parses a number of seconds or an HTTP date (RFC 9110, section 10.2.3).
fn parse_retry_after(value: &str) -> Option<Duration> {
    let seconds = value.trim().parse().map(Duration::from_secs).ok();
    seconds.or_else(|| {
        let date = httpdate::parse_http_date(value.trim()).ok()?;
        Some(date.duration_since(SystemTime::now()).unwrap_or_default())
    })
}

impl ClientResponse {
    /// The error that this response means, unless its status is a success.
    pub fn to_error(&self) -> Error {
        let problem = JsonMembers::parse(&self.body);
        let detail = problem.and_then(|problem| problem.get::<String>("detail"));
        let detail = match (&self.location, detail) {
            (Some(location), _) if (300..400).contains(&self.status) => {
                format!("go to {location}; redirects are not followed, use that URL if it is right")
            }
            (_, Some(detail)) => detail,
            _ => {
                let reason = StatusCode(self.status).default_reason_phrase();
                format!("{reason} (not in the form of a longpoll server)")
            }
        };
        Error::Refused {
            status: self.status,
            detail: printable(&detail),
            retry_after: self.retry_after,
        }
    }
}
