//! Who writes a held poll's answer: the publisher.
//!
//! Waking a thread costs about twice what a write to a socket costs, so a publish that woke a
//! thousand threads to let each write its answer would take three times as long to reach the last
//! client. Here the publisher renders the answer once, hands it to the sockets, never waiting for
//! one, and then wakes all: they only go on to their next request. A socket that does not take the
//! whole answer at once is left to its own thread, which does wait.

use std::sync::Arc;

use super::page::{Found, Page, PageKey};
use super::{Api, Waiter};
use crate::bell::{Claim, Claims};
use crate::cursor::{Cursor, Since};

/// An answer that was written for a poll, or begun.
pub struct Delivered {
    pub page: Arc<Page>,
    /// Bytes of it that the socket took.
    pub sent: usize,
}

impl Api {
    /// Writes the answers of the polls that a publish released; `newest` is its cursor.
    pub(super) fn deliver(&self, claims: &mut Claims<Waiter, Delivered>, newest: Cursor) {
        for claims in claims.by_bell() {
            self.deliver_at_one_bell(claims, newest);
        }
    }

    fn deliver_at_one_bell(&self, claims: &mut [Claim<Waiter, Delivered>], newest: Cursor) {
        let mut last: Option<(PageKey, Arc<Page>)> = None;
        for claim in claims {
            drop(claim.waiter.permit.lock().take());
            if !claim.waiter.takes_shared_page {
                continue;
            }
            let since = Since::After(Cursor { seq: claim.past, ..newest });
            // Nearly all who wait at one bell wait for the same page.
            let same = last.as_ref().filter(|(key, _)| {
                key.since == since && key.same_but_since_and_topics(&claim.waiter.key)
            });
            let page = if let Some((_, page)) = same {
                Arc::clone(page)
            } else {
                let key = PageKey { since, ..claim.waiter.key.clone() };
                // What is not plain data is for its own thread to say.
                let Ok(Found::Data(page)) = self.look(&key) else { continue };
                last = Some((key, Arc::clone(&page)));
                page
            };
            // A broken connection is for its own thread to notice.
            let Ok(sent) = claim.waiter.line.send_now(page.bytes()) else { continue };
            if let Some(at) = page.first_at {
                self.metrics.wake.observe(at.elapsed());
            }
            claim.left = Some(Delivered { page, sent });
        }
    }
}
