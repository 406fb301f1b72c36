//! A poll: answer at once if there is an event, or hold the request until there is one, until its
//! deadline, or until the server drains.
//!
//! It promises that every event after the reader's cursor is in the response, whether it was
//! published before the poll arrived, while it was held, or between the two. For the last case the
//! order matters, and [`Poller::hold`] keeps it: register as a waiter, *then* read the log, then
//! wait. A publisher appends *before* it notifies, so either the poll reads the event, or its wait
//! returns at once (see [`crate::waiters`]).
//!
//! The deadline is one instant, computed once in [`Poller::start`]; [`Waiter::wait`] enforces it,
//! however often events of other types wake the poll before: it then waits for what is left of its
//! time, with its cursor moved past them. A publisher may have written the response already: then the
//! poll ends with [`Woken::Answered`], see `deliver.rs`.
//!
//! [`Waiter::wait`]: crate::waiters::Waiter::wait

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::caller::Caller;
use super::event_json::GapMembers;
use super::held_poll::{HeldPoll, HeldPolls, PendingPoll};
use super::page::{Lookup, PageKey, RenderedPage};
use super::page_reader::PageReader;
use super::poll_query::PollQuery;
use super::render::{PollReason, total_lost};
use super::reply::{Outcome, Reply};
use crate::cursor::Since;
use crate::log::{Gap, GapReason, LogSlice};
use crate::metrics::Metrics;
use crate::problem::{Cause, Problem};
use crate::semaphore::{OwnedPermit, Permit, Semaphore};
use crate::shutdown::Shutdown;
use crate::waiters::Woken;

/// Answers and holds polls.
pub struct Poller {
    pub(super) reader: Arc<PageReader>,
    /// Shared with publishers, which answer the polls that wait here.
    pub(super) waiters: Arc<HeldPolls>,
    /// Limits the polls and streams that are held at one time (`--max-polls`).
    pub(super) hold_permits: Semaphore,
    pub(super) metrics: Arc<Metrics>,
    pub(super) shutdown: Shutdown,
    /// Percent by which a wait may be shortened (`--wait-jitter`).
    pub(super) wait_jitter: u32,
}

/// Checks again whether a held poll's token still has the right to read its page.
pub type Recheck<'a> = &'a dyn Fn(&PageKey) -> Result<(), Problem>;

impl Poller {
    /// Answers a poll if there is an event, or if the poll is not to wait.
    ///
    /// # Errors
    /// The gap, if events after the poll's cursor are gone.
    pub fn start(&self, query: PollQuery, caller: &Caller<'_>) -> Result<Outcome, Problem> {
        let PollQuery { mut key, wait } = query;
        key.cors.clone_from(&caller.grant.allowed_origin);
        let slice = match self.reader.read(&key).map_err(|gap| self.refuse_gap(&gap))? {
            Lookup::Data(page) => return Ok(Outcome::Reply(self.reply_with_data(page))),
            Lookup::Empty(slice) => slice,
        };
        let granted_wait = self.grant_wait(wait);
        let reason = if self.shutdown.is_triggered() {
            PollReason::Drain
        } else {
            PollReason::Timeout(granted_wait)
        };
        if granted_wait.is_zero() || reason == PollReason::Drain {
            return Ok(Outcome::Reply(self.reply_empty(&key, &slice, reason)));
        }
        // `now` and `last:N` mean this moment's position, not that of a later read.
        key.since = Since::After(slice.next(0));
        let deadline = Instant::now() + granted_wait;
        Ok(Outcome::Hold(Box::new(PendingPoll { key, granted_wait, deadline })))
    }

    /// Holds a poll until there is an event, or until its deadline.
    ///
    /// # Errors
    /// If too many polls are held, `recheck` refuses, or events after the poll's cursor are gone.
    pub fn hold(
        &self,
        pending: PendingPoll,
        caller: &Caller<'_>,
        recheck: Recheck<'_>,
    ) -> Result<Reply, Problem> {
        let PendingPoll { mut key, granted_wait, deadline } = pending;
        // Dropped when this returns, so before the client can see its response and poll again. Other
        // threads may look at the waiter for longer than that.
        let permit = OwnedPermit::new(self.acquire_hold_permit()?);
        let held = HeldPoll {
            conn: Arc::clone(caller.conn),
            key: key.clone(),
            takes_shared_page: caller.takes_shared_page,
            grant: caller.grant.clone(),
            permit: Some(permit.releaser()),
        };
        // Register before reading the log again, so that no event is missed: see `waiters`.
        let waiter = self.waiters.register(&key.topics, held);
        // Check again after registering: a revocation either is seen here or wakes this waiter.
        recheck(&key)?;
        let mut reason = None;
        loop {
            // The log is read once more after the deadline: an event of the last moment is
            // delivered, and the cursor moves past all events that do not match.
            let slice = match self.reader.read(&key).map_err(|gap| self.refuse_gap(&gap))? {
                Lookup::Data(page) => {
                    if let Some(at) = page.first_at {
                        self.metrics.wake.observe(at.elapsed());
                    }
                    return Ok(self.reply_with_data(page));
                }
                Lookup::Empty(slice) => slice,
            };
            if let Some(reason) = reason {
                return Ok(self.reply_empty(&key, &slice, reason));
            }
            let cursor = slice.next(0);
            key.since = Since::After(cursor);
            reason = match waiter.wait(cursor.seq, deadline) {
                Woken::Notified => None,
                Woken::Deadline => Some(PollReason::Timeout(granted_wait)),
                Woken::Drained => Some(PollReason::Drain),
                Woken::Answered(delivery) => {
                    self.count_data(&delivery.page);
                    return Ok(Reply::Delivered(delivery));
                }
                Woken::Cancelled => {
                    // Either the token was revoked, or the client has hung up.
                    recheck(&key)?;
                    self.metrics.polls_hung_up.add(1);
                    return Ok(Reply::HungUp);
                }
            };
        }
    }

    /// A permit to hold one more poll or stream.
    ///
    /// # Errors
    /// If `--max-polls` are held.
    pub(super) fn acquire_hold_permit(&self) -> Result<Permit, Problem> {
        let permit = self.hold_permits.try_acquire(1).ok_or_else(|| {
            let limit = self.hold_permits.capacity();
            Problem::new(
                Cause::PollCap,
                format!("{limit} polls are held already; poll again later"),
            )
        })?;
        self.metrics.polls_held_peak.raise_to(self.hold_permits.in_use() as u64);
        Ok(permit)
    }

    /// The wait that is granted: up to `--wait-jitter` percent shorter than requested, at random,
    /// so that clients which started together do not return together.
    fn grant_wait(&self, wait: Duration) -> Duration {
        let micros = wait.as_micros() as u64;
        let cut = fastrand::u64(0..=micros / 100 * u64::from(self.wait_jitter));
        Duration::from_micros(micros - cut)
    }

    fn reply_with_data(&self, page: Arc<RenderedPage>) -> Reply {
        self.count_data(&page);
        Reply::Page(page)
    }

    fn count_data(&self, page: &RenderedPage) {
        self.metrics.polls_data.add(1);
        self.count_gap_of(page);
    }

    /// Counts the gap that a page reports, if it does.
    pub(super) fn count_gap_of(&self, page: &RenderedPage) {
        if let Some((why, lost)) = page.gap {
            self.count_gap(why, lost);
        }
    }

    fn reply_empty(&self, key: &PageKey, slice: &LogSlice, reason: PollReason) -> Reply {
        match reason {
            PollReason::Drain => self.metrics.polls_drain.add(1),
            _ => self.metrics.polls_timeout.add(1),
        }
        Reply::Page(self.reader.empty_page(key, slice, reason))
    }

    fn refuse_gap(&self, gap: &Gap) -> Problem {
        self.count_gap(gap.why, total_lost(gap));
        let detail = match gap.why {
            GapReason::Trimmed => {
                "events after this cursor were trimmed; continue from resume, or poll with gap=skip"
            }
            GapReason::Epoch => {
                "this cursor is of another epoch of the log; continue from resume, or poll with gap=skip"
            }
            GapReason::Future => {
                "this cursor is beyond the newest event; continue from resume, or poll with gap=skip"
            }
        };
        let problem =
            Problem::new(Cause::Gap, detail).with_header("Next-Cursor", gap.resume.to_string());
        let members = GapMembers::of(gap).into_iter();
        members.fold(problem, |problem, (name, value)| problem.with_member(name, value))
    }

    fn count_gap(&self, why: GapReason, lost: u64) {
        let metrics = &self.metrics;
        match why {
            GapReason::Trimmed => metrics.gaps_trimmed.add(1),
            GapReason::Epoch => metrics.gaps_epoch.add(1),
            GapReason::Future => metrics.gaps_future.add(1),
        }
        metrics.gap_lost_events.add(lost);
    }
}
