//! The door: from a listening socket to requests, and from answers to bytes.
//!
//! One acceptor for each listener, a bounded channel, and a fixed pool of workers with one
//! connection each. `tiny_http::Server` is not used: see the crate's page for why.

mod acceptor;
pub mod body;
mod connection;
mod rlimits;
pub mod head;
mod lingering_close;
pub mod listener;
mod pool;
mod request;
mod scan;
#[cfg(feature = "websocket")]
mod websocket;
#[cfg(feature = "streams")]
mod stream;
mod target;
mod housekeeping;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::access::Access;
use crate::api::{Api, LogHandle};
use crate::client_limit::ClientLimiter;
use crate::config::Config;
use crate::conn::Conn;
use crate::limits::{DRAIN_READ_TIMEOUT, DRAIN_WRITE_TIMEOUT};
use crate::logger::{Logger, RateLimited};
use crate::metrics::Metrics;
use crate::semaphore::Semaphore;
use crate::shutdown::Shutdown;
use crate::threads;
use acceptor::{Acceptor, AdmissionQueue};
use connection::Handler;
use housekeeping::Housekeeper;
use lingering_close::LingerThread;
use listener::Listener;
use pool::{ServeFn, WorkerPool};

/// A server that is running.
pub struct Server {
    api: Arc<Api>,
    pool: Arc<WorkerPool>,
    acceptors: Vec<JoinHandle<()>>,
    /// Set by each acceptor when it turns over.
    turns: Vec<Arc<AtomicBool>>,
    housekeeper: Housekeeper,
    linger: LingerThread,
    logger: Logger,
}

impl Server {
    /// Starts serving on these listeners.
    ///
    /// # Errors
    /// When the operating system refuses a thread.
    pub fn open(
        mut config: Config,
        listeners: Vec<Listener>,
        access: Access,
        log: LogHandle,
        metrics: &Arc<Metrics>,
        logger: Logger,
        shutdown: &Shutdown,
    ) -> io::Result<Server> {
        rlimits::clamp_to_rlimits(&mut config, &logger);
        let places = Semaphore::new(config.max_connections);
        let api =
            Api::new(&config, access, log, places.clone(), Arc::clone(metrics), shutdown.clone());
        let api = Arc::new(api);
        let (lingerer, linger) = lingering_close::start()?;
        let housekeeper = Housekeeper::start(Arc::clone(&api), logger.clone())?;
        let idle_timeout = config.idle_timeout;
        let clients = ClientLimiter::new(&config);
        let desk = Handler::new(
            Arc::clone(&api),
            config,
            clients.clone(),
            logger.clone(),
            shutdown.clone(),
            lingerer.clone(),
        );
        let serve: ServeFn =
            Arc::new(move |conn: &Arc<Conn>, slot: &pool::WorkerSlot| desk.serve(conn, slot));
        let pool = Arc::new(WorkerPool::new(places, serve)?);
        let (mut acceptors, mut turns) = (Vec::new(), Vec::new());
        for listener in listeners {
            let turned = Arc::default();
            turns.push(Arc::clone(&turned));
            let acceptor = Acceptor {
                listener,
                pool: Arc::clone(&pool),
                metrics: Arc::clone(metrics),
                logger: logger.clone(),
                shutdown: shutdown.clone(),
                lingerer: lingerer.clone(),
                clients: clients.clone(),
                idle_timeout,
                failures: RateLimited::default(),
                turned,
                queue: AdmissionQueue::default(),
                crowd: None,
            };
            acceptors.push(threads::start("accept", Box::new(move || acceptor.run()))?);
        }
        Ok(Server { api, pool, acceptors, turns, housekeeper, linger, logger })
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
        while self.pool.open() > 0 && begun.elapsed() < DRAIN_WRITE_TIMEOUT {
            // Once in a process's life, and for moments: not worth a condition variable.
            std::thread::sleep(Duration::from_millis(2));
            if begun.elapsed() > DRAIN_READ_TIMEOUT {
                // Again and again: a worker may only just have got its connection.
                self.pool.end_all_waiting();
            }
        }
        let open = self.pool.open();
        // Whoever publishes in what little is left is told that it was not taken.
        self.api.close();
        if open > 0 {
            self.logger.error(format_args!("{open} connections did not end in time; closing them"));
            return;
        }
        if let Ok(pool) = Arc::try_unwrap(self.pool) {
            pool.finish();
        }
        self.housekeeper.finish();
        self.linger.finish();
    }
}
