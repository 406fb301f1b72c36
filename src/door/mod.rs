//! The door: from a listening socket to requests, and from answers to bytes.
//!
//! One acceptor for each listener, a bounded channel, and a fixed pool of workers with one
//! connection each. `tiny_http::Server` is not used: see the crate's page for why.

pub mod body;
pub mod chunked;
mod connection;
mod fit;
pub mod head;
mod linger;
pub mod listener;
mod pool;
mod request;
mod scan;
mod target;
mod watch;

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::net::SocketAddrAny;

use crate::access::Access;
use crate::api::Api;
use crate::clients::Clients;
use crate::config::Config;
use crate::cursor::Epoch;
use crate::diag::{Diag, Seldom};
use crate::error::{Cause, Problem};
use crate::http::{Answer, Frame};
use crate::limits::{CLOSING, DRAIN, DRAIN_PARTIAL, GIVE_WAY};
use crate::line::Line;
use crate::metrics::Metrics;
use crate::permits::Permits;
use crate::shutdown::Shutdown;
use crate::threads;
use connection::Desk;
use linger::{LingerThread, Lingerer};
use listener::{Accepted, Listener};
use pool::{Admitted, MadeRoom, Pool, Serve};
use watch::Watch;

/// A server that is running.
pub struct Door {
    api: Arc<Api>,
    pool: Arc<Pool>,
    acceptors: Vec<JoinHandle<()>>,
    watch: Watch,
    linger: LingerThread,
    diag: Diag,
}

/// What an acceptor needs.
struct Acceptor {
    listener: Listener,
    pool: Arc<Pool>,
    metrics: Arc<Metrics>,
    diag: Diag,
    shutdown: Shutdown,
    lingerer: Lingerer,
    clients: Clients,
    idle_timeout: Duration,
    failures: Seldom,
    /// Until when newcomers queue, since all connections are held or being answered.
    jammed_until: Option<Instant>,
}

/// After a failed accept (descriptors gone, memory short) the acceptor rests this long: the cause
/// seldom passes sooner, and the failed connection is still in the queue.
const REST: Duration = Duration::from_millis(50);

impl Door {
    /// Starts serving on these listeners.
    ///
    /// # Errors
    /// When the operating system refuses a thread.
    pub fn open(
        mut config: Config,
        listeners: Vec<Listener>,
        access: Access,
        epoch: Epoch,
        metrics: &Arc<Metrics>,
        diag: Diag,
        shutdown: &Shutdown,
    ) -> io::Result<Door> {
        fit::to_machine(&mut config, &diag);
        let places = Permits::new(config.max_connections);
        let api =
            Api::new(&config, access, epoch, places.clone(), Arc::clone(metrics), shutdown.clone());
        let api = Arc::new(api);
        let (lingerer, linger) = linger::start()?;
        let watch = Watch::start(Arc::clone(&api), diag.clone())?;
        let idle_timeout = config.idle_timeout;
        let clients = Clients::new(&config);
        let desk = Desk::new(
            Arc::clone(&api),
            config,
            clients.clone(),
            diag.clone(),
            shutdown.clone(),
            lingerer.clone(),
        );
        let serve: Serve =
            Arc::new(move |line: &Arc<Line>, slot: &pool::Slot| desk.serve(line, slot));
        let pool = Arc::new(Pool::new(places, serve));
        let mut acceptors = Vec::new();
        for listener in listeners {
            let acceptor = Acceptor {
                listener,
                pool: Arc::clone(&pool),
                metrics: Arc::clone(metrics),
                diag: diag.clone(),
                shutdown: shutdown.clone(),
                lingerer: lingerer.clone(),
                clients: clients.clone(),
                idle_timeout,
                failures: Seldom::default(),
                jammed_until: None,
            };
            acceptors.push(threads::start("accept", Box::new(move || acceptor.run()))?);
        }
        Ok(Door { api, pool, acceptors, watch, linger, diag })
    }

    /// Drains: answers every held poll, lets what is being answered finish, and ends. To be
    /// called after the shutdown is given.
    pub fn drain(self) {
        // First those who wait; an acceptor may be queueing for a place.
        self.api.drain();
        for acceptor in self.acceptors {
            let _ = acceptor.join();
        }
        self.pool.end_idle();
        let begun = Instant::now();
        let mut partial_ended = false;
        while self.pool.open() > 0 && begun.elapsed() < DRAIN {
            // Once in a process's life, and for moments: not worth a condition variable.
            std::thread::sleep(Duration::from_millis(2));
            if !partial_ended && begun.elapsed() > DRAIN_PARTIAL {
                self.pool.end_all_waiting();
                partial_ended = true;
            }
        }
        let open = self.pool.open();
        if open > 0 {
            self.diag.error(format_args!("{open} connections did not end in time; closing them"));
            return;
        }
        if let Ok(pool) = Arc::try_unwrap(self.pool) {
            pool.finish();
        }
        self.watch.finish();
        self.linger.finish();
    }
}

impl Acceptor {
    fn run(mut self) {
        loop {
            match self.listener.accept(&self.shutdown) {
                Accepted::Shutdown => return,
                Accepted::Connection(socket, peer) => self.take_in(socket, peer),
                Accepted::Failed(error) => {
                    self.metrics.accept_errors.add(1);
                    if let Some(untold) = self.failures.untold(Instant::now()) {
                        let listener = &self.listener;
                        self.diag.error(format_args!(
                            "cannot accept on {listener}: {error} ({untold} times before untold)"
                        ));
                    }
                    // If descriptors are short, an idle connection's helps most.
                    let _ = self.make_room();
                    std::thread::sleep(REST);
                }
            }
        }
    }

    fn take_in(&mut self, socket: std::os::fd::OwnedFd, peer: Option<SocketAddrAny>) {
        // A client that is gone already fails here; nobody is left to answer.
        let Ok(mut line) = Line::accepted(socket, peer, self.idle_timeout) else { return };
        self.metrics.connections.add(1);
        let mut share = match self.clients.connected(line.peer()) {
            Ok(share) => share,
            Err(problem) => return self.refuse(line, &problem),
        };
        let until = Instant::now() + GIVE_WAY + CLOSING;
        loop {
            let why = match self.pool.place() {
                Some(place) => match self.pool.admit(Admitted { line, share, place }) {
                    Ok(()) => {
                        self.jammed_until = None;
                        self.metrics.connections_peak.reach(self.pool.open() as u64);
                        return;
                    }
                    Err((back, error)) => {
                        (line, share) = (back.line, back.share);
                        format!("no thread can be had for another connection ({error})")
                    }
                },
                None => "all connections are held or being answered".into(),
            };
            if !self.queue(until) {
                let detail = format!("{why}; try again later");
                return self.refuse(line, &Problem::new(Cause::ConnectionCap, detail));
            }
        }
    }

    /// Waits for another connection to give way or to end. False: nothing came of it. The newcomer
    /// queues for that; but once nothing has moved for as long as one may queue, the next ones are
    /// refused at once, or those behind them in the kernel's queue would wait for nothing.
    fn queue(&mut self, until: Instant) -> bool {
        let now = Instant::now();
        let until = match self.make_room() {
            MadeRoom::Yes => now + CLOSING,
            MadeRoom::In(time) => until.min(now + time),
            MadeRoom::No => *self.jammed_until.get_or_insert(until),
        };
        if now >= until {
            return false;
        }
        self.pool.wait_for_place(until);
        true
    }

    fn make_room(&self) -> MadeRoom {
        let made = self.pool.make_room();
        if made == MadeRoom::Yes {
            self.metrics.connections_gave_way.add(1);
        }
        made
    }

    fn refuse(&self, line: Line, problem: &Problem) {
        self.metrics.refused(problem.cause);
        self.diag.refused(&line, problem.cause);
        let frame = Frame { has_body: true, closes: true, cors: None };
        // A new socket's buffer has room for it.
        let _ = line.send_now(&Answer::from(problem).encode(frame));
        self.lingerer.take(Arc::new(line));
    }
}
