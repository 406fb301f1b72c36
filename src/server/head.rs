//! From the bytes of a request's head to what it asks for, and how its body is framed.
//!
//! `head_scanner.rs` decides what is HTTP at all; this module interprets a complete head. It refuses
//! what a front proxy might read differently (RFC 9112): contradicting lengths, two hosts.

use super::head_scanner::HeadScanner;
use super::target::{RequestTarget, settle_host};
use crate::http::{BodyFraming, FramingHeaders, HeaderName, HttpVersion, Method, RequestHead};
use crate::problem::{Cause, Problem};

/// A complete head.
#[derive(Debug)]
pub struct ParsedHead {
    pub head: RequestHead,
    /// The head's length in bytes.
    pub length: usize,
    pub framing: BodyFraming,
    pub keep_alive: bool,
    pub expects_continue: bool,
}

/// Parses one head, which may arrive in pieces.
#[derive(Default)]
pub struct HeadParser {
    scanner: HeadScanner,
}

impl HeadParser {
    /// Parses the head that `bytes` begin with. `None`: it is incomplete; call again with the same
    /// bytes and those that have arrived since. A head has `limit` bytes at most.
    ///
    /// # Errors
    /// At the first byte that cannot be HTTP, otherwise when the head is complete, however its
    /// bytes arrived. The connection cannot be used after an error.
    pub fn read(&mut self, bytes: &[u8], limit: usize) -> Result<Option<ParsedHead>, Problem> {
        let bytes = &bytes[..bytes.len().min(limit)];
        match self.scanner.scan(bytes)? {
            Some(length) => interpret(&self.scanner, &bytes[..length]).map(Some),
            None if bytes.len() == limit => Err(self.too_large(limit)),
            None => Ok(None),
        }
    }

    fn too_large(&self, limit: usize) -> Problem {
        let (cause, what) = if self.scanner.in_request_line() {
            (Cause::TargetTooLong, "request line")
        } else {
            (Cause::HeadTooLarge, "head")
        };
        Problem::new(cause, format!("the {what} is longer than {limit} bytes (--max-head)"))
    }
}

// Not inlined, like the other steps of a request: its stack frame is gone while a poll is held.
#[inline(never)]
fn interpret(scanned: &HeadScanner, bytes: &[u8]) -> Result<ParsedHead, Problem> {
    // The scanner accepts only ASCII in both.
    let not_ascii = || Problem::malformed("the request line is not ASCII");
    let (method, target) = scanned.request_line(bytes).ok_or_else(not_ascii)?;
    let method = method.parse().map_err(|()| not_ascii())?;
    let http10 = scanned.is_http10();
    let RequestTarget { path, query, authority } = RequestTarget::read(&method, target)?;
    let mut head = RequestHead::new(method, path, query);
    if http10 {
        head.version = HttpVersion::Http10;
    }
    let mut framing = FramingHeaders::default();
    let mut expects_continue = false;
    for (name, value) in scanned.fields(bytes) {
        let Some(known) = HeaderName::parse(name) else { continue };
        let value = value.trim_ascii();
        if known == HeaderName::Expect {
            if !value.eq_ignore_ascii_case(b"100-continue") {
                let detail = "header Expect is not supported; expected 100-continue";
                return Err(Problem::new(Cause::ExpectationFailed, detail));
            }
            expects_continue = true;
        } else if !framing.parse_field(known, value)? {
            let text = std::str::from_utf8(value);
            let text = text.map_err(|_| {
                Problem::malformed(format!("header {} is not UTF-8", known.as_str()))
            })?;
            head.append(known, text);
        }
    }
    // An Upgrade that Connection does not name may be meant for a proxy on the way (RFC 9110,
    // section 7.8).
    if http10 || !framing.upgrades() {
        head.remove(HeaderName::Upgrade);
    }
    settle_host(&mut head, authority, !http10)?;
    // A client of HTTP/1.0 gets one response per connection.
    let keep_alive = !http10 && !framing.closes();
    let framing = framing.framing(http10)?;
    if framing.is_none() && head.method == Method::Post && !keep_alive {
        return Err(no_length());
    }
    Ok(ParsedHead {
        head,
        length: bytes.len(),
        // A request without framing headers has no body (RFC 9112, section 6.3).
        framing: framing.unwrap_or(BodyFraming::Sized(0)),
        keep_alive,
        expects_continue: expects_continue && !http10,
    })
}

/// The problem with a POST of unknown length after which the connection closes: its client may mean
/// the end of the connection as the end of the body, which would be published empty. HTTP/1.0
/// requires the length (RFC 1945, section 8.3), and a server may always (RFC 9110, section 15.5.12).
/// On a connection that continues, bytes after such a POST are read as the next request.
fn no_length() -> Problem {
    let detail = "header Content-Length is missing; a POST in HTTP/1.0 or with Connection: close \
                  requires it, also for an empty body";
    Problem::new(Cause::LengthRequired, detail)
}
