//! From the bytes of a request's head to what it asks for, and how its body is framed.
//!
//! `httparse` splits the bytes; here is what it lets pass and a front proxy might read otherwise
//! (RFC 9112): bare line feeds, lengths that contradict each other, a missing host.

use std::mem::MaybeUninit;

use httparse::Status;

use crate::error::{Cause, Problem};
use crate::http::{Field, Head, Method};
use crate::limits::HEADER_FIELDS;

/// How a request's body is framed (RFC 9112, section 6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framing {
    /// So many bytes; none for most requests.
    Sized(u64),
    Chunked,
}

/// A head that has arrived whole.
#[derive(Debug)]
pub struct Parsed {
    pub head: Head,
    /// Bytes that it took.
    pub length: usize,
    pub framing: Framing,
    pub keep_alive: bool,
    pub expects_continue: bool,
}

/// Reads a head from the start of `bytes`; `None`: it goes on.
///
/// # Errors
/// At the first byte with which it cannot be HTTP. The connection is of no use after that.
// Not inlined, as other steps of a request's way: its stack is to be gone while a poll is held.
#[inline(never)]
pub fn parse(bytes: &[u8]) -> Result<Option<Parsed>, Problem> {
    let mut fields = [const { MaybeUninit::uninit() }; HEADER_FIELDS];
    let mut request = httparse::Request::new(&mut []);
    let length = match request.parse_with_uninit_headers(bytes, &mut fields) {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) => return no_bare_lf(bytes).map(|()| None),
        Err(error) => return Err(explain(error, bytes)),
    };
    no_bare_lf(&bytes[..length])?;
    let http10 = request.version == Some(0);
    let mut facts = Facts::default();
    for field in request.headers.iter() {
        facts.note(field.name, field.value)?;
    }
    let hosts = facts.fields.iter().filter(|(field, _)| *field == Field::Host).count();
    match hosts {
        0 if !http10 => {
            return Err(Problem::malformed("header Host is missing; HTTP/1.1 needs it once"));
        }
        0 | 1 => {}
        _ => return Err(Problem::malformed("header Host is repeated; it may come once")),
    }
    let (path, query) = target(request.path.unwrap_or(""))?;
    let method: Method =
        request.method.unwrap_or("").parse().map_err(|()| Problem::malformed("no method"))?;
    Ok(Some(Parsed {
        head: Head { method, path, query, fields: facts.fields },
        length,
        framing: match (facts.chunked, facts.length) {
            (true, Some(_)) => {
                return Err(Problem::malformed(
                    "Content-Length and Transfer-Encoding exclude each other",
                ));
            }
            (true, None) if http10 => {
                return Err(Problem::malformed("Transfer-Encoding does not exist in HTTP/1.0"));
            }
            (true, None) => Framing::Chunked,
            (false, length) => Framing::Sized(length.unwrap_or(0)),
        },
        // A client of HTTP/1.0 gets one answer to a connection.
        keep_alive: !http10 && !facts.close,
        expects_continue: facts.expects_continue && !http10,
    }))
}

fn no_bare_lf(bytes: &[u8]) -> Result<(), Problem> {
    let bare = |at: usize| at == 0 || bytes[at - 1] != b'\r';
    if memchr::memchr_iter(b'\n', bytes).any(bare) {
        return Err(Problem::malformed("a line ends in LF alone; HTTP lines end in CR LF"));
    }
    Ok(())
}

fn explain(error: httparse::Error, bytes: &[u8]) -> Problem {
    use httparse::Error;
    if bytes.starts_with(&[0x16, 0x03]) {
        return Problem::malformed(
            "this looks like TLS; the server speaks plain HTTP, so use http:// or a proxy for TLS",
        );
    }
    match error {
        Error::TooManyHeaders => {
            Problem::new(Cause::HeadTooLarge, format!("more than {HEADER_FIELDS} header fields"))
        }
        Error::Version if names_a_version(bytes) => {
            Problem::new(Cause::HttpVersion, "the server speaks HTTP/1.1 and HTTP/1.0")
        }
        Error::Version => {
            Problem::malformed("the request line does not end in HTTP/1.1 or HTTP/1.0")
        }
        Error::HeaderName => {
            Problem::malformed("a header's name has a character that is not allowed")
        }
        Error::HeaderValue => {
            Problem::malformed("a header's value has a character that is not allowed")
        }
        Error::NewLine => Problem::malformed("a line does not end in CR LF"),
        Error::Token | Error::Status => Problem::malformed("this is not an HTTP request"),
    }
}

/// Whether the first line ends in `HTTP/` and a version, or in the beginning of one.
fn names_a_version(bytes: &[u8]) -> bool {
    let line = bytes.split(|b| *b == b'\r').next().unwrap_or(bytes);
    let word = line.rsplit(|b| *b == b' ').next().unwrap_or(line);
    // Method, target and version, and nothing between them but one space each.
    line.split(|b| *b == b' ').count() == 3
        && match word.strip_prefix(b"HTTP/") {
            Some([major]) => major.is_ascii_digit(),
            Some([major, b'.', minor @ ..]) => {
                major.is_ascii_digit() && minor.len() <= 1 && minor.iter().all(u8::is_ascii_digit)
            }
            _ => false,
        }
}

/// Path and query of a request target. The absolute form, which only proxies need, is
/// read as RFC 9112, section 3.2.2, asks for.
fn target(target: &str) -> Result<(String, String), Problem> {
    if !target.is_ascii() {
        return Err(Problem::malformed("the request target has a byte that is not ASCII"));
    }
    let after_scheme = target
        .get(..7)
        .filter(|scheme| scheme.eq_ignore_ascii_case("http://"))
        .map(|_| &target[7..]);
    let origin = match after_scheme {
        Some(rest) => rest.find(['/', '?']).map_or("", |at| &rest[at..]),
        None => target,
    };
    let (path, query) = origin.split_once('?').unwrap_or((origin, ""));
    let path = if after_scheme.is_some() && path.is_empty() { "/" } else { path };
    if !path.starts_with('/') && path != "*" {
        return Err(Problem::malformed(format!("request target {target:?} does not begin with /")));
    }
    if target.contains('#') {
        return Err(Problem::malformed(
            "the request target has a fragment; that stays in the client",
        ));
    }
    Ok((path.to_owned(), query.to_owned()))
}

#[derive(Default)]
struct Facts {
    fields: Vec<(Field, String)>,
    length: Option<u64>,
    chunked: bool,
    close: bool,
    expects_continue: bool,
}

impl Facts {
    fn note(&mut self, name: &str, value: &[u8]) -> Result<(), Problem> {
        if let Some(field) = Field::named(name) {
            let value = std::str::from_utf8(value)
                .map_err(|_| Problem::malformed(format!("header {name} is not UTF-8")))?;
            self.fields.push((field, value.to_owned()));
            return Ok(());
        }
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        let says = |word: &str| {
            value
                .split(|b| *b == b',')
                .any(|part| part.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
        };
        if is("Connection") {
            self.close |= says("close");
        } else if is("Content-Length") {
            self.note_length(value)?;
        } else if is("Transfer-Encoding") {
            if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Problem::new(
                    Cause::UnknownCoding,
                    "Transfer-Encoding has to be chunked, and nothing else",
                ));
            }
            self.chunked = true;
        } else if is("Expect") {
            if !value.eq_ignore_ascii_case(b"100-continue") {
                return Err(Problem::new(
                    Cause::ExpectationFailed,
                    "Expect has to be 100-continue",
                ));
            }
            self.expects_continue = true;
        }
        Ok(())
    }

    fn note_length(&mut self, value: &[u8]) -> Result<(), Problem> {
        if self.length.is_some() {
            return Err(Problem::malformed("header Content-Length is repeated; it may come once"));
        }
        let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
        let number = std::str::from_utf8(value).ok().filter(|_| digits);
        let number = number
            .ok_or_else(|| Problem::malformed("Content-Length has to be a decimal number"))?;
        // What does not fit a u64 is too large all the same.
        self.length = Some(number.parse().unwrap_or(u64::MAX));
        Ok(())
    }
}
