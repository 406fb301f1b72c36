//! One line of a store: checksum, commit mark, JSON. Lines are written one commit at a time.
//!
//! ```text
//! 6f2d1c0a + {"seq":1041,"topic":"news","time":"…","batch":2,"data":{"t":21}}
//! 9ae0daaf .118 {"seq":1042,"topic":"news","time":"…","text":"hello"}
//! ```
//!
//! The checksum is the CRC-32 that `gzip` and zlib compute, over everything after the space that
//! follows it. The mark says where a commit ends, because a commit counts as a whole or not at all:
//!
//! - `+`: the commit continues on the next line;
//! - `.N`: the commit ends with this line and began N bytes before it. Everything before the commit
//!   was synced when this line was written;
//! - `,N`: the same, but data before the commit may not have been synced.
//!
//! A reader that finds damage can therefore tell whether the damaged bytes had been synced.

use crc::{CRC_32_ISO_HDLC, Crc, Table};

/// The commit mark of a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CommitMark {
    /// The commit continues on the next line.
    More,
    /// The commit ends with this line.
    End {
        /// Bytes of the commit before this line.
        before: u64,
        /// Everything before the commit was synced when it was written.
        after_sync: bool,
    },
}

/// Bytes of the checksum, in hexadecimal.
const CHECKSUM: usize = 8;
/// Bytes before the JSON of a line that does not end a commit: checksum, space, `+`, space.
const PREFIX: usize = CHECKSUM + 3;

/// Encodes the lines of one commit.
#[derive(Default)]
pub struct CommitBuffer {
    bytes: Vec<u8>,
    /// Offset of the last line.
    last_line: usize,
}

impl CommitBuffer {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Appends a line; `write_json` appends its JSON.
    pub fn push(&mut self, write_json: impl FnOnce(&mut Vec<u8>)) {
        self.finish_line();
        self.last_line = self.bytes.len();
        self.bytes.extend_from_slice(b"00000000 + ");
        write_json(&mut self.bytes);
    }

    /// Marks the last line as the end of the commit and returns all bytes.
    #[must_use]
    pub fn finish(mut self, after_sync: bool) -> Vec<u8> {
        if !self.is_empty() {
            let sign = if after_sync { '.' } else { ',' };
            let json = self.bytes.split_off(self.last_line + PREFIX);
            self.bytes.truncate(self.last_line + CHECKSUM + 1);
            self.bytes.extend_from_slice(format!("{sign}{} ", self.last_line).as_bytes());
            self.bytes.extend_from_slice(&json);
            self.finish_line();
        }
        self.bytes
    }

    /// Writes the checksum and the line feed of the last line, if there is one.
    fn finish_line(&mut self) {
        if let Some(line) = self.bytes.get_mut(self.last_line..).filter(|line| !line.is_empty()) {
            let checksum = checksum(&line[CHECKSUM + 1..]);
            line[..CHECKSUM].copy_from_slice(&checksum);
            self.bytes.push(b'\n');
        }
    }
}

/// The CRC-32 of gzip, zip, PNG and Ethernet.
static CRC: Crc<u32, Table<1>> = Crc::<u32, Table<1>>::new(&CRC_32_ISO_HDLC);

/// The checksum as eight hexadecimal digits.
fn checksum(bytes: &[u8]) -> [u8; CHECKSUM] {
    let sum = CRC.checksum(bytes);
    std::array::from_fn(|place| b"0123456789abcdef"[(sum >> (28 - 4 * place)) as usize & 15])
}

/// Parses a line without its line feed: its mark, and the offset of its JSON. `None`: the checksum
/// or the mark is wrong.
#[must_use]
pub fn parse(line: &[u8]) -> Option<(CommitMark, usize)> {
    let (sum, rest) = line.split_at_checked(CHECKSUM)?;
    let rest = rest.strip_prefix(b" ")?;
    if *sum != checksum(rest) {
        return None;
    }
    let space = rest.iter().position(|b| *b == b' ')?;
    let mark = match rest[..space].split_first()? {
        (b'+', []) => CommitMark::More,
        (sign @ (b'.' | b','), before) => {
            let before = std::str::from_utf8(before).ok()?.parse().ok()?;
            CommitMark::End { before, after_sync: *sign == b'.' }
        }
        _ => return None,
    };
    Some((mark, CHECKSUM + 1 + space + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_parses_back_line_by_line_with_its_start() {
        let mut commit = CommitBuffer::default();
        for json in ["{\"a\":1}", "{}", "{\"b\":\"\"}"] {
            commit.push(|out| out.extend_from_slice(json.as_bytes()));
        }
        let bytes = commit.finish(true);
        let lines: Vec<&[u8]> = bytes.split_inclusive(|b| *b == b'\n').collect();
        let parsed = |line: &[u8]| {
            let line = line.strip_suffix(b"\n").unwrap();
            let (mark, at) = parse(line).unwrap();
            (mark, String::from_utf8(line[at..].to_vec()).unwrap())
        };
        assert_eq!(lines.len(), 3);
        assert_eq!(parsed(lines[0]), (CommitMark::More, "{\"a\":1}".into()));
        assert_eq!(parsed(lines[1]), (CommitMark::More, "{}".into()));
        let before = (lines[0].len() + lines[1].len()) as u64;
        assert_eq!(
            parsed(lines[2]),
            (CommitMark::End { before, after_sync: true }, "{\"b\":\"\"}".into())
        );
        assert!(CommitBuffer::default().finish(false).is_empty());
    }

    #[test]
    fn every_flipped_bit_fails_the_checksum() {
        let mut commit = CommitBuffer::default();
        commit.push(|out| out.extend_from_slice(b"{\"seq\":1}"));
        let mut line = commit.finish(false);
        line.pop();
        assert!(parse(&line).is_some());
        for place in 0..line.len() {
            for bit in 0..8 {
                line[place] ^= 1 << bit;
                assert!(parse(&line).is_none(), "byte {place}, bit {bit}");
                line[place] ^= 1 << bit;
            }
        }
    }
}
