//! Closing a connection whose request was answered before it was read completely.
//!
//! Closing such a socket at once sends a reset, which can destroy the response before the client
//! has read it (RFC 9112, section 9.6). So one thread keeps up to [`LINGERING_CLOSE_CONNECTIONS`] such connections
//! for [`LINGERING_CLOSE_TIMEOUT`], with the sending side closed, and discards what still arrives.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use rustix::event::{PollFd, PollFlags, poll};

use crate::conn::{Conn, timespec};
use crate::limits::{LINGERING_CLOSE_BYTES, LINGERING_CLOSE_CONNECTIONS, LINGERING_CLOSE_TIMEOUT};
use crate::threads;

/// How long a queued connection may go unread while the thread polls the others.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Hands connections to the thread that closes them. Cheap to clone.
#[derive(Clone)]
pub struct LingeringClose(Sender<Arc<Conn>>);

/// The thread that discards input and closes.
pub struct LingerThread(JoinHandle<()>);

impl LingerThread {
    /// Waits until the time of the last connection is over. To be called when every
    /// [`LingeringClose`] is dropped: that ends the thread.
    pub fn finish(self) {
        let _ = self.0.join();
    }
}

struct LingeringConn {
    conn: Arc<Conn>,
    deadline: Instant,
    discarded: usize,
}

/// Starts the thread.
pub fn start() -> std::io::Result<(LingeringClose, LingerThread)> {
    let (sender, receiver) = bounded(LINGERING_CLOSE_CONNECTIONS);
    let thread = threads::start("linger", Box::new(move || run(&receiver)))?;
    Ok((LingeringClose(sender), LingerThread(thread)))
}

impl LingeringClose {
    /// Closes a connection after its client has had time to read the response; at once when too
    /// many are queued.
    pub fn close(&self, conn: Arc<Conn>) {
        conn.close_write();
        let _ = self.0.try_send(conn);
    }
}

fn run(queue: &Receiver<Arc<Conn>>) {
    let mut lingering: VecDeque<LingeringConn> = VecDeque::new();
    let mut scratch = Vec::with_capacity(16 << 10);
    loop {
        let queued = if lingering.is_empty() { queue.recv().ok() } else { queue.try_recv().ok() };
        match queued {
            Some(conn) => {
                if lingering.len() == LINGERING_CLOSE_CONNECTIONS {
                    lingering.pop_front();
                }
                let deadline = Instant::now() + LINGERING_CLOSE_TIMEOUT;
                lingering.push_back(LingeringConn { conn, deadline, discarded: 0 });
                continue;
            }
            None if lingering.is_empty() => return,
            None => {}
        }
        let conns = lingering.iter();
        let mut polled: Vec<_> = conns.map(|l| PollFd::new(&*l.conn, PollFlags::IN)).collect();
        let _ = poll(&mut polled, Some(&timespec(POLL_INTERVAL)));
        drop(polled);
        let now = Instant::now();
        lingering.retain_mut(|conn| now < conn.deadline && discard_input(conn, &mut scratch));
    }
}

/// Discards the input that has arrived. False at its end, or after [`LINGERING_CLOSE_BYTES`].
fn discard_input(lingering: &mut LingeringConn, scratch: &mut Vec<u8>) -> bool {
    scratch.clear();
    // A deadline of now reads without waiting.
    match lingering.conn.recv_until(scratch, Instant::now()) {
        Ok(0) => false,
        Ok(received) => {
            lingering.discarded += received;
            lingering.discarded < LINGERING_CLOSE_BYTES
        }
        Err(e) => e.kind() == ErrorKind::TimedOut,
    }
}
