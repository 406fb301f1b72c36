//! The HTTP vocabulary that door and api share: a request's head, and an answer and its bytes.
//!
//! Methods, header syntax, status lines and the writing of an answer are `tiny_http`'s.

use std::borrow::Cow;

use tiny_http::{HTTPVersion, Header, Response, StatusCode};

pub use tiny_http::Method;

use crate::error::Problem;

/// The request fields that anything here looks at. Others are checked for syntax and let go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Field {
    ContentEncoding,
    ContentType,
    EventType,
    IdempotencyKey,
    Prefer,
}

impl Field {
    /// The field of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Field> {
        const NAMES: [(&str, Field); 5] = [
            ("Content-Encoding", Field::ContentEncoding),
            ("Content-Type", Field::ContentType),
            ("Event-Type", Field::EventType),
            ("Idempotency-Key", Field::IdempotencyKey),
            ("Prefer", Field::Prefer),
        ];
        let found = NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, field)| *field)
    }
}

/// What a request asks for, without its body.
#[derive(Debug)]
pub struct Head {
    pub method: Method,
    /// Percent-decoded.
    pub path: String,
    /// Whatever follows the question mark, as it came.
    pub query: String,
    /// In the order of arrival; a repeated field is there repeatedly.
    pub fields: Vec<(Field, String)>,
}

impl Head {
    /// A field's values, in the order of arrival.
    pub fn all(&self, field: Field) -> impl Iterator<Item = &str> {
        let of_that_name = move |(name, _): &&(Field, String)| *name == field;
        self.fields.iter().filter(of_that_name).map(|(_, value)| value.as_str())
    }

    /// The value of a field that may come once.
    ///
    /// # Errors
    /// When it comes more than once.
    pub fn one(&self, field: Field) -> Result<Option<&str>, Problem> {
        let mut values = self.all(field);
        match (values.next(), values.next()) {
            (value, None) => Ok(value),
            _ => Err(Problem::bad(format!("header {field:?} is repeated; it may come once"))),
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
pub fn percent_decode(text: &str) -> Result<String, Problem> {
    if !text.contains('%') {
        return Ok(text.to_owned());
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
        .map_err(|_| Problem::bad(format!("{text:?} is not UTF-8 after percent-decoding")))
}

/// An answer before it is bytes.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    headers: Vec<(&'static str, Cow<'static, str>)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// An answer with a body of this type.
    #[must_use]
    pub fn new(status: u16, content_type: impl Into<Cow<'static, str>>, body: Vec<u8>) -> Answer {
        Answer { status, headers: vec![("Content-Type", content_type.into())], body }
    }

    /// A `204`.
    #[must_use]
    pub fn empty() -> Answer {
        Answer { status: 204, headers: Vec::new(), body: Vec::new() }
    }

    /// Adds a header.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Answer {
        self.headers.push((name, value.into()));
        self
    }

    /// The whole message as bytes. `close` tells the client that the connection ends with it.
    #[must_use]
    pub fn encode(self, without_body: bool, close: bool) -> Vec<u8> {
        let headers = self
            .headers
            .iter()
            .chain([&("Server", Cow::Borrowed("longpoll"))])
            // Values come from checked input or from here, so none is dropped.
            .filter_map(|(name, value)| Header::from_bytes(*name, value.as_bytes()).ok())
            .collect();
        let mut bytes = Vec::with_capacity(512 + self.body.len());
        let length = self.body.len();
        // Writing to a Vec cannot fail. The threshold keeps tiny_http from chunking large bodies.
        let _ = Response::new(StatusCode(self.status), headers, &*self.body, Some(length), None)
            .with_chunked_threshold(usize::MAX)
            .raw_print(&mut bytes, HTTPVersion(1, 1), &[], without_body, None);
        if self.status == 204 {
            // RFC 9110, section 8.6: none may be sent, but tiny_http does.
            splice(&mut bytes, b"Content-Length: 0\r\n", b"");
        }
        if close {
            tell_close(&mut bytes);
        }
        bytes
    }
}

impl From<&Problem> for Answer {
    fn from(problem: &Problem) -> Answer {
        let answer =
            Answer::new(problem.cause.status(), "application/problem+json", problem.body());
        let headers = problem.headers().iter().cloned();
        headers
            .fold(answer, |answer, (name, value)| answer.with(name, value))
            .with("Cache-Control", "no-store")
    }
}

/// Adds `Connection: close` to an encoded message; `tiny_http` leaves that field to its own server.
pub fn tell_close(bytes: &mut Vec<u8>) {
    splice(bytes, b"\r\n", b"\r\nConnection: close\r\n");
}

/// Replaces the first `old` in the message's head.
fn splice(bytes: &mut Vec<u8>, old: &[u8], new: &[u8]) {
    if let Some(at) = bytes.windows(old.len()).position(|window| window == old) {
        bytes.splice(at..at + old.len(), new.iter().copied());
    }
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
        let empty = text(Answer::empty().encode(false, true));
        assert!(empty.starts_with("HTTP/1.1 204 No Content\r\nConnection: close\r\n"));
        assert!(!empty.contains("Content-Length"));
        let large = text(Answer::new(200, "text/plain", vec![b'x'; 100_000]).encode(true, false));
        assert!(large.contains("\r\nContent-Length: 100000\r\n") && large.ends_with("\r\n\r\n"));
    }
}
