//! Time as text: seconds as people type and read them, and RFC 3339.
//!
//! Seconds are whole numbers all the way, so that nothing is rounded twice, and the tables that floating point
//! text needs stay out of the binary.

use std::cell::Cell;
use std::fmt;
use std::time::{Duration, SystemTime};

/// Reads `25`, `0.5` or `.5`: digits and at most one point, no sign, no exponent. What is longer
/// than a [`Duration`] is the longest one.
#[must_use]
pub fn parse_seconds(text: &str) -> Option<Duration> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || whole.len() + fraction.len() == 0 {
        return None;
    }
    let mut nanos = 0;
    for place in 0..9 {
        let digit = fraction.as_bytes().get(place).map_or(0, |digit| digit - b'0');
        nanos = nanos * 10 + u32::from(digit);
    }
    let whole = if whole.is_empty() { "0" } else { whole };
    // Only too many digits can fail here.
    Some(whole.parse().map_or(Duration::MAX, |whole| Duration::new(whole, nanos)))
}

/// Writes seconds with as many decimals as they need, up to microseconds.
pub struct Seconds(pub Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = format!("{:06}", self.0.subsec_micros());
        match decimals.trim_end_matches('0') {
            "" => write!(f, "{}", self.0.as_secs()),
            decimals => write!(f, "{}.{decimals}", self.0.as_secs()),
        }
    }
}

/// The last second of the year 9999.
const LAST_SECOND: u64 = 253_402_300_799;

/// How long after 1970 the nearest moment is that can be written as a date, which is one until
/// 9999. A clock may be set to any other, and those who write dates panic there.
#[must_use]
pub fn since_1970(time: SystemTime) -> Duration {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.min(Duration::new(LAST_SECOND, 999_999_999))
}

/// A moment as the wire says it: RFC 3339, UTC, milliseconds.
#[must_use]
pub fn rfc3339(time: SystemTime) -> String {
    let mut text = Vec::with_capacity(RFC3339_CHARS);
    push_rfc3339(&mut text, time);
    String::from_utf8(text).unwrap_or_default()
}

const RFC3339_CHARS: usize = "1970-01-01T00:00:00.000Z".len();
/// The text before its milliseconds.
type WholeSecond = [u8; RFC3339_CHARS - 4];

/// Appends what [`rfc3339`] says.
pub fn push_rfc3339(out: &mut Vec<u8>, time: SystemTime) {
    thread_local! {
        // Working a date out costs more than all else that is written of an event, and nearly
        // every event is of the same second as the one before.
        static LAST: Cell<(u64, WholeSecond)> = const { Cell::new((u64::MAX, [0; RFC3339_CHARS - 4])) };
    }
    let since = since_1970(time);
    let (second, mut text) = LAST.get();
    if second != since.as_secs() {
        let whole = humantime::format_rfc3339_millis(SystemTime::UNIX_EPOCH + since).to_string();
        // It is as long as that, from 1970 to 9999.
        text = whole.as_bytes().first_chunk().copied().unwrap_or(text);
        LAST.set((since.as_secs(), text));
    }
    let ms = since.subsec_millis();
    let digit = |of: u32| b'0' + (ms / of % 10) as u8;
    out.extend_from_slice(&text);
    out.extend_from_slice(&[digit(100), digit(10), digit(1), b'Z']);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_to_no_date_is_written_as_the_nearest_one() {
        let epoch = SystemTime::UNIX_EPOCH;
        let day = Duration::from_secs(24 * 3600);
        assert_eq!(rfc3339(epoch - day), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(epoch + Duration::from_millis(1_001)), "1970-01-01T00:00:01.001Z");
        assert_eq!(rfc3339(epoch + 3_000_000 * day), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn seconds_read_as_they_are_written() {
        for (text, micros) in
            [("0", 0), ("25", 25_000_000), ("0.5", 500_000), ("1.000001", 1_000_001)]
        {
            assert_eq!(parse_seconds(text), Some(Duration::from_micros(micros)));
            assert_eq!(Seconds(Duration::from_micros(micros)).to_string(), text);
        }
        assert_eq!(parse_seconds(".5"), parse_seconds("0.50"));
        assert_eq!(parse_seconds("99999999999999999999999"), Some(Duration::MAX));
        for text in ["", ".", "-1", "+1", "1e3", "1s", "1.2.3", "inf", "NaN", "1 ", "١"] {
            assert_eq!(parse_seconds(text), None, "{text}");
        }
    }
}
