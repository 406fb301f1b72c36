//! Durations and sizes as people type them.
//!
//! A bare number is seconds, or bytes. Whatever else is not understood is refused with the rule,
//! never guessed: `10M` could mean two things, and both are in use.

use std::time::Duration;

/// What a duration may be, as errors say it.
pub const DURATION_RULE: &str = "a number with ms, s, m or h (without a unit: seconds)";
/// What a size may be, as errors say it.
pub const SIZE_RULE: &str = "a number of bytes, or one with KiB, MiB or GiB";

/// Longer than anyone waits, short enough that adding it to a clock cannot overflow.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Reads `500ms`, `10s`, `5m`, `24h` or a bare number of seconds.
pub fn duration(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let seconds = crate::time::parse_seconds(digits)?;
    let time = match &text[digits.len()..] {
        "ms" => seconds / 1_000,
        "" | "s" => seconds,
        "m" => seconds.checked_mul(60)?,
        "h" => seconds.checked_mul(3_600)?,
        _ => return None,
    };
    Some(time).filter(|time| *time <= LONGEST)
}

/// Reads `65536`, `64KiB`, `1MiB` or `2GiB`.
pub fn size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &text[digits.len()..] {
        "" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return None,
    };
    whole(digits)?.checked_mul(1 << shift)
}

/// Reads a whole number; no sign.
pub fn whole(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|b| b.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

/// Writes a duration as [`duration`] reads it.
#[must_use]
pub fn format_duration(d: Duration) -> String {
    let ms = d.as_millis() as u64;
    match ms {
        0 => "0s".into(),
        _ if ms % 3_600_000 == 0 => format!("{}h", ms / 3_600_000),
        _ if ms % 1000 != 0 => format!("{ms}ms"),
        _ => format!("{}s", ms / 1000),
    }
}

/// Writes a size as [`size`] reads it.
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
    fn durations_and_sizes_read_as_they_are_written() {
        for (text, ms) in [
            ("500ms", 500),
            ("2", 2000),
            ("1.5s", 1500),
            ("5m", 300_000),
            ("24h", 86_400_000),
            ("0", 0),
        ] {
            assert_eq!(duration(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for text in
            ["", "s", "-1", "1e3", "1d", "1 s", "inf", "nan", "+1", "9999999h", ".", "1.2.3", "10S"]
        {
            assert_eq!(duration(text), None, "{text}");
        }
        assert_eq!(size("64KiB"), Some(65_536));
        assert_eq!(size("7"), Some(7));
        for text in ["", "KiB", "1KB", "1.5MiB", "-1", "17179869184GiB", "99999999999999999999"] {
            assert_eq!(size(text), None, "{text}");
        }
    }
}
