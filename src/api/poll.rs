//! Poll: look at the log; if there is nothing, wait at the bell until there is, or until the
//! deadline; then look again.
//!
//! It promises that what was published after the reader's cursor is in the answer, whenever that
//! was: before the poll came, while it was held, or in between. For the moment in between the order
//! counts, and [`Api::hold`] keeps it: it takes its seat, *then* looks, then waits (see
//! [`crate::waiters`]). The deadline is an instant, computed once: whatever wakes a poll in vain
//! leaves it what is left of its time, and its cursor moved past what it did not want.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::page::{BodyFormat, Lookup, PageKey, PageShape, RenderedPage};
use super::params::{QueryParams, whole};
use super::render::{PollReason, gap_members, lost_in_all, render};
use super::{Api, Caller, HeldPoll, Outcome, Reply};
use crate::access::{RequiredRight, Right};
use crate::cursor::Since;
use crate::http::{HeaderName, RequestHead};
use crate::limits::{DEFAULT_PAGE_EVENTS, MAX_PAGE_EVENTS};
use crate::log::{Gap, GapPolicy, GapReason, LogSlice, ReadRequest};
use crate::names::{TopicSet, TypeFilter};
use crate::problem::{Cause, Problem};
use crate::semaphore::Permit;
use crate::time::parse_seconds;
use crate::waiters::Woken;

const KNOWN: [&str; 6] = ["since", "wait", "limit", "type", "format", "gap"];
const DEFAULT_WAIT: Duration = Duration::from_secs(25);

/// A poll as it was asked for.
#[derive(Debug)]
pub struct PollQuery {
    key: PageKey,
    wait: Duration,
}

impl PollQuery {
    /// Reads a poll's topics, parameters and preferences.
    ///
    /// # Errors
    /// Names what is wrong, and what is allowed.
    pub fn read(
        topics: &str,
        head: &RequestHead,
        max_wait: Duration,
    ) -> Result<PollQuery, Problem> {
        let topics = TopicSet::parse(topics).map_err(Problem::bad_request)?;
        let params = QueryParams::read(head.query(), &KNOWN)?;
        let format = params.parsed("format", BodyFormat::Json, |text| match text {
            "json" => Ok(BodyFormat::Json),
            "ndjson" => Ok(BodyFormat::Ndjson),
            "raw" => Ok(BodyFormat::Raw),
            _ => Err("allowed are json, ndjson and raw".into()),
        })?;
        let limit =
            params.parsed("limit", DEFAULT_PAGE_EVENTS, |text| whole(text, 1, MAX_PAGE_EVENTS))?;
        // The query wins over the header.
        let preferred = match params.get("wait") {
            Some(_) => None,
            // Nothing is honoured of a wait that is not done.
            None if head.is_head_request() => None,
            None => head.get_all(HeaderName::Prefer).find_map(preferred_wait),
        };
        let asked = match preferred {
            Some(seconds) => Duration::from_secs(seconds),
            None => params.parsed("wait", DEFAULT_WAIT, wait)?,
        };
        Ok(PollQuery {
            wait: if head.is_head_request() { Duration::ZERO } else { asked.min(max_wait) },
            key: PageKey {
                topics,
                since: params.parsed("since", Since::Start, since)?,
                types: params.parsed("type", TypeFilter::default(), TypeFilter::parse)?,
                limit: if format == BodyFormat::Raw { 1 } else { limit },
                shape: PageShape::Response(format),
                on_gap: params.parsed("gap", GapPolicy::Fail, |text| match text {
                    "fail" => Ok(GapPolicy::Fail),
                    "skip" => Ok(GapPolicy::Skip),
                    _ => Err("allowed are fail and skip".into()),
                })?,
                preferred,
                cors: None,
            },
        })
    }

    /// The right that it needs.
    pub fn need(&self) -> RequiredRight {
        self.key.need()
    }
}

impl PageKey {
    /// The right that a poll for this page needs.
    pub fn need(&self) -> RequiredRight {
        (Right::Read, self.topics.patterns().to_vec())
    }
}

/// Where a reader begins.
pub(super) fn since(text: &str) -> Result<Since, String> {
    let last = text.strip_prefix("last:");
    match text {
        "start" => Ok(Since::Start),
        "now" => Ok(Since::Now),
        _ if last.is_some_and(|n| !n.is_empty()) => {
            let n = last.unwrap_or_default();
            let digits = n.bytes().all(|b| b.is_ascii_digit());
            let number = if digits { n.parse().ok() } else { None };
            number.map(Since::Last).ok_or_else(|| "allowed is last: and a whole number".into())
        }
        _ => text.parse().map(Since::After).map_err(|_| {
            "allowed are a cursor that this server gave out, start, now and last:N".into()
        }),
    }
}

fn wait(text: &str) -> Result<Duration, String> {
    let allowed = "allowed is a number of seconds, not negative, such as 25 or 0.5";
    // What is too long for a Duration is clamped like everything above --max-wait.
    parse_seconds(text).ok_or_else(|| allowed.into())
}

/// The wait that a `Prefer` header asks for (RFC 7240, section 4.3), if it does.
fn preferred_wait(value: &str) -> Option<u64> {
    value.split(',').find_map(|preference| {
        let (name, value) = preference.split(';').next()?.split_once('=')?;
        let seconds = value.trim().trim_matches('"');
        let digits = !seconds.is_empty() && seconds.bytes().all(|b| b.is_ascii_digit());
        let is_wait = name.trim().eq_ignore_ascii_case("wait") && digits;
        is_wait.then(|| seconds.parse().unwrap_or(u64::MAX))
    })
}

/// A poll that nothing answers yet.
pub struct PendingPoll {
    key: PageKey,
    granted: Duration,
    deadline: Instant,
}

impl Api {
    /// Answers a poll if there is something to say, or it is not to wait.
    pub(super) fn poll(&self, query: PollQuery, caller: &Caller<'_>) -> Result<Outcome, Problem> {
        let PollQuery { mut key, wait } = query;
        key.cors.clone_from(&caller.grant.allowed_origin);
        let nothing = match self.look(&key).map_err(|gap| self.refuse_gap(&gap))? {
            Lookup::Data(page) => return Ok(Outcome::Reply(self.data(page))),
            Lookup::Nothing(slice) => slice,
        };
        let granted = self.granted(wait);
        let reason = if self.shutdown.is_triggered() {
            PollReason::Drain
        } else {
            PollReason::Timeout(granted)
        };
        if granted.is_zero() || reason == PollReason::Drain {
            return Ok(Outcome::Reply(self.empty(&key, &nothing, reason)));
        }
        // From here on its position is fixed, whatever word it was asked for by.
        key.since = Since::After(nothing.next(0));
        let deadline = Instant::now() + granted;
        Ok(Outcome::Hold(Box::new(PendingPoll { key, granted, deadline })))
    }

    /// Holds a poll until there is something to say, or its time is over.
    ///
    /// # Errors
    /// When there is no place for it, its token has just been taken back, or events that it wants
    /// are gone.
    pub fn hold(&self, held: PendingPoll, caller: &Caller<'_>) -> Result<Reply, Problem> {
        let PendingPoll { mut key, granted, deadline } = held;
        let permit = self.may_hold()?;
        let waiter = HeldPoll {
            conn: Arc::clone(caller.conn),
            key: key.clone(),
            takes_shared_page: caller.takes_shared_page,
            grant: caller.grant.clone(),
            permit: Mutex::new(Some(permit)),
        };
        // The seat is taken before the log is looked at again: see `bell`.
        let waiter = self.waiters.register(&key.topics, waiter);
        // Nor can a token be taken back unseen: either this finds out, or it is found sitting.
        self.access.recheck(caller.grant, || key.need())?;
        let mut reason = None;
        loop {
            // Also once more after the deadline: what came meanwhile does not wait for the next
            // poll, and the cursor moves past everything that is of no interest here.
            let nothing = match self.look(&key).map_err(|gap| self.refuse_gap(&gap))? {
                Lookup::Data(page) => {
                    if let Some(at) = page.first_at {
                        self.metrics.wake.observe(at.elapsed());
                    }
                    return Ok(self.data(page));
                }
                Lookup::Nothing(slice) => slice,
            };
            if let Some(reason) = reason {
                return Ok(self.empty(&key, &nothing, reason));
            }
            let cursor = nothing.next(0);
            key.since = Since::After(cursor);
            reason = match waiter.wait(cursor.seq, deadline) {
                Woken::Notified => None,
                Woken::Deadline => Some(PollReason::Timeout(granted)),
                Woken::Drained => Some(PollReason::Drain),
                Woken::Answered(delivered) => {
                    self.count_data(&delivered.page);
                    return Ok(Reply::Delivered(delivered));
                }
                Woken::Cancelled => {
                    // Its token was taken back, or its client has gone.
                    self.access.recheck(caller.grant, || key.need())?;
                    self.metrics.polls_hung_up.add(1);
                    return Ok(Reply::HungUp);
                }
            };
        }
    }

    /// A place among the held polls.
    pub(super) fn may_hold(&self) -> Result<Permit, Problem> {
        let permit = self.held.try_acquire(1).ok_or_else(|| {
            let most = self.held.capacity();
            Problem::new(Cause::PollCap, format!("{most} polls are held already; poll again later"))
        })?;
        self.metrics.polls_held_peak.raise_to(self.held.in_use() as u64);
        Ok(permit)
    }

    /// The wait that is really granted: a little shorter than asked, at random, so that clients
    /// that started together do not return together.
    fn granted(&self, wait: Duration) -> Duration {
        let micros = wait.as_micros() as u64;
        let cut = fastrand::u64(0..=micros / 100 * u64::from(self.wait_jitter));
        Duration::from_micros(micros - cut)
    }

    /// Looks at the log, or at what an equal poll has found there.
    // Not inlined: its stack is to be gone while the poll is held.
    #[inline(never)]
    pub(super) fn look(&self, key: &PageKey) -> Result<Lookup, Gap> {
        if let Some(found) = self.pages.get(key, self.log.version()) {
            return Ok(found);
        }
        // Taken before the log is read, so that all pages together stay within it.
        let room = self.pages.room_for_one();
        let ask = ReadRequest {
            topics: &key.topics,
            types: &key.types,
            limit: key.limit,
            bytes: room.size().max(1),
            on_gap: key.on_gap,
        };
        let slice = self.log.read(&ask, key.since)?;
        let version = slice.version;
        let found = match (slice.events.is_empty(), &slice.gap) {
            (true, None) => Lookup::Nothing(Arc::new(slice)),
            // A gap is told at once, also when nothing has come after it.
            (true, Some(_)) => {
                let reason = PollReason::Timeout(Duration::ZERO);
                Lookup::Data(render(key, &slice, reason, room))
            }
            (false, _) => Lookup::Data(render(key, &slice, PollReason::Data, room)),
        };
        self.pages.keep(key, version, &found);
        Ok(found)
    }

    fn data(&self, page: Arc<RenderedPage>) -> Reply {
        self.count_data(&page);
        Reply::Page(page)
    }

    fn count_data(&self, page: &RenderedPage) {
        self.metrics.polls_data.add(1);
        self.count_told_gap(page);
    }

    pub(super) fn count_told_gap(&self, page: &RenderedPage) {
        if let Some((why, lost)) = page.gap {
            self.count_gap(why, lost);
        }
    }

    fn empty(&self, key: &PageKey, nothing: &LogSlice, reason: PollReason) -> Reply {
        match reason {
            PollReason::Drain => self.metrics.polls_drain.add(1),
            _ => self.metrics.polls_timeout.add(1),
        }
        Reply::Page(render(key, nothing, reason, self.pages.count(0)))
    }

    fn refuse_gap(&self, gap: &Gap) -> Problem {
        self.count_gap(gap.why, lost_in_all(gap));
        let detail = match gap.why {
            GapReason::Trimmed => {
                "events after this cursor were trimmed; go on from resume, or ask with gap=skip"
            }
            GapReason::Epoch => {
                "this cursor belongs to another life of the log; go on from resume, or ask with gap=skip"
            }
            GapReason::Future => {
                "this cursor is beyond the newest event; go on from resume, or ask with gap=skip"
            }
        };
        let problem =
            Problem::new(Cause::Gap, detail).with_header("Next-Cursor", gap.resume.to_string());
        let members = gap_members(gap).into_iter();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preferences_are_read_as_the_contract_says() {
        assert_eq!(preferred_wait("respond-async, WAIT = \"7\"; x=y"), Some(7));
        assert_eq!(preferred_wait("wait"), None);
        assert_eq!(preferred_wait("wait=-1"), None);
    }

    #[test]
    fn since_takes_four_forms_and_no_other() {
        assert_eq!(since("start"), Ok(Since::Start));
        assert_eq!(since("now"), Ok(Since::Now));
        assert_eq!(since("last:0"), Ok(Since::Last(0)));
        for text in ["", "last:", "last:-1", "last:x", "Start", "12", "2026-01-01T00:00:00Z"] {
            assert!(since(text).is_err(), "{text}");
        }
    }
}
