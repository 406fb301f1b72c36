//! The wire contract: which request means what, and one file for each verb.
//!
//! A request is decided in two steps. [`Api::route`] reads everything but the body, so that a
//! client who asks for the impossible is told before it sends any. [`Api::perform`] does it, but
//! for a poll that nothing answers yet: [`Api::hold`] waits for what does.

mod deliver;
mod health;
mod page;
mod params;
mod poll;
mod publish;
mod render;
#[cfg_attr(not(feature = "store"), path = "unstored.rs")]
mod stored;
#[cfg(feature = "websocket")]
pub mod websocket;
#[cfg(feature = "streams")]
mod sse;
#[cfg(feature = "streams")]
mod stream;
mod operation;
mod topics;
mod transport;
mod web;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::access::{self, Access, Grant, Right, TokenReload};
use crate::config::Config;
use crate::conn::Conn;
use crate::cursor::Epoch;
use crate::http::{RequestHead, Response};
use crate::log::{Fingerprinter, Log, LogWriter, Retention};
use crate::logger::Logger;
use crate::metrics::Metrics;
use crate::problem::Problem;
use crate::semaphore::{Permit, Semaphore};
use crate::shutdown::Shutdown;
use crate::waiters::{WaiterHandle, Waiters};
pub use deliver::Delivery;
pub use operation::Operation;
pub use page::RenderedPage;
use page::{PageCache, PageKey};
pub use poll::PendingPoll;
use publish::PublishReceipt;
pub use stored::{inspect, repair};
#[cfg(feature = "streams")]
pub use stream::{EventStream, StartedStream, StreamPart, StreamQuery};

/// A log, and the way to change it.
pub struct LogHandle {
    log: Arc<Log<PublishReceipt>>,
    writer: Arc<dyn LogWriter<PublishReceipt>>,
    fingerprints: Fingerprinter,
}

/// Everything that requests are answered from.
pub struct Api {
    access: Access,
    log: Arc<Log<PublishReceipt>>,
    writer: Arc<dyn LogWriter<PublishReceipt>>,
    waiters: Waiters<HeldPoll, Delivery>,
    pages: PageCache,
    metrics: Arc<Metrics>,
    fingerprints: Fingerprinter,
    shutdown: Shutdown,
    /// Polls that may be held.
    held: Semaphore,
    /// `WebSocket`s that may be open.
    #[cfg(feature = "websocket")]
    sockets: Semaphore,
    /// Connections that may be open; the door takes them, here they are shown.
    connections: Semaphore,
    max_wait: Duration,
    wait_jitter: u32,
    max_event: usize,
    max_topics: usize,
    console: bool,
}

/// What a held poll leaves with its seat.
pub struct HeldPoll {
    /// Who is to be answered.
    pub conn: Arc<Conn>,
    /// What it waits for.
    key: PageKey,
    takes_shared_page: bool,
    grant: Grant,
    /// Its permit among the held polls; given up by whoever answers it, before that is seen. A
    /// stream, which is held on, keeps its own.
    permit: Mutex<Option<Permit>>,
}

/// Who asks.
pub struct Caller<'a> {
    pub conn: &'a Arc<Conn>,
    /// Whether a page can go out as it is shared; not when it has to say that the connection
    /// closes.
    pub takes_shared_page: bool,
    pub grant: &'a Grant,
}

/// What a request was found to ask for, and as whom.
pub struct Routed {
    pub operation: Result<Operation, Problem>,
    pub grant: Grant,
}

/// What came of a task.
pub enum Outcome {
    Reply(Reply),
    /// Nothing yet: it is to be [held](Api::hold), once all is let go of that this does not need.
    Hold(Box<PendingPoll>),
}

/// What comes back.
pub enum Reply {
    Response(Response),
    Page(Arc<RenderedPage>),
    Refused(Problem),
    /// A page that was written already, or begun.
    Delivered(Delivery),
    /// The client has hung up.
    HungUp,
}

impl LogHandle {
    /// An empty log, or the one that `--data` has.
    ///
    /// # Errors
    /// When the store cannot be used; the text says why.
    pub fn open(config: &Config, metrics: &Arc<Metrics>, logger: &Logger) -> io::Result<LogHandle> {
        match &config.data {
            Some(directory) => stored::open(directory, config, metrics, logger),
            None => LogHandle::in_memory(config, Epoch::random()?),
        }
    }

    /// An empty log, and nothing but memory.
    ///
    /// # Errors
    /// When the operating system has no random bytes to give.
    pub fn in_memory(config: &Config, epoch: Epoch) -> io::Result<LogHandle> {
        let log = Arc::new(Log::new(epoch, retention(config)));
        Ok(LogHandle { writer: Arc::clone(&log) as _, log, fingerprints: Fingerprinter::random()? })
    }
}

fn retention(config: &Config) -> Retention {
    Retention {
        events: config.retain_events,
        age: config.retain_age,
        bytes: config.retain_bytes,
        topics: config.max_topics,
    }
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
        Api {
            access,
            log,
            writer,
            waiters: Waiters::default(),
            pages: PageCache::default(),
            metrics,
            fingerprints,
            shutdown,
            held: Semaphore::new(config.max_polls()),
            #[cfg(feature = "websocket")]
            sockets: Semaphore::new(crate::limits::MAX_WEBSOCKETS),
            connections,
            max_wait: config.max_wait,
            wait_jitter: config.wait_jitter,
            max_event: config.max_event,
            max_topics: config.max_topics,
            console: config.console,
        }
    }

    /// Decides what a request asks for, and whether it may.
    // Not inlined: its stack is to be gone while a poll is held.
    #[inline(never)]
    #[must_use]
    pub fn route(&self, head: &RequestHead, conn: &Conn) -> Routed {
        let mut grant = Grant::default();
        let operation = self.access.check_origin(head, conn).and_then(|cors| {
            grant.allowed_origin = cors;
            let operation = self.operation(head)?;
            grant.token = self.access.authorize(head, || operation.need())?;
            Ok(operation)
        });
        Routed { operation, grant }
    }

    /// Does what was asked. Streams are begun apart; of those, this gives the head.
    #[must_use]
    pub fn perform(&self, operation: Operation, body: Vec<u8>, caller: &Caller<'_>) -> Outcome {
        let done = match operation {
            // Its token may have been taken back while the body arrived.
            Operation::Publish(ask) => self
                .access
                .recheck(caller.grant, || (Right::Publish, vec![ask.pattern()]))
                .and_then(|()| self.publish(&ask, body, caller)),
            Operation::Poll(query) => match self.poll(query, caller) {
                Ok(performed) => return performed,
                Err(problem) => Err(problem),
            },
            Operation::Trim(topic) => self
                .writer
                .trim(&topic)
                .map(|()| Reply::Response(Response::no_content()))
                .map_err(|refusal| self.refuse_publish(&refusal)),
            #[cfg(feature = "streams")]
            Operation::Stream(query) => Ok(Reply::Response(query.opening)),
            Operation::Topics(query) => Ok(self.list_topics(&query)),
            Operation::Health => Ok(self.health()),
            Operation::Metrics => Ok(self.metrics_page()),
            Operation::Options(allowed) => {
                Ok(Reply::Response(Response::no_content().with_header("Allow", allowed)))
            }
            Operation::Preflight => Ok(Reply::Response(access::preflight_response())),
            Operation::File(ask) => Ok(ask.reply()),
        };
        Outcome::Reply(done.unwrap_or_else(Reply::Refused))
    }

    /// Counts an answer that is no page among those in flight.
    #[must_use]
    pub fn count_answer(&self, bytes: usize) -> Permit {
        self.pages.count(bytes)
    }

    /// The polls that are held now.
    #[must_use]
    pub fn held_polls(&self) -> Vec<WaiterHandle<HeldPoll, Delivery>> {
        self.waiters.handles()
    }

    /// Takes the locks that every request needs, and gives them back.
    pub fn pass_locks(&self) {
        let _ = (self.log.totals(), self.waiters.handles());
    }

    /// Lets go of what is too old.
    pub fn expire(&self) {
        self.writer.expire(Instant::now());
    }

    /// Ends the store in order. To be called when nothing is being answered any more.
    pub fn close(&self) {
        self.writer.close();
    }

    /// Reads the tokens again if their file has changed. Polls that are held by a token which may
    /// not do so any more end.
    #[must_use]
    pub fn refresh_tokens(&self) -> Option<TokenReload> {
        let changed = self.access.reload_tokens()?;
        for handle in self.held_polls() {
            let poll = &handle.payload;
            if self.access.recheck(&poll.grant, || poll.key.need()).is_err() {
                handle.cancel();
            }
        }
        Some(changed)
    }

    /// Answers every held poll, now and from now on. To be called after the shutdown is given.
    pub fn drain(&self) {
        self.waiters.drain();
    }

    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }
}
