//! Reading one request within its limits: the head, then the body.
//!
//! Each phase has one deadline for the whole of it. Nothing is set aside for what was announced
//! but has not arrived.

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

/// Why there is no request.
#[derive(Debug)]
pub enum RequestEnd {
    /// The client closed, vanished or stayed silent: nobody waits for an answer.
    Quietly,
    /// The client gets this, and the connection ends.
    With(Problem),
}

impl From<Problem> for RequestEnd {
    fn from(problem: Problem) -> RequestEnd {
        RequestEnd::With(problem)
    }
}

/// What has arrived on a line and was not used yet.
pub struct InputBuffer {
    buffer: Vec<u8>,
    used: usize,
}

impl InputBuffer {
    pub fn new() -> InputBuffer {
        InputBuffer { buffer: Vec::with_capacity(INPUT_BUFFER_BYTES), used: 0 }
    }

    pub fn unused(&self) -> &[u8] {
        &self.buffer[self.used..]
    }

    pub fn is_empty(&self) -> bool {
        self.unused().is_empty()
    }

    /// Whether a HEAD request begins here, be the rest of it as it may: no body may answer that.
    pub fn asks_for_head(&self) -> bool {
        let bytes = self.unused();
        bytes.strip_prefix(b"\r\n").unwrap_or(bytes).starts_with(b"HEAD ")
    }

    pub fn consume(&mut self, count: usize) {
        self.used += count;
        if self.is_empty() {
            self.buffer.clear();
            // A large head was an exception, and its room is not kept.
            self.buffer.shrink_to(INPUT_BUFFER_BYTES);
            self.used = 0;
        }
    }

    /// Gives an empty buffer back, for as long as nothing is read.
    pub fn release(&mut self) {
        if self.is_empty() {
            self.buffer = Vec::new();
            self.used = 0;
        }
    }

    /// Takes what was not used.
    #[cfg(feature = "streams")]
    pub fn take(&mut self) -> Vec<u8> {
        let mut rest = std::mem::take(&mut self.buffer);
        rest.drain(..std::mem::take(&mut self.used));
        rest
    }

    /// Makes room at the end; the buffer never holds more than one head and one read.
    fn make_room(&mut self) {
        if self.buffer.len() == self.buffer.capacity() {
            self.buffer.drain(..self.used);
            self.used = 0;
            self.buffer.reserve(INPUT_BUFFER_BYTES);
        }
    }

    /// Waits for more until `deadline`.
    pub fn more_by(&mut self, conn: &Conn, deadline: Instant) -> std::io::Result<usize> {
        self.make_room();
        conn.recv_until(&mut self.buffer, deadline)
    }

    /// Waits for a request's first bytes, for the idle time.
    fn first(&mut self, conn: &Conn) -> std::io::Result<usize> {
        self.make_room();
        conn.recv(&mut self.buffer)
    }
}

/// Limits of the head.
pub struct HeadLimits {
    pub bytes: usize,
    pub time: Duration,
}

/// Reads a head, in a stack frame of its own. Its time begins with its first byte, which `begun` is told of.
#[inline(never)]
pub fn read_head(
    conn: &Conn,
    input: &mut InputBuffer,
    limits: &HeadLimits,
    begun: impl FnOnce(),
) -> Result<ParsedHead, RequestEnd> {
    if input.is_empty() {
        match input.first(conn) {
            Ok(got) if got > 0 => {}
            _ => return Err(RequestEnd::Quietly),
        }
    }
    begun();
    let mut head = HeadParser::default();
    // Nearly every head is there at once, and needs no clock.
    let mut deadline = None;
    loop {
        if let Some(parsed) = head.read(input.unused(), limits.bytes)? {
            input.consume(parsed.length);
            return Ok(parsed);
        }
        let what = "the request's head";
        let deadline = *deadline.get_or_insert_with(|| Instant::now() + limits.time);
        more(what, limits.time, input.more_by(conn, deadline))?;
    }
}

/// A read that has to bring something.
fn more(what: &str, time: Duration, got: std::io::Result<usize>) -> Result<usize, RequestEnd> {
    match got {
        Ok(0) => Err(RequestEnd::Quietly),
        Ok(got) => Ok(got),
        Err(e) if e.kind() == ErrorKind::TimedOut => Err(RequestEnd::With(Problem::new(
            Cause::Timeout,
            format!("{what} did not arrive within {} s", Seconds(time)),
        ))),
        Err(_) => Err(RequestEnd::Quietly),
    }
}

/// The same of a body; when it is only to look at who wants its room, nothing may come.
fn more_of_body(
    limits: &BodyLimits<'_>,
    got: std::io::Result<usize>,
    looks: bool,
) -> Result<usize, RequestEnd> {
    match got {
        Err(e) if looks && e.kind() == ErrorKind::TimedOut => Ok(0),
        got => more("the body", limits.time, got),
    }
}

/// Limits of a body.
pub struct BodyLimits<'a> {
    pub bytes: usize,
    pub time: Duration,
    /// Room for all bodies together.
    pub room: &'a BodyBudget,
}

/// Reads a body, in a stack frame of its own.
#[inline(never)]
pub fn read_body<'a>(
    conn: &Conn,
    input: &mut InputBuffer,
    framing: BodyFraming,
    limits: &BodyLimits<'a>,
) -> Result<RequestBody<'a>, RequestEnd> {
    let mut body = RequestBody::new(limits.room);
    if framing == BodyFraming::Sized(0) {
        return Ok(body);
    }
    if let BodyFraming::Sized(length) = framing {
        // It was compared with the limit before, so it fits.
        let here = input.unused().len().min(length as usize);
        body.push_bytes(&input.unused()[..here])?;
        input.consume(here);
        if here as u64 == length {
            return Ok(body);
        }
    }
    // Nearly every body is there at once, and needs no clock.
    let begun = Instant::now();
    let deadline = begun + limits.time;
    match framing {
        BodyFraming::Sized(length) => {
            let length = length as usize;
            while body.bytes.len() < length {
                let here = body.bytes.len();
                let step = (length - here).min(here.max(SMALL_BODY_BYTES));
                body.reserve(step)?;
                // No byte more than the body's: the next request's are not ours to keep.
                let until = body.wait_until(begun, deadline)?;
                body.bytes.resize(here + step, 0);
                let got = conn.recv_into(&mut body.bytes[here..], until);
                let got = more_of_body(limits, got, until < deadline);
                body.bytes.truncate(here + got.as_ref().map_or(0, |got| *got));
                got?;
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
                let until = body.wait_until(begun, deadline)?;
                more_of_body(limits, input.more_by(conn, until), until < deadline)?;
            }
        }
    }
    Ok(body)
}
