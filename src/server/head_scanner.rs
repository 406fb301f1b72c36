//! The grammar of a request's head: where its parts are, or the first byte that cannot be HTTP.
//!
//! The scanner reads each byte once and keeps its state between calls, so its result does not
//! depend on how the network cuts the bytes. The grammar is that of RFC 9112, sections 2.2, 3 and
//! 5, without the deviations that the RFC lets a server tolerate (a bare LF, folded lines).
//!
//! `httparse` does not do this: it starts again with each piece, and does not name the byte that it
//! refuses. It reads a head that arrives at once with fewer instructions, but not by much: a publish
//! takes 1.3 % more with this scanner, and a poll 0.4 % fewer.

use std::ops::Range;

use crate::http::is_token;
use crate::limits::MAX_HEADER_FIELDS;
use crate::problem::{Cause, Problem};

/// How far a head has been scanned, and where its parts are.
///
/// Positions are `u32`: `--max-head` is at most 1 MiB.
pub struct HeadScanner {
    state: ScanState,
    /// Position of the next byte to scan.
    at: usize,
    /// Where the current part begins.
    start: usize,
    method: Span,
    target: Span,
    is_http10: bool,
    /// Where the first field begins.
    fields_start: u32,
    fields: [FieldSpan; MAX_HEADER_FIELDS],
    field_count: usize,
}

#[derive(Clone, Copy, Default)]
struct Span {
    start: u32,
    end: u32,
}

/// A header field, which begins after the CR LF of the line before it.
#[derive(Clone, Copy, Default)]
struct FieldSpan {
    colon: u32,
    end: u32,
}

/// The part of the head that the next byte belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ScanState {
    /// The method, or one empty line before it (RFC 9112, section 2.2).
    Method,
    /// The LF of that line.
    EmptyLineLf,
    Target,
    Version,
    /// The LF of a request line or of a field.
    LineLf,
    /// The name of a field, or the CR of the empty line that ends the head.
    Name,
    Value,
    /// The LF of the empty line that ends the head.
    LastLf,
    Complete,
}

/// The form of a version; a zero stands for any digit.
const VERSION: &[u8; 8] = b"HTTP/0.0";
/// Length of a version without its minor number, such as `HTTP/2`.
const MAJOR_ONLY: usize = 6;
const FULL_VERSION: usize = VERSION.len();

const NO_VERSION: &str = "the request line does not end in HTTP/1.1 or HTTP/1.0 after one space";

/// Classes of bytes: the bits of [`CLASSES`].
const TOKEN: u8 = 1;
const TARGET: u8 = 2;
const VALUE: u8 = 4;

/// The classes of each byte.
const CLASSES: [u8; 256] = {
    let (mut classes, mut next) = ([0; 256], 0);
    while next < 256 {
        let byte = next as u8;
        if is_token(byte) {
            classes[next] |= TOKEN;
        }
        if byte.is_ascii_graphic() {
            classes[next] |= TARGET;
        }
        if matches!(byte, b'\t' | b' '..=b'~' | 0x80..) {
            classes[next] |= VALUE;
        }
        next += 1;
    }
    classes
};

impl Default for HeadScanner {
    fn default() -> HeadScanner {
        HeadScanner {
            state: ScanState::Method,
            at: 0,
            start: 0,
            method: Span::default(),
            target: Span::default(),
            is_http10: false,
            fields_start: 0,
            fields: [FieldSpan::default(); MAX_HEADER_FIELDS],
            field_count: 0,
        }
    }
}

impl HeadScanner {
    /// Whether the request line has not ended yet.
    pub fn in_request_line(&self) -> bool {
        match self.state {
            ScanState::Method | ScanState::EmptyLineLf | ScanState::Target | ScanState::Version => {
                true
            }
            ScanState::LineLf => self.field_count == 0,
            _ => false,
        }
    }

    /// Scans the bytes that have arrived since the last call: `bytes` is the whole head so far.
    /// Returns the head's length once it is complete.
    ///
    /// # Errors
    /// At the first byte that cannot be HTTP.
    pub fn scan(&mut self, bytes: &[u8]) -> Result<Option<usize>, Problem> {
        loop {
            let rest = &bytes[self.at..];
            let run = self.run_length(rest)?;
            self.at += run;
            let Some(&byte) = rest.get(run) else { return Ok(None) };
            self.state = self.next_state(byte, bytes)?;
            self.at += 1;
            if self.state == ScanState::Complete {
                return Ok(Some(self.at));
            }
        }
    }

    /// How many of the next bytes belong to the current part.
    fn run_length(&self, rest: &[u8]) -> Result<usize, Problem> {
        Ok(match self.state {
            ScanState::Method => run_of(TOKEN, rest),
            ScanState::Target => {
                let start = printable_prefix(rest, b'!');
                start + run_of(TARGET, &rest[start..])
            }
            // Nearly every version is this one.
            ScanState::Version if self.at == self.start && rest.starts_with(b"HTTP/1.1") => {
                FULL_VERSION
            }
            ScanState::Version => {
                let form = &VERSION[self.at - self.start..];
                rest.iter().zip(form).take_while(|(byte, form)| fits(**byte, **form)).count()
            }
            ScanState::Name => {
                let run = run_of(TOKEN, rest);
                if run > 0 && self.field_count == MAX_HEADER_FIELDS {
                    let detail = format!("more than {MAX_HEADER_FIELDS} header fields");
                    return Err(Problem::new(Cause::HeadTooLarge, detail));
                }
                run
            }
            ScanState::Value => {
                let start = printable_prefix(rest, b' ');
                start + run_of(VALUE, &rest[start..])
            }
            _ => 0,
        })
    }

    /// The state after the byte that ends a part of the head.
    fn next_state(&mut self, byte: u8, bytes: &[u8]) -> Result<ScanState, Problem> {
        let is_empty = self.at == self.start;
        let part = Span { start: self.start as u32, end: self.at as u32 };
        let next = match (self.state, byte) {
            (ScanState::Method, b' ') if !is_empty => {
                self.method = part;
                ScanState::Target
            }
            (ScanState::Method, b'\r') if self.at == 0 => ScanState::EmptyLineLf,
            (ScanState::EmptyLineLf, b'\n') => ScanState::Method,
            (ScanState::Target, b' ') if !is_empty => {
                self.target = part;
                ScanState::Version
            }
            (ScanState::Version, b'\r')
                if matches!(self.at - self.start, MAJOR_ONLY | FULL_VERSION) =>
            {
                // A later minor version is read as HTTP/1.1 (RFC 9110, section 2.5).
                let [.., b'1', b'.', minor] = &bytes[..self.at] else {
                    let detail = "the server speaks HTTP/1.1 and HTTP/1.0";
                    return Err(Problem::new(Cause::HttpVersion, detail));
                };
                self.is_http10 = *minor == b'0';
                self.fields_start = part.end + 2;
                ScanState::LineLf
            }
            (ScanState::LineLf, b'\n') => ScanState::Name,
            (ScanState::Name, b':') if !is_empty => {
                self.fields[self.field_count].colon = part.end;
                ScanState::Value
            }
            (ScanState::Value, b'\r') => {
                self.fields[self.field_count].end = part.end;
                self.field_count += 1;
                ScanState::LineLf
            }
            (ScanState::Name, b'\r') if is_empty => ScanState::LastLf,
            (ScanState::LastLf, b'\n') => ScanState::Complete,
            _ => return Err(self.refuse(byte)),
        };
        self.start = self.at + 1;
        Ok(next)
    }

    /// The problem with a byte that may not follow here.
    fn refuse(&self, byte: u8) -> Problem {
        let is_empty = self.at == self.start;
        let what = match (self.state, byte) {
            // The first byte of a TLS handshake, and of nothing that anyone types.
            (ScanState::Method, 0x16) if self.at == 0 => {
                return Problem::malformed(
                    "this looks like TLS; the server speaks plain HTTP, so use http:// or a proxy \
                     for TLS",
                );
            }
            (ScanState::EmptyLineLf | ScanState::LineLf | ScanState::LastLf, _) => {
                "a CR stands alone; HTTP lines end in CR LF"
            }
            (_, b'\n') => "a line ends in LF alone; HTTP lines end in CR LF",
            (ScanState::Method, b'\r') if is_empty => {
                "more than one empty line before the request line; one is allowed"
            }
            (ScanState::Method, _) => {
                "this is not an HTTP request: it begins with a method, such as GET, and one space"
            }
            (ScanState::Target, b'\r') if !is_empty => NO_VERSION,
            (ScanState::Version, _) => NO_VERSION,
            (ScanState::Target, _) => {
                "the request target is missing or has a byte that is not allowed; expected one \
                 space, visible ASCII and one space"
            }
            (ScanState::Name, b' ' | b'\t') if is_empty => {
                "a header line begins with white space; folded lines are not supported"
            }
            (ScanState::Name, b' ' | b'\t') => "white space between a header's name and its colon",
            (ScanState::Name, _) => {
                "a header's name has a character that is not allowed, or no colon after it"
            }
            (ScanState::Value | ScanState::Complete, _) => {
                "a header's value has a control character"
            }
        };
        Problem::malformed(format!("{what} (byte {} is 0x{byte:02x})", self.at))
    }

    /// Method and target of a complete head.
    pub fn request_line<'a>(&self, head: &'a [u8]) -> Option<(&'a str, &'a str)> {
        let line = std::str::from_utf8(&head[..self.target.end as usize]).ok()?;
        Some((line.get(self.method.range())?, line.get(self.target.range())?))
    }

    /// Whether the version is HTTP/1.0; otherwise it is HTTP/1.1 or a later HTTP/1.
    pub fn is_http10(&self) -> bool {
        self.is_http10
    }

    /// Names and values of the fields, in the order of arrival; values with the white space around
    /// them.
    pub fn fields<'a>(&self, head: &'a [u8]) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let mut start = self.fields_start;
        self.fields[..self.field_count].iter().map(move |field| {
            let name = Span { start, end: field.colon };
            let value = Span { start: field.colon + 1, end: field.end };
            start = field.end + 2;
            (&head[name.range()], &head[value.range()])
        })
    }
}

impl Span {
    fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// How many of these bytes, from the first one on, are of a class.
fn run_of(class: u8, bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| CLASSES[usize::from(*byte)] & class == 0).unwrap_or(bytes.len())
}

/// Whether a byte of a version fits this byte of [`VERSION`].
fn fits(byte: u8, form: u8) -> bool {
    if form == b'0' { byte.is_ascii_digit() } else { byte == form }
}

/// Length of a prefix of ASCII from `least` to `~`, in whole words of eight bytes. With byte-wise
/// loops alone, parsing a browser's head of 600 bytes takes 7 % more instructions.
fn printable_prefix(bytes: &[u8], least: u8) -> usize {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = ONES << 7;
    let mut length = 0;
    while let Some(word) = bytes[length..].first_chunk() {
        let word = u64::from_ne_bytes(*word);
        // A high bit is set if any byte is out of range.
        let below = word.wrapping_sub(ONES * u64::from(least));
        let above = word.wrapping_add(ONES);
        if (word | below | above) & HIGH != 0 {
            break;
        }
        length += 8;
    }
    length
}
