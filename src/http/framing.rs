//! How a message's body is framed (RFC 9112, section 6), and how its fields say so. What two
//! readers could understand differently is refused.

use super::field::HeaderName;
use crate::problem::{Cause, Problem};

/// Where a body ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BodyFraming {
    /// After so many bytes; none for most requests.
    Sized(u64),
    Chunked,
}

/// What the fields say that concern the message and not what is in it.
#[derive(Default)]
pub struct FramingHeaders {
    length: Option<u64>,
    chunked: bool,
    connection: ConnectionOptions,
}

/// What the field of that name says.
#[derive(Default)]
struct ConnectionOptions {
    close: bool,
    upgrade: bool,
}

impl FramingHeaders {
    /// Notes what a field says, if it is of that kind.
    pub fn note(&mut self, field: HeaderName, value: &[u8]) -> Result<bool, Problem> {
        match field {
            HeaderName::Connection => {
                let says = |known: &[u8]| {
                    let mut words = value.split(|b| *b == b',').map(<[u8]>::trim_ascii);
                    words.any(|word| word.eq_ignore_ascii_case(known))
                };
                self.connection.close |= says(b"close");
                self.connection.upgrade |= says(b"upgrade");
            }
            HeaderName::ContentLength => self.note_length(value)?,
            HeaderName::TransferEncoding => {
                if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Problem::new(
                        Cause::UnknownCoding,
                        "Transfer-Encoding has to be chunked, and nothing else",
                    ));
                }
                self.chunked = true;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn note_length(&mut self, value: &[u8]) -> Result<(), Problem> {
        if self.length.is_some() {
            return Err(Problem::malformed("header Content-Length is repeated; it may come once"));
        }
        // A zero in front could be taken for octal.
        let digits = value.iter().all(u8::is_ascii_digit) && !matches!(value, [] | [b'0', _, ..]);
        if !digits {
            let detail = "Content-Length has to be a decimal number without leading zeros";
            return Err(Problem::malformed(detail));
        }
        // What does not fit a u64 is too large all the same.
        let more =
            |sum: u64, digit: &u8| sum.saturating_mul(10).saturating_add((digit - b'0').into());
        self.length = Some(value.iter().fold(0, more));
        Ok(())
    }

    /// Where the body ends, if it is said.
    ///
    /// # Errors
    /// When it is said in two ways, or in one that a message of HTTP/1.0 does not have.
    pub fn framing(&self, http10: bool) -> Result<Option<BodyFraming>, Problem> {
        match (self.chunked, self.length) {
            (true, Some(_)) => {
                Err(Problem::malformed("Content-Length and Transfer-Encoding exclude each other"))
            }
            (true, None) if http10 => {
                Err(Problem::malformed("Transfer-Encoding does not exist in HTTP/1.0"))
            }
            (true, None) => Ok(Some(BodyFraming::Chunked)),
            (false, length) => Ok(length.map(BodyFraming::Sized)),
        }
    }

    /// Whether the connection ends after it.
    pub fn closes(&self) -> bool {
        self.connection.close
    }

    /// Whether it may become a connection of another kind.
    pub fn upgrades(&self) -> bool {
        self.connection.upgrade
    }
}
