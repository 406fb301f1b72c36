//! Cursors: a client's position in the log, sent with each poll: "I have everything up to here."
//!
//! A cursor is `epoch.seq` or `epoch.seq.trims_seen`. It is a position within one epoch of the
//! log, not a time: clocks step back, and two events can share a millisecond, but a seq is assigned
//! once.
//! Parsing rejects every text that [`Cursor`]'s `Display` would not have written.

use std::fmt;
use std::str::FromStr;

use crate::json::push_number;

/// Identity of one history of the log: 64 random bits from the operating system. A log that starts
/// empty or may have lost events gets a new epoch, which makes every older cursor invalid.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Epoch(u64);

impl Epoch {
    /// A new, random epoch.
    ///
    /// # Errors
    /// The operating system provides no random bytes.
    pub fn random() -> std::io::Result<Epoch> {
        Ok(Epoch(u64::from_le_bytes(random_bytes()?)))
    }

    /// The epoch with these bits.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Epoch {
        Epoch(bits)
    }

    /// The 16 lower-case digits that `Display` writes.
    fn hex(self) -> [u8; 16] {
        std::array::from_fn(|i| b"0123456789abcdef"[(self.0 >> (60 - 4 * i)) as usize & 15])
    }
}

/// Unpredictable bytes from the operating system.
///
/// # Errors
/// The operating system provides none.
pub fn random_bytes<const N: usize>() -> std::io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    if filled < bytes.len() {
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

/// Position of an event in the whole log; all topics share one sequence. The first event of an
/// epoch has seq 1, and no seq is used twice within an epoch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug, Hash)]
pub struct Seq(u64);

impl Seq {
    /// The position before the first event.
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

    /// The seq before this one; [`Seq::ZERO`] if there is none.
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

/// Number of events that the whole log has trimmed since it was created. It counts trims, not
/// positions; a separate type prevents a comparison with a [`Seq`].
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

impl fmt::Display for TrimCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A reader's position in the log, and which trims it already knows of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Cursor {
    /// The log's epoch when the cursor was issued.
    pub epoch: Epoch,
    /// The reader has, or does not need, every event up to this one.
    pub seq: Seq,
    /// How many events the log had trimmed when the cursor was issued. Present exactly while a
    /// requested topic has trimmed events above `seq`: those trims are not reported again.
    pub trims_seen: Option<TrimCount>,
}

impl Cursor {
    /// The cursor as text. Built without `fmt`, because every response contains one.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = Vec::with_capacity(48);
        text.extend_from_slice(&self.epoch.hex());
        for number in std::iter::once(self.seq.get()).chain(self.trims_seen.map(TrimCount::get)) {
            text.push(b'.');
            push_number(&mut text, number);
        }
        // The bytes are ASCII, so this never fails.
        String::from_utf8(text).unwrap_or_default()
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

/// The text is not a cursor that this server can have issued.
#[derive(Debug, PartialEq, Eq)]
pub struct ParseCursorError;

impl FromStr for Cursor {
    type Err = ParseCursorError;

    fn from_str(text: &str) -> Result<Cursor, ParseCursorError> {
        let mut parts = text.split('.');
        let epoch = parts.next().ok_or(ParseCursorError)?.parse()?;
        let seq = parts.next().ok_or(ParseCursorError).and_then(parse_decimal).map(Seq::new)?;
        let trims_seen = parts.next().map(parse_decimal).transpose()?.map(TrimCount::new);
        match parts.next() {
            None => Ok(Cursor { epoch, seq, trims_seen }),
            Some(_) => Err(ParseCursorError),
        }
    }
}

/// Parses a decimal number in the form that `Display` writes: no sign, no leading zero.
fn parse_decimal(text: &str) -> Result<u64, ParseCursorError> {
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
    /// At the oldest kept event.
    Start,
    /// After the newest event.
    Now,
    /// At the first of the most recent matching events, of which there are at most this many.
    Last(u64),
    /// After this cursor.
    After(Cursor),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursor_text_parses_to_the_same_cursor() {
        for (seq, trims_seen) in [(0, None), (7, Some(0)), (u64::MAX, Some(u64::MAX))] {
            let (seq, trims_seen) = (Seq::new(seq), trims_seen.map(TrimCount::new));
            let cursor = Cursor { epoch: Epoch::from_bits(0xab), seq, trims_seen };
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
    }

    #[test]
    fn text_that_display_never_writes_is_rejected() {
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
