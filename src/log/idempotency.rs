//! Idempotency keys: what was published under which key, so that a retry is not a second event.
//!
//! A publisher whose answer got lost has to try again, and must not double the event by that. A key
//! is looked up and taken under the log's lock, together with the append: of two tries at the same
//! time one is the first, and the other waits for its outcome. `IdempotencyTable` and contents are remembered as
//! 128-bit fingerprints, so that a key costs the same however long it is; they go after ten
//! minutes, or when there are too many, oldest first.

use std::collections::{HashMap, VecDeque};
use std::hash::Hasher as _;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use siphasher::sip128::{Hasher128 as _, SipHasher24};

use crate::cursor::random_bytes;
use crate::limits::{IDEMPOTENCY_KEY_TTL, MAX_IDEMPOTENCY_KEYS};

/// What a publish was answered with. Empty until that is known; the publisher holds the lock until
/// its answer is complete, so a repeat that locks it waits for that.
///
/// Lock order: the publisher's own outcome before all else. Nobody waits for somebody else's
/// outcome while holding any lock.
pub type SharedOutcome<T> = Arc<Mutex<Option<T>>>;

/// A publish's claim to a key.
pub struct IdempotencyKey<T> {
    /// Identifies key and topic: 128 bits that only who knows the log's secret can compute.
    pub id: u128,
    /// Identifies what is published, likewise.
    pub fingerprint: u128,
    pub outcome: SharedOutcome<T>,
}

impl<T> Clone for IdempotencyKey<T> {
    fn clone(&self) -> IdempotencyKey<T> {
        IdempotencyKey { outcome: Arc::clone(&self.outcome), ..*self }
    }
}

/// Makes the 128-bit identities: `SipHash` with a secret, so that nobody can make two publishes
/// look alike. A store keeps the secret, and so a key means the same after a restart.
#[derive(Clone, Copy)]
pub struct Fingerprinter(pub u128);

impl Fingerprinter {
    /// With a secret of its own.
    ///
    /// # Errors
    /// When the operating system has no random bytes to give.
    pub fn random() -> std::io::Result<Fingerprinter> {
        Ok(Fingerprinter(u128::from_le_bytes(random_bytes()?)))
    }

    /// The identity of these parts in this order.
    #[must_use]
    pub fn of(&self, parts: &[&[u8]]) -> u128 {
        let mut hasher = SipHasher24::new_with_key(&self.0.to_le_bytes());
        for part in parts {
            // The length keeps parts apart.
            hasher.write(&(part.len() as u64).to_le_bytes());
            hasher.write(part);
        }
        hasher.finish128().as_u128()
    }
}

/// What is known of a claim's key.
pub enum KeyLookup<T> {
    /// Nothing: it may be taken.
    New,
    /// The same was published before.
    Duplicate(SharedOutcome<T>),
    /// Something else was published under this key.
    Conflict,
}

/// The keys of the last ten minutes, at most [`MAX_IDEMPOTENCY_KEYS`].
pub struct IdempotencyTable<T> {
    known: HashMap<u128, (u128, SharedOutcome<T>)>,
    /// Oldest first.
    order: VecDeque<(Instant, u128)>,
    evicted: u64,
}

impl<T> Default for IdempotencyTable<T> {
    fn default() -> IdempotencyTable<T> {
        IdempotencyTable { known: HashMap::new(), order: VecDeque::new(), evicted: 0 }
    }
}

impl<T> IdempotencyTable<T> {
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// `IdempotencyTable` that had to go before their time.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Looks a claim's key up.
    pub fn look_up(&mut self, claim: &IdempotencyKey<T>, now: Instant) -> KeyLookup<T> {
        self.expire(now);
        match self.known.get(&claim.id) {
            None => KeyLookup::New,
            Some((print, _)) if *print != claim.fingerprint => KeyLookup::Conflict,
            Some((_, outcome)) => KeyLookup::Duplicate(Arc::clone(outcome)),
        }
    }

    /// Takes a key that is not known.
    pub fn take(&mut self, claim: &IdempotencyKey<T>, now: Instant) {
        if self.known.len() >= MAX_IDEMPOTENCY_KEYS {
            self.evicted += 1;
            self.drop_oldest();
        }
        let entry = (claim.fingerprint, Arc::clone(&claim.outcome));
        self.known.insert(claim.id, entry);
        self.order.push_back((now, claim.id));
    }

    /// Forgets what is older than ten minutes.
    pub fn expire(&mut self, now: Instant) {
        while self
            .order
            .front()
            .is_some_and(|(at, _)| now.duration_since(*at) >= IDEMPOTENCY_KEY_TTL)
        {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some((_, id)) = self.order.pop_front() {
            self.known.remove(&id);
        }
    }
}
