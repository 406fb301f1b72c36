//! The server: from listening sockets to requests, and from replies to bytes.
//!
//! One acceptor thread for each listener, a bounded channel, and a pool of worker threads with one
//! connection each. `tiny_http::Server` is not used: `src/lib.rs` says why.
//! Clients that hang up while their poll is held are found by `housekeeping.rs`.
//!
//! The modules are listed in reading order; each uses only those before it. For what happens when
//! all connections are taken, see `admission.rs`.

mod rlimits;
mod lingering_close;
mod target;
mod head_scanner;
pub mod head;
pub mod body;
mod request;
pub mod listener;
#[cfg_attr(not(feature = "systemd"), path = "no_service.rs")]
mod service;
mod bind;
mod pool;
mod admission;
mod acceptor;
mod exchange;
#[cfg(feature = "websocket")]
mod websocket;
#[cfg(feature = "streams")]
mod stream;
mod connection;
mod housekeeping;
mod announcement;

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
use crate::logger::{self, Logger, LoggerThread, RateLimited};
use crate::metrics::Metrics;
use crate::semaphore::Semaphore;
use crate::shutdown::Shutdown;
use crate::threads;
use acceptor::Acceptor;
use admission::Admission;
use announcement::Announcement;
pub use bind::listen;
use exchange::Handler;
use housekeeping::Housekeeper;
use lingering_close::LingerThread;
use listener::Listener;
use pool::{ServeFn, WorkerPool, WorkerSlot};
use service::Service;

/// Runs a server on these listeners until the shutdown is triggered, then drains it.
///
/// Prints a line `listening on …` for each listener on stdout once it accepts connections, logs to
/// stderr, and notifies systemd if the environment asks for that.
///
/// # Errors
/// When the token file, the environment or the store cannot be used, or when the operating system
/// refuses a thread or a descriptor; nothing was served then.
pub fn serve(listeners: Vec<Listener>, config: Config, shutdown: &Shutdown) -> io::Result<()> {
    Server::start(listeners, config, shutdown)?.run();
    Ok(())
}

/// A running server.
pub struct Server {
    api: Arc<Api>,
    pool: Arc<WorkerPool>,
    acceptors: Vec<JoinHandle<()>>,
    /// Each acceptor sets its own in every round of its loop.
    heartbeats: Vec<Arc<AtomicBool>>,
    housekeeper: Housekeeper,
    linger_thread: LingerThread,
    logger: Logger,
    logger_thread: LoggerThread,
    shutdown: Shutdown,
    service: Service,
    announcement: Announcement,
}

impl Server {
    /// Starts to serve; announces nothing. Most callers need [`serve`].
    ///
    /// # Errors
    /// As [`serve`]. What can be wrong is checked in the order in which it stands here.
    pub fn start(
        listeners: Vec<Listener>,
        config: Config,
        shutdown: &Shutdown,
    ) -> io::Result<Server> {
        let access = Access::open(&config)?;
        let metrics = Arc::new(Metrics::default());
        let (logger, logger_thread) =
            logger::start(config.log, Arc::clone(&metrics)).map_err(|e| threads::too_few(&e))?;
        let service = Service::from_env(&logger)?;
        let announcement = Announcement::new(&listeners, &config, &access, &logger);
        if !config.listen.is_empty() && listeners.iter().any(Listener::is_passed) {
            logger.warning("--listen is not used: systemd has passed the sockets");
        }
        let log = LogHandle::open(&config, &metrics, &logger)?;
        let parts =
            ServerParts { access, log, metrics, logger, logger_thread, service, announcement };
        parts.start_threads(listeners, config, shutdown).map_err(|e| threads::too_few(&e))
    }

    /// Announces the server, serves until the shutdown is triggered, and drains.
    pub fn run(self) {
        self.announcement.publish(&self.logger);
        self.service.notify_ready(&self.announcement.names);
        self.service.wait(&self.shutdown, || self.is_alive());
        self.drain();
    }

    /// Whether each acceptor has completed a round since the last call. Blocks while one of the
    /// locks that every request needs is stuck. A slow disk, or a pool of busy workers, does not
    /// count: a restart would not change that.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.api.probe_locks();
        let is_alive = self.heartbeats.iter().all(|beat| beat.load(Ordering::Relaxed));
        if is_alive {
            self.heartbeats.iter().for_each(|beat| beat.store(false, Ordering::Relaxed));
        }
        is_alive
    }

    /// Answers every held poll, lets requests that have begun finish, and ends all threads. To be
    /// called after the shutdown is triggered.
    pub fn drain(self) {
        let logger = self.logger.clone();
        logger.info("draining");
        // Held polls first: queued connections may wait for their permits.
        self.api.drain();
        for acceptor in self.acceptors {
            let _ = acceptor.join();
        }
        self.pool.close_idle();
        let started = Instant::now();
        while self.pool.open_connections() > 0 && started.elapsed() < DRAIN_WRITE_TIMEOUT {
            // Once in the life of a process, and for moments: not worth a condition variable.
            std::thread::sleep(Duration::from_millis(2));
            if started.elapsed() > DRAIN_READ_TIMEOUT {
                // Repeatedly: a worker may only just have received its connection.
                self.pool.close_all_idle();
            }
        }
        let open = self.pool.open_connections();
        // A publish on a connection that is still open is refused from here on.
        if let Err(error) = self.api.close() {
            logger.error(format_args!("the store did not close: {error}; ending without it"));
        }
        if open > 0 {
            logger.error(format_args!("{open} connections did not end in time; closing them"));
        } else {
            self.housekeeper.finish();
            if let Ok(pool) = Arc::try_unwrap(self.pool) {
                // The handler in it has the last sender to the linger thread.
                pool.finish();
                self.linger_thread.finish();
            }
        }
        logger.info("stopped");
        self.logger_thread.finish();
    }
}

/// What is open before the threads of a server start.
struct ServerParts {
    access: Access,
    log: LogHandle,
    metrics: Arc<Metrics>,
    logger: Logger,
    logger_thread: LoggerThread,
    service: Service,
    announcement: Announcement,
}

impl ServerParts {
    fn start_threads(
        self,
        listeners: Vec<Listener>,
        mut config: Config,
        shutdown: &Shutdown,
    ) -> io::Result<Server> {
        let ServerParts { access, log, metrics, logger, logger_thread, service, announcement } =
            self;
        rlimits::clamp_to_rlimits(&mut config, &logger);
        let permits = Semaphore::new(config.max_connections);
        let api =
            Api::new(&config, access, log, permits.clone(), Arc::clone(&metrics), shutdown.clone());
        let api = Arc::new(api);
        let (lingering, linger_thread) = lingering_close::start()?;
        let housekeeper = Housekeeper::start(Arc::clone(&api), logger.clone())?;
        let idle_timeout = config.idle_timeout;
        let clients = ClientLimiter::new(&config);
        let handler = Handler::new(
            Arc::clone(&api),
            config,
            clients.clone(),
            logger.clone(),
            shutdown.clone(),
            lingering.clone(),
        );
        let serve: ServeFn =
            Arc::new(move |conn: &Arc<Conn>, slot: &WorkerSlot| handler.serve(conn, slot));
        let pool = Arc::new(WorkerPool::new(permits, serve)?);
        let (mut acceptors, mut heartbeats) = (Vec::new(), Vec::new());
        for listener in listeners {
            let heartbeat = Arc::default();
            heartbeats.push(Arc::clone(&heartbeat));
            let admission = Admission::new(
                Arc::clone(&pool),
                clients.clone(),
                Arc::clone(&metrics),
                logger.clone(),
                lingering.clone(),
                idle_timeout,
            );
            let acceptor = Acceptor {
                listener,
                admission,
                metrics: Arc::clone(&metrics),
                logger: logger.clone(),
                shutdown: shutdown.clone(),
                failures: RateLimited::default(),
                heartbeat,
            };
            acceptors.push(threads::start("accept", Box::new(move || acceptor.run()))?);
        }
        let shutdown = shutdown.clone();
        Ok(Server {
            api,
            pool,
            acceptors,
            heartbeats,
            housekeeper,
            linger_thread,
            logger,
            logger_thread,
            shutdown,
            service,
            announcement,
        })
    }
}
