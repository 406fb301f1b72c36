//! The HTTP vocabulary that door, api and client share: a request's head, an answer and its bytes,
//! and how the body of either is framed.
//!
//! Methods and status codes are `tiny_http`'s.

mod answer;
pub mod chunked;
mod field;
mod framing;

use std::borrow::Cow;
use std::ops::Range;

pub use answer::{EncodeOptions, LAST_CHUNK, Response, chunk, closing};
pub use field::{HeaderName, is_token};
pub use framing::{BodyFraming, FramingHeaders};
pub use tiny_http::Method;

use crate::problem::Problem;

/// The version that a client speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HttpVersion {
    /// Knows no chunks; one answer to a connection.
    Http10,
    Http11,
}

/// What a request asks for, without its body.
///
/// All its text is in one piece: a head costs two allocations, however many fields it has.
#[derive(Debug)]
pub struct RequestHead {
    pub method: Method,
    pub version: HttpVersion,
    /// The path, the query, and the values of the fields.
    text: String,
    path: usize,
    query: usize,
    /// In the order of arrival; a repeated field is there repeatedly.
    fields: Vec<(HeaderName, Range<usize>)>,
    /// One bit for each field that is there: most of those that are looked for are not.
    present: u32,
}

impl RequestHead {
    /// A head of HTTP/1.1 without fields yet.
    #[must_use]
    pub fn new(method: Method, path: &str, query: &str) -> RequestHead {
        let mut text = String::with_capacity(HEAD_TEXT.max(path.len() + query.len()));
        text.push_str(path);
        text.push_str(query);
        let fields = Vec::with_capacity(HEAD_FIELDS);
        let version = HttpVersion::Http11;
        let (path, query) = (path.len(), path.len() + query.len());
        RequestHead { method, version, text, path, query, fields, present: 0 }
    }

    /// Adds a field.
    pub fn push(&mut self, field: HeaderName, value: &str) {
        let begin = self.text.len();
        self.text.push_str(value);
        self.fields.push((field, begin..self.text.len()));
        self.present |= field.bit();
    }

    /// Takes a field away.
    pub fn forget(&mut self, field: HeaderName) {
        if self.present & field.bit() != 0 {
            self.fields.retain(|(name, _)| *name != field);
            self.present &= !field.bit();
        }
    }

    /// Puts one value in the place of whatever a field had.
    pub fn replace(&mut self, field: HeaderName, value: &str) {
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
    pub fn fields(&self) -> impl Iterator<Item = (HeaderName, &str)> {
        self.fields.iter().map(|(field, value)| (*field, &self.text[value.clone()]))
    }

    /// A field's values, in the order of arrival.
    pub fn all(&self, field: HeaderName) -> impl Iterator<Item = &str> {
        let fields = if self.present & field.bit() == 0 { &[] } else { &self.fields[..] };
        let of_that_name = move |(name, _): &&(HeaderName, _)| *name == field;
        fields.iter().filter(of_that_name).map(|(_, value)| &self.text[value.clone()])
    }

    /// The value of a field that may come once.
    ///
    /// # Errors
    /// When it comes more than once.
    pub fn one(&self, field: HeaderName) -> Result<Option<&str>, Problem> {
        let mut values = self.all(field);
        match (values.next(), values.next()) {
            (value, None) => Ok(value),
            _ => Err(Problem::bad_request(format!(
                "header {} is repeated; it may come once",
                field.name()
            ))),
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
    if !text.as_bytes().contains(&b'%') {
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
            return Err(Problem::bad_request(format!(
                "{text:?}: % has to be followed by two hex digits"
            )));
        };
        bytes.push((high * 16 + low) as u8);
        rest = &tail[2..];
    }
    String::from_utf8(bytes)
        .map(Cow::Owned)
        .map_err(|_| Problem::bad_request(format!("{text:?} is not UTF-8 after percent-decoding")))
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

/// What a request's text and fields seldom exceed; only to set room aside.
const HEAD_TEXT: usize = 192;
const HEAD_FIELDS: usize = 4;

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
}
