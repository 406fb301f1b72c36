//! The follow loop: poll, return the page, advance the cursor, poll again.
//!
//! The cursor advances only when a response has arrived whole. After any failure the client polls
//! again from the same cursor, so no event is lost and none is delivered twice. The first poll does
//! not wait, so that a relative position such as `now` becomes a cursor at once: sent again after a
//! broken connection, `now` would mean a later moment. A random and growing pause follows each
//! transient failure.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::backoff::Backoff;
use super::error::{Error, RetryCallback};
use super::event::{ReceivedEvent, ReceivedGap, ReceivedPage, is_cursor};
use super::http_client::HttpClient;
use super::url::Url;
use crate::limits::{MAX_PAGE_EVENTS, MIN_POLL_INTERVAL, RESPONSE_TIMEOUT};
use crate::names::{TopicSet, TypeFilter};
use crate::shutdown::Shutdown;
use crate::time::Seconds;

/// The topics to follow, and how to follow them.
#[derive(Clone, Debug)]
pub struct Subscription {
    pub url: Url,
    pub topics: TopicSet,
    /// The event types to receive.
    pub types: TypeFilter,
    /// Where to begin: `start`, `now`, `last:N` or a cursor.
    pub since: String,
    /// How long the server may hold one poll. With zero, [`Follow`] ends at the end of the log.
    pub wait: Duration,
    /// The largest number of events in one page.
    pub limit: usize,
    /// The file with the token, if the server requires one.
    pub token_file: Option<PathBuf>,
    /// Ends every wait when it is triggered.
    pub shutdown: Option<Shutdown>,
}

impl Subscription {
    /// All events of these topics (a comma-separated list), from the oldest retained one.
    ///
    /// # Errors
    /// When the list is invalid; the text says what is expected.
    pub fn new(url: Url, topics: &str) -> Result<Subscription, String> {
        Ok(Subscription {
            url,
            topics: TopicSet::parse(topics)?,
            types: TypeFilter::default(),
            since: "start".into(),
            wait: Duration::from_secs(25),
            limit: MAX_PAGE_EVENTS,
            token_file: None,
            shutdown: None,
        })
    }
}

/// Follows topics. The iterator yields single events; [`Follow::next_page`] returns whole pages.
pub struct Follow {
    http: HttpClient,
    /// Its `since` advances with each page.
    subscription: Subscription,
    shutdown: Shutdown,
    on_retry: RetryCallback,
    backoff: Backoff,
    next_poll_at: Instant,
    /// A second limit on the events of a page. A path that breaks large responses may pass small
    /// ones, so a failure divides it by 4 and a success multiplies it by 4.
    page_cap: usize,
    /// Whether `subscription.since` came from the server, and is not a word such as `now`.
    has_cursor: bool,
    /// Whether the server was draining when it sent the previous page.
    was_drained: bool,
    ended: bool,
    /// For the iterator: the events of a page that it has not yielded yet, and the cursor before
    /// that page.
    pending: VecDeque<ReceivedEvent>,
    pending_since: String,
}

impl Follow {
    /// Prepares a follower; the first call for events connects.
    ///
    /// # Errors
    /// When `since` is invalid, or the token file cannot be read.
    pub fn start(subscription: Subscription) -> Result<Follow, Error> {
        if !is_cursor(&subscription.since) {
            let rule = "expected start, now, last:N or a cursor";
            return Err(Error::Invalid(format!("since {:?}: {rule}", subscription.since)));
        }
        let shutdown = subscription.shutdown.clone();
        let shutdown = shutdown.map_or_else(Shutdown::new, Ok).map_err(Error::System)?;
        // The server answers within the wait. Much later, the response is lost on the way.
        let head_timeout = subscription.wait.saturating_add(RESPONSE_TIMEOUT);
        let token_file = subscription.token_file.clone();
        Ok(Follow {
            http: HttpClient::new(&subscription.url, token_file, head_timeout, shutdown.clone())?,
            pending_since: subscription.since.clone(),
            subscription,
            shutdown,
            on_retry: Box::new(|_, _| {}),
            backoff: Backoff::default(),
            next_poll_at: Instant::now(),
            page_cap: usize::MAX,
            has_cursor: false,
            was_drained: false,
            ended: false,
            pending: VecDeque::new(),
        })
    }

    /// Sets a callback for transient failures; it receives the pause before the next attempt.
    #[must_use]
    pub fn on_retry(mut self, callback: impl FnMut(&Error, Duration) + Send + 'static) -> Follow {
        self.on_retry = Box::new(callback);
        self
    }

    /// The cursor to save once all events returned so far are processed.
    #[must_use]
    pub fn cursor(&self) -> &str {
        if self.pending.is_empty() { &self.subscription.since } else { &self.pending_since }
    }

    /// Sets the largest number of events in the following pages; zero counts as one.
    pub fn set_limit(&mut self, limit: usize) {
        self.subscription.limit = limit;
    }

    /// Waits for the next page. It may have no events, but always has a cursor. Returns `None`
    /// after the shutdown signal and, if `wait` is zero, after the first page without events.
    ///
    /// # Errors
    /// A gap, after which the next call continues, or a permanent failure.
    pub fn next_page(&mut self) -> Result<Option<ReceivedPage>, Error> {
        while !self.ended && !self.shutdown.wait_until(self.next_poll_at) {
            let polled_at = Instant::now();
            let error = match self.poll() {
                Ok(page) => {
                    self.advance(&page, polled_at);
                    return Ok(Some(page));
                }
                Err(error) => error,
            };
            if self.shutdown.is_triggered() {
                break;
            }
            if let Error::Gap(gap) = &error {
                self.continue_after(gap);
            }
            if !error.is_transient() {
                return Err(error);
            }
            self.page_cap = self.page_limit() / 4;
            self.schedule_retry(&error);
        }
        self.ended = true;
        Ok(None)
    }

    fn poll(&mut self) -> Result<ReceivedPage, Error> {
        let target = self.target();
        let response = self.http.get(&target)?;
        let page = match response.status {
            200 if response.is_json => ReceivedPage::parse(response.body),
            200 => None,
            410 => match ReceivedGap::parse(&response.body) {
                Some(gap) => return Err(Error::Gap(gap)),
                None => return Err(response.to_error()),
            },
            _ => return Err(response.to_error()),
        };
        let page = page.ok_or_else(|| self.http.bad_body())?;
        // A server that ignores the limit is another kind of server.
        if page.events.len() > self.page_limit() { Err(self.http.bad_body()) } else { Ok(page) }
    }

    /// The request target of the next poll.
    fn target(&self) -> String {
        let Subscription { topics, types, since, .. } = &self.subscription;
        let wait = if self.has_cursor { self.subscription.wait } else { Duration::ZERO };
        let mut target = format!(
            "/topics/{topics}?since={since}&wait={}&limit={}",
            Seconds(wait),
            self.page_limit()
        );
        if !types.matches_all() {
            // Writing to a String cannot fail.
            let _ = write!(target, "&type={types}");
        }
        target
    }

    /// The number of events to request; at least one.
    fn page_limit(&self) -> usize {
        self.subscription.limit.min(self.page_cap).max(1)
    }

    /// Advances the cursor past a page.
    fn advance(&mut self, page: &ReceivedPage, polled_at: Instant) {
        let was_held = self.has_cursor && !self.subscription.wait.is_zero();
        self.subscription.since.clone_from(&page.next);
        self.has_cursor = true;
        if page.is_drain {
            // The first time, reconnect at once: the next server may be there already. If that one
            // drains too, pause.
            if std::mem::replace(&mut self.was_drained, true) {
                self.schedule_retry(&Error::Draining);
            } else {
                (self.on_retry)(&Error::Draining, Duration::ZERO);
            }
            return;
        }
        self.was_drained = false;
        self.backoff.reset();
        self.page_cap = self.page_cap.max(1).saturating_mul(4);
        if page.events.is_empty() {
            self.ended = self.subscription.wait.is_zero();
            if was_held {
                self.next_poll_at = polled_at + MIN_POLL_INTERVAL;
            }
        }
    }

    fn continue_after(&mut self, gap: &ReceivedGap) {
        // Without a pause, a server that reports only gaps would be polled in a busy loop.
        self.next_poll_at = Instant::now() + self.backoff.next(Duration::ZERO);
        self.subscription.since.clone_from(&gap.resume);
        self.has_cursor = true;
    }

    fn schedule_retry(&mut self, error: &Error) {
        let pause = self.backoff.next(error.retry_after());
        self.next_poll_at = Instant::now() + pause;
        (self.on_retry)(error, pause);
    }
}

impl Iterator for Follow {
    type Item = Result<ReceivedEvent, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.pending.is_empty() {
            self.pending_since.clone_from(&self.subscription.since);
            match self.next_page() {
                Ok(Some(page)) => self.pending.extend(page.events),
                Ok(None) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
        self.pending.pop_front().map(Ok)
    }
}
