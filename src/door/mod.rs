//! The door: from a listening socket to requests, and from answers to bytes.
//!
//! One acceptor for each listener, a bounded channel, and a fixed pool of workers with one
//! connection each. `tiny_http::Server` is not used: see the crate's page for why.

mod acceptor;
pub mod body;
mod connection;
mod fit;
pub mod head;
mod linger;
pub mod listener;
mod pool;
mod request;
mod scan;
#[cfg(feature = "websocket")]
mod socket;
#[cfg(feature = "streams")]
mod stream;
mod target;
mod watch;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::access::Access;
use crate::api::{Api, OpenLog};
use crate::clients::Clients;
use crate::config::Config;
use crate::diag::{Diag, Seldom};
use crate::limits::{DRAIN, DRAIN_PARTIAL};
use crate::line::Line;
use crate::metrics::Metrics;
use crate::permits::Permits;
use crate::shutdown::Shutdown;
use crate::threads;
use acceptor::{Acceptor, Queue};
use connection::Desk;
use linger::LingerThread;
use listener::Listener;
use pool::{Pool, Serve};
use watch::Watch;

/// A server that is running.
pub struct Door {
    api: Arc<Api>,
    pool: Arc<Pool>,
    acceptors: Vec<JoinHandle<()>>,
    /// Set by each acceptor when it turns over.
    turns: Vec<Arc<AtomicBool>>,
    watch: Watch,
    linger: LingerThread,
    diag: Diag,
}

impl Door {
    /// Starts serving on these listeners.
    ///
    /// # Errors
    /// When the operating system refuses a thread.
    pub fn open(
        mut config: Config,
        listeners: Vec<Listener>,
        access: Access,
        log: OpenLog,
        metrics: &Arc<Metrics>,
        diag: Diag,
        shutdown: &Shutdown,
    ) -> io::Result<Door> {
        fit::to_machine(&mut config, &diag);
        let places = Permits::new(config.max_connections);
        let api =
            Api::new(&config, access, log, places.clone(), Arc::clone(metrics), shutdown.clone());
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
        let pool = Arc::new(Pool::new(places, serve)?);
        let (mut acceptors, mut turns) = (Vec::new(), Vec::new());
        for listener in listeners {
            let turned = Arc::default();
            turns.push(Arc::clone(&turned));
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
                turned,
                queue: Queue::default(),
                crowd: None,
            };
            acceptors.push(threads::start("accept", Box::new(move || acceptor.run()))?);
        }
        Ok(Door { api, pool, acceptors, turns, watch, linger, diag })
    }

    /// Whether each acceptor has turned over since the last time that it was said; and it does not
    /// come back while one of the locks is stuck that every request needs. A disk may be slow, and
    /// all workers busy, for as long as they like: another start would not change that.
    #[must_use]
    pub fn lives(&self) -> bool {
        self.api.pass_locks();
        let live = self.turns.iter().all(|turned| turned.load(Ordering::Relaxed));
        if live {
            self.turns.iter().for_each(|turned| turned.store(false, Ordering::Relaxed));
        }
        live
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
        while self.pool.open() > 0 && begun.elapsed() < DRAIN {
            // Once in a process's life, and for moments: not worth a condition variable.
            std::thread::sleep(Duration::from_millis(2));
            if begun.elapsed() > DRAIN_PARTIAL {
                // Again and again: a worker may only just have got its connection.
                self.pool.end_all_waiting();
            }
        }
        let open = self.pool.open();
        // Whoever publishes in what little is left is told that it was not taken.
        self.api.close();
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
