//! From the bytes of a request's head to what it asks for, and how its body is framed.
//!
//! `httparse` splits the bytes. What it lets pass and a front proxy might read otherwise (RFC
//! 9112) is refused here: bare line feeds, lengths that contradict each other, two hosts.

use std::mem::MaybeUninit;

use httparse::Status;

use super::scan::HeadScan;
use super::target::{RequestTarget, settle_host};
use crate::http::{BodyFraming, FramingHeaders, HeaderName, HttpVersion, Method, RequestHead};
use crate::limits::MAX_HEADER_FIELDS;
use crate::problem::{Cause, Problem};

/// A head that has arrived whole.
#[derive(Debug)]
pub struct ParsedHead {
    pub head: RequestHead,
    /// Bytes that it took.
    pub length: usize,
    pub framing: BodyFraming,
    pub keep_alive: bool,
    pub expects_continue: bool,
}

/// A head on its way in.
#[derive(Default)]
pub struct HeadParser {
    scan: HeadScan,
}

impl HeadParser {
    /// Reads the head that `bytes` begin with; `None`: it goes on, and is to be read again with
    /// what has arrived since. A head has `limit` bytes at most.
    ///
    /// # Errors
    /// At the first byte with which it cannot be HTTP, and otherwise when it is whole: whatever
    /// the pieces in which it arrives. The connection is of no use after that.
    pub fn read(&mut self, bytes: &[u8], limit: usize) -> Result<Option<ParsedHead>, Problem> {
        let bytes = &bytes[..bytes.len().min(limit)];
        // Nearly every head arrives at once and is good.
        if self.scan.is_new() {
            if let Some(parsed) = whole(bytes) {
                return parsed.map(Some);
            }
        }
        match self.scan.go_on(bytes)? {
            Some(length) => {
                let parsed = whole(&bytes[..length]);
                parsed.unwrap_or_else(|| Err(Problem::malformed(NOT_SPLIT))).map(Some)
            }
            None if bytes.len() == limit => Err(self.too_large(limit)),
            None => Ok(None),
        }
    }

    fn too_large(&self, limit: usize) -> Problem {
        let (cause, what) = if self.scan.in_request_line() {
            (Cause::TargetTooLong, "request line")
        } else {
            (Cause::HeadTooLarge, "head")
        };
        Problem::new(cause, format!("the {what} is longer than {limit} bytes (--max-head)"))
    }
}

/// Said if the two readers of a head should ever disagree; the fuzz targets look for it.
pub const NOT_SPLIT: &str = "this is not an HTTP request";

/// Reads a head that is there as a whole, if nothing in its bytes is amiss. If something is, or
/// is missing, the [`HeadScan`] knows what.
// Not inlined, as other steps of a request's way: its stack is to be gone while a poll is held.
#[inline(never)]
fn whole(bytes: &[u8]) -> Option<Result<ParsedHead, Problem>> {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_HEADER_FIELDS];
    let mut request = httparse::Request::new(&mut []);
    let Ok(Status::Complete(length)) = request.parse_with_uninit_headers(bytes, &mut fields) else {
        return None;
    };
    let (method, target) = (request.method?, request.path?);
    let fields = &*request.headers;
    if !ends_lines_as_it_should(&bytes[..length], fields) || !target.is_ascii() {
        return None;
    }
    Some(understand(method, target, request.version == Some(0), fields, length))
}

/// `httparse` also takes LF alone, and any number of empty lines before a request.
fn ends_lines_as_it_should(head: &[u8], fields: &[httparse::Header<'_>]) -> bool {
    // Where it has found a field to begin, and nowhere else, the line before has ended: folded
    // lines it does not take from requests.
    let before = |field: &httparse::Header<'_>| {
        head.get(..field.name.as_ptr().addr().checked_sub(head.as_ptr().addr())?)
    };
    fields.iter().all(|field| before(field).is_some_and(|head| head.ends_with(b"\r\n")))
        && head.ends_with(b"\r\n\r\n")
        && !matches!(head, [b'\n', ..] | [b'\r', b'\n', b'\r' | b'\n', ..])
}

fn understand(
    method: &str,
    target: &str,
    http10: bool,
    fields: &[httparse::Header<'_>],
    length: usize,
) -> Result<ParsedHead, Problem> {
    let method: Method = method.parse().map_err(|()| Problem::malformed(NOT_SPLIT))?;
    let RequestTarget { path, query, authority } = RequestTarget::read(&method, target)?;
    let mut head = RequestHead::new(method, path, query);
    if http10 {
        head.version = HttpVersion::Http10;
    }
    let mut framing = FramingHeaders::default();
    let mut expects_continue = false;
    for field in fields {
        let Some(known) = HeaderName::parse(field.name) else { continue };
        if known == HeaderName::Expect {
            if !field.value.eq_ignore_ascii_case(b"100-continue") {
                let detail = "Expect has to be 100-continue";
                return Err(Problem::new(Cause::ExpectationFailed, detail));
            }
            expects_continue = true;
        } else if !framing.parse_field(known, field.value)? {
            head.append(known, text(field)?);
        }
    }
    // Without that it may have been meant for somebody on the way (RFC 9110, section 7.8).
    if http10 || !framing.upgrades() {
        head.remove(HeaderName::Upgrade);
    }
    settle_host(&mut head, authority, !http10)?;
    Ok(ParsedHead {
        head,
        length,
        // A request that does not say has no body.
        framing: framing.framing(http10)?.unwrap_or(BodyFraming::Sized(0)),
        // A client of HTTP/1.0 gets one answer to a connection.
        keep_alive: !http10 && !framing.closes(),
        expects_continue: expects_continue && !http10,
    })
}

fn text<'a>(field: &httparse::Header<'a>) -> Result<&'a str, Problem> {
    let text = std::str::from_utf8(field.value);
    text.map_err(|_| Problem::malformed(format!("header {} is not UTF-8", field.name)))
}
