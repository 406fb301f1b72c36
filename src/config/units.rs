//! Durations, sizes and integers in the syntax of flags.
//!
//! A bare number is seconds, or bytes. Anything ambiguous is refused, never guessed: `10M` has two
//! common meanings.

use std::time::Duration;

/// The syntax of a duration, for error texts.
pub const DURATION_RULE: &str = "a number with ms, s, m or h (without a unit: seconds)";
/// The syntax of a size, for error texts.
pub const SIZE_RULE: &str = "a number of bytes, or one with KiB, MiB or GiB";

/// The longest duration, short enough that adding it to a clock cannot overflow.
const MAX_DURATION: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Parses `500ms`, `10s`, `5m`, `24h` or a bare number of seconds.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let seconds = crate::time::parse_seconds(digits)?;
    let time = match &text[digits.len()..] {
        "ms" => seconds / 1_000,
        "" | "s" => seconds,
        "m" => seconds.checked_mul(60)?,
        "h" => seconds.checked_mul(3_600)?,
        _ => return None,
    };
    Some(time).filter(|time| *time <= MAX_DURATION)
}

/// Parses `65536`, `64KiB`, `1MiB` or `2GiB`.
pub fn parse_size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &text[digits.len()..] {
        "" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return None,
    };
    parse_integer(digits)?.checked_mul(1 << shift)
}

/// Parses an integer without a sign.
pub fn parse_integer(text: &str) -> Option<u64> {
    let is_digits = text.bytes().all(|b| b.is_ascii_digit());
    if is_digits { text.parse().ok() } else { None }
}

/// Formats a duration as [`parse_duration`] reads it.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let ms = duration.as_millis() as u64;
    match ms {
        0 => "0s".into(),
        _ if ms % 3_600_000 == 0 => format!("{}h", ms / 3_600_000),
        _ if ms % 1000 != 0 => format!("{ms}ms"),
        _ => format!("{}s", ms / 1000),
    }
}

/// Formats a size as [`parse_size`] reads it.
#[must_use]
pub fn format_size(bytes: u64) -> String {
    match bytes {
        0 => "0".into(),
        _ if bytes % (1 << 20) == 0 => format!("{}MiB", bytes >> 20),
        _ if bytes % (1 << 10) == 0 => format!("{}KiB", bytes >> 10),
        _ => bytes.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_are_parsed_and_ambiguous_ones_refused() {
        for (text, ms) in [
            ("500ms", 500),
            ("2", 2000),
            ("1.5s", 1500),
            ("5m", 300_000),
            ("24h", 86_400_000),
            ("0", 0),
        ] {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for text in
            ["", "s", "-1", "1e3", "1d", "1 s", "inf", "nan", "+1", "9999999h", ".", "1.2.3", "10S"]
        {
            assert_eq!(parse_duration(text), None, "{text}");
        }
        assert_eq!(parse_size("64KiB"), Some(65_536));
        assert_eq!(parse_size("7"), Some(7));
        for text in ["", "KiB", "1KB", "1.5MiB", "-1", "17179869184GiB", "99999999999999999999"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }
}
