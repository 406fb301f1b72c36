//! How the report writes numbers: significant digits, thousands separators, and times.

/// Two significant digits below 10, and whole numbers with separators above; `–` if not measured.
pub fn number(value: f64) -> String {
    match value {
        value if !value.is_finite() => "–".into(),
        value if value >= 9.95 => separate_thousands(&format!("{value:.0}")),
        value if value >= 0.995 => format!("{value:.1}"),
        0.0 => "0".into(),
        value => format!("{value:.2}"),
    }
}

/// 12345 as 12,345.
pub fn count(number: u64) -> String {
    separate_thousands(&number.to_string())
}

fn separate_thousands(digits: &str) -> String {
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A time in milliseconds, with its unit.
pub fn time(ms: f64) -> String {
    match ms {
        ms if !ms.is_finite() => "–".into(),
        ms if ms >= 999.5 => format!("{:.1} s", ms / 1e3),
        ms => format!("{} ms", number(ms)),
    }
}

pub fn clients(count: u64) -> String {
    if count == 1 { "1 client".into() } else { format!("{count} clients") }
}
