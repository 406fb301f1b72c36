//! Rendered pages that are shared: rendered once, head included, for all equal requests.
//!
//! All polls at the same cursor with the same parameters get the same page. A page stays true as
//! long as the log has not changed since it was read, so comparing the log's version is enough.
//!
//! *Lock.* Each slot of [`PageCache`] has one, held for a comparison; pages are rendered outside.

use std::hash::{Hash, Hasher};
use std::time::SystemTime;

use super::page::{Lookup, PageKey};
use crate::limits::{CACHED_PAGE_BYTES, CACHED_PAGES};
use crate::log::LogVersion;
use crate::sync::Mutex;

/// The pages that were rendered last, one for each slot.
pub struct PageCache {
    slots: [Mutex<Option<CachedPage>>; CACHED_PAGES],
}

struct CachedPage {
    key: PageKey,
    version: LogVersion,
    /// A response has a `Date`, so it is shared only within that second.
    second: u64,
    found: Lookup,
}

/// Chooses a slot. With std's `DefaultHasher` a poll took 11 % more instructions. Its resistance to
/// chosen keys is not needed: a client whose keys all fall into one slot only keeps pages from being
/// shared.
#[derive(Default)]
struct SlotHasher(u64);

impl Hasher for SlotHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        // The multiplier of Knuth's multiplicative hashing: 2^64 by the golden ratio.
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_u8(&mut self, byte: u8) {
        self.write_u64(byte.into());
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Default for PageCache {
    fn default() -> PageCache {
        PageCache { slots: std::array::from_fn(|_| Mutex::new(None)) }
    }
}

impl PageCache {
    fn slot(&self, key: &PageKey) -> &Mutex<Option<CachedPage>> {
        let mut hasher = SlotHasher::default();
        key.hash(&mut hasher);
        &self.slots[(hasher.finish() >> 32) as usize % CACHED_PAGES]
    }

    /// The cached result for this key at this version of the log.
    pub fn get(&self, key: &PageKey, version: LogVersion) -> Option<Lookup> {
        let second = current_second();
        let slot = self.slot(key).lock();
        let cached = slot.as_ref()?;
        let is_current = cached.version == version && cached.second == second && cached.key == *key;
        is_current.then(|| cached.found.clone())
    }

    /// Caches a result for the next equal request, unless its page is large, or is cut for want of
    /// memory that may be free by then.
    pub fn insert(&self, key: &PageKey, version: LogVersion, found: &Lookup) {
        match found {
            Lookup::Data(page) if page.is_cut || page.bytes().len() > CACHED_PAGE_BYTES => return,
            Lookup::Data(_) | Lookup::Empty(_) => {}
        }
        let found = found.clone();
        let cached = CachedPage { key: key.clone(), version, second: current_second(), found };
        // The replaced page is freed after the slot is unlocked.
        let _replaced = self.slot(key).lock().replace(cached);
    }
}

fn current_second() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
