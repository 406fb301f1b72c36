//! The chunked transfer coding (RFC 9112, section 7.1), read strictly: what a front proxy could
//! read otherwise is refused.

use super::request::Body;
use crate::error::{Cause, Problem};
use crate::limits::CHUNK_LINE_BYTES;

/// Where in a chunked body the reader stands.
#[derive(Default)]
pub struct Chunks {
    state: State,
    /// Bytes of trailer fields so far; they are read and let go.
    trailers: usize,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum State {
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

impl Chunks {
    pub fn done(&self) -> bool {
        self.state == State::Done
    }

    /// Takes what it can from `bytes` into `body`, and says how much that was.
    pub fn take(&mut self, bytes: &[u8], body: &mut Body, limit: usize) -> Result<usize, Problem> {
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
        body: &mut Body,
        limit: usize,
    ) -> Result<Option<usize>, Problem> {
        match self.state {
            State::Done => Ok(None),
            State::Data(_) if bytes.is_empty() => Ok(None),
            State::Data(left) => {
                let here = left.min(bytes.len());
                body.extend(&bytes[..here])?;
                self.state = match left - here {
                    0 => State::DataEnd,
                    left => State::Data(left),
                };
                Ok(Some(here))
            }
            State::DataEnd => match bytes {
                [b'\r', b'\n', ..] => {
                    self.state = State::Size;
                    Ok(Some(2))
                }
                [] | [b'\r'] => Ok(None),
                _ => Err(Problem::malformed("a chunk is longer than its size says")),
            },
            State::Size => {
                let Some(line) = line(bytes)? else { return Ok(None) };
                let size = size(line)?;
                if size > limit - body.bytes.len() {
                    return Err(Problem::new(
                        Cause::TooLarge,
                        format!("the body is longer than {limit} bytes"),
                    ));
                }
                self.state = if size == 0 { State::Trailers } else { State::Data(size) };
                Ok(Some(line.len() + 2))
            }
            State::Trailers => {
                let Some(line) = line(bytes)? else { return Ok(None) };
                self.trailers += line.len();
                if self.trailers > CHUNK_LINE_BYTES {
                    let detail = format!("trailers are longer than {CHUNK_LINE_BYTES} bytes");
                    return Err(Problem::new(Cause::HeadTooLarge, detail));
                }
                if line.is_empty() {
                    self.state = State::Done;
                } else if !line.contains(&b':') {
                    return Err(Problem::malformed("a trailer line has no colon"));
                }
                Ok(Some(line.len() + 2))
            }
        }
    }
}

/// The line that `bytes` begin with, without its end; `None`: it goes on.
fn line(bytes: &[u8]) -> Result<Option<&[u8]>, Problem> {
    let allowed = |b: &u8| matches!(b, b'\t' | b' '..=b'~');
    let end = bytes.iter().position(|b| !allowed(b)).unwrap_or(bytes.len());
    if end > CHUNK_LINE_BYTES {
        return Err(Problem::malformed("a line of the chunked body is too long"));
    }
    match bytes[end..] {
        [] | [b'\r'] => Ok(None),
        [b'\r', b'\n', ..] => Ok(Some(&bytes[..end])),
        _ => Err(Problem::malformed(
            "a line of the chunked body has a byte that is not allowed, or does not end in CR LF",
        )),
    }
}

/// The size that a size line gives; extensions are let go.
fn size(line: &[u8]) -> Result<usize, Problem> {
    let digits = line.split(|b| *b == b';').next().unwrap_or(line);
    // Eight digits are more than any limit here, and cannot overflow.
    let ok = (1..=8).contains(&digits.len()) && digits.iter().all(u8::is_ascii_hexdigit);
    let text = std::str::from_utf8(digits).ok().filter(|_| ok);
    text.and_then(|text| usize::from_str_radix(text, 16).ok())
        .ok_or_else(|| Problem::malformed("a chunk's size is not 1 to 8 hex digits"))
}
