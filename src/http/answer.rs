//! An answer and its bytes, head and body in one piece.

use std::cell::Cell;
use std::io::Write as _;
use std::time::SystemTime;

use httpdate::HttpDate;
use tiny_http::StatusCode;

use crate::json::push_number;
use crate::problem::Problem;
use crate::time::since_unix_epoch;

/// What an answer's bytes depend on beside the answer.
#[derive(Clone, Copy, Default, Debug)]
pub struct EncodeOptions<'a> {
    /// Not so for a HEAD request.
    pub has_body: bool,
    /// The site whose page may read the answer.
    pub cors: Option<&'a str>,
    /// The connection ends with it, and the client is told so.
    pub closes: bool,
}

/// An answer before it is whole.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    /// As far as it is the same for whomever it goes to.
    head: Vec<u8>,
    /// None where no length is said: nothing follows, or what follows says itself where it ends.
    body: Option<Vec<u8>>,
}

impl Response {
    /// An answer with a body of this type.
    #[must_use]
    pub fn new(status: u16, content_type: &str, body: Vec<u8>) -> Response {
        Response::begin(status, Some(body)).with("Content-Type", content_type)
    }

    /// One with a JSON body that nobody is to keep.
    #[must_use]
    pub fn json(status: u16, body: Vec<u8>) -> Response {
        let mut answer = Response::begin(status, Some(body));
        // At once, as every publish is answered so.
        let fields = b"Content-Type: application/json\r\nCache-Control: no-store\r\n";
        answer.head.extend_from_slice(fields);
        answer
    }

    /// One without a body; after it may come what is not known yet.
    #[must_use]
    pub fn bare(status: u16) -> Response {
        Response::begin(status, None)
    }

    /// A `204`.
    #[must_use]
    pub fn empty() -> Response {
        Response::bare(204)
    }

    /// A `304`.
    #[must_use]
    pub fn not_modified() -> Response {
        Response::bare(304)
    }

    fn begin(status: u16, body: Option<Vec<u8>>) -> Response {
        let length = body.as_ref().map_or(0, Vec::len);
        let mut head = Vec::with_capacity(HEAD_BYTES + length);
        match status {
            // Nearly all are.
            200 => head.extend_from_slice(b"HTTP/1.1 200 OK\r\n"),
            201 => head.extend_from_slice(b"HTTP/1.1 201 Created\r\n"),
            _ => {
                let reason = StatusCode(status).default_reason_phrase();
                // Writing to a Vec cannot fail.
                let _ = write!(head, "HTTP/1.1 {status} {reason}\r\n");
            }
        }
        head.extend_from_slice(&usual_fields(SystemTime::now()));
        Response { status, head, body }
    }

    /// Adds a header.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Response {
        push_field(&mut self.head, name, value);
        self
    }

    /// The body, without its end of line.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        self.body.as_deref().unwrap_or_default().trim_ascii_end()
    }

    /// The whole message as bytes.
    ///
    /// Put together here and not by `tiny_http::Response::raw_print`: that one copies the body
    /// through 8 KiB of stack, which every worker that has answered once would keep for good.
    #[must_use]
    pub fn encode(self, frame: EncodeOptions<'_>) -> Vec<u8> {
        let mut bytes = self.head;
        if frame.closes {
            let at = first_line_end(&bytes);
            bytes.splice(at..at, CLOSE.iter().copied());
        }
        if let Some(origin) = frame.cors {
            push_field(&mut bytes, "Access-Control-Allow-Origin", origin);
            bytes.extend_from_slice(CORS);
        }
        if let Some(body) = &self.body {
            bytes.extend_from_slice(b"Content-Length: ");
            push_number(&mut bytes, body.len() as u64);
            end_line(&mut bytes);
        }
        end_line(&mut bytes);
        if let Some(body) = self.body.filter(|_| frame.has_body) {
            bytes.extend_from_slice(&body);
        }
        bytes
    }
}

/// What an answer's head seldom exceeds; only to set room aside.
const HEAD_BYTES: usize = 384;
const LINE_END: &[u8] = b"\r\n";
/// Which headers a page of another site may read, and that the answer depends on whose it is.
const CORS: &[u8] = b"Access-Control-Expose-Headers: Next-Cursor, Poll-Reason, Poll-Wait, \
    Poll-Gap, Retry-After, Preference-Applied\r\nVary: Origin\r\n";
/// What every answer has. What a publisher sent must not pass for something else in a reader's
/// browser.
const USUAL_FIELDS: &[u8; 88] = b"Server: longpoll\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\
    X-Content-Type-Options: nosniff\r\n";
const DATE_AT: usize = "Server: longpoll\r\nDate: ".len();
const CLOSE: &[u8] = b"Connection: close\r\n";

fn push_field(bytes: &mut Vec<u8>, name: &str, value: &str) {
    let value = value.as_bytes();
    bytes.reserve(name.len() + value.len() + 4);
    bytes.extend_from_slice(name.as_bytes());
    bytes.push(b':');
    bytes.push(b' ');
    // Values are checked where they come in; that none can end its line is made sure here.
    let breaks = |byte: &u8| matches!(byte, b'\r' | b'\n' | 0);
    let end = value.iter().position(breaks).unwrap_or(value.len());
    bytes.extend_from_slice(&value[..end]);
    end_line(bytes);
}

fn end_line(bytes: &mut Vec<u8>) {
    bytes.push(b'\r');
    bytes.push(b'\n');
}

/// [`USUAL_FIELDS`] with this date (RFC 9110, section 6.6.1); each thread makes it once a second.
fn usual_fields(now: SystemTime) -> [u8; USUAL_FIELDS.len()] {
    thread_local! {
        static LAST: Cell<(u64, [u8; USUAL_FIELDS.len()])> = const { Cell::new((0, *USUAL_FIELDS)) };
    }
    let since = since_unix_epoch(now);
    let (second, mut fields) = LAST.get();
    if second != since.as_secs() {
        let date = HttpDate::from(SystemTime::UNIX_EPOCH + since).to_string();
        let places = fields[DATE_AT..].iter_mut();
        places.zip(date.bytes()).for_each(|(place, byte)| *place = byte);
        LAST.set((since.as_secs(), fields));
    }
    fields
}

impl From<&Problem> for Response {
    fn from(problem: &Problem) -> Response {
        let answer =
            Response::new(problem.cause().status(), "application/problem+json", problem.body());
        let headers = problem.headers().iter();
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
    let end = first_line_end(message);
    ([&message[..end], CLOSE].concat(), end)
}

fn first_line_end(message: &[u8]) -> usize {
    let line = message.windows(2).position(|window| window == LINE_END);
    line.map_or(message.len(), |at| at + LINE_END.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn an_answer_is_dated_in_its_own_second() {
        for (second, date) in [
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (784_111_778, "Sun, 06 Nov 1994 08:49:38 GMT"),
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
        ] {
            let now = SystemTime::UNIX_EPOCH + Duration::from_millis(second * 1_000 + 999);
            let usual =
                format!("Server: longpoll\r\nDate: {date}\r\nX-Content-Type-Options: nosniff\r\n");
            assert_eq!(String::from_utf8_lossy(&usual_fields(now)), usual);
        }
    }

    #[test]
    fn a_204_carries_no_length_and_a_large_body_is_not_chunked() {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let empty = text(Response::empty().encode(EncodeOptions {
            has_body: true,
            closes: true,
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
