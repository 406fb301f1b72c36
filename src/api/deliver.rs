//! Who writes a held poll's answer: the publisher.
//!
//! Waking a thread costs about twice what a write to a socket costs, so a publish that woke a
//! thousand threads to let each write its answer would take three times as long to reach the last
//! client. Here the publisher renders the answer once, hands it to the sockets, never waiting for
//! one, and then wakes all: they only go on to their next request. A socket that does not take the
//! whole answer at once is left to its own thread, which does wait.

use std::sync::Arc;

use super::page::{Lookup, PageKey, RenderedPage};
use super::{Api, HeldPoll};
use crate::cursor::{Cursor, Since};
use crate::waiters::{ReleasedWaiter, ReleasedWaiters};

/// An answer that was written for a poll, or begun.
pub struct Delivery {
    pub page: Arc<RenderedPage>,
    /// Bytes of it that the socket took.
    pub sent: usize,
}

/// What a poll waits for is in memory that it alone uses and that, with thousands held, no cache has
/// any more. So many are looked at before any of them is written to: then the processor fetches them
/// at once, which it cannot across system calls. It saves 3 to 5 % of the time at 5,000 polls; 128 saved
/// no more.
const LOOK_AHEAD: usize = 32;

impl Api {
    /// Writes the answers of the polls that a publish released; `newest` is its cursor.
    pub(super) fn deliver(
        &self,
        released: &mut ReleasedWaiters<HeldPoll, Delivery>,
        newest: Cursor,
    ) {
        for released in released.by_queue() {
            let mut last = None;
            for released in released.chunks_mut(LOOK_AHEAD) {
                for waiter in &mut *released {
                    drop(waiter.payload.permit.lock().take());
                    let page = self.page_for(waiter, newest, &mut last);
                    waiter.answer = page.map(|page| Delivery { page, sent: 0 });
                }
                for waiter in released {
                    self.send_what_fits(waiter);
                }
            }
        }
    }

    /// What answers a claimed poll, unless its own thread has to say it. `last` is what answered
    /// the one before it.
    fn page_for(
        &self,
        waiter: &ReleasedWaiter<HeldPoll, Delivery>,
        newest: Cursor,
        last: &mut Option<(PageKey, Arc<RenderedPage>)>,
    ) -> Option<Arc<RenderedPage>> {
        let poll = &waiter.payload;
        if !poll.takes_shared_page {
            return None;
        }
        let since = Since::After(Cursor { seq: waiter.after, ..newest });
        // Nearly all who wait at one bell wait for the same page.
        match last {
            Some((key, page)) if key.since == since && key.same_but_since_and_topics(&poll.key) => {
                Some(Arc::clone(page))
            }
            last => {
                let key = PageKey { since, ..poll.key.clone() };
                // What is not plain data is for its own thread to say.
                let Ok(Lookup::Data(page)) = self.look(&key) else { return None };
                *last = Some((key, Arc::clone(&page)));
                Some(page)
            }
        }
    }

    fn send_what_fits(&self, waiter: &mut ReleasedWaiter<HeldPoll, Delivery>) {
        let Some(delivered) = &mut waiter.answer else { return };
        let page = &delivered.page;
        match waiter.payload.conn.send_now(page.bytes()) {
            Ok(sent) => {
                if let Some(at) = page.first_at {
                    self.metrics.wake.observe(at.elapsed());
                }
                delivered.sent = sent;
            }
            // A broken connection is for its own thread to notice.
            Err(_) => waiter.answer = None,
        }
    }
}
