//! Error responses: one table of causes and one problem body (RFC 9457).
//!
//! One row of [`CAUSES`] holds the status, the title and the `/metrics` label of a [`Cause`], so
//! that they cannot drift apart. The code that finds the fault writes the `detail`. Temporary
//! errors (`429`, `503`) carry a random `Retry-After`, so that clients refused together do not
//! return together.

use crate::json::JsonObject;
use crate::limits::RETRY_AFTER_SECONDS;

/// The reason for an error response. Each has a row in [`CAUSES`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    BadRequest,
    Malformed,
    Unauthorized,
    Forbidden,
    ForeignOrigin,
    ForeignHost,
    NotFound,
    MethodNotAllowed,
    Timeout,
    Gap,
    LengthRequired,
    TooLarge,
    TargetTooLong,
    ExpectationFailed,
    KeyReused,
    UpgradeRequired,
    TopicCap,
    ClientCap,
    HeadTooLarge,
    Internal,
    UnknownCoding,
    NotBuilt,
    ConnectionCap,
    PollCap,
    BodyMemory,
    Draining,
    HttpVersion,
    Storage,
}

/// Cause, label in `/metrics`, status and title, in the order of the enum.
pub const CAUSES: [(Cause, &str, u16, &str); 28] = [
    (Cause::BadRequest, "bad_request", 400, "Bad request"),
    (Cause::Malformed, "malformed_http", 400, "Not HTTP"),
    (Cause::Unauthorized, "unauthorized", 401, "A token is needed"),
    (Cause::Forbidden, "forbidden", 403, "Not this token's right"),
    (Cause::ForeignOrigin, "foreign_origin", 403, "Another site's page"),
    (Cause::ForeignHost, "foreign_host", 403, "Not this server's name"),
    (Cause::NotFound, "not_found", 404, "No such path"),
    (Cause::MethodNotAllowed, "method_not_allowed", 405, "No such method here"),
    (Cause::Timeout, "timeout", 408, "Request took too long to arrive"),
    (Cause::Gap, "gap", 410, "Events are gone"),
    (Cause::LengthRequired, "length_required", 411, "Length required"),
    (Cause::TooLarge, "too_large", 413, "Body too large"),
    (Cause::TargetTooLong, "target_too_long", 414, "Request line too long"),
    (Cause::ExpectationFailed, "expectation_failed", 417, "Unknown expectation"),
    (Cause::KeyReused, "key_reused", 422, "Idempotency key reused"),
    (Cause::UpgradeRequired, "upgrade_required", 426, "Another WebSocket version is needed"),
    (Cause::TopicCap, "topic_cap", 429, "Too many topics"),
    (Cause::ClientCap, "client_cap", 429, "Too many connections of one client"),
    (Cause::HeadTooLarge, "head_too_large", 431, "Request head too large"),
    (Cause::Internal, "internal", 500, "Internal error"),
    (Cause::UnknownCoding, "unknown_coding", 501, "Unknown transfer coding"),
    (Cause::NotBuilt, "not_built", 501, "Not in this build"),
    (Cause::ConnectionCap, "connection_cap", 503, "Too many connections"),
    (Cause::PollCap, "poll_cap", 503, "Too many held polls"),
    (Cause::BodyMemory, "body_memory", 503, "Too many bodies being received"),
    (Cause::Draining, "draining", 503, "Shutting down"),
    (Cause::HttpVersion, "http_version", 505, "HTTP version not supported"),
    (Cause::Storage, "storage", 507, "Storage full or failing"),
];

impl Cause {
    /// The label in `/metrics`.
    #[must_use]
    pub fn label(self) -> &'static str {
        CAUSES[self as usize].1
    }

    /// The HTTP status code.
    #[must_use]
    pub fn status(self) -> u16 {
        CAUSES[self as usize].2
    }

    fn title(self) -> &'static str {
        CAUSES[self as usize].3
    }
}

/// A random value for `Retry-After`, in seconds.
#[must_use]
pub fn retry_after() -> String {
    fastrand::u64(RETRY_AFTER_SECONDS).to_string()
}

/// An error response to a client. Boxed, so that a `Result` with it is cheap to move.
#[derive(Debug)]
pub struct Problem(Box<ProblemContent>);

#[derive(Debug)]
struct ProblemContent {
    cause: Cause,
    detail: String,
    /// Names and JSON values.
    members: Vec<(&'static str, Vec<u8>)>,
    headers: Vec<(&'static str, String)>,
}

impl Problem {
    /// A problem whose `detail` names what is wrong and what is expected. `429` and `503` get a
    /// `Retry-After`.
    pub fn new(cause: Cause, detail: impl Into<String>) -> Problem {
        let mut headers = Vec::new();
        if matches!(cause.status(), 429 | 503) {
            headers.push(("Retry-After", retry_after()));
        }
        Problem(Box::new(ProblemContent {
            cause,
            detail: detail.into(),
            members: Vec::new(),
            headers,
        }))
    }

    /// A `400` for malformed HTTP.
    pub fn malformed(detail: impl Into<String>) -> Problem {
        Problem::new(Cause::Malformed, detail)
    }

    /// A `400` for well-formed HTTP with invalid content.
    pub fn bad_request(detail: impl Into<String>) -> Problem {
        Problem::new(Cause::BadRequest, detail)
    }

    /// Adds a member to the body. `value` has to be JSON.
    #[must_use]
    pub fn with_member(mut self, name: &'static str, value: Vec<u8>) -> Problem {
        self.0.members.push((name, value));
        self
    }

    #[must_use]
    pub fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Problem {
        self.0.headers.push((name, value.into()));
        self
    }

    #[must_use]
    pub fn cause(&self) -> Cause {
        self.0.cause
    }

    #[must_use]
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// The headers that belong to this problem, beside those of every response.
    #[must_use]
    pub fn headers(&self) -> &[(&'static str, String)] {
        &self.0.headers
    }

    /// Renders the body: `title`, `status`, `detail` and the added members.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut body = JsonObject::begin(&mut out);
        body.string("title", self.0.cause.title())
            .number("status", u64::from(self.0.cause.status()))
            .string("detail", &self.0.detail);
        for (name, value) in &self.0.members {
            body.raw(name, value);
        }
        body.end();
        out.push(b'\n');
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_in_the_order_of_the_enum() {
        for (index, (cause, ..)) in CAUSES.iter().enumerate() {
            assert_eq!(*cause as usize, index);
        }
    }
}
