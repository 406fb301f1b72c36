//! Time as text: decimal seconds and RFC 3339.
//!
//! Seconds are parsed and formatted in integers: nothing is rounded twice, and the tables for
//! floating-point text stay out of the binary.

use std::cell::Cell;
use std::fmt;
use std::time::{Duration, SystemTime};

/// Parses seconds such as `25`, `0.5` or `.5`: digits and at most one point, no sign and no
/// exponent. A number too large for a [`Duration`] gives [`Duration::MAX`].
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
    // The digits are checked, so only overflow can fail.
    Some(whole.parse().map_or(Duration::MAX, |whole| Duration::new(whole, nanos)))
}

/// Formats a duration as seconds with as many decimals as it needs, up to microseconds.
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

/// The time since the Unix epoch, clamped to the years 1970 to 9999: a clock may be set to any
/// other year, and the date formatters panic there.
#[must_use]
pub fn since_unix_epoch(time: SystemTime) -> Duration {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.min(Duration::new(LAST_SECOND, 999_999_999))
}

/// Formats a time as the protocol does: RFC 3339, UTC, with milliseconds.
#[must_use]
pub fn rfc3339(time: SystemTime) -> String {
    let mut text = Vec::with_capacity(RFC3339_CHARS);
    push_rfc3339(&mut text, time);
    String::from_utf8(text).unwrap_or_default()
}

const RFC3339_CHARS: usize = "1970-01-01T00:00:00.000Z".len();
/// The text up to the point before the milliseconds.
type SecondText = [u8; RFC3339_CHARS - 4];

/// Appends the time to `out` in the format of [`rfc3339`].
pub fn push_rfc3339(out: &mut Vec<u8>, time: SystemTime) {
    thread_local! {
        // Formatting a date costs more than the rest of an event, and nearly every event is of the
        // same second as the one before.
        static LAST: Cell<(u64, SecondText)> = const { Cell::new((u64::MAX, [0; RFC3339_CHARS - 4])) };
    }
    let since = since_unix_epoch(time);
    let (second, mut text) = LAST.get();
    if second != since.as_secs() {
        let whole = humantime::format_rfc3339_millis(SystemTime::UNIX_EPOCH + since).to_string();
        // From 1970 to 9999 the text always has this length.
        text = whole.as_bytes().first_chunk().copied().unwrap_or(text);
        LAST.set((since.as_secs(), text));
    }
    let ms = since.subsec_millis();
    let digit = |place: u32| b'0' + (ms / place % 10) as u8;
    out.extend_from_slice(&text);
    out.extend_from_slice(&[digit(100), digit(10), digit(1), b'Z']);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_outside_the_years_1970_to_9999_is_clamped() {
        let epoch = SystemTime::UNIX_EPOCH;
        let day = Duration::from_secs(24 * 3600);
        assert_eq!(rfc3339(epoch - day), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(epoch + Duration::from_millis(1_001)), "1970-01-01T00:00:01.001Z");
        assert_eq!(rfc3339(epoch + 3_000_000 * day), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn formatted_seconds_parse_back() {
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
