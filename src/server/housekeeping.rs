//! Four times a second: the file of tokens is looked at. Once a second: held polls whose clients
//! have hung up give their places back, and the log lets go of what is too old.
//!
//! One poll(2) call looks at all held sockets at once. 5,000 of them take a few milliseconds, and
//! no held thread is woken but those whose client has gone.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, poll};

use crate::access::TokenReload;
use crate::api::Api;
use crate::conn::timespec;
use crate::limits::{HANGUP_CHECK_INTERVAL, TOKEN_FILE_CHECK_INTERVAL};
use crate::logger::Logger;
use crate::threads::{self, Mailbox};

/// The thread.
pub struct Housekeeper {
    stop: Mailbox<()>,
    thread: JoinHandle<()>,
}

impl Housekeeper {
    /// Starts it.
    pub fn start(api: Arc<Api>, logger: Logger) -> std::io::Result<Housekeeper> {
        let stop = Mailbox::new(1);
        let stopped = stop.clone();
        let thread = threads::start("watch", Box::new(move || run(&api, &logger, &stopped)))?;
        Ok(Housekeeper { stop, thread })
    }

    pub fn finish(self) {
        let _ = self.stop.post(());
        let _ = self.thread.join();
    }
}

/// Looks at the file of tokens for each look at the held polls.
const LOOKS_PER_WATCH: u128 =
    HANGUP_CHECK_INTERVAL.as_millis() / TOKEN_FILE_CHECK_INTERVAL.as_millis();

fn run(api: &Api, logger: &Logger, stopped: &Mailbox<()>) {
    let mut looks = 0;
    // Rounds that could not be, such as those of a machine that was frozen, are not made up for.
    while stopped.take_by(Instant::now() + TOKEN_FILE_CHECK_INTERVAL).is_none() {
        match api.refresh_tokens() {
            None => {}
            Some(TokenReload::Loaded(count)) => {
                logger.info(format_args!("tokens: {count} are known now"));
            }
            Some(TokenReload::Failed(why, known)) => logger.error(format_args!(
                "tokens: NOT read again: {why}; the {known} known before stay in force, also \
                 those that were taken out"
            )),
        }
        logger.flush_suppressed();
        looks += 1;
        if looks % LOOKS_PER_WATCH == 0 {
            cancel_disconnected(api);
            api.expire();
        }
    }
}

fn cancel_disconnected(api: &Api) {
    let handles = api.held_polls();
    let mut polled: Vec<_> = handles
        .iter()
        // The end of input is a hang-up too: whoever waits for an answer keeps its half open.
        .map(|handle| PollFd::new(&*handle.payload.conn, PollFlags::RDHUP))
        .collect();
    let now = timespec(std::time::Duration::ZERO);
    if !matches!(poll(&mut polled, Some(&now)), Ok(ready) if ready > 0) {
        return;
    }
    let left = polled.iter().map(|conn| !conn.revents().is_empty());
    for (handle, _) in handles.iter().zip(left).filter(|(_, left)| *left) {
        handle.cancel();
    }
}
