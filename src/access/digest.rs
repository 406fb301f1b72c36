//! SHA-256, as files of tokens have it: 64 hex digits.
//!
//! Plain SHA-256 is enough, where passwords would need a slow hash: the secrets that `longpoll
//! token` makes are random, and nobody can try them all. Comparing takes the same time wherever two
//! hashes differ, so that a wrong guess says nothing about how wrong it is.

use std::fmt;

use subtle::ConstantTimeEq as _;

/// A hash of a secret.
#[derive(Clone)]
pub struct TokenDigest([u8; 32]);

impl TokenDigest {
    pub fn of(secret: &[u8]) -> TokenDigest {
        TokenDigest(hmac_sha256::Hash::hash(secret))
    }

    /// Reads 64 hex digits.
    pub fn parse(text: &str) -> Option<TokenDigest> {
        if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let mut bytes = [0; 32];
        for (place, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(text.get(2 * place..2 * place + 2)?, 16).ok()?;
        }
        Some(TokenDigest(bytes))
    }

    /// Takes the same time wherever they differ.
    pub fn equals(&self, other: &TokenDigest) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Display for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
