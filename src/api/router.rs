//! The api of one server: decides which operation a request asks for, and hands it to the part that
//! performs it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::caller::Caller;
use super::health::{Gauges, health, metrics_response};
use super::held_poll::{Delivery, HeldPoll, HeldPolls, PendingPoll};
use super::log_handle::LogHandle;
use super::operation::Operation;
use super::page_reader::PageReader;
use super::poll::Poller;
use super::publish::EventPublisher;
use super::receipt::PublishReceipt;
use super::reply::{Outcome, Reply};
use super::stream::{StartedStream, StreamQuery, Streams};
use super::topics::list_topics;
use crate::access::{self, Access, Grant, Right, TokenReload};
use crate::config::Config;
use crate::conn::Conn;
use crate::http::{RequestHead, Response};
use crate::log::Log;
use crate::metrics::{Metrics, MetricsText};
use crate::problem::Problem;
use crate::semaphore::{Permit, Semaphore};
use crate::shutdown::Shutdown;
use crate::waiters::{WaiterHandle, cancel_all};

/// The parts that perform operations, and the log that they share.
pub struct Api {
    pub(super) access: Access,
    log: Arc<Log<PublishReceipt>>,
    reader: Arc<PageReader>,
    waiters: Arc<HeldPolls>,
    poller: Poller,
    streams: Streams,
    pub(super) publisher: EventPublisher,
    metrics: Arc<Metrics>,
    /// Open connections. The server acquires the permits; `/metrics` shows them.
    connections: Semaphore,
    /// The longest wait of a poll, and the longest silence of a stream (`--max-wait`).
    max_wait: Duration,
    has_console: bool,
}

/// The operation of a request, and what the client is allowed to do.
pub struct Routed {
    pub operation: Result<Operation, Problem>,
    pub grant: Grant,
}

impl Api {
    #[must_use]
    pub fn new(
        config: &Config,
        access: Access,
        LogHandle { log, writer, fingerprints }: LogHandle,
        connections: Semaphore,
        metrics: Arc<Metrics>,
        shutdown: Shutdown,
    ) -> Api {
        let reader = Arc::new(PageReader::new(Arc::clone(&log)));
        let waiters = Arc::new(HeldPolls::default());
        let poller = Poller {
            reader: Arc::clone(&reader),
            waiters: Arc::clone(&waiters),
            hold_permits: Semaphore::new(config.max_polls()),
            metrics: Arc::clone(&metrics),
            shutdown: shutdown.clone(),
            wait_jitter: config.wait_jitter,
        };
        let publisher = EventPublisher {
            writer,
            fingerprints,
            reader: Arc::clone(&reader),
            waiters: Arc::clone(&waiters),
            metrics: Arc::clone(&metrics),
            shutdown,
            max_event: config.max_event,
            max_topics: config.max_topics,
        };
        Api {
            access,
            log,
            reader,
            waiters,
            poller,
            streams: Streams::new(config.max_wait),
            publisher,
            metrics,
            connections,
            max_wait: config.max_wait,
            has_console: config.console,
        }
    }

    /// Decides which operation a request asks for, and whether its client may have it.
    // Not inlined: its frame must not stay on the stack while a poll is held.
    #[inline(never)]
    #[must_use]
    pub fn route(&self, head: &RequestHead, conn: &Conn) -> Routed {
        let mut grant = Grant::default();
        let operation = self.access.check_origin(head, conn).and_then(|cors| {
            grant.allowed_origin = cors;
            let operation = Operation::parse(head, self.max_wait, self.has_console)?;
            grant.token = self.access.authorize(head, || operation.required_right())?;
            Ok(operation)
        });
        Routed { operation, grant }
    }

    /// Performs an operation. Of a stream it returns the head only, as for a HEAD request;
    /// [`Api::open_stream`] starts one.
    #[must_use]
    pub fn perform(&self, operation: Operation, body: Vec<u8>, caller: &Caller<'_>) -> Outcome {
        let response = match operation {
            Operation::Poll(query) => {
                let outcome = self.poller.start(query, caller);
                return outcome.unwrap_or_else(|problem| Outcome::Reply(Reply::Refused(problem)));
            }
            // The token may have been revoked while the body arrived.
            Operation::Publish(request) => self
                .access
                .recheck(caller.grant, || (Right::Publish, vec![request.pattern()]))
                .and_then(|()| self.publisher.publish(&request, body, caller)),
            Operation::Trim(topic) => self.publisher.trim(&topic),
            Operation::Stream(query) => Ok(query.into_opening()),
            Operation::Topics(query) => Ok(list_topics(&self.log, &self.waiters, &query)),
            Operation::Health => Ok(health(
                self.publisher.writer.storage_status(),
                self.poller.shutdown.is_triggered(),
            )),
            Operation::Metrics => Ok(self.metrics_page()),
            Operation::Options(allowed) => Ok(Response::no_content().with_header("Allow", allowed)),
            Operation::Preflight => Ok(access::preflight_response()),
            Operation::File(request) => Ok(request.response()),
        };
        Outcome::Reply(response.map_or_else(Reply::Refused, Reply::Response))
    }

    /// Holds a poll until there is an event, or until its deadline.
    ///
    /// # Errors
    /// If too many polls are held, the token was just revoked, or events after the poll's cursor are
    /// gone.
    pub fn hold(&self, pending: PendingPoll, caller: &Caller<'_>) -> Result<Reply, Problem> {
        self.poller.hold(pending, caller, &|key| {
            self.access.recheck(caller.grant, || key.required_right())
        })
    }

    /// Starts a stream.
    ///
    /// # Errors
    /// If too many polls or WebSocket connections are open, or the token was just revoked.
    pub fn open_stream(
        &self,
        query: StreamQuery,
        caller: &Caller<'_>,
    ) -> Result<StartedStream<'_>, Problem> {
        self.streams.open(&self.poller, &self.access, query, caller)
    }

    fn metrics_page(&self) -> Response {
        let mut page = MetricsText::default();
        let gauges = Gauges {
            connections: &self.connections,
            held_polls: self.waiters.waiting(),
            max_held_polls: self.poller.hold_permits.capacity(),
            log: self.log.totals(),
            response_bytes: self.reader.response_bytes(),
            tokens: self.access.token_status(),
        };
        gauges.render(&mut page);
        self.metrics.render(&mut page);
        self.publisher.writer.render(&mut page);
        metrics_response(page)
    }

    /// Counts a response that is not a page among those in memory, while the permit lives.
    #[must_use]
    pub fn count_response(&self, bytes: usize) -> Permit {
        self.reader.count_response(bytes)
    }

    /// All polls and streams that are held now.
    #[must_use]
    pub fn held_polls(&self) -> Vec<WaiterHandle<HeldPoll, Delivery>> {
        self.waiters.handles()
    }

    /// Acquires and releases the locks that every request needs. It does not return while one of
    /// them is stuck, which the watchdog then notices.
    pub fn probe_locks(&self) {
        let _ = (self.log.totals(), self.waiters.handles());
    }

    /// Trims the events that have exceeded `--retain-age`.
    pub fn expire(&self) {
        self.publisher.writer.expire(Instant::now());
    }

    /// Closes the store. To be called when all requests are answered; a later publish is refused.
    ///
    /// # Errors
    /// The store did not close in time.
    pub fn close(&self) -> Result<(), String> {
        self.publisher.writer.close()
    }

    /// Reads the token file again if it has changed, and ends the polls and streams whose token has
    /// lost its right.
    #[must_use]
    pub fn refresh_tokens(&self) -> Option<TokenReload> {
        let reload = self.access.reload_tokens()?;
        let lost_right = |handle: &&WaiterHandle<HeldPoll, Delivery>| {
            let held = &handle.payload;
            self.access.recheck(&held.grant, || held.key.required_right()).is_err()
        };
        cancel_all(self.held_polls().iter().filter(lost_right));
        Some(reload)
    }

    /// Answers every held poll, now and from now on. To be called after the shutdown is triggered.
    pub fn drain(&self) {
        self.waiters.drain();
    }

    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }
}
