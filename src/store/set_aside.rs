//! Preserving damaged files under a second name, before a repair replaces them.

use std::io;

use super::error::{IoContext as _, StoreError};
use super::storage::Storage;

/// Bytes of two files that are compared at once.
const COMPARED_BYTES: usize = 64 << 10;

/// Adds a second name to a damaged file, which the store ignores. If a repair that was interrupted
/// has added one for the same content, that one is used, so that retries do not pile up names.
///
/// # Errors
/// When the disk fails.
pub fn set_aside(storage: &dyn Storage, name: &str) -> Result<String, StoreError> {
    let names = storage.list().context("list", "the directory")?;
    let mut number = 1;
    loop {
        let set_aside = format!("{name}.damaged-{number}");
        if !names.contains(&set_aside) {
            storage.link(name, &set_aside).context("set aside", name)?;
            return Ok(set_aside);
        }
        if has_same_content(storage, name, &set_aside).context("compare", &set_aside)? {
            return Ok(set_aside);
        }
        number += 1;
    }
}

fn has_same_content(storage: &dyn Storage, a: &str, b: &str) -> io::Result<bool> {
    let (a, b) = (storage.open(a)?, storage.open(b)?);
    let length = a.length()?;
    let mut same = length == b.length()?;
    let (mut from_a, mut from_b) = (vec![0; COMPARED_BYTES], vec![0; COMPARED_BYTES]);
    let mut at = 0;
    while same && at < length {
        let got = a.read_at(&mut from_a, at)?;
        let mut filled = 0;
        while filled < got {
            match b.read_at(&mut from_b[filled..got], at + filled as u64)? {
                0 => return Ok(false),
                more => filled += more,
            }
        }
        same = got > 0 && from_a[..got] == from_b[..got];
        at += got as u64;
    }
    Ok(same)
}
