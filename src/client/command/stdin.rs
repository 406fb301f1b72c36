//! Events from stdin, in batches of all lines that are ready.
//!
//! A typed line is published at once, without waiting for more, and a file of a million lines does
//! not cost a million requests. This requires to know whether more input is ready, which a
//! `BufReader` hides; so this module reads the descriptor directly.

use std::io::{self, Stdin, stdin};
use std::ops::Range;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use super::args::LineFormat;
use super::error::CommandError;
use crate::json;
use crate::limits::{BATCH_BYTES, BATCH_EVENTS, STDIN_EVENT_BYTES};
use crate::shutdown::Shutdown;

/// Lines to publish in one request.
pub struct LineBatch {
    /// The events as NDJSON.
    pub body: Vec<u8>,
    pub events: u64,
    /// Number of bytes read from stdin for this batch.
    pub bytes: u64,
    /// The numbers of the first and the last line, counted from 1.
    pub first_line: u64,
    pub last_line: u64,
}

impl LineBatch {
    fn has_room_for(&self, event: &[u8]) -> bool {
        self.events < BATCH_EVENTS as u64 && self.body.len() + event.len() < BATCH_BYTES
    }

    fn push(&mut self, event: &[u8], line_number: u64) {
        self.body.extend_from_slice(event);
        self.body.push(b'\n');
        self.events += 1;
        self.last_line = line_number;
    }
}

/// Reads stdin without `std`'s buffer.
pub struct StdinReader {
    stdin: Stdin,
    shutdown: Shutdown,
    buffer: Vec<u8>,
    /// How much of `buffer` is consumed.
    consumed: usize,
    /// Number of lines consumed so far.
    lines: u64,
    at_end: bool,
}

/// The largest read, in bytes.
const READ_BYTES: usize = 64 << 10;

impl StdinReader {
    pub fn new(shutdown: Shutdown) -> StdinReader {
        let (stdin, buffer) = (stdin(), Vec::new());
        StdinReader { stdin, shutdown, buffer, consumed: 0, lines: 0, at_end: false }
    }

    /// Reads everything up to the end of input.
    pub fn read_all(mut self) -> Result<Vec<u8>, CommandError> {
        while self.fill()? {
            if self.buffer.len() > STDIN_EVENT_BYTES {
                return Err(CommandError::Failed(format!(
                    "stdin has more than {STDIN_EVENT_BYTES} bytes, too many for one event"
                )));
            }
        }
        if self.at_end { Ok(self.buffer) } else { Err(self.interrupted()) }
    }

    /// Waits for at least one event and returns it with all others that are ready; `None` at the
    /// end of input.
    pub fn next_batch(&mut self, format: LineFormat) -> Result<Option<LineBatch>, CommandError> {
        let (first_line, last_line) = (self.lines + 1, self.lines);
        let mut batch = LineBatch { body: Vec::new(), events: 0, bytes: 0, first_line, last_line };
        loop {
            let Some(line) = self.next_line() else {
                // Lines that are not ready belong to the next batch.
                if batch.events > 0 && !self.is_ready()? {
                    break;
                }
                match self.fill() {
                    Ok(true) => continue,
                    Err(error) if batch.events == 0 => return Err(error),
                    // Publish the lines before a failure first; the next call reports it.
                    Ok(false) | Err(_) => break,
                }
            };
            let event = match self.encode(line.clone(), format) {
                Ok(event) => event,
                // As above: publish the lines before the invalid one first.
                Err(_) if batch.events > 0 => break,
                Err(why) => return Err(self.invalid_line(&why)),
            };
            if !batch.has_room_for(&event) {
                break;
            }
            batch.bytes += line.len() as u64 + 1;
            self.consumed = (line.end + 1).min(self.buffer.len());
            self.lines += 1;
            if !event.is_empty() {
                batch.push(&event, self.lines);
            }
        }
        if batch.events > 0 {
            return Ok(Some(batch));
        }
        let all_consumed = self.consumed == self.buffer.len();
        if self.at_end || all_consumed && !self.is_ready()? {
            Ok(None)
        } else {
            Err(self.interrupted())
        }
    }

    /// The position of the next line in the buffer, if the whole line has been read.
    fn next_line(&self) -> Option<Range<usize>> {
        let rest = &self.buffer[self.consumed..];
        let end = memchr::memchr(b'\n', rest);
        let end = end.or_else(|| (self.at_end && !rest.is_empty()).then_some(rest.len()))?;
        Some(self.consumed..self.consumed + end)
    }

    /// Encodes a line as one line of NDJSON; empty for a blank line.
    fn encode(&self, line: Range<usize>, format: LineFormat) -> Result<Vec<u8>, String> {
        let line = &self.buffer[line];
        let event = match format {
            LineFormat::Json => line.trim_ascii().to_vec(),
            LineFormat::Text => {
                let text = std::str::from_utf8(line).map_err(|_| {
                    "is not UTF-8; --stdin whole publishes bytes, as one event".to_owned()
                })?;
                json::encode_string(text)
            }
        };
        if event.len() >= BATCH_BYTES {
            let max = BATCH_BYTES - 1;
            return Err(format!("has {} bytes; expected at most {max}", event.len()));
        }
        if format == LineFormat::Json && !event.is_empty() {
            json::validate(&event).map_err(|e| format!("is not JSON: {e}"))?;
        }
        Ok(event)
    }

    /// Waits for input and reads it into the buffer. Returns false at the end of input and after
    /// the shutdown signal.
    fn fill(&mut self) -> Result<bool, CommandError> {
        if self.at_end {
            return Ok(false);
        }
        self.buffer.drain(..std::mem::take(&mut self.consumed));
        if self.buffer.len() > BATCH_BYTES {
            return Err(self.invalid_line(&format!("has more than {BATCH_BYTES} bytes")));
        }
        let ready = PollFd::new(&self.stdin, PollFlags::IN);
        match self.shutdown.wait_for(&ready, None) {
            Err(_) if self.shutdown.is_triggered() => return Ok(false),
            result => result?,
        };
        let length = self.buffer.len();
        self.buffer.resize(length + READ_BYTES, 0);
        let result = rustix::io::read(&self.stdin, &mut self.buffer[length..]);
        self.buffer.truncate(length + *result.as_ref().unwrap_or(&0));
        match result {
            Ok(count) => self.at_end = count == 0,
            // A signal interrupted the read, or another process made the shared stdin non-blocking.
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(error) => {
                let error = io::Error::from(error);
                return Err(CommandError::Failed(format!("stdin: {error}")));
            }
        }
        Ok(true)
    }

    /// Whether a read would not block: input is ready, or stdin has ended.
    fn is_ready(&self) -> io::Result<bool> {
        let mut stdin = [PollFd::new(&self.stdin, PollFlags::IN)];
        let now = rustix::event::Timespec::default();
        Ok(rustix::event::poll(&mut stdin, Some(&now))? > 0)
    }

    fn invalid_line(&self, why: &str) -> CommandError {
        CommandError::Failed(format!("line {} of the input {why}", self.lines + 1))
    }

    fn interrupted(&self) -> CommandError {
        self.invalid_line("and all lines after it are not published: stopped by a signal")
    }
}
