//! Cursors: what a client holds between two polls. "I have everything up to here."
//!
//! A cursor is `epoch.seq`, or `epoch.seq.told`. It names a place in one life of the log, not a
//! time: clocks go back, and two events can share a millisecond, but a seq is given out once.
//! Parsing refuses whatever [`Cursor`]'s `Display` would not have written.

use std::fmt;
use std::str::FromStr;

use crate::json::push_number;

/// Identity of one life of the log: 64 random bits from the operating system.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Epoch(u64);

impl Epoch {
    /// A new life.
    ///
    /// # Errors
    /// When the operating system has no random bytes to give.
    pub fn random() -> std::io::Result<Epoch> {
        Ok(Epoch(u64::from_le_bytes(random_bytes()?)))
    }

    /// The epoch with these bits.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Epoch {
        Epoch(bits)
    }

    /// As its `Display` writes it.
    fn hex(self) -> [u8; 16] {
        std::array::from_fn(|place| b"0123456789abcdef"[(self.0 >> (60 - 4 * place)) as usize & 15])
    }
}

/// Bytes that nobody can guess.
///
/// # Errors
/// When the operating system has none to give.
pub fn random_bytes<const N: usize>() -> std::io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let got = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    if got < bytes.len() {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}

impl FromStr for Epoch {
    type Err = ParseCursorError;

    fn from_str(text: &str) -> Result<Epoch, ParseCursorError> {
        let lower_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() != 16 || !text.bytes().all(lower_hex) {
            return Err(ParseCursorError);
        }
        u64::from_str_radix(text, 16).map(Epoch).map_err(|_| ParseCursorError)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Position of an event in the whole log: one number line for all topics. The first event of an
/// epoch has seq 1; no seq is used twice within an epoch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug, Hash)]
pub struct Seq(u64);

impl Seq {
    /// Before the first event.
    pub const ZERO: Seq = Seq(0);

    #[must_use]
    pub const fn new(number: u64) -> Seq {
        Seq(number)
    }

    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The seq after this one.
    #[must_use]
    pub const fn next(self) -> Seq {
        Seq(self.0 + 1)
    }

    /// The seq before this one; [`Seq::ZERO`] stays what it is.
    #[must_use]
    pub const fn previous(self) -> Seq {
        Seq(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A number of events that the whole log has trimmed in its life. It counts trims, not positions:
/// a type of its own keeps it from being compared with a [`Seq`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug, Hash)]
pub struct TrimCount(u64);

impl TrimCount {
    pub const ZERO: TrimCount = TrimCount(0);

    #[must_use]
    pub const fn new(number: u64) -> TrimCount {
        TrimCount(number)
    }

    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The count after one more trim.
    #[must_use]
    pub const fn next(self) -> TrimCount {
        TrimCount(self.0 + 1)
    }
}

/// A place in the log, and what its holder has been told about.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Cursor {
    /// The life of the log in which it was issued.
    pub epoch: Epoch,
    /// The last event that its holder has, or has no need of.
    pub seq: Seq,
    /// How many events had ever been trimmed when it was issued; present exactly while a
    /// requested topic has trimmed events above `seq`. Those trims are then no news to its holder.
    pub trims_seen: Option<TrimCount>,
}

impl Cursor {
    /// As text. Put together by hand, as every answer has it.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = Vec::with_capacity(48);
        text.extend_from_slice(&self.epoch.hex());
        for number in std::iter::once(self.seq.get()).chain(self.trims_seen.map(TrimCount::get)) {
            text.push(b'.');
            push_number(&mut text, number);
        }
        // It is ASCII.
        String::from_utf8(text).unwrap_or_default()
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

impl fmt::Display for TrimCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The text is not a cursor that this server has issued.
#[derive(Debug, PartialEq, Eq)]
pub struct ParseCursorError;

impl FromStr for Cursor {
    type Err = ParseCursorError;

    fn from_str(text: &str) -> Result<Cursor, ParseCursorError> {
        let mut parts = text.split('.');
        let epoch = parts.next().ok_or(ParseCursorError)?.parse()?;
        let seq = parts.next().ok_or(ParseCursorError).and_then(number).map(Seq::new)?;
        let trims_seen = parts.next().map(number).transpose()?.map(TrimCount::new);
        match parts.next() {
            None => Ok(Cursor { epoch, seq, trims_seen }),
            Some(_) => Err(ParseCursorError),
        }
    }
}

/// A decimal number as `Display` writes it: no sign, no leading zero.
fn number(text: &str) -> Result<u64, ParseCursorError> {
    let canonical = text.bytes().all(|b| b.is_ascii_digit())
        && !text.is_empty()
        && (text == "0" || !text.starts_with('0'));
    if !canonical {
        return Err(ParseCursorError);
    }
    text.parse().map_err(|_| ParseCursorError)
}

/// Where a poll begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Since {
    /// The oldest event that is kept.
    Start,
    /// Whatever comes next.
    Now,
    /// So many of the most recent matching events.
    Last(u64),
    /// Whatever comes after this cursor.
    After(Cursor),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_as_it_was_written() {
        for (seq, trims_seen) in [(0, None), (7, Some(0)), (u64::MAX, Some(u64::MAX))] {
            let (seq, trims_seen) = (Seq::new(seq), trims_seen.map(TrimCount::new));
            let cursor = Cursor { epoch: Epoch::from_bits(0xab), seq, trims_seen };
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
    }

    #[test]
    fn what_was_never_issued_is_refused() {
        let epoch = "00000000000000ab";
        for text in [
            "",
            ".",
            "7",
            "ab.7",
            "00000000000000AB.7",
            "00000000000000ab",
            "00000000000000ab.",
            "00000000000000ab.07",
            "00000000000000ab.+7",
            "00000000000000ab.-1",
            "00000000000000ab.7.",
            "00000000000000ab.7.1.1",
            "00000000000000ab. 7",
            "00000000000000ab.18446744073709551616",
            "0000000000000+ab.7",
        ] {
            assert_eq!(text.parse::<Cursor>(), Err(ParseCursorError), "{text}");
        }
        assert!(format!("{epoch}.7").parse::<Cursor>().is_ok());
    }
}
