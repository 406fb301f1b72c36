//! Periodic work on a thread of its own: the token file is checked four times a second
//! ([`Api::refresh_tokens`]); once a second, held polls whose clients have disconnected are cancelled
//! and expired events are trimmed.
//!
//! One poll(2) call checks all held sockets at once: 5,000 of them take a few milliseconds, and no
//! held thread is woken except those whose client is gone.

use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use rustix::event::{PollFd, PollFlags, poll};

use crate::access::TokenReload;
use crate::api::Api;
use crate::conn::timespec;
use crate::limits::{HANGUP_CHECK_INTERVAL, TOKEN_FILE_CHECK_INTERVAL};
use crate::logger::Logger;
use crate::threads;
use crate::waiters::cancel_all;

/// The thread that does the periodic work.
pub struct Housekeeper {
    /// Dropped to stop the thread.
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Housekeeper {
    pub fn start(api: Arc<Api>, logger: Logger) -> std::io::Result<Housekeeper> {
        let (stop, stopped) = bounded(0);
        let thread = threads::start("watch", Box::new(move || run(&api, &logger, &stopped)))?;
        Ok(Housekeeper { stop, thread })
    }

    pub fn finish(self) {
        drop(self.stop);
        let _ = self.thread.join();
    }
}

/// Checks of the token file per check of the held polls.
const CHECKS_PER_WATCH: u128 =
    HANGUP_CHECK_INTERVAL.as_millis() / TOKEN_FILE_CHECK_INTERVAL.as_millis();

fn run(api: &Api, logger: &Logger, stopped: &Receiver<()>) {
    let mut checks = 0;
    // Rounds that were missed, as on a machine that was suspended, are not repeated.
    while stopped.recv_timeout(TOKEN_FILE_CHECK_INTERVAL) == Err(RecvTimeoutError::Timeout) {
        match api.refresh_tokens() {
            None => {}
            Some(TokenReload::Loaded(count)) => {
                logger.info(format_args!("tokens: {count} are known now"));
            }
            Some(TokenReload::Failed(why, known)) => logger.error(format_args!(
                "tokens: NOT reloaded: {why}; the {known} known before stay in force, including \
                 those that were removed"
            )),
        }
        logger.flush_suppressed();
        checks += 1;
        if checks % CHECKS_PER_WATCH == 0 {
            cancel_disconnected(api);
            api.expire();
        }
    }
}

fn cancel_disconnected(api: &Api) {
    let handles = api.held_polls();
    let mut polled: Vec<_> = handles
        .iter()
        // A client that closes only its sending side counts as disconnected, too.
        .map(|handle| PollFd::new(&*handle.payload.conn, PollFlags::RDHUP))
        .collect();
    let now = timespec(std::time::Duration::ZERO);
    if !matches!(poll(&mut polled, Some(&now)), Ok(ready) if ready > 0) {
        return;
    }
    let disconnected = polled.iter().map(|conn| !conn.revents().is_empty());
    let gone = handles.iter().zip(disconnected).filter(|(_, is_gone)| *is_gone);
    cancel_all(gone.map(|(handle, _)| handle));
}
