//! The wire contract: which request means what, and one file for each verb.
//!
//! A request is decided in two steps. [`Api::route`] reads everything but the body, so that a
//! client who asks for the impossible is told before it sends any. [`Api::perform`] does it.

mod deliver;
mod health;
mod page;
mod params;
mod poll;
mod publish;
mod render;
mod sse;
mod stream;
mod topics;
mod web;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::access::{self, Access, Changed, Grant, Need, Right};
use crate::bell::{Room, SeatRef};
use crate::config::{Config, RepairAsked};
use crate::cursor::Epoch;
use crate::diag::Diag;
use crate::error::{Cause, Problem};
use crate::http::{Answer, Field, Head, Method, percent_decode};
use crate::line::Line;
use crate::log::{Fingerprints, Log, Retention};
use crate::metrics::Metrics;
use crate::names::{NAME_RULE, Name, Pattern};
use crate::permits::{Permit, Permits};
use crate::shutdown::Shutdown;
use crate::store::{self, Ledger};
pub use deliver::Delivered;
pub use page::Page;
use page::{PageKey, Pages};
use params::Params;
use publish::Published;
pub use stream::{Piece, Stream};

/// A log, and the way to change it.
pub struct OpenLog {
    log: Arc<Log<Published>>,
    ledger: Ledger<Published>,
    fingerprints: Fingerprints,
}

/// Everything that requests are answered from.
pub struct Api {
    access: Access,
    log: Arc<Log<Published>>,
    ledger: Ledger<Published>,
    room: Room<Waiter, Delivered>,
    pages: Pages,
    metrics: Arc<Metrics>,
    fingerprints: Fingerprints,
    shutdown: Shutdown,
    /// Polls that may be held.
    held: Permits,
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

/// A request whose head makes sense.
#[derive(Debug)]
pub enum Task {
    Publish(publish::Ask),
    Poll(poll::Query),
    Stream(stream::Query),
    Trim(Name),
    Topics(topics::Query),
    Health,
    Metrics,
    /// The methods that there are.
    Options(&'static str),
    /// What a browser asks before it sends another site's request.
    Preflight,
    File(web::Ask),
}

/// What comes back.
pub enum Reply<'a> {
    Answer(Answer),
    Page(Arc<Page>),
    Refused(Problem),
    /// A page that was written already, or begun.
    Delivered(Delivered),
    /// Whatever comes, as it comes.
    Stream(Box<Stream<'a>>),
    /// The client has hung up.
    HungUp,
}

impl Task {
    /// The largest body that goes with it.
    #[must_use]
    pub fn body_limit(&self, config: &Config) -> usize {
        match self {
            Task::Publish(ask) => ask.body_limit(config),
            _ => 0,
        }
    }

    /// The right that it needs, where tokens are asked for.
    fn need(&self) -> Option<Need> {
        match self {
            Task::Publish(ask) => Some((Right::Publish, vec![ask.pattern()])),
            Task::Poll(query) => Some(query.need()),
            Task::Stream(query) => Some(query.need()),
            Task::Trim(topic) => Some((Right::Admin, vec![Pattern::Topic(topic.clone())])),
            Task::Topics(query) => Some((Right::Admin, vec![query.pattern()])),
            // What it counts belongs to no topic.
            Task::Metrics => Some((Right::Admin, Vec::new())),
            Task::Health | Task::File(_) | Task::Options(_) | Task::Preflight => None,
        }
    }
}

impl OpenLog {
    /// An empty log, or the one that `--data` has.
    ///
    /// # Errors
    /// When the store cannot be used; the text says why.
    pub fn open(config: &Config, metrics: &Arc<Metrics>, diag: &Diag) -> io::Result<OpenLog> {
        let Some(directory) = &config.data else {
            return OpenLog::in_memory(config, Epoch::random()?);
        };
        let (retention, sync) = (retention(config), config.sync);
        let opened = store::open(directory, retention, sync, metrics, Published::again)?;
        opened.report.tell(diag);
        let fingerprints = opened.fingerprints;
        let (ledger, log) = Ledger::start(opened, diag)?;
        Ok(OpenLog { log, ledger, fingerprints })
    }

    /// An empty log, and nothing but memory.
    ///
    /// # Errors
    /// When the operating system has no random bytes to give.
    pub fn in_memory(config: &Config, epoch: Epoch) -> io::Result<OpenLog> {
        let log = Arc::new(Log::new(epoch, retention(config)));
        let ledger = Ledger::Memory(Arc::clone(&log));
        Ok(OpenLog { log, ledger, fingerprints: Fingerprints::random()? })
    }
}

/// Says what the store in a directory has. True: a server would start with it.
///
/// # Errors
/// When it cannot be read, or nobody takes what is said.
pub fn inspect(directory: &Path, out: &mut dyn io::Write) -> io::Result<bool> {
    store::inspect::inspect::<Published>(directory, out)
}

/// Repairs the store in a directory, and says what was done.
///
/// # Errors
/// When it is in use, the disk fails, or it needs more than was asked for.
pub fn repair(directory: &Path, asked: RepairAsked) -> io::Result<String> {
    store::repair::repair(directory, asked, Published::again)
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

    fn task(&self, head: &Head) -> Result<Task, Problem> {
        let path = percent_decode(head.path())?;
        if head.method == Method::Options {
            return options(head, &path);
        }
        if let Some(topics) = path.strip_prefix("/topics/") {
            return match head.method {
                Method::Get | Method::Head if stream::is_asked_for(head) => {
                    stream::Query::read(topics, head).map(Task::Stream)
                }
                Method::Get | Method::Head => {
                    poll::Query::read(topics, head, self.max_wait).map(Task::Poll)
                }
                Method::Post => publish::Ask::read(topics, head).map(Task::Publish),
                Method::Delete => {
                    Params::read(head.query(), &[])?;
                    let topic = Name::new(topics).ok_or_else(|| {
                        Problem::bad(format!("topic {topics:?}: one topic is trimmed, {NAME_RULE}"))
                    })?;
                    Ok(Task::Trim(topic))
                }
                _ => Err(wrong_method(head, TOPIC_METHODS)),
            };
        }
        let task = match &*path {
            "/topics" => topics::Query::read(head).map(Task::Topics),
            "/health" => Params::read(head.query(), &[]).map(|_| Task::Health),
            "/metrics" => Params::read(head.query(), &[]).map(|_| Task::Metrics),
            "/" => web::Ask::console(head, self.console).map(Task::File),
            "/longpoll.js" => web::Ask::module(head).map(Task::File),
            path => {
                let detail = format!(
                    "there is no {path:?}; there are /, /longpoll.js, /topics, /topics/TOPIC, /health and /metrics"
                );
                return Err(Problem::new(Cause::NotFound, detail));
            }
        };
        match head.method {
            Method::Get | Method::Head => task,
            _ => Err(wrong_method(head, PAGE_METHODS)),
        }
    }

    /// Does what was asked; a poll is held in here, a stream only begun.
    #[must_use]
    pub fn perform(&self, task: Task, body: Vec<u8>, caller: &Caller<'_>) -> Reply<'_> {
        let done = match task {
            // Its token may have been taken back while the body arrived.
            Task::Publish(ask) => self
                .access
                .still(caller.grant, || (Right::Publish, vec![ask.pattern()]))
                .and_then(|()| self.publish(&ask, body, caller)),
            Task::Poll(query) => self.poll(query, caller),
            Task::Trim(topic) => self
                .ledger
                .trim(&topic)
                .map(|()| Reply::Answer(Answer::empty()))
                .map_err(|refusal| self.refuse_publish(&refusal)),
            Task::Stream(query) => self.stream(query, caller),
            Task::Topics(query) => Ok(self.list_topics(&query)),
            Task::Health => Ok(self.health()),
            Task::Metrics => Ok(self.metrics_page()),
            Task::Options(allowed) => Ok(Reply::Answer(Answer::empty().with("Allow", allowed))),
            Task::Preflight => Ok(Reply::Answer(access::preflight())),
            Task::File(ask) => Ok(ask.reply()),
        };
        done.unwrap_or_else(Reply::Refused)
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

const TOPIC_METHODS: &str = "GET, HEAD, POST, DELETE, OPTIONS";
const PAGE_METHODS: &str = "GET, HEAD, OPTIONS";

/// What may be asked here, whatever path it is: a preflight that was refused would tell a page's
/// author less than the refusal of what comes after it.
fn options(head: &Head, path: &str) -> Result<Task, Problem> {
    let is_topic = path == "*" || path.starts_with("/topics/");
    Ok(match head.one(Field::AccessControlRequestMethod)? {
        Some(_) => Task::Preflight,
        None => Task::Options(if is_topic { TOPIC_METHODS } else { PAGE_METHODS }),
    })
}

fn wrong_method(head: &Head, allowed: &'static str) -> Problem {
    let detail = format!("{} does not take {}; it takes {allowed}", head.path(), head.method);
    Problem::new(Cause::MethodNotAllowed, detail).with_header("Allow", allowed)
}
