//! The decoder of the chunked transfer coding (RFC 9112, section 7.1), for requests in the server
//! and for responses in the client. It is strict: syntax that a proxy could read differently is
//! refused.

use super::header_name::is_token;
use crate::limits::{CHUNK_EXTRA_BYTES, CHUNK_LINE_BYTES};
use crate::problem::{Cause, Problem};

/// The destination of a body's bytes.
pub trait BodySink {
    /// Bytes received so far.
    fn size(&self) -> usize;

    /// Appends bytes.
    ///
    /// # Errors
    /// When the memory for bodies is exhausted, or the body took too long.
    fn push_bytes(&mut self, bytes: &[u8]) -> Result<(), Problem>;
}

impl BodySink for Vec<u8> {
    fn size(&self) -> usize {
        self.len()
    }

    fn push_bytes(&mut self, bytes: &[u8]) -> Result<(), Problem> {
        self.extend_from_slice(bytes);
        Ok(())
    }
}

/// Decodes a chunked body, however its bytes are split.
#[derive(Default)]
pub struct ChunkedDecoder {
    state: ChunkState,
    /// Bytes of extensions and trailer fields so far, which are discarded.
    extra_bytes: usize,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum ChunkState {
    /// Before the line with a chunk's size.
    #[default]
    Size,
    /// In a chunk of which this number of bytes is missing.
    Data(usize),
    /// Before the line end after a chunk's data.
    DataEnd,
    /// After the last chunk: trailer lines, then an empty line.
    Trailers,
    Done,
}

impl ChunkedDecoder {
    pub fn is_done(&self) -> bool {
        self.state == ChunkState::Done
    }

    /// Decodes from `bytes` into `body`, and returns the number of bytes consumed.
    ///
    /// # Errors
    /// `400` for invalid syntax, `413` for a body of more than `limit` bytes, `431` for too many
    /// extensions and trailers, and the errors of `body`.
    pub fn decode(
        &mut self,
        bytes: &[u8],
        body: &mut dyn BodySink,
        limit: usize,
    ) -> Result<usize, Problem> {
        let mut consumed = 0;
        while let Some(count) = self.step(&bytes[consumed..], body, limit)? {
            consumed += count;
        }
        Ok(consumed)
    }

    /// Decodes one element. `None` when it needs more bytes, or when the body has ended.
    fn step(
        &mut self,
        bytes: &[u8],
        body: &mut dyn BodySink,
        limit: usize,
    ) -> Result<Option<usize>, Problem> {
        match self.state {
            ChunkState::Done => Ok(None),
            ChunkState::Data(_) if bytes.is_empty() => Ok(None),
            ChunkState::Data(missing) => {
                let available = missing.min(bytes.len());
                body.push_bytes(&bytes[..available])?;
                self.state = match missing - available {
                    0 => ChunkState::DataEnd,
                    missing => ChunkState::Data(missing),
                };
                Ok(Some(available))
            }
            ChunkState::DataEnd => match bytes {
                [b'\r', b'\n', ..] => {
                    self.state = ChunkState::Size;
                    Ok(Some(2))
                }
                [] | [b'\r'] => Ok(None),
                _ => Err(Problem::malformed("a chunk is longer than its size; expected CR LF")),
            },
            ChunkState::Size => {
                let line = ChunkLine::at(bytes);
                let (size, extension_bytes) = parse_size(&line)?;
                if !line.is_complete()? {
                    return Ok(None);
                }
                if size > limit - body.size() {
                    return Err(Problem::new(
                        Cause::TooLarge,
                        format!("the body is too long; expected at most {limit} bytes"),
                    ));
                }
                self.count_extra(extension_bytes)?;
                self.state = if size == 0 { ChunkState::Trailers } else { ChunkState::Data(size) };
                Ok(Some(line.text.len() + 2))
            }
            ChunkState::Trailers => {
                let line = ChunkLine::at(bytes);
                check_trailer(&line)?;
                if !line.is_complete()? {
                    return Ok(None);
                }
                self.count_extra(line.text.len())?;
                if line.text.is_empty() {
                    self.state = ChunkState::Done;
                }
                Ok(Some(line.text.len() + 2))
            }
        }
    }

    fn count_extra(&mut self, bytes: usize) -> Result<(), Problem> {
        self.extra_bytes += bytes;
        if self.extra_bytes > CHUNK_EXTRA_BYTES {
            let detail = format!(
                "chunk extensions and trailers are too long; expected at most \
                 {CHUNK_EXTRA_BYTES} bytes"
            );
            return Err(Problem::new(Cause::HeadTooLarge, detail));
        }
        Ok(())
    }
}

/// Eight digits exceed every limit on bodies and cannot overflow.
const SIZE_DIGITS: usize = 8;

/// A line of the framing, of which the end may not have arrived.
struct ChunkLine<'a> {
    text: &'a [u8],
    /// The bytes after the text.
    rest: &'a [u8],
}

impl<'a> ChunkLine<'a> {
    /// The line at the start of `bytes`. The caller checks its text before its end, so that the
    /// first fault is the one reported, however the bytes are split.
    fn at(bytes: &'a [u8]) -> ChunkLine<'a> {
        let is_allowed = |b: &u8| matches!(b, b'\t' | b' '..=b'~' | 0x80..);
        let longest = &bytes[..bytes.len().min(CHUNK_LINE_BYTES + 1)];
        let end = longest.iter().position(|b| !is_allowed(b)).unwrap_or(longest.len());
        let (text, rest) = bytes.split_at(end);
        ChunkLine { text, rest }
    }

    /// Whether the end of the line has arrived.
    fn is_complete(&self) -> Result<bool, Problem> {
        if self.text.len() > CHUNK_LINE_BYTES {
            return Err(Problem::malformed(format!(
                "a line of the chunked body is too long; expected at most {CHUNK_LINE_BYTES} bytes"
            )));
        }
        match self.rest {
            [] | [b'\r'] => Ok(false),
            [b'\r', b'\n', ..] => Ok(true),
            _ => Err(Problem::malformed(
                "a line of the chunked body has a control character; expected CR LF at its end",
            )),
        }
    }

    /// Whether the text is followed by its line end.
    fn has_line_end(&self) -> bool {
        self.rest.starts_with(b"\r\n")
    }
}

/// Parses a line with a chunk's size, as far as it has arrived. Returns the size and the length of
/// what follows its digits: extensions, and the white space that may precede a semicolon (RFC 9112,
/// section 7.1.1). Both are discarded.
fn parse_size(line: &ChunkLine<'_>) -> Result<(usize, usize), Problem> {
    let end = line.text.iter().position(|b| !b.is_ascii_hexdigit()).unwrap_or(line.text.len());
    let (digits, rest) = line.text.split_at(end);
    let extensions = rest.trim_ascii_start();
    let may_go_on = !line.has_line_end();
    let is_size = (1..=SIZE_DIGITS).contains(&digits.len()) || (line.text.is_empty() && may_go_on);
    let is_rest = match extensions.first() {
        Some(first) => *first == b';',
        None => rest.is_empty() || may_go_on,
    };
    let text = std::str::from_utf8(digits).ok().filter(|_| is_size && is_rest);
    let text = text.ok_or_else(|| {
        Problem::malformed(format!("invalid chunk size; expected 1 to {SIZE_DIGITS} hex digits"))
    })?;
    Ok((usize::from_str_radix(text, 16).unwrap_or(0), rest.len()))
}

/// Checks a trailer line: a header field, or an empty line, which ends the trailers.
fn check_trailer(line: &ChunkLine<'_>) -> Result<(), Problem> {
    let name = line.text.split(|b| *b == b':').next().unwrap_or(line.text);
    let has_colon = name.len() < line.text.len();
    let lacks_colon = line.has_line_end() && !line.text.is_empty() && !has_colon;
    if lacks_colon || (has_colon && name.is_empty()) || !name.iter().copied().all(is_token) {
        return Err(Problem::malformed(
            "invalid trailer; expected a field name, a colon directly after it, and a value",
        ));
    }
    Ok(())
}
