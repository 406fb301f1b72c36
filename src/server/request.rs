//! Reading one request within its limits: the head, then the body.
//!
//! Each of the two has one deadline for the whole of it. No memory is reserved for bytes that were
//! announced but have not arrived.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use super::body::{BodyBudget, RequestBody};
use super::head::{HeadParser, ParsedHead};
use crate::conn::Conn;
use crate::http::BodyFraming;
use crate::http::chunked::{BodySink as _, ChunkedDecoder};
use crate::limits::{INPUT_BUFFER_BYTES, SMALL_BODY_BYTES};
use crate::problem::{Cause, Problem};
use crate::time::Seconds;

/// Why reading ended without a request.
#[derive(Debug)]
pub enum RequestEnd {
    /// The client closed, vanished or sent nothing: no response is sent.
    CloseSilently,
    /// The client gets this response, and the connection ends.
    With(Problem),
}

impl From<Problem> for RequestEnd {
    fn from(problem: Problem) -> RequestEnd {
        RequestEnd::With(problem)
    }
}

/// Bytes that have arrived on a connection and were not consumed yet.
pub struct InputBuffer {
    buffer: Vec<u8>,
    consumed: usize,
}

impl InputBuffer {
    pub fn new() -> InputBuffer {
        InputBuffer { buffer: Vec::with_capacity(INPUT_BUFFER_BYTES), consumed: 0 }
    }

    pub fn unused(&self) -> &[u8] {
        &self.buffer[self.consumed..]
    }

    pub fn is_empty(&self) -> bool {
        self.unused().is_empty()
    }

    /// Whether the buffer begins with a HEAD request, even a malformed one: its response must not
    /// have a body.
    pub fn starts_with_head_request(&self) -> bool {
        let bytes = self.unused();
        bytes.strip_prefix(b"\r\n").unwrap_or(bytes).starts_with(b"HEAD ")
    }

    pub fn consume(&mut self, count: usize) {
        self.consumed += count;
        if self.is_empty() {
            self.buffer.clear();
            // Large heads are rare: return to the small size.
            self.buffer.shrink_to(INPUT_BUFFER_BYTES);
            self.consumed = 0;
        }
    }

    /// Frees the memory of an empty buffer, until the next read.
    pub fn release(&mut self) {
        if self.is_empty() {
            self.buffer = Vec::new();
            self.consumed = 0;
        }
    }

    /// Makes space at the end. The buffer never holds more than one head and one read.
    fn reserve(&mut self) {
        if self.buffer.len() == self.buffer.capacity() {
            self.buffer.drain(..self.consumed);
            self.consumed = 0;
            self.buffer.reserve(INPUT_BUFFER_BYTES);
        }
    }

    /// Reads more, waiting until `deadline`. Returns the number of bytes, zero at the end of input.
    pub fn fill_until(&mut self, conn: &Conn, deadline: Instant) -> std::io::Result<usize> {
        self.reserve();
        conn.recv_until(&mut self.buffer, deadline)
    }

    /// Reads the first bytes of a request, waiting for the connection's idle time.
    fn fill_idle(&mut self, conn: &Conn) -> std::io::Result<usize> {
        self.reserve();
        conn.recv(&mut self.buffer)
    }
}

/// Limits of a head.
pub struct HeadLimits {
    pub bytes: usize,
    pub time: Duration,
}

/// Reads a head. Its time starts with its first byte, when `on_first_byte` is called.
// Not inlined, so that the parser's stack is gone while a poll is held.
#[inline(never)]
pub fn read_head(
    conn: &Conn,
    input: &mut InputBuffer,
    limits: &HeadLimits,
    on_first_byte: impl FnOnce(),
) -> Result<ParsedHead, RequestEnd> {
    if input.is_empty() {
        match input.fill_idle(conn) {
            Ok(received) if received > 0 => {}
            _ => return Err(RequestEnd::CloseSilently),
        }
    }
    on_first_byte();
    let mut parser = HeadParser::default();
    // Nearly every head arrives at once: read the clock only if it does not.
    let mut deadline = None;
    loop {
        if let Some(parsed) = parser.read(input.unused(), limits.bytes)? {
            input.consume(parsed.length);
            return Ok(parsed);
        }
        let deadline = *deadline.get_or_insert_with(|| Instant::now() + limits.time);
        received("the request's head", limits.time, input.fill_until(conn, deadline))?;
    }
}

/// The result of a read that has to bring bytes before `limit` is over.
fn received(
    what: &str,
    limit: Duration,
    result: std::io::Result<usize>,
) -> Result<usize, RequestEnd> {
    match result {
        Ok(0) => Err(RequestEnd::CloseSilently),
        Ok(received) => Ok(received),
        Err(e) if e.kind() == ErrorKind::TimedOut => Err(RequestEnd::With(Problem::new(
            Cause::Timeout,
            format!("{what} did not arrive within {} s", Seconds(limit)),
        ))),
        Err(_) => Err(RequestEnd::CloseSilently),
    }
}

/// The result of a read of a body. It may bring nothing if it ends before the body's deadline, in
/// order to check whether other bodies need memory.
fn received_of_body(
    limits: &BodyLimits<'_>,
    result: std::io::Result<usize>,
    ends_early: bool,
) -> Result<usize, RequestEnd> {
    match result {
        Err(e) if ends_early && e.kind() == ErrorKind::TimedOut => Ok(0),
        result => received("the body", limits.time, result),
    }
}

/// Limits of a body.
pub struct BodyLimits<'a> {
    pub bytes: usize,
    pub time: Duration,
    pub budget: &'a BodyBudget,
}

/// Reads a body.
// Not inlined, for the same reason as `read_head`.
#[inline(never)]
pub fn read_body<'a>(
    conn: &Conn,
    input: &mut InputBuffer,
    framing: BodyFraming,
    limits: &BodyLimits<'a>,
) -> Result<RequestBody<'a>, RequestEnd> {
    let mut body = RequestBody::new(limits.budget);
    if framing == BodyFraming::Sized(0) {
        return Ok(body);
    }
    if let BodyFraming::Sized(length) = framing {
        // The caller has compared the length with the limit, so it fits a usize.
        let here = input.unused().len().min(length as usize);
        body.push_bytes(&input.unused()[..here])?;
        input.consume(here);
        if here as u64 == length {
            return Ok(body);
        }
    }
    // Nearly every body arrives at once: read the clock only from here on.
    let started = Instant::now();
    let deadline = started + limits.time;
    match framing {
        BodyFraming::Sized(length) => {
            let length = length as usize;
            while body.bytes.len() < length {
                let here = body.bytes.len();
                let step = (length - here).min(here.max(SMALL_BODY_BYTES));
                body.reserve(step)?;
                // Not a byte more than the body: the rest belongs to the next request.
                let until = body.read_deadline(started, deadline)?;
                body.bytes.resize(here + step, 0);
                let result = conn.recv_into(&mut body.bytes[here..], until);
                let result = received_of_body(limits, result, until < deadline);
                body.bytes.truncate(here + result.as_ref().map_or(0, |received| *received));
                result?;
            }
        }
        BodyFraming::Chunked => {
            let mut chunks = ChunkedDecoder::default();
            loop {
                let used = chunks.decode(input.unused(), &mut body, limits.bytes)?;
                input.consume(used);
                if chunks.is_done() {
                    break;
                }
                let until = body.read_deadline(started, deadline)?;
                received_of_body(limits, input.fill_until(conn, until), until < deadline)?;
            }
        }
    }
    Ok(body)
}
