//! Going over a head byte by byte, each byte once: where it ends, or the first byte with which it
//! cannot be HTTP.
//!
//! A head that arrives in pieces is read so, and so is one that `httparse` does not take: then the
//! refusal is the same however the bytes were cut. The grammar is that of RFC 9112, sections 2.2,
//! 3 and 5, without what it lets servers tolerate.

use crate::http::is_token;
use crate::limits::MAX_HEADER_FIELDS;
use crate::problem::{Cause, Problem};

/// How far a head was gone over.
#[derive(Default)]
pub struct HeadScan {
    next: ScanState,
    at: usize,
    fields: usize,
}

/// What comes next.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum ScanState {
    /// The method, or one empty line before it (RFC 9112, section 2.2).
    #[default]
    Start,
    /// The LF of that line.
    EmptyLf,
    MethodStart,
    Method,
    TargetStart,
    Target,
    /// So many bytes of `HTTP/1.1` were there.
    Version(u8),
    /// The LF of a request line or of a field.
    LineLf,
    FieldStart,
    Name,
    Value,
    /// The LF of the empty line that ends the head.
    LastLf,
    Nothing,
}

/// What a version looks like; a zero stands for any digit.
const VERSION: &[u8; 8] = b"HTTP/0.0";
/// Where its first digit ends.
const MAJOR_ONLY: u8 = 6;
const WHOLE_VERSION: u8 = 8;

impl HeadScan {
    /// Whether nothing was gone over yet.
    pub fn is_new(&self) -> bool {
        self.at == 0
    }

    /// Whether the request line has not ended yet.
    pub fn in_request_line(&self) -> bool {
        self.fields == 0 && !matches!(self.next, ScanState::FieldStart | ScanState::LastLf)
    }

    /// Goes over what `bytes` have more than the last time, and returns the head's length once it
    /// is there.
    pub fn go_on(&mut self, bytes: &[u8]) -> Result<Option<usize>, Problem> {
        for &byte in &bytes[self.at..] {
            if self.next == ScanState::FieldStart && is_token(byte) {
                self.fields += 1;
                if self.fields > MAX_HEADER_FIELDS {
                    let detail = format!("more than {MAX_HEADER_FIELDS} header fields");
                    return Err(Problem::new(Cause::HeadTooLarge, detail));
                }
            }
            self.next = match (self.next, byte) {
                (ScanState::Start, b'\r') => ScanState::EmptyLf,
                (ScanState::EmptyLf, b'\n') => ScanState::MethodStart,
                (ScanState::Start | ScanState::MethodStart | ScanState::Method, _)
                    if is_token(byte) =>
                {
                    ScanState::Method
                }
                (ScanState::Method, b' ') => ScanState::TargetStart,
                (ScanState::TargetStart | ScanState::Target, b'!'..=b'~') => ScanState::Target,
                (ScanState::Target, b' ') => ScanState::Version(0),
                (ScanState::Version(n), _) if fits_version(n, byte) => ScanState::Version(n + 1),
                (ScanState::Version(MAJOR_ONLY | WHOLE_VERSION), b'\r') => {
                    if !matches!(&bytes[..self.at], [.., b'1', b'.', b'0' | b'1']) {
                        let detail = "the server speaks HTTP/1.1 and HTTP/1.0";
                        return Err(Problem::new(Cause::HttpVersion, detail));
                    }
                    ScanState::LineLf
                }
                (ScanState::LineLf, b'\n') => ScanState::FieldStart,
                (ScanState::FieldStart | ScanState::Name, _) if is_token(byte) => ScanState::Name,
                (ScanState::Name, b':') | (ScanState::Value, b'\t' | b' '..=b'~' | 0x80..) => {
                    ScanState::Value
                }
                (ScanState::Value, b'\r') => ScanState::LineLf,
                (ScanState::FieldStart, b'\r') => ScanState::LastLf,
                (ScanState::LastLf, b'\n') => {
                    self.next = ScanState::Nothing;
                    return Ok(Some(self.at + 1));
                }
                (next, _) => return Err(next.refuse(byte, self.at)),
            };
            self.at += 1;
        }
        Ok(None)
    }
}

fn fits_version(n: u8, byte: u8) -> bool {
    match VERSION.get(usize::from(n)) {
        Some(b'0') => byte.is_ascii_digit(),
        Some(known) => byte == *known,
        None => false,
    }
}

impl ScanState {
    /// Why this byte cannot stand here.
    fn refuse(self, byte: u8, at: usize) -> Problem {
        let what = match (self, byte) {
            // The first byte of a TLS handshake, and of nothing that anyone types.
            (ScanState::Start, 0x16) => {
                return Problem::malformed(
                    "this looks like TLS; the server speaks plain HTTP, so use http:// or a proxy \
                     for TLS",
                );
            }
            (ScanState::EmptyLf | ScanState::LineLf | ScanState::LastLf, _) => {
                "a CR stands alone; HTTP lines end in CR LF"
            }
            (_, b'\n') => "a line ends in LF alone; HTTP lines end in CR LF",
            (ScanState::MethodStart, b'\r') => {
                "more than one empty line before the request line; one is let pass"
            }
            (ScanState::Start | ScanState::MethodStart | ScanState::Method, _) => {
                "this is not an HTTP request: that begins with a method, such as GET, and one space"
            }
            (ScanState::Target, b'\r') | (ScanState::Version(_), _) => {
                "the request line does not end in HTTP/1.1 or HTTP/1.0 after one space"
            }
            (ScanState::TargetStart | ScanState::Target, _) => {
                "the request target has a byte that is not allowed, or there is none; \
                 one space, visible ASCII and one space are right"
            }
            (ScanState::FieldStart, b' ' | b'\t') => {
                "a header line begins with a space; folded lines are not read"
            }
            (ScanState::Name, b' ' | b'\t') => "a space between a header's name and its colon",
            (ScanState::FieldStart | ScanState::Name, _) => {
                "a header's name has a character that is not allowed, or no colon after it"
            }
            (ScanState::Value | ScanState::Nothing, _) => {
                "a header's value has a control character"
            }
        };
        Problem::malformed(format!("{what} (byte {at} is 0x{byte:02x})"))
    }
}
