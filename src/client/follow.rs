//! Follow: ask, take the answer, move the cursor, ask again.
//!
//! The order is the promise: the cursor moves when an answer is there whole, and not before; so
//! whatever breaks in between is asked for again, and nothing is lost or comes twice. The first
//! poll does not wait, so that a word such as `now` is a cursor from then on: asked for a second
//! time, after a broken connection, it would mean another moment. Every failure that may pass is
//! followed by a pause, random and growing.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::backoff::Backoff;
use super::event::{Event, Page, is_cursor};
use super::exchange::Asker;
use super::trouble::{Error, Gap, OnTrouble};
use super::url::Url;
use crate::limits::{MAX_PAGE_EVENTS, MIN_POLL_INTERVAL, RESPONSE_TIMEOUT};
use crate::names::{TopicSet, TypeFilter};
use crate::shutdown::Shutdown;
use crate::time::Seconds;

/// What to follow, and how.
#[derive(Clone, Debug)]
pub struct Subscription {
    pub url: Url,
    pub topics: TopicSet,
    /// The event types that are wanted.
    pub types: TypeFilter,
    /// Where to begin: `start`, `now`, `last:N` or a cursor.
    pub since: String,
    /// How long the server may hold one poll. With none, [`Follow`] ends when it has caught up.
    pub wait: Duration,
    /// Events in one answer, at most.
    pub limit: usize,
    /// Where the token is, if the server wants one.
    pub token_file: Option<PathBuf>,
    /// Ends every wait when it is given.
    pub stop: Option<Shutdown>,
}

impl Subscription {
    /// Everything of these topics (a comma-separated list), from the oldest event that is kept.
    ///
    /// # Errors
    /// Says what is wrong with the list, and what is allowed.
    pub fn new(url: Url, topics: &str) -> Result<Subscription, String> {
        Ok(Subscription {
            url,
            topics: TopicSet::parse(topics)?,
            types: TypeFilter::default(),
            since: "start".into(),
            wait: Duration::from_secs(25),
            limit: MAX_PAGE_EVENTS,
            token_file: None,
            stop: None,
        })
    }
}

/// A reader. As an iterator it gives events; [`Follow::page`] gives whole answers.
pub struct Follow {
    asker: Asker,
    wanted: Subscription,
    stop: Shutdown,
    on_trouble: OnTrouble,
    backoff: Backoff,
    next_at: Instant,
    /// Halvings of the page that is asked for: two more at a failure, because what breaks large
    /// answers may let small ones through, and two less at a success.
    halvings: u32,
    /// Whether `wanted.since` is a cursor by now.
    pinned: bool,
    /// Whether the last answer was given because the server is shutting down.
    drained: bool,
    /// Whether nothing more is to come.
    ended: bool,
    /// For the iterator: what it has not given out yet, and the cursor before that.
    rest: VecDeque<Event>,
    before: String,
}

impl Follow {
    /// A reader that has not asked yet.
    ///
    /// # Errors
    /// When `since` cannot be one, or the token cannot be read.
    pub fn start(wanted: Subscription) -> Result<Follow, Error> {
        if !is_cursor(&wanted.since) {
            let allowed = "allowed is start, now, last:N or a cursor";
            return Err(Error::Invalid(format!("since {:?}: {allowed}", wanted.since)));
        }
        let stop = wanted.stop.clone().map_or_else(Shutdown::new, Ok).map_err(Error::System)?;
        // The server answers within the wait: whatever takes longer has got lost on the way.
        let patience = wanted.wait.saturating_add(RESPONSE_TIMEOUT);
        Ok(Follow {
            asker: Asker::new(&wanted.url, wanted.token_file.clone(), patience, stop.clone())?,
            before: wanted.since.clone(),
            halvings: 0,
            wanted,
            stop,
            on_trouble: Box::new(|_, _| {}),
            backoff: Backoff::default(),
            next_at: Instant::now(),
            pinned: false,
            drained: false,
            ended: false,
            rest: VecDeque::new(),
        })
    }

    /// Tells of failures that may pass, each with the pause before the next try.
    #[must_use]
    pub fn on_trouble(mut self, tell: impl FnMut(&Error, Duration) + Send + 'static) -> Follow {
        self.on_trouble = Box::new(tell);
        self
    }

    /// The cursor to keep once everything that was given out so far is dealt with.
    #[must_use]
    pub fn cursor(&self) -> &str {
        if self.rest.is_empty() { &self.wanted.since } else { &self.before }
    }

    /// Takes at most so many events (one at least) at a time from now on.
    pub fn set_limit(&mut self, limit: usize) {
        self.wanted.limit = limit;
    }

    /// The next answer, which may have no event but always has a cursor; nothing when told to stop
    /// and, without a wait, after the first answer that has no event.
    ///
    /// # Errors
    /// A gap, after which the next call goes on behind it; or what will not pass by itself.
    pub fn page(&mut self) -> Result<Option<Page>, Error> {
        while !self.ended && !self.stop.wait_until(self.next_at) {
            let asked = Instant::now();
            let error = match self.poll() {
                Ok(page) => {
                    self.take(&page, asked);
                    return Ok(Some(page));
                }
                Err(error) => error,
            };
            if self.stop.is_triggered() {
                break;
            }
            if let Error::Gap(gap) = &error {
                self.go_on_behind(gap);
                return Err(error);
            }
            if !error.may_pass() {
                return Err(error);
            }
            // By 2^10 any page is down to one event.
            self.halvings = (self.halvings + 2).min(10);
            self.try_again(&error);
        }
        self.ended = true;
        Ok(None)
    }

    fn poll(&mut self) -> Result<Page, Error> {
        let wanted = &self.wanted;
        // The first poll does not wait, so that the place to begin is a cursor from then on:
        // asking for `now` a second time, after a broken connection, would skip what came between.
        let wait = if self.pinned { wanted.wait } else { Duration::ZERO };
        let mut target = format!(
            "/topics/{}?since={}&wait={}&limit={}",
            wanted.topics,
            wanted.since,
            Seconds(wait),
            (wanted.limit >> self.halvings).max(1)
        );
        if !wanted.types.matches_all() {
            // Writing to a String cannot fail.
            let _ = write!(target, "&type={}", wanted.types);
        }
        let answer = self.asker.get(&target)?;
        match answer.status {
            200 if answer.is_json => Page::parse(answer.body),
            200 => None,
            410 => match Gap::parse(&answer.body) {
                Some(gap) => return Err(Error::Gap(gap)),
                None => return Err(answer.refusal()),
            },
            _ => return Err(answer.refusal()),
        }
        .ok_or_else(|| {
            let url = &wanted.url;
            Error::Foreign(format!("{url} answers, but not as a longpoll server does"))
        })
    }

    /// Moves on to what comes after this page.
    fn take(&mut self, page: &Page, asked: Instant) {
        let waited = self.pinned && !self.wanted.wait.is_zero();
        self.wanted.since.clone_from(&page.next);
        self.pinned = true;
        if page.is_drain {
            // At once, since another server may be there already; but if it is the same one, or
            // one that drains as well, with a pause.
            if std::mem::replace(&mut self.drained, true) {
                self.try_again(&Error::Draining);
            } else {
                (self.on_trouble)(&Error::Draining, Duration::ZERO);
            }
            return;
        }
        self.drained = false;
        self.backoff.reset();
        self.halvings = self.halvings.saturating_sub(2);
        if page.events.is_empty() {
            self.ended = self.wanted.wait.is_zero();
            if waited {
                self.next_at = asked + MIN_POLL_INTERVAL;
            }
        }
    }

    fn go_on_behind(&mut self, gap: &Gap) {
        // Without a pause, a server that knows nothing but gaps would be asked without end.
        self.next_at = Instant::now() + self.backoff.next(Duration::ZERO);
        self.wanted.since.clone_from(&gap.resume);
        self.pinned = true;
    }

    fn try_again(&mut self, error: &Error) {
        let pause = self.backoff.next(error.retry_after());
        self.next_at = Instant::now() + pause;
        (self.on_trouble)(error, pause);
    }
}

impl Iterator for Follow {
    type Item = Result<Event, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.rest.is_empty() {
            self.before.clone_from(&self.wanted.since);
            match self.page() {
                Ok(Some(page)) => self.rest.extend(page.events),
                Ok(None) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
        self.rest.pop_front().map(Ok)
    }
}
