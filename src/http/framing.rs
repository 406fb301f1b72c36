//! The framing of a message's body (RFC 9112, section 6), and the header fields that declare it.
//! Ambiguous declarations are refused, as they allow request smuggling.

use super::header_name::HeaderName;
use crate::problem::{Cause, Problem};

/// How the end of a body is found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BodyFraming {
    /// After this number of bytes, which is 0 for most requests.
    Sized(u64),
    Chunked,
}

/// The header fields that concern the message and its connection, not its content.
#[derive(Default)]
pub struct FramingHeaders {
    length: Option<u64>,
    chunked: bool,
    connection: ConnectionOptions,
}

/// The options of `Connection`.
#[derive(Default)]
struct ConnectionOptions {
    close: bool,
    upgrade: bool,
}

impl FramingHeaders {
    /// Parses a field if it is one of these, and returns whether it is.
    ///
    /// # Errors
    /// `400` for an invalid or repeated `Content-Length`, `501` for any transfer coding but one
    /// `chunked`.
    pub fn parse_field(&mut self, name: HeaderName, value: &[u8]) -> Result<bool, Problem> {
        match name {
            HeaderName::Connection => {
                let has_option = |option: &[u8]| {
                    let mut options = value.split(|b| *b == b',').map(<[u8]>::trim_ascii);
                    options.any(|other| other.eq_ignore_ascii_case(option))
                };
                self.connection.close |= has_option(b"close");
                self.connection.upgrade |= has_option(b"upgrade");
            }
            HeaderName::ContentLength => self.parse_length(value)?,
            HeaderName::TransferEncoding => {
                if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Problem::new(
                        Cause::UnknownCoding,
                        "header Transfer-Encoding: expected chunked, and nothing else",
                    ));
                }
                self.chunked = true;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn parse_length(&mut self, value: &[u8]) -> Result<(), Problem> {
        if self.length.is_some() {
            return Err(Problem::malformed("header Content-Length is repeated; expected it once"));
        }
        // Another parser could read a leading zero as octal.
        let is_valid = value.iter().all(u8::is_ascii_digit) && !matches!(value, [] | [b'0', _, ..]);
        if !is_valid {
            let detail = "header Content-Length: expected a decimal number without leading zeros";
            return Err(Problem::malformed(detail));
        }
        // A number that exceeds u64 saturates, and is too large for every limit.
        let add =
            |sum: u64, digit: &u8| sum.saturating_mul(10).saturating_add((digit - b'0').into());
        self.length = Some(value.iter().fold(0, add));
        Ok(())
    }

    /// The declared framing, or `None` without a declaration.
    ///
    /// # Errors
    /// `400` when both a length and a transfer coding are declared, and for a transfer coding in
    /// HTTP/1.0.
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

    /// Whether `Connection` has the option `close`.
    pub fn closes(&self) -> bool {
        self.connection.close
    }

    /// Whether `Connection` has the option `upgrade`.
    pub fn upgrades(&self) -> bool {
        self.connection.upgrade
    }
}
