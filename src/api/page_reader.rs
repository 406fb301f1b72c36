//! Reads a page from the log, or takes the one that an equal request has just read.

use std::sync::Arc;
use std::time::Duration;

use super::page::{Lookup, PageKey, RenderedPage};
use super::page_cache::PageCache;
use super::page_memory::PageMemory;
use super::receipt::PublishReceipt;
use super::render::{PollReason, render};
use crate::limits::{PAGE_BYTES, RESPONSE_MEMORY_BYTES};
use crate::log::{Gap, Log, LogSlice, ReadRequest};
use crate::semaphore::{Permit, Semaphore};

/// The log as polls, streams and publishers' deliveries read it.
pub struct PageReader {
    log: Arc<Log<PublishReceipt>>,
    cache: PageCache,
    /// Bytes of all responses in memory; those in the cache are counted as well.
    memory: Semaphore,
}

impl PageReader {
    #[must_use]
    pub fn new(log: Arc<Log<PublishReceipt>>) -> PageReader {
        PageReader {
            log,
            cache: PageCache::default(),
            memory: Semaphore::new(RESPONSE_MEMORY_BYTES),
        }
    }

    /// Reads the page for a key.
    ///
    /// # Errors
    /// The gap, if events after the key's cursor are gone and its policy is to fail.
    // Not inlined: its frame must not stay on the stack while the poll is held.
    #[inline(never)]
    pub fn read(&self, key: &PageKey) -> Result<Lookup, Gap> {
        if let Some(found) = self.cache.get(key, self.log.version()) {
            return Ok(found);
        }
        let request = ReadRequest {
            topics: &key.topics,
            types: &key.types,
            limit: key.limit,
            bytes: PAGE_BYTES,
            on_gap: key.on_gap,
        };
        let slice = self.log.read(&request, key.since)?;
        let version = slice.version;
        let memory = PageMemory::new(&self.memory);
        let found = match (slice.events.is_empty(), &slice.gap) {
            (true, None) => Lookup::Empty(Arc::new(slice)),
            // A gap is reported at once, even if no event follows it yet.
            (true, Some(_)) => {
                let reason = PollReason::Timeout(Duration::ZERO);
                Lookup::Data(render(key, &slice, reason, memory))
            }
            (false, _) => Lookup::Data(render(key, &slice, PollReason::Data, memory)),
        };
        self.cache.insert(key, version, &found);
        Ok(found)
    }

    /// Renders the response of a poll for which there is no event.
    pub fn empty_page(
        &self,
        key: &PageKey,
        slice: &LogSlice,
        reason: PollReason,
    ) -> Arc<RenderedPage> {
        render(key, slice, reason, PageMemory::new(&self.memory))
    }

    /// Counts a response that is not a page among those in memory, while the permit lives.
    #[must_use]
    pub fn count_response(&self, bytes: usize) -> Permit {
        self.memory.acquire_over(bytes)
    }

    /// Bytes of responses in memory.
    #[must_use]
    pub fn response_bytes(&self) -> usize {
        self.memory.in_use()
    }
}
