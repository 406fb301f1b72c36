//! Connections that were answered before their request was read whole.
//!
//! Closing such a socket at once would send a reset, and a reset can destroy the answer before
//! the client has read it (RFC 9112, section 9.6). So one thread keeps a few of them for a moment
//! with their sending half closed, and discards what still arrives.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};

use crate::conn::{Conn, timespec};
use crate::limits::{LINGERING_CLOSE_BYTES, LINGERING_CLOSE_CONNECTIONS, LINGERING_CLOSE_TIMEOUT};
use crate::threads::{self, Mailbox};

/// How long a newcomer may go unread while the others are waited for.
const LOOK: Duration = Duration::from_millis(50);

/// Where such connections go. Cheap to clone.
#[derive(Clone)]
pub struct LingeringClose(Mailbox<Arc<Conn>>);

/// The thread.
pub struct LingerThread {
    newcomers: Mailbox<Arc<Conn>>,
    thread: JoinHandle<()>,
}

impl LingerThread {
    /// Waits until the last connection's time is over; newcomers are closed at once.
    pub fn finish(self) {
        self.newcomers.close();
        let _ = self.thread.join();
    }
}

struct Lingering {
    conn: Arc<Conn>,
    until: Instant,
    bytes: usize,
}

/// Starts the thread.
pub fn start() -> std::io::Result<(LingeringClose, LingerThread)> {
    let newcomers = Mailbox::new(LINGERING_CLOSE_CONNECTIONS);
    let lingerer = LingeringClose(newcomers.clone());
    let mine = newcomers.clone();
    let thread = threads::start("linger", Box::new(move || run(&mine)))?;
    Ok((lingerer, LingerThread { newcomers, thread }))
}

impl LingeringClose {
    /// Takes a connection over. When there are too many it is closed at once.
    pub fn take(&self, conn: Arc<Conn>) {
        conn.close_write();
        let _ = self.0.post(conn);
    }
}

fn run(newcomers: &Mailbox<Arc<Conn>>) {
    let mut kept: VecDeque<Lingering> = VecDeque::new();
    let mut scratch = Vec::with_capacity(16 << 10);
    loop {
        let newcomer = if kept.is_empty() { newcomers.take() } else { newcomers.try_take() };
        match newcomer {
            Some(conn) => {
                if kept.len() == LINGERING_CLOSE_CONNECTIONS {
                    kept.pop_front();
                }
                kept.push_back(Lingering {
                    conn,
                    until: Instant::now() + LINGERING_CLOSE_TIMEOUT,
                    bytes: 0,
                });
                continue;
            }
            None if kept.is_empty() => return,
            None => {}
        }
        let conns = kept.iter();
        let mut polled: Vec<_> = conns.map(|k| PollFd::new(&*k.conn, PollFlags::IN)).collect();
        let _ = poll(&mut polled, Some(&timespec(LOOK)));
        drop(polled);
        let now = Instant::now();
        kept.retain_mut(|lingering| now < lingering.until && discard(lingering, &mut scratch));
    }
}

/// Discards what is there; false when that was the end, or enough.
fn discard(lingering: &mut Lingering, scratch: &mut Vec<u8>) -> bool {
    scratch.clear();
    // Only what is there already.
    match lingering.conn.recv_until(scratch, Instant::now()) {
        Ok(0) => false,
        Ok(got) => {
            lingering.bytes += got;
            lingering.bytes < LINGERING_CLOSE_BYTES
        }
        Err(e) => e.kind() == ErrorKind::TimedOut,
    }
}
