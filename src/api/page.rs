//! Poll answers that are shared: rendered once, head included, for all equal polls.
//!
//! All polls at the same cursor with the same parameters get the same page. A page is true as long
//! as the log has not changed since it was read, so the log's version is all that has to be
//! compared.
//!
//! *Lock.* Each slot of [`PageCache`] has one, held for a comparison; pages are rendered outside.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use parking_lot::Mutex;

use crate::access::AllowedOrigin;
#[cfg(feature = "streams")]
use crate::cursor::Cursor;
use crate::cursor::Since;
use crate::limits::{CACHED_PAGE_BYTES, CACHED_PAGES, PAGE_BYTES, RESPONSE_MEMORY_BYTES};
use crate::log::{GapPolicy, GapReason, LogSlice};
use crate::names::{TopicSet, TypeFilter};
use crate::semaphore::{Permit, Semaphore};

/// How an answer shows events.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum BodyFormat {
    Json,
    Ndjson,
    Raw,
}

/// How a stream shows events.
#[cfg(feature = "streams")]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum StreamFraming {
    /// As server-sent events; to be ended by the end of the connection.
    Sse,
    /// The same in chunks.
    ChunkedSse,
    /// As frames of a WebSocket.
    #[cfg(feature = "websocket")]
    WebSocket,
}

/// What a page is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PageShape {
    /// A whole answer.
    Response(BodyFormat),
    /// A part of a stream.
    #[cfg(feature = "streams")]
    Part(StreamFraming),
}

/// Everything that decides what a page says, at one version of the log.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct PageKey {
    pub topics: TopicSet,
    pub since: Since,
    pub types: TypeFilter,
    pub limit: usize,
    pub shape: PageShape,
    pub on_gap: GapPolicy,
    /// `Prefer: wait` as it was honoured.
    pub preferred: Option<u64>,
    /// The site whose page may read it.
    pub cors: Option<AllowedOrigin>,
}

impl PageKey {
    /// Whether the two differ at most in where they begin and in their topics.
    pub fn same_but_since_and_topics(&self, other: &PageKey) -> bool {
        let PageKey { topics: _, since: _, types, limit, shape, on_gap, preferred, cors } = other;
        self.types == *types
            && self.limit == *limit
            && self.shape == *shape
            && self.on_gap == *on_gap
            && self.preferred == *preferred
            && self.cors == *cors
    }
}

/// A rendered answer, or a part of a stream.
pub struct RenderedPage {
    pub(super) bytes: Vec<u8>,
    /// The cursor of who has it.
    #[cfg(feature = "streams")]
    pub(super) next: Cursor,
    /// When its first event was appended.
    pub(super) first_at: Option<Instant>,
    /// The gap that it tells, and the sum of what was lost.
    pub(super) gap: Option<(GapReason, u64)>,
    /// Its room among all answers in flight.
    pub(super) _room: Permit,
}

impl RenderedPage {
    /// The whole message.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Where its head ends.
    #[must_use]
    pub fn head_length(&self) -> usize {
        let end = self.bytes.windows(4).position(|window| window == b"\r\n\r\n");
        end.map_or(self.bytes.len(), |at| at + 4)
    }
}

/// `PageCache` that were rendered lately.
pub struct PageCache {
    slots: [Mutex<Option<CachedPage>>; CACHED_PAGES],
    /// Room for rendered answers.
    room: Semaphore,
}

struct CachedPage {
    key: PageKey,
    version: u64,
    /// A page says when it was made; it is shared only within that second.
    second: u64,
    found: Lookup,
}

/// Chooses a slot. Whoever makes keys fall into one slot only keeps pages from being shared, so
/// this need not withstand anybody: it is quick.
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

/// What a look at the log brought, at some version of it.
#[derive(Clone)]
pub enum Lookup {
    /// Something to tell.
    Data(Arc<RenderedPage>),
    /// Nothing; this slice says from where to look next.
    Nothing(Arc<LogSlice>),
}

impl Default for PageCache {
    fn default() -> PageCache {
        PageCache {
            slots: std::array::from_fn(|_| Mutex::new(None)),
            room: Semaphore::new(RESPONSE_MEMORY_BYTES),
        }
    }
}

impl PageCache {
    fn slot(&self, key: &PageKey) -> &Mutex<Option<CachedPage>> {
        let mut slot = SlotHasher::default();
        key.hash(&mut slot);
        &self.slots[(slot.finish() >> 32) as usize % CACHED_PAGES]
    }

    /// What was found for this key at this version, if that is known.
    pub fn get(&self, key: &PageKey, version: u64) -> Option<Lookup> {
        let second = second();
        let slot = self.slot(key).lock();
        let shared = slot.as_ref()?;
        let same = shared.version == version && shared.second == second && shared.key == *key;
        same.then(|| shared.found.clone())
    }

    /// Room for the next page: as much as it may have, or whatever is left.
    pub fn room_for_one(&self) -> Permit {
        self.room.acquire_up_to(PAGE_BYTES)
    }

    /// Counts another answer among those in flight, for as long as the permit lives.
    pub fn count(&self, bytes: usize) -> Permit {
        self.room.acquire_over(bytes)
    }

    /// Bytes of answers in flight, shared ones included.
    pub fn in_flight(&self) -> usize {
        self.room.in_use()
    }

    /// Keeps what was found for the next equal poll, unless it is large.
    pub fn keep(&self, key: &PageKey, version: u64, found: &Lookup) {
        if matches!(found, Lookup::Data(page) if page.bytes.len() > CACHED_PAGE_BYTES) {
            return;
        }
        let found = found.clone();
        let shared = CachedPage { key: key.clone(), version, second: second(), found };
        // What it replaces is freed outside of the lock.
        let _replaced = self.slot(key).lock().replace(shared);
    }
}

fn second() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
