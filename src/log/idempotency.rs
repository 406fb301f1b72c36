//! Idempotency keys: which publish used which key, so that a retry does not publish again.
//!
//! A publisher that lost the response must retry, and the retry must not append the events twice. A
//! key is looked up and inserted under the log's lock, together with the append: of two concurrent
//! publishes under one key, one is first and the other waits for its outcome. Keys and contents are
//! stored as 128-bit fingerprints, so a key costs the same however long it is. They expire after
//! [`IDEMPOTENCY_KEY_TTL`], or earlier, oldest first, if there are more than [`MAX_IDEMPOTENCY_KEYS`].
//! `Log::append` and `Log::plan` use the table; `api/publish.rs` makes the keys.

use std::collections::{HashMap, VecDeque};
use std::hash::Hasher as _;
use std::sync::Arc;
use std::time::Instant;

use siphasher::sip128::{Hasher128 as _, SipHasher24};

use crate::cursor::{Seq, random_bytes};
use crate::limits::{IDEMPOTENCY_KEY_TTL, MAX_IDEMPOTENCY_KEYS};
use crate::sync::Mutex;

/// The outcome of a publish, from which its response is made; `None` until it is known. The first
/// publisher holds the lock until its response is complete, so a repeat that locks it waits for
/// that.
///
/// Lock order: a publisher locks its own outcome before every other lock but a WebSocket's publish
/// lock. No thread waits for another publisher's outcome while it holds any other.
pub type SharedOutcome<T> = Arc<Mutex<Option<T>>>;

/// Identifies an idempotency key: the fingerprint of the key, its topic and its owner. A type of
/// its own, so that it cannot be swapped with the fingerprint of what is published.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct KeyId(pub u128);

/// The key of one publish, and where its outcome will be stored.
pub struct IdempotencyKey<T> {
    pub id: KeyId,
    /// Fingerprint of what is published.
    pub fingerprint: u128,
    pub outcome: SharedOutcome<T>,
}

impl<T> Clone for IdempotencyKey<T> {
    fn clone(&self) -> IdempotencyKey<T> {
        IdempotencyKey { outcome: Arc::clone(&self.outcome), ..*self }
    }
}

/// Computes 128-bit fingerprints: `SipHash` with a secret, so that no client can construct two
/// publishes with the same fingerprint. A store keeps the secret, so its keys stay valid after a
/// restart.
#[derive(Clone, Copy)]
pub struct Fingerprinter(pub u128);

impl Fingerprinter {
    /// A fingerprinter with a new, random secret.
    ///
    /// # Errors
    /// The operating system provides no random bytes.
    pub fn random() -> std::io::Result<Fingerprinter> {
        Ok(Fingerprinter(u128::from_le_bytes(random_bytes()?)))
    }

    /// The fingerprint of these parts in this order.
    #[must_use]
    pub fn of(&self, parts: &[&[u8]]) -> u128 {
        let mut hasher = SipHasher24::new_with_key(&self.0.to_le_bytes());
        for part in parts {
            // With the lengths, ["ab", "c"] and ["a", "bc"] differ.
            hasher.write(&(part.len() as u64).to_le_bytes());
            hasher.write(part);
        }
        hasher.finish128().as_u128()
    }
}

/// What the table knows of a key.
pub enum KeyLookup<T> {
    /// The key is unused.
    New,
    /// The same content was published under this key.
    Duplicate(SharedOutcome<T>),
    /// Other content was published under this key.
    Conflict,
}

/// The keys of the last [`IDEMPOTENCY_KEY_TTL`], at most [`MAX_IDEMPOTENCY_KEYS`].
pub struct IdempotencyTable<T> {
    entries: HashMap<KeyId, KeyEntry<T>>,
    /// When each key was inserted, and the seq of the last event published under it, oldest first.
    insertions: VecDeque<(Instant, Seq, KeyId)>,
    evicted: u64,
}

struct KeyEntry<T> {
    seq: Seq,
    fingerprint: u128,
    outcome: SharedOutcome<T>,
}

impl<T> Default for IdempotencyTable<T> {
    fn default() -> IdempotencyTable<T> {
        IdempotencyTable { entries: HashMap::new(), insertions: VecDeque::new(), evicted: 0 }
    }
}

impl<T> IdempotencyTable<T> {
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Number of keys that were dropped before they expired.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Looks a key up, after dropping expired keys.
    pub fn look_up(&mut self, key: &IdempotencyKey<T>, now: Instant) -> KeyLookup<T> {
        self.expire(now);
        match self.entries.get(&key.id) {
            None => KeyLookup::New,
            Some(entry) if entry.fingerprint != key.fingerprint => KeyLookup::Conflict,
            Some(entry) => KeyLookup::Duplicate(Arc::clone(&entry.outcome)),
        }
    }

    /// The seq of the oldest key: the keys of earlier publishes are forgotten.
    pub fn oldest(&self) -> Option<Seq> {
        self.insertions.front().map(|(_, seq, _)| *seq)
    }

    /// Inserts the key of the publish whose last event is `seq`; evicts the oldest key if the table
    /// is full.
    pub fn insert(&mut self, key: &IdempotencyKey<T>, seq: Seq, now: Instant) {
        if self.entries.len() >= MAX_IDEMPOTENCY_KEYS {
            self.evicted += 1;
            self.drop_oldest();
        }
        let outcome = Arc::clone(&key.outcome);
        self.entries.insert(key.id, KeyEntry { seq, fingerprint: key.fingerprint, outcome });
        self.insertions.push_back((now, seq, key.id));
    }

    /// Drops expired keys.
    pub fn expire(&mut self, now: Instant) {
        while self
            .insertions
            .front()
            .is_some_and(|(at, ..)| now.duration_since(*at) >= IDEMPOTENCY_KEY_TTL)
        {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let Some((_, seq, id)) = self.insertions.pop_front() else { return };
        // A restored log may have the same key twice, if it had expired before the second publish.
        if self.entries.get(&id).is_some_and(|entry| entry.seq == seq) {
            self.entries.remove(&id);
        }
    }
}
