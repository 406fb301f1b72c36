//! A response and its bytes: head and body in one buffer.

use std::cell::Cell;
use std::io::Write as _;
use std::time::SystemTime;

use httpdate::HttpDate;
use tiny_http::StatusCode;

use crate::json::push_number;
use crate::problem::Problem;
use crate::time::since_unix_epoch;

/// What the bytes of a response depend on beside the response itself.
#[derive(Clone, Copy, Default, Debug)]
pub struct EncodeOptions<'a> {
    /// False for a HEAD request.
    pub include_body: bool,
    /// The origin whose pages may read the response (CORS).
    pub allowed_origin: Option<&'a str>,
    /// Whether to send `Connection: close`.
    pub close: bool,
}

/// A response that is not yet encoded.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    /// The part of the head that is the same for every client.
    head: Vec<u8>,
    /// `None` for a response without `Content-Length`: nothing follows, or a stream.
    body: Option<Vec<u8>>,
}

impl Response {
    /// A response with a body of this type.
    #[must_use]
    pub fn new(status: u16, content_type: &str, body: Vec<u8>) -> Response {
        Response::begin(status, Some(body)).with_header("Content-Type", content_type)
    }

    /// A response with a JSON body that no cache may store.
    #[must_use]
    pub fn json(status: u16, body: Vec<u8>) -> Response {
        let mut response = Response::begin(status, Some(body));
        // In one step, because every publish is answered by it.
        let fields = b"Content-Type: application/json\r\nCache-Control: no-store\r\n";
        response.head.extend_from_slice(fields);
        response
    }

    /// A response without a body. A stream may follow it.
    #[must_use]
    pub fn without_body(status: u16) -> Response {
        Response::begin(status, None)
    }

    #[must_use]
    pub fn no_content() -> Response {
        Response::without_body(204)
    }

    #[must_use]
    pub fn not_modified() -> Response {
        Response::without_body(304)
    }

    fn begin(status: u16, body: Option<Vec<u8>>) -> Response {
        let length = body.as_ref().map_or(0, Vec::len);
        let mut head = Vec::with_capacity(HEAD_CAPACITY + length);
        match status {
            // Nearly all responses have one of these.
            200 => head.extend_from_slice(b"HTTP/1.1 200 OK\r\n"),
            201 => head.extend_from_slice(b"HTTP/1.1 201 Created\r\n"),
            _ => {
                let reason = StatusCode(status).default_reason_phrase();
                // Writing to a Vec cannot fail.
                let _ = write!(head, "HTTP/1.1 {status} {reason}\r\n");
            }
        }
        head.extend_from_slice(&common_fields(SystemTime::now()));
        Response { status, head, body }
    }

    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Response {
        push_field(&mut self.head, name, value);
        self
    }

    /// The body without its final line break.
    #[must_use]
    pub fn body_text(&self) -> &[u8] {
        self.body.as_deref().unwrap_or_default().trim_ascii_end()
    }

    /// Encodes the whole message.
    ///
    /// `tiny_http::Response::raw_print` is not used: it copies the body through 8 KiB of stack,
    /// which every worker would keep for good after its first response.
    #[must_use]
    pub fn encode(self, options: EncodeOptions<'_>) -> Vec<u8> {
        let mut bytes = self.head;
        if options.close {
            let at = status_line_len(&bytes);
            bytes.splice(at..at, CONNECTION_CLOSE.iter().copied());
        }
        if let Some(origin) = options.allowed_origin {
            push_field(&mut bytes, "Access-Control-Allow-Origin", origin);
            bytes.extend_from_slice(CORS_FIELDS);
        }
        if let Some(body) = &self.body {
            bytes.extend_from_slice(b"Content-Length: ");
            push_number(&mut bytes, body.len() as u64);
            push_line_end(&mut bytes);
        }
        push_line_end(&mut bytes);
        if let Some(body) = self.body.filter(|_| options.include_body) {
            bytes.extend_from_slice(&body);
        }
        bytes
    }
}

/// Initial capacity for a head, which few heads exceed.
const HEAD_CAPACITY: usize = 384;
const LINE_END: &[u8] = b"\r\n";
/// The header fields that a page of another origin may read; and for caches, that the response
/// depends on the origin.
const CORS_FIELDS: &[u8] = b"Access-Control-Expose-Headers: Next-Cursor, Poll-Reason, Poll-Wait, \
    Poll-Gap, Retry-After, Preference-Applied\r\nVary: Origin\r\n";
/// The fields of every response. With `nosniff`, a browser takes a publisher's bytes for nothing
/// but their declared type.
const COMMON_FIELDS: &[u8; 88] = b"Server: longpoll\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\
    X-Content-Type-Options: nosniff\r\n";
const DATE_OFFSET: usize = "Server: longpoll\r\nDate: ".len();
const CONNECTION_CLOSE: &[u8] = b"Connection: close\r\n";

fn push_field(bytes: &mut Vec<u8>, name: &str, value: &str) {
    let value = value.as_bytes();
    bytes.reserve(name.len() + value.len() + 4);
    bytes.extend_from_slice(name.as_bytes());
    bytes.push(b':');
    bytes.push(b' ');
    // Values are validated on input. This is a second line of defence: no value can end its line.
    let is_break = |byte: &u8| matches!(byte, b'\r' | b'\n' | 0);
    let end = value.iter().position(is_break).unwrap_or(value.len());
    bytes.extend_from_slice(&value[..end]);
    push_line_end(bytes);
}

fn push_line_end(bytes: &mut Vec<u8>) {
    bytes.push(b'\r');
    bytes.push(b'\n');
}

/// [`COMMON_FIELDS`] with this date (RFC 9110, section 6.6.1). Each thread formats it at most once
/// a second.
fn common_fields(now: SystemTime) -> [u8; COMMON_FIELDS.len()] {
    thread_local! {
        static LAST: Cell<(u64, [u8; COMMON_FIELDS.len()])> =
            const { Cell::new((0, *COMMON_FIELDS)) };
    }
    let since = since_unix_epoch(now);
    let (second, mut fields) = LAST.get();
    if second != since.as_secs() {
        let date = HttpDate::from(SystemTime::UNIX_EPOCH + since).to_string();
        let place = fields[DATE_OFFSET..].iter_mut();
        place.zip(date.bytes()).for_each(|(old, new)| *old = new);
        LAST.set((since.as_secs(), fields));
    }
    fields
}

impl From<&Problem> for Response {
    fn from(problem: &Problem) -> Response {
        let status = problem.cause().status();
        let response = Response::new(status, "application/problem+json", problem.body());
        let headers = problem.headers().iter();
        headers
            .fold(response, |response, (name, value)| response.with_header(name, value))
            .with_header("Cache-Control", "no-store")
    }
}

/// Encodes a chunk of a body of unknown length (RFC 9112, section 7.1). `content` must not be
/// empty: an empty chunk would end the body.
#[must_use]
pub fn encode_chunk(content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(content.len() + 12);
    // Writing to a Vec cannot fail.
    let _ = write!(bytes, "{:x}\r\n", content.len());
    bytes.extend_from_slice(content);
    bytes.extend_from_slice(LINE_END);
    bytes
}

/// The end of a chunked body.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Adds `Connection: close` to an encoded message that other connections share. Returns a new
/// beginning, and the length of the beginning that it replaces.
#[must_use]
pub fn with_connection_close(message: &[u8]) -> (Vec<u8>, usize) {
    let end = status_line_len(message);
    ([&message[..end], CONNECTION_CLOSE].concat(), end)
}

fn status_line_len(message: &[u8]) -> usize {
    let line = message.windows(2).position(|window| window == LINE_END);
    line.map_or(message.len(), |at| at + LINE_END.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn response_has_the_date_of_its_second() {
        for (second, date) in [
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (784_111_778, "Sun, 06 Nov 1994 08:49:38 GMT"),
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
        ] {
            let now = SystemTime::UNIX_EPOCH + Duration::from_millis(second * 1_000 + 999);
            let fields =
                format!("Server: longpoll\r\nDate: {date}\r\nX-Content-Type-Options: nosniff\r\n");
            assert_eq!(String::from_utf8_lossy(&common_fields(now)), fields);
        }
    }

    #[test]
    fn no_content_has_no_length_and_a_large_body_is_not_chunked() {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let empty = text(Response::no_content().encode(EncodeOptions {
            include_body: true,
            close: true,
            ..EncodeOptions::default()
        }));
        assert!(empty.starts_with("HTTP/1.1 204 No Content\r\nConnection: close\r\n"));
        assert!(!empty.contains("Content-Length"));
        let large = text(
            Response::new(200, "text/plain", vec![b'x'; 100_000]).encode(EncodeOptions::default()),
        );
        assert!(large.contains("\r\nContent-Length: 100000\r\n") && large.ends_with("\r\n\r\n"));
    }
}
