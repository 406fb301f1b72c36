//! The HTTP vocabulary that door, api and client share: a request's head, an answer and its bytes,
//! and how the body of either is framed.
//!
//! Methods and status codes are `tiny_http`'s.

pub mod chunked;
mod field;
mod framing;

use std::borrow::Cow;
use std::io::Write as _;
use std::ops::Range;
use std::time::SystemTime;

use httpdate::HttpDate;
use parking_lot::Mutex;
use tiny_http::StatusCode;

pub use field::{Field, is_token};
pub use framing::{Framing, FramingFields};
pub use tiny_http::Method;

use crate::error::Problem;
use crate::json::push_number;
use crate::time::writable;

/// The version that a client speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Version {
    /// Knows no chunks; one answer to a connection.
    Http10,
    Http11,
}

/// What a request asks for, without its body.
///
/// All its text is in one piece: a head costs two allocations, however many fields it has.
#[derive(Debug)]
pub struct Head {
    pub method: Method,
    pub version: Version,
    /// The path, the query, and the values of the fields.
    text: String,
    path: usize,
    query: usize,
    /// In the order of arrival; a repeated field is there repeatedly.
    fields: Vec<(Field, Range<usize>)>,
}

impl Head {
    /// A head of HTTP/1.1 without fields yet.
    #[must_use]
    pub fn new(method: Method, path: &str, query: &str) -> Head {
        let mut text = String::with_capacity(HEAD_TEXT.max(path.len() + query.len()));
        text.push_str(path);
        text.push_str(query);
        let fields = Vec::with_capacity(HEAD_FIELDS);
        let version = Version::Http11;
        Head { method, version, text, path: path.len(), query: path.len() + query.len(), fields }
    }

    /// Adds a field.
    pub fn push(&mut self, field: Field, value: &str) {
        let begin = self.text.len();
        self.text.push_str(value);
        self.fields.push((field, begin..self.text.len()));
    }

    /// Takes a field away.
    pub fn forget(&mut self, field: Field) {
        self.fields.retain(|(name, _)| *name != field);
    }

    /// Puts one value in the place of whatever a field had.
    pub fn replace(&mut self, field: Field, value: &str) {
        self.forget(field);
        self.push(field, value);
    }

    /// As it came, as the query is.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.text[..self.path]
    }

    /// Whatever follows the question mark.
    #[must_use]
    pub fn query(&self) -> &str {
        &self.text[self.path..self.query]
    }

    /// The fields, in the order of arrival.
    pub fn fields(&self) -> impl Iterator<Item = (Field, &str)> {
        self.fields.iter().map(|(field, value)| (*field, &self.text[value.clone()]))
    }

    /// A field's values, in the order of arrival.
    pub fn all(&self, field: Field) -> impl Iterator<Item = &str> {
        let of_that_name = move |(name, _): &&(Field, _)| *name == field;
        self.fields.iter().filter(of_that_name).map(|(_, value)| &self.text[value.clone()])
    }

    /// The value of a field that may come once.
    ///
    /// # Errors
    /// When it comes more than once.
    pub fn one(&self, field: Field) -> Result<Option<&str>, Problem> {
        let mut values = self.all(field);
        match (values.next(), values.next()) {
            (value, None) => Ok(value),
            _ => {
                Err(Problem::bad(format!("header {} is repeated; it may come once", field.name())))
            }
        }
    }

    /// Whether the answer goes out without its body.
    #[must_use]
    pub fn is_head(&self) -> bool {
        self.method == Method::Head
    }
}

/// Reads percent-encoding once.
///
/// # Errors
/// What is wrong with it.
pub fn percent_decode(text: &str) -> Result<Cow<'_, str>, Problem> {
    if memchr::memchr(b'%', text.as_bytes()).is_none() {
        return Ok(text.into());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&b, tail)) = rest.split_first() {
        rest = tail;
        if b != b'%' {
            bytes.push(b);
            continue;
        }
        let digit = |at: usize| tail.get(at).and_then(|d| (*d as char).to_digit(16));
        let (Some(high), Some(low)) = (digit(0), digit(1)) else {
            return Err(Problem::bad(format!("{text:?}: % has to be followed by two hex digits")));
        };
        bytes.push((high * 16 + low) as u8);
        rest = &tail[2..];
    }
    String::from_utf8(bytes)
        .map(Cow::Owned)
        .map_err(|_| Problem::bad(format!("{text:?} is not UTF-8 after percent-decoding")))
}

/// Host and port; an IPv6 address keeps its brackets.
#[must_use]
pub fn split_port(authority: &str) -> (&str, Option<&str>) {
    let end = authority.bytes().rposition(|b| b == b':' || b == b']');
    match end.filter(|at| authority.as_bytes()[*at] == b':') {
        Some(at) => {
            let port = &authority[at + 1..];
            (&authority[..at], Some(port).filter(|port| !port.is_empty()))
        }
        None => (authority, None),
    }
}

/// What an answer's bytes depend on beside the answer.
#[derive(Clone, Copy, Default, Debug)]
pub struct Frame<'a> {
    /// Not so for a HEAD request.
    pub has_body: bool,
    /// The site whose page may read the answer.
    pub cors: Option<&'a str>,
    /// The connection ends with it, and the client is told so.
    pub closes: bool,
}

/// An answer before it is bytes.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    headers: Vec<(&'static str, Cow<'static, str>)>,
    /// None where no length is said: nothing follows, or what follows says itself where it ends.
    body: Option<Vec<u8>>,
}

impl Answer {
    /// An answer with a body of this type.
    #[must_use]
    pub fn new(status: u16, content_type: impl Into<Cow<'static, str>>, body: Vec<u8>) -> Answer {
        let mut headers = Vec::with_capacity(8);
        headers.push(("Content-Type", content_type.into()));
        Answer { status, headers, body: Some(body) }
    }

    /// One without a body; after it may come what is not known yet.
    #[must_use]
    pub fn bare(status: u16) -> Answer {
        Answer { status, headers: Vec::new(), body: None }
    }

    /// A `204`.
    #[must_use]
    pub fn empty() -> Answer {
        Answer::bare(204)
    }

    /// A `304`.
    #[must_use]
    pub fn not_modified() -> Answer {
        Answer { status: 304, ..Answer::empty() }
    }

    /// Adds a header.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Answer {
        self.headers.push((name, value.into()));
        self
    }

    /// The body, without its end of line.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        self.body.as_deref().unwrap_or_default().trim_ascii_end()
    }

    /// The whole message as bytes.
    ///
    /// Written here and not by `tiny_http::Response::raw_print`: that one copies the body through
    /// 8 KiB of stack, which every worker that has answered once would keep for good.
    #[must_use]
    pub fn encode(&self, frame: Frame<'_>) -> Vec<u8> {
        let length = self.body.as_ref().map_or(0, Vec::len);
        let mut bytes = Vec::with_capacity(HEAD_BYTES + length);
        bytes.extend_from_slice(b"HTTP/1.1 ");
        push_number(&mut bytes, u64::from(self.status));
        bytes.push(b' ');
        bytes.extend_from_slice(StatusCode(self.status).default_reason_phrase().as_bytes());
        end_line(&mut bytes);
        if frame.closes {
            bytes.extend_from_slice(CLOSE);
        }
        bytes.extend_from_slice(BEFORE_DATE);
        bytes.extend_from_slice(&date());
        bytes.extend_from_slice(AFTER_DATE);
        for (name, value) in &self.headers {
            push_field(&mut bytes, name, value.as_bytes());
        }
        if let Some(origin) = frame.cors {
            push_field(&mut bytes, "Access-Control-Allow-Origin", origin.as_bytes());
            bytes.extend_from_slice(CORS);
        }
        if self.body.is_some() {
            bytes.extend_from_slice(b"Content-Length: ");
            push_number(&mut bytes, length as u64);
            end_line(&mut bytes);
        }
        end_line(&mut bytes);
        if let Some(body) = self.body.as_ref().filter(|_| frame.has_body) {
            bytes.extend_from_slice(body);
        }
        bytes
    }
}

/// What a request's text and fields seldom exceed; only to set room aside.
const HEAD_TEXT: usize = 192;
const HEAD_FIELDS: usize = 4;
/// What an answer's head seldom exceeds; only to set room aside.
const HEAD_BYTES: usize = 384;
const LINE_END: &[u8] = b"\r\n";
/// Which headers a page of another site may read, and that the answer depends on whose it is.
const CORS: &[u8] = b"Access-Control-Expose-Headers: Next-Cursor, Poll-Reason, Poll-Wait, \
    Poll-Gap, Retry-After, Preference-Applied\r\nVary: Origin\r\n";
/// What every answer has: these, and its date between them.
const BEFORE_DATE: &[u8] = b"Server: longpoll\r\nDate: ";
// What a publisher sent must not pass for something else in a reader's browser.
const AFTER_DATE: &[u8] = b"\r\nX-Content-Type-Options: nosniff\r\n";
const CLOSE: &[u8] = b"Connection: close\r\n";

fn push_field(bytes: &mut Vec<u8>, name: &str, value: &[u8]) {
    bytes.reserve(name.len() + value.len() + 4);
    bytes.extend_from_slice(name.as_bytes());
    bytes.push(b':');
    bytes.push(b' ');
    // Values are checked where they come in; that none can end its line is made sure here.
    let end = memchr::memchr3(b'\r', b'\n', 0, value).unwrap_or(value.len());
    bytes.extend_from_slice(&value[..end]);
    end_line(bytes);
}

fn end_line(bytes: &mut Vec<u8>) {
    bytes.push(b'\r');
    bytes.push(b'\n');
}

/// The `Date` field (RFC 9110, section 6.6.1), made once a second.
fn date() -> [u8; 29] {
    static LAST: Mutex<(u64, [u8; 29])> = Mutex::new((0, [b' '; 29]));
    let now = writable(SystemTime::now());
    let second = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut last = LAST.lock();
    if last.0 != second {
        let text = HttpDate::from(now).to_string();
        // It has 29 characters, by RFC 9110, section 5.6.7.
        if let Ok(bytes) = text.as_bytes().try_into() {
            *last = (second, bytes);
        }
    }
    last.1
}

impl From<&Problem> for Answer {
    fn from(problem: &Problem) -> Answer {
        let answer =
            Answer::new(problem.cause().status(), "application/problem+json", problem.body());
        let headers = problem.headers().iter().cloned();
        headers
            .fold(answer, |answer, (name, value)| answer.with(name, value))
            .with("Cache-Control", "no-store")
    }
}

/// A chunk of a body whose length is not known (RFC 9112, section 7.1). There has to be something
/// in it.
#[must_use]
pub fn chunk(content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(content.len() + 12);
    // Writing to a Vec cannot fail.
    let _ = write!(bytes, "{:x}\r\n", content.len());
    bytes.extend_from_slice(content);
    bytes.extend_from_slice(LINE_END);
    bytes
}

/// The end of such a body.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// The beginning of an encoded message with `Connection: close` put into it, and how much of the
/// message that replaces.
#[must_use]
pub fn closing(message: &[u8]) -> (Vec<u8>, usize) {
    let line = message.windows(2).position(|window| window == LINE_END);
    let end = line.map_or(message.len(), |at| at + LINE_END.len());
    ([&message[..end], CLOSE].concat(), end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_encoding_is_read_once() {
        assert_eq!(percent_decode("/a%2Cb%2525").unwrap(), "/a,b%25");
        for bad in ["%", "%2", "%zz", "%+1", "%ff"] {
            assert!(percent_decode(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_204_carries_no_length_and_a_large_body_is_not_chunked() {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let empty = text(Answer::empty().encode(Frame {
            has_body: true,
            closes: true,
            ..Frame::default()
        }));
        assert!(empty.starts_with("HTTP/1.1 204 No Content\r\nConnection: close\r\n"));
        assert!(!empty.contains("Content-Length"));
        let large =
            text(Answer::new(200, "text/plain", vec![b'x'; 100_000]).encode(Frame::default()));
        assert!(large.contains("\r\nContent-Length: 100000\r\n") && large.ends_with("\r\n\r\n"));
    }
}
