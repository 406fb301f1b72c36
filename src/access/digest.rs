//! The SHA-256 digest of a token's secret, as 64 hex digits in the token file.
//!
//! Passwords would need a slow hash. For the secrets of `longpoll token` plain SHA-256 is enough:
//! they have 256 random bits and cannot be guessed. Digests are compared in constant time, so that
//! a wrong secret reveals nothing by how long its comparison takes.

use std::fmt;

use subtle::ConstantTimeEq as _;

/// The SHA-256 digest of a secret.
#[derive(Clone)]
pub struct TokenDigest([u8; 32]);

impl TokenDigest {
    pub fn of(secret: &[u8]) -> TokenDigest {
        TokenDigest(hmac_sha256::Hash::hash(secret))
    }

    /// Parses 64 hex digits.
    pub fn parse(text: &str) -> Option<TokenDigest> {
        if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let mut bytes = [0; 32];
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
        }
        Some(TokenDigest(bytes))
    }

    /// Compares in constant time.
    pub fn constant_time_eq(&self, other: &TokenDigest) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Display for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
