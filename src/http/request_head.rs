//! The head of a request: its method, version, target and header fields.

use std::ops::Range;

use tiny_http::Method;

use super::header_name::HeaderName;
use crate::problem::Problem;

/// The HTTP version of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HttpVersion {
    /// Without chunked coding; the connection closes after the response.
    Http10,
    /// Or a later minor version, which is read as this one (RFC 9110, section 2.5).
    Http11,
}

/// A request without its body.
///
/// One buffer holds all its text: a head costs two allocations, however many fields it has.
#[derive(Debug)]
pub struct RequestHead {
    pub method: Method,
    pub version: HttpVersion,
    /// The path, the query and the values of the fields.
    text: String,
    path_end: usize,
    query_end: usize,
    /// In the order of arrival, with a repeated field more than once.
    fields: Vec<(HeaderName, Range<usize>)>,
}

/// Initial capacities, which few requests exceed.
const TEXT_CAPACITY: usize = 192;
const FIELDS_CAPACITY: usize = 4;

impl RequestHead {
    /// A head of HTTP/1.1 without fields.
    #[must_use]
    pub fn new(method: Method, path: &str, query: &str) -> RequestHead {
        let (path_end, query_end) = (path.len(), path.len() + query.len());
        let mut text = String::with_capacity(TEXT_CAPACITY.max(query_end));
        text.push_str(path);
        text.push_str(query);
        let fields = Vec::with_capacity(FIELDS_CAPACITY);
        RequestHead { method, version: HttpVersion::Http11, text, path_end, query_end, fields }
    }

    /// Adds a field, after others of the same name.
    pub fn append(&mut self, name: HeaderName, value: &str) {
        let begin = self.text.len();
        self.text.push_str(value);
        self.fields.push((name, begin..self.text.len()));
    }

    /// Removes every field of this name.
    pub fn remove(&mut self, name: HeaderName) {
        self.fields.retain(|(other, _)| *other != name);
    }

    /// Replaces every field of this name by one.
    pub fn insert(&mut self, name: HeaderName, value: &str) {
        self.remove(name);
        self.append(name, value);
    }

    /// The path as received, still percent-encoded.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.text[..self.path_end]
    }

    /// The text after the question mark as received, still percent-encoded.
    #[must_use]
    pub fn query(&self) -> &str {
        &self.text[self.path_end..self.query_end]
    }

    /// The fields in the order of arrival.
    pub fn fields(&self) -> impl Iterator<Item = (HeaderName, &str)> {
        self.fields.iter().map(|(name, value)| (*name, &self.text[value.clone()]))
    }

    /// The values of a field in the order of arrival.
    pub fn get_all(&self, name: HeaderName) -> impl Iterator<Item = &str> {
        let matching = self.fields.iter().filter(move |(other, _)| *other == name);
        matching.map(|(_, value)| &self.text[value.clone()])
    }

    /// The value of a field that may occur once.
    ///
    /// # Errors
    /// `400` when the field is repeated.
    pub fn get(&self, name: HeaderName) -> Result<Option<&str>, Problem> {
        let mut values = self.get_all(name);
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            let detail = format!("header {} is repeated; expected it once", name.as_str());
            return Err(Problem::bad_request(detail));
        }
        Ok(Some(value))
    }

    /// Whether the method is HEAD, so that the response has no body.
    #[must_use]
    pub fn is_head_request(&self) -> bool {
        self.method == Method::Head
    }
}
