//! Parts of a URI: percent-decoding, and the host and port of an authority.

use std::borrow::Cow;

use crate::problem::Problem;

/// Decodes percent-encoding, once.
///
/// # Errors
/// `400` for an incomplete or invalid escape, and for a result that is not UTF-8.
pub fn percent_decode(text: &str) -> Result<Cow<'_, str>, Problem> {
    if !text.as_bytes().contains(&b'%') {
        return Ok(text.into());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&b, tail)) = rest.split_first() {
        rest = tail;
        if b != b'%' {
            bytes.push(b);
            continue;
        }
        let digit = |at: usize| tail.get(at).and_then(|d| (*d as char).to_digit(16));
        let (Some(high), Some(low)) = (digit(0), digit(1)) else {
            return Err(Problem::bad_request(format!("{text:?}: expected two hex digits after %")));
        };
        bytes.push((high * 16 + low) as u8);
        rest = &tail[2..];
    }
    String::from_utf8(bytes).map(Cow::Owned).map_err(|_| {
        Problem::bad_request(format!("{text:?}: expected UTF-8 after percent-decoding"))
    })
}

/// Splits an authority into host and port. An IPv6 address keeps its brackets; an empty port is
/// none.
#[must_use]
pub fn split_port(authority: &str) -> (&str, Option<&str>) {
    let end = authority.bytes().rposition(|b| b == b':' || b == b']');
    match end.filter(|at| authority.as_bytes()[*at] == b':') {
        Some(at) => {
            let port = &authority[at + 1..];
            (&authority[..at], Some(port).filter(|port| !port.is_empty()))
        }
        None => (authority, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_encoding_is_decoded_once() {
        assert_eq!(percent_decode("/a%2Cb%2525").unwrap(), "/a,b%25");
        for bad in ["%", "%2", "%zz", "%+1", "%ff"] {
            assert!(percent_decode(bad).is_err(), "{bad}");
        }
    }
}
