//! Byte searches for replies of a known form, which are cheaper than parsing at full request rate.

pub fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}

/// The decimal number at the start of `bytes`.
fn leading_number(bytes: &[u8]) -> Option<u64> {
    let mut value = None;
    for digit in bytes.iter().take_while(|byte| byte.is_ascii_digit()) {
        value = Some(value.unwrap_or(0) * 10 + u64::from(digit - b'0'));
    }
    value
}

/// The decimal number that follows the first occurrence of `label`.
pub fn number_after(bytes: &[u8], label: &[u8]) -> Option<u64> {
    leading_number(&bytes[find(bytes, label)? + label.len()..])
}
