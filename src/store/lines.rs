//! A line of a store: checksum, mark, JSON. Lines are written a commit at a time.
//!
//! ```text
//! 6f2d1c0a + {"seq":1041,"topic":"news","time":"…","batch":2,"data":{"t":21}}
//! 9ae0daaf .118 {"seq":1042,"topic":"news","time":"…","text":"hello"}
//! ```
//!
//! The checksum is the CRC-32 of everything after the space behind it, as `gzip` and zlib
//! compute it. The mark says where commits end, because a commit counts as a whole or not at all:
//!
//! - `+`: more of this commit follows;
//! - `.N`: the commit ends here, and began N bytes before this line. Everything before the commit
//!   was synced when this was written;
//! - `,N`: the same, but what is before it may not have been synced.
//!
//! So whoever finds damage can tell whether it lies in what was already safe.

use crc::{CRC_32_ISO_HDLC, Crc, Table};

/// What a line says about its commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CommitMark {
    More,
    /// The commit ends, and began so many bytes before.
    End {
        before: u64,
        after_sync: bool,
    },
}

/// Checksum, space and the mark of a line that does not end a commit.
const PREFIX: usize = 11;
const CHECKSUM: usize = 8;

/// The lines of one commit, being written.
#[derive(Default)]
pub struct CommitBuffer {
    bytes: Vec<u8>,
    /// Where the last line begins.
    last: usize,
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

    /// Adds a line; `write` puts its JSON there.
    pub fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.seal();
        self.last = self.bytes.len();
        self.bytes.extend_from_slice(b"00000000 + ");
        write(&mut self.bytes);
    }

    /// The commit as it goes to disk.
    #[must_use]
    pub fn finish(mut self, after_sync: bool) -> Vec<u8> {
        if !self.is_empty() {
            let sign = if after_sync { '.' } else { ',' };
            let json = self.bytes.split_off(self.last + PREFIX);
            self.bytes.truncate(self.last + CHECKSUM + 1);
            self.bytes.extend_from_slice(format!("{sign}{} ", self.last).as_bytes());
            self.bytes.extend_from_slice(&json);
            self.seal();
        }
        self.bytes
    }

    /// Ends the last line, if there is one, and gives it its checksum.
    fn seal(&mut self) {
        if let Some(line) = self.bytes.get_mut(self.last..).filter(|line| !line.is_empty()) {
            let checksum = checksum(&line[CHECKSUM + 1..]);
            line[..CHECKSUM].copy_from_slice(&checksum);
            self.bytes.push(b'\n');
        }
    }
}

/// That of gzip, zip, PNG and Ethernet.
static CRC: Crc<u32, Table<1>> = Crc::<u32, Table<1>>::new(&CRC_32_ISO_HDLC);

/// Eight hexadecimal digits.
fn checksum(bytes: &[u8]) -> [u8; CHECKSUM] {
    let sum = CRC.checksum(bytes);
    std::array::from_fn(|place| b"0123456789abcdef"[(sum >> (28 - 4 * place)) as usize & 15])
}

/// Reads a line without its end: its mark and where its JSON begins. None: it is not as it was
/// written.
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
    fn a_commit_reads_back_line_by_line_and_says_where_it_began() {
        let mut commit = CommitBuffer::default();
        for json in ["{\"a\":1}", "{}", "{\"b\":\"\"}"] {
            commit.push(|out| out.extend_from_slice(json.as_bytes()));
        }
        let bytes = commit.finish(true);
        let lines: Vec<&[u8]> = bytes.split_inclusive(|b| *b == b'\n').collect();
        let read = |line: &[u8]| {
            let line = line.strip_suffix(b"\n").unwrap();
            let (mark, at) = parse(line).unwrap();
            (mark, String::from_utf8(line[at..].to_vec()).unwrap())
        };
        assert_eq!(lines.len(), 3);
        assert_eq!(read(lines[0]), (CommitMark::More, "{\"a\":1}".into()));
        assert_eq!(read(lines[1]), (CommitMark::More, "{}".into()));
        let before = (lines[0].len() + lines[1].len()) as u64;
        assert_eq!(
            read(lines[2]),
            (CommitMark::End { before, after_sync: true }, "{\"b\":\"\"}".into())
        );
        assert!(CommitBuffer::default().finish(false).is_empty());
    }

    #[test]
    fn no_line_survives_a_change_of_any_bit() {
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
