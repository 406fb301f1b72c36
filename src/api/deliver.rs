//! The publisher's thread writes the responses of the held polls that it releases.
//!
//! It promises that a publish writes to each of them at most once, never waits for a client, and
//! then wakes every poll's thread, which finds its response written and goes on to its next request.
//! The reason is speed. Waking a thread costs about twice what a write to a socket costs. If each
//! thread were woken to write its own response, the last client would have it after the wake-up and
//! the write of every poll, which takes three times as long as the writes alone. The publisher
//! renders a page once and shares its bytes. If a socket does not take the whole page at once, the
//! poll's own thread writes the rest and waits for the client.

use std::sync::Arc;

use super::held_poll::{Delivery, HeldPoll};
use super::page::{Lookup, PageKey, RenderedPage};
use super::page_reader::PageReader;
use crate::cursor::{Cursor, Since};
use crate::metrics::Metrics;
use crate::semaphore::PermitReleaser;
use crate::waiters::{ReleasedWaiter, ReleasedWaiters};

/// How many polls are prepared before the first of them is written to. With thousands held, a
/// poll's own data is in no processor cache any more; reading the data of several polls in a row
/// lets the processor fetch it at once, which it cannot do across system calls. This saves 3 to 5 %
/// of the time at 5,000 polls; 128 saved no more.
const PREPARED_AT_ONCE: usize = 32;

/// Writes the responses of the polls that a publish released; `newest` is its cursor.
pub fn deliver(
    reader: &PageReader,
    metrics: &Metrics,
    released: &mut ReleasedWaiters<HeldPoll, Delivery>,
    newest: Cursor,
) {
    for waiters in released.by_queue() {
        let mut last_page = None;
        for waiters in waiters.chunks_mut(PREPARED_AT_ONCE) {
            for waiter in &mut *waiters {
                waiter.payload.permit.iter().for_each(PermitReleaser::release);
                let page = page_for(reader, waiter, newest, &mut last_page);
                waiter.delivery = page.map(|page| Delivery { page, sent: 0 });
            }
            for waiter in waiters {
                write_without_blocking(metrics, waiter);
            }
        }
    }
}

/// The page that answers a released poll, unless the poll's own thread has to answer. `last_page`
/// is the page of the poll before it.
fn page_for(
    reader: &PageReader,
    waiter: &ReleasedWaiter<HeldPoll, Delivery>,
    newest: Cursor,
    last_page: &mut Option<(PageKey, Arc<RenderedPage>)>,
) -> Option<Arc<RenderedPage>> {
    let poll = &waiter.payload;
    if !poll.takes_shared_page {
        return None;
    }
    let since = Since::After(Cursor { seq: waiter.after, ..newest });
    // The polls of one wait queue have the same topics, and nearly all wait for the same page.
    match last_page {
        Some((key, page)) if key.since == since && key.same_but_since_and_topics(&poll.key) => {
            Some(Arc::clone(page))
        }
        last_page => {
            let key = PageKey { since, ..poll.key.clone() };
            // A gap is a refusal, which the poll's own thread writes and counts.
            let Ok(Lookup::Data(page)) = reader.read(&key) else { return None };
            *last_page = Some((key, Arc::clone(&page)));
            Some(page)
        }
    }
}

/// Writes as much of a poll's page as its socket takes.
fn write_without_blocking(metrics: &Metrics, waiter: &mut ReleasedWaiter<HeldPoll, Delivery>) {
    let Some(delivery) = &mut waiter.delivery else { return };
    let page = &delivery.page;
    match waiter.payload.conn.send_now(page.bytes()) {
        Ok(sent) => {
            if let Some(at) = page.first_at {
                metrics.wake.observe(at.elapsed());
            }
            delivery.sent = sent;
        }
        // The poll's own thread finds the broken connection and ends it.
        Err(_) => waiter.delivery = None,
    }
}
