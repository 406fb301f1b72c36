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
pub mod socket;
#[cfg(feature = "streams")]
mod sse;
#[cfg(feature = "streams")]
mod stream;
mod task;
mod topics;
mod wants;
mod web;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::access::{self, Access, Changed, Grant, Right};
use crate::bell::{Room, SeatRef};
use crate::config::Config;
use crate::cursor::Epoch;
use crate::diag::Diag;
use crate::error::Problem;
use crate::http::{Answer, Head};
use crate::line::Line;
use crate::log::{Fingerprints, Ledger, Log, Retention};
use crate::metrics::Metrics;
use crate::permits::{Permit, Permits};
use crate::shutdown::Shutdown;
pub use deliver::Delivered;
pub use page::Page;
use page::{PageKey, Pages};
pub use poll::Held;
use publish::Published;
pub use stored::{inspect, repair};
#[cfg(feature = "streams")]
pub use stream::{Begun, Piece, Query as StreamQuery, Stream};
pub use task::Task;

/// A log, and the way to change it.
pub struct OpenLog {
    log: Arc<Log<Published>>,
    ledger: Arc<dyn Ledger<Published>>,
    fingerprints: Fingerprints,
}

/// Everything that requests are answered from.
pub struct Api {
    access: Access,
    log: Arc<Log<Published>>,
    ledger: Arc<dyn Ledger<Published>>,
    room: Room<Waiter, Delivered>,
    pages: Pages,
    metrics: Arc<Metrics>,
    fingerprints: Fingerprints,
    shutdown: Shutdown,
    /// Polls that may be held.
    held: Permits,
    /// `WebSocket`s that may be open.
    #[cfg(feature = "websocket")]
    sockets: Permits,
    /// Connections that may be open; the door takes them, here they are shown.
    connections: Permits,
    max_wait: Duration,
    wait_jitter: u32,
    max_event: usize,
    max_topics: usize,
    console: bool,
}

/// What a held poll leaves with its seat.
pub struct Waiter {
    /// Who is to be answered.
    pub line: Arc<Line>,
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
    pub line: &'a Arc<Line>,
    /// Whether a page can go out as it is shared; not when it has to say that the connection
    /// closes.
    pub takes_shared_page: bool,
    pub grant: &'a Grant,
}

/// What a request was found to ask for, and as whom.
pub struct Routed {
    pub task: Result<Task, Problem>,
    pub grant: Grant,
}

/// What came of a task.
pub enum Performed {
    Reply(Reply),
    /// Nothing yet: it is to be [held](Api::hold), once all is let go of that this does not need.
    Hold(Box<Held>),
}

/// What comes back.
pub enum Reply {
    Answer(Answer),
    Page(Arc<Page>),
    Refused(Problem),
    /// A page that was written already, or begun.
    Delivered(Delivered),
    /// The client has hung up.
    HungUp,
}

impl OpenLog {
    /// An empty log, or the one that `--data` has.
    ///
    /// # Errors
    /// When the store cannot be used; the text says why.
    pub fn open(config: &Config, metrics: &Arc<Metrics>, diag: &Diag) -> io::Result<OpenLog> {
        match &config.data {
            Some(directory) => stored::open(directory, config, metrics, diag),
            None => OpenLog::in_memory(config, Epoch::random()?),
        }
    }

    /// An empty log, and nothing but memory.
    ///
    /// # Errors
    /// When the operating system has no random bytes to give.
    pub fn in_memory(config: &Config, epoch: Epoch) -> io::Result<OpenLog> {
        let log = Arc::new(Log::new(epoch, retention(config)));
        Ok(OpenLog { ledger: Arc::clone(&log) as _, log, fingerprints: Fingerprints::random()? })
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
        OpenLog { log, ledger, fingerprints }: OpenLog,
        connections: Permits,
        metrics: Arc<Metrics>,
        shutdown: Shutdown,
    ) -> Api {
        Api {
            access,
            log,
            ledger,
            room: Room::default(),
            pages: Pages::default(),
            metrics,
            fingerprints,
            shutdown,
            held: Permits::new(config.max_polls()),
            #[cfg(feature = "websocket")]
            sockets: Permits::new(crate::limits::WEBSOCKETS),
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
    pub fn route(&self, head: &Head, line: &Line) -> Routed {
        let mut grant = Grant::default();
        let task = self.access.admit(head, line).and_then(|cors| {
            grant.cors = cors;
            let task = self.task(head)?;
            grant.token = self.access.authorize(head, || task.need())?;
            Ok(task)
        });
        Routed { task, grant }
    }

    /// Does what was asked. Streams are begun apart; of those, this gives the head.
    #[must_use]
    pub fn perform(&self, task: Task, body: Vec<u8>, caller: &Caller<'_>) -> Performed {
        let done = match task {
            // Its token may have been taken back while the body arrived.
            Task::Publish(ask) => self
                .access
                .still(caller.grant, || (Right::Publish, vec![ask.pattern()]))
                .and_then(|()| self.publish(&ask, body, caller)),
            Task::Poll(query) => match self.poll(query, caller) {
                Ok(performed) => return performed,
                Err(problem) => Err(problem),
            },
            Task::Trim(topic) => self
                .ledger
                .trim(&topic)
                .map(|()| Reply::Answer(Answer::empty()))
                .map_err(|refusal| self.refuse_publish(&refusal)),
            #[cfg(feature = "streams")]
            Task::Stream(query) => Ok(Reply::Answer(query.opening)),
            Task::Topics(query) => Ok(self.list_topics(&query)),
            Task::Health => Ok(self.health()),
            Task::Metrics => Ok(self.metrics_page()),
            Task::Options(allowed) => Ok(Reply::Answer(Answer::empty().with("Allow", allowed))),
            Task::Preflight => Ok(Reply::Answer(access::preflight())),
            Task::File(ask) => Ok(ask.reply()),
        };
        Performed::Reply(done.unwrap_or_else(Reply::Refused))
    }

    /// Counts an answer that is no page among those in flight.
    #[must_use]
    pub fn count_answer(&self, bytes: usize) -> Permit {
        self.pages.count(bytes)
    }

    /// The polls that are held now.
    #[must_use]
    pub fn held_seats(&self) -> Vec<SeatRef<Waiter, Delivered>> {
        self.room.seats()
    }

    /// Takes the locks that every request needs, and gives them back.
    pub fn pass_locks(&self) {
        let _ = (self.log.totals(), self.room.seats());
    }

    /// Lets go of what is too old.
    pub fn expire(&self) {
        self.ledger.expire(Instant::now());
    }

    /// Ends the store in order. To be called when nothing is being answered any more.
    pub fn close(&self) {
        self.ledger.close();
    }

    /// Reads the tokens again if their file has changed. Polls that are held by a token which may
    /// not do so any more end.
    #[must_use]
    pub fn refresh_tokens(&self) -> Option<Changed> {
        let changed = self.access.refresh()?;
        for seat in self.held_seats() {
            let waiter = &seat.waiter;
            if self.access.still(&waiter.grant, || waiter.key.need()).is_err() {
                seat.dismiss();
            }
        }
        Some(changed)
    }

    /// Answers every held poll, now and from now on. To be called after the shutdown is given.
    pub fn drain(&self) {
        self.room.drain();
    }

    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }
}
