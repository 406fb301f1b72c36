//! The chunked transfer coding (RFC 9112, section 7.1), read strictly: what a front proxy could
//! read otherwise is refused. The door reads requests with it, the client answers.

use super::field::is_token;
use crate::limits::{CHUNK_EXTRA_BYTES, CHUNK_LINE_BYTES};
use crate::problem::{Cause, Problem};

/// Where a body's bytes go.
pub trait BodySink {
    /// How many it has.
    fn size(&self) -> usize;

    /// Adds some.
    ///
    /// # Errors
    /// When there is no room for them.
    fn add(&mut self, bytes: &[u8]) -> Result<(), Problem>;
}

impl BodySink for Vec<u8> {
    fn size(&self) -> usize {
        self.len()
    }

    fn add(&mut self, bytes: &[u8]) -> Result<(), Problem> {
        self.extend_from_slice(bytes);
        Ok(())
    }
}

/// Where in a chunked body the reader stands.
#[derive(Default)]
pub struct ChunkedDecoder {
    state: ChunkState,
    /// Bytes of extensions and trailer fields so far; they are read and let go.
    extra: usize,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum ChunkState {
    /// Before a size line.
    #[default]
    Size,
    /// So many bytes of a chunk are to come.
    Data(usize),
    /// Before the line end that closes a chunk.
    DataEnd,
    /// After the last chunk: trailer lines, then an empty one.
    Trailers,
    Done,
}

impl ChunkedDecoder {
    pub fn done(&self) -> bool {
        self.state == ChunkState::Done
    }

    /// Takes what it can from `bytes` into `body`, and says how much that was.
    pub fn take(
        &mut self,
        bytes: &[u8],
        body: &mut dyn BodySink,
        limit: usize,
    ) -> Result<usize, Problem> {
        let mut used = 0;
        while let Some(step) = self.step(&bytes[used..], body, limit)? {
            used += step;
        }
        Ok(used)
    }

    /// One step; `None` when more bytes are needed for it, or none at all.
    fn step(
        &mut self,
        bytes: &[u8],
        body: &mut dyn BodySink,
        limit: usize,
    ) -> Result<Option<usize>, Problem> {
        match self.state {
            ChunkState::Done => Ok(None),
            ChunkState::Data(_) if bytes.is_empty() => Ok(None),
            ChunkState::Data(left) => {
                let here = left.min(bytes.len());
                body.add(&bytes[..here])?;
                self.state = match left - here {
                    0 => ChunkState::DataEnd,
                    left => ChunkState::Data(left),
                };
                Ok(Some(here))
            }
            ChunkState::DataEnd => match bytes {
                [b'\r', b'\n', ..] => {
                    self.state = ChunkState::Size;
                    Ok(Some(2))
                }
                [] | [b'\r'] => Ok(None),
                _ => Err(Problem::malformed("a chunk is longer than its size says")),
            },
            ChunkState::Size => {
                let line = ChunkLine::at(bytes);
                let (size, extension) = size(&line)?;
                if !line.is_whole()? {
                    return Ok(None);
                }
                if size > limit - body.size() {
                    return Err(Problem::new(
                        Cause::TooLarge,
                        format!("the body is longer than {limit} bytes"),
                    ));
                }
                self.let_go(extension)?;
                self.state = if size == 0 { ChunkState::Trailers } else { ChunkState::Data(size) };
                Ok(Some(line.text.len() + 2))
            }
            ChunkState::Trailers => {
                let line = ChunkLine::at(bytes);
                check_trailer(&line)?;
                if !line.is_whole()? {
                    return Ok(None);
                }
                self.let_go(line.text.len())?;
                if line.text.is_empty() {
                    self.state = ChunkState::Done;
                }
                Ok(Some(line.text.len() + 2))
            }
        }
    }

    fn let_go(&mut self, bytes: usize) -> Result<(), Problem> {
        self.extra += bytes;
        if self.extra > CHUNK_EXTRA_BYTES {
            return Err(Problem::new(
                Cause::HeadTooLarge,
                format!("chunk extensions and trailers are longer than {CHUNK_EXTRA_BYTES} bytes"),
            ));
        }
        Ok(())
    }
}

/// Eight digits are more than any limit here, and cannot overflow.
const SIZE_DIGITS: usize = 8;

/// A line of the framing, as far as it has arrived.
struct ChunkLine<'a> {
    text: &'a [u8],
    /// What follows the text.
    rest: &'a [u8],
}

impl<'a> ChunkLine<'a> {
    /// The line that `bytes` begin with. Its text is to be checked before its end, so that what is
    /// wrong first is what is told, however the bytes were cut.
    fn at(bytes: &'a [u8]) -> ChunkLine<'a> {
        let allowed = |b: &u8| matches!(b, b'\t' | b' '..=b'~');
        let longest = &bytes[..bytes.len().min(CHUNK_LINE_BYTES + 1)];
        let end = longest.iter().position(|b| !allowed(b)).unwrap_or(longest.len());
        let (text, rest) = bytes.split_at(end);
        ChunkLine { text, rest }
    }

    /// Whether its end is there.
    fn is_whole(&self) -> Result<bool, Problem> {
        if self.text.len() > CHUNK_LINE_BYTES {
            return Err(Problem::malformed(format!(
                "a line of the chunked body is longer than {CHUNK_LINE_BYTES} bytes"
            )));
        }
        match self.rest {
            [] | [b'\r'] => Ok(false),
            [b'\r', b'\n', ..] => Ok(true),
            _ => Err(Problem::malformed(
                "a line of the chunked body has a byte that is not allowed, or does not end in \
                 CR LF",
            )),
        }
    }

    /// Whether the text is all there is to come of it.
    fn has_ended(&self) -> bool {
        self.rest.starts_with(b"\r\n")
    }
}

/// The size that a size line gives so far, and how long its extensions are; they are let go.
fn size(line: &ChunkLine<'_>) -> Result<(usize, usize), Problem> {
    let digits = line.text.split(|b| *b == b';').next().unwrap_or(line.text);
    let extension = line.text.len() - digits.len();
    let hex = digits.len() <= SIZE_DIGITS && digits.iter().all(u8::is_ascii_hexdigit);
    let missing = digits.is_empty() && (line.has_ended() || extension > 0);
    let text = std::str::from_utf8(digits).ok().filter(|_| hex && !missing);
    let text = text.ok_or_else(|| {
        Problem::malformed(format!("a chunk's size is not 1 to {SIZE_DIGITS} hex digits"))
    })?;
    Ok((usize::from_str_radix(text, 16).unwrap_or(0), extension))
}

/// A trailer line is a field, or empty: then it is the last.
fn check_trailer(line: &ChunkLine<'_>) -> Result<(), Problem> {
    let name = line.text.split(|b| *b == b':').next().unwrap_or(line.text);
    let has_colon = name.len() < line.text.len();
    let lacks_colon = line.has_ended() && !line.text.is_empty() && !has_colon;
    if lacks_colon || (has_colon && name.is_empty()) || !name.iter().copied().all(is_token) {
        return Err(Problem::malformed(
            "a trailer line is not a header's name, a colon right after it, and a value",
        ));
    }
    Ok(())
}
