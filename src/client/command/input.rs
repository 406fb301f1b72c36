//! Events from stdin, in batches: what is there goes out at once, together if there is much of it.
//!
//! A line that was typed is not kept waiting for others, and a file of a million lines does not
//! cost a million requests. That needs to know whether more is there to be read, which a buffer
//! that fills itself would hide; so this reads without one.

use std::io::{self, Stdin, stdin};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use super::Failure;
use super::args::LineKind;
use crate::json;
use crate::limits::{BATCH_BYTES, BATCH_EVENTS, STDIN_EVENT_BYTES};
use crate::shutdown::Shutdown;

/// Lines that are published together.
pub struct Batch {
    /// NDJSON.
    pub body: Vec<u8>,
    pub events: u64,
    /// Read from stdin for it.
    pub bytes: u64,
    /// The numbers of its first and last line, counted from 1.
    pub first: u64,
    pub last: u64,
}

/// Stdin, read without a buffer that others fill: what was read and not used is in here.
pub struct Input {
    stdin: Stdin,
    stop: Shutdown,
    read: Vec<u8>,
    /// How much of `read` is used.
    used: usize,
    /// Lines used so far.
    lines: u64,
    is_over: bool,
}

/// Read at once, at most.
const CHUNK: usize = 64 << 10;

impl Input {
    pub fn new(stop: Shutdown) -> Input {
        Input { stdin: stdin(), stop, read: Vec::new(), used: 0, lines: 0, is_over: false }
    }

    /// All of it.
    pub fn whole(mut self) -> Result<Vec<u8>, Failure> {
        while self.more()? {
            if self.read.len() > STDIN_EVENT_BYTES {
                let why = format!(
                    "stdin has more than {STDIN_EVENT_BYTES} bytes, too many for one event"
                );
                return Err(Failure::Stuck(why));
            }
        }
        if self.is_over { Ok(self.read) } else { Err(self.stopped()) }
    }

    /// The lines that are there, at least one; nothing at the end.
    pub fn batch(&mut self, kind: LineKind) -> Result<Option<Batch>, Failure> {
        let first = self.lines + 1;
        let mut batch = Batch { body: Vec::new(), events: 0, bytes: 0, first, last: self.lines };
        loop {
            let Some(line) = self.line() else {
                // What comes later goes out later.
                if batch.events > 0 && !self.is_ready()? {
                    break;
                }
                match self.more() {
                    Ok(true) => continue,
                    Err(why) if batch.events == 0 => return Err(why),
                    // What comes before a failure is published first.
                    Ok(false) | Err(_) => break,
                }
            };
            let event = match self.event(line.clone(), kind) {
                Ok(event) => event,
                // As above.
                Err(_) if batch.events > 0 => break,
                Err(why) => {
                    let number = self.lines + 1;
                    return Err(Failure::Stuck(format!("line {number} of the input {why}")));
                }
            };
            if batch.events == BATCH_EVENTS as u64
                || batch.body.len() + event.len() + 1 > BATCH_BYTES
            {
                break;
            }
            batch.bytes += line.len() as u64 + 1;
            self.used = (line.end + 1).min(self.read.len());
            self.lines += 1;
            if !event.is_empty() {
                batch.body.extend_from_slice(&event);
                batch.body.push(b'\n');
                batch.events += 1;
                batch.last = self.lines;
            }
        }
        if batch.events > 0 {
            return Ok(Some(batch));
        }
        let all_used = self.used == self.read.len();
        if self.is_over || all_used && !self.is_ready()? { Ok(None) } else { Err(self.stopped()) }
    }

    /// Where the next line is, if it is there whole.
    fn line(&self) -> Option<std::ops::Range<usize>> {
        let rest = &self.read[self.used..];
        let end = memchr::memchr(b'\n', rest);
        let end = end.or_else(|| (self.is_over && !rest.is_empty()).then_some(rest.len()))?;
        Some(self.used..self.used + end)
    }

    /// A line as NDJSON; empty when it is none.
    fn event(&self, line: std::ops::Range<usize>, kind: LineKind) -> Result<Vec<u8>, String> {
        let line = &self.read[line];
        let event = match kind {
            LineKind::Json => line.trim_ascii().to_vec(),
            LineKind::Text => {
                let text = std::str::from_utf8(line).map_err(|_| {
                    "is not UTF-8; --stdin whole publishes bytes, as one event".to_owned()
                })?;
                json::encode_string(text)
            }
        };
        if event.len() >= BATCH_BYTES {
            return Err(format!("has {} bytes; allowed are {}", event.len(), BATCH_BYTES - 1));
        }
        if kind == LineKind::Json && !event.is_empty() {
            json::validate(&event).map_err(|e| format!("is not JSON: {e}"))?;
        }
        Ok(event)
    }

    /// Reads what is there, or waits for it; says whether there may be more.
    fn more(&mut self) -> Result<bool, Failure> {
        if self.is_over {
            return Ok(false);
        }
        self.read.drain(..std::mem::take(&mut self.used));
        if self.read.len() > BATCH_BYTES {
            let why = format!("has more than {BATCH_BYTES} bytes");
            return Err(Failure::Stuck(format!("line {} of the input {why}", self.lines + 1)));
        }
        let ready = PollFd::new(&self.stdin, PollFlags::IN);
        match self.stop.wait_for(&ready, None) {
            Err(_) if self.stop.is_triggered() => return Ok(false),
            waited => waited?,
        };
        let before = self.read.len();
        self.read.resize(before + CHUNK, 0);
        let got = rustix::io::read(&self.stdin, &mut self.read[before..]);
        self.read.truncate(before + *got.as_ref().unwrap_or(&0));
        match got {
            Ok(count) => self.is_over = count == 0,
            // A signal, or a stdin that somebody else has made non-blocking.
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(error) => return Err(Failure::Stuck(format!("stdin: {}", io::Error::from(error)))),
        }
        Ok(true)
    }

    /// Whether there is something to read, if only the end.
    fn is_ready(&self) -> io::Result<bool> {
        let mut stdin = [PollFd::new(&self.stdin, PollFlags::IN)];
        let now = rustix::event::Timespec::default();
        Ok(rustix::event::poll(&mut stdin, Some(&now))? > 0)
    }

    fn stopped(&self) -> Failure {
        let number = self.lines + 1;
        Failure::Stuck(format!(
            "told to stop: line {number} of the input and what follows is not published"
        ))
    }
}
