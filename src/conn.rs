//! One client's socket, TCP or unix: reading and writing within deadlines.
//!
//! Sockets stay in blocking mode: a worker that waits for its next request blocks in one plain
//! `recv`, whose timeout is set once. A call with a deadline of its own uses poll(2) with the time
//! that is left.

use std::fmt;
use std::io::{Error, ErrorKind, Result};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout, set_tcp_nodelay};
use rustix::net::{RecvFlags, SendFlags, Shutdown, SocketAddrAny, recv, send, shutdown};

use crate::limits::WRITE_BYTES_PER_SECOND;

/// A connected socket.
pub struct Conn {
    socket: OwnedFd,
    peer: Option<std::net::SocketAddr>,
    /// Whether the kernel closed the connection because the peer acknowledged nothing. The kernel
    /// reports that once, to the next call that uses the socket.
    timed_out_by_kernel: AtomicBool,
}

impl fmt::Display for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.peer {
            Some(peer) => peer.fmt(f),
            None => f.write_str("unix"),
        }
    }
}

impl AsFd for Conn {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The longest time for one call of poll(2).
const LONGEST_POLL: Duration = Duration::from_secs(1 << 30);

/// The argument of poll(2) for a time.
pub fn timespec(time: Duration) -> Timespec {
    let time = time.min(LONGEST_POLL);
    Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) }
}

impl Conn {
    /// A socket that was just accepted. [`Conn::recv`] will wait for `idle` at most.
    ///
    /// # Errors
    /// When the client is already gone.
    pub fn accepted(socket: OwnedFd, peer: Option<SocketAddrAny>, idle: Duration) -> Result<Conn> {
        let peer = peer.and_then(|peer| std::net::SocketAddr::try_from(peer).ok());
        if peer.is_some() {
            // A response is one write, which must not wait for the acknowledgement of the last one.
            set_tcp_nodelay(&socket, true)?;
        }
        set_socket_timeout(&socket, Timeout::Recv, Some(idle))?;
        Ok(Conn { socket, peer, timed_out_by_kernel: AtomicBool::new(false) })
    }

    /// Whether this is a connection to a unix socket.
    #[must_use]
    pub fn is_unix(&self) -> bool {
        self.peer.is_none()
    }

    /// The peer's address; `None` for a unix socket.
    #[must_use]
    pub fn peer(&self) -> Option<std::net::SocketAddr> {
        self.peer
    }

    /// Appends received bytes to `buffer`, up to its capacity, waiting for the idle time at most.
    /// Returns their number; zero at the end of input.
    pub fn recv(&self, buffer: &mut Vec<u8>) -> Result<usize> {
        loop {
            match recv(&self.socket, spare_capacity(buffer), RecvFlags::empty()) {
                Err(Errno::INTR) => {}
                // The socket's timeout is over.
                Err(Errno::AGAIN) => return Err(ErrorKind::TimedOut.into()),
                done => return Ok(done.map(|(got, _)| got)?),
            }
        }
    }

    /// As [`recv`](Self::recv), but waits until `deadline`.
    pub fn recv_until(&self, buffer: &mut Vec<u8>, deadline: Instant) -> Result<usize> {
        loop {
            match recv(&self.socket, spare_capacity(buffer), RecvFlags::DONTWAIT) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.wait_ready(PollFlags::IN, deadline)?,
                done => return Ok(done.map(|(got, _)| got)?),
            }
        }
    }

    /// The number of bytes that have arrived and were not read yet.
    #[must_use]
    pub fn unread(&self) -> u64 {
        // It cannot fail for an open socket.
        rustix::io::ioctl_fionread(&self.socket).unwrap_or_default()
    }

    /// Appends bytes that have arrived to `buffer`, up to its capacity, without consuming them.
    pub fn peek(&self, buffer: &mut Vec<u8>) -> Result<usize> {
        let flags = RecvFlags::DONTWAIT | RecvFlags::PEEK;
        Ok(recv(&self.socket, spare_capacity(buffer), flags).map(|(got, _)| got)?)
    }

    /// Reads bytes into `buffer`, waiting until `deadline` for the first. Returns their number.
    pub fn recv_into(&self, buffer: &mut [u8], deadline: Instant) -> Result<usize> {
        loop {
            match recv(&self.socket, &mut *buffer, RecvFlags::DONTWAIT) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.wait_ready(PollFlags::IN, deadline)?,
                done => return Ok(done.map(|(got, _)| got).map_err(|e| self.record_failure(e))?),
            }
        }
    }

    /// Sends what the socket's buffer takes without waiting. Returns the number of bytes.
    pub fn send_now(&self, bytes: &[u8]) -> Result<usize> {
        loop {
            match send(&self.socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(0),
                done => return Ok(done.map_err(|e| self.record_failure(e))?),
            }
        }
    }

    /// Sends all bytes by `deadline`.
    pub fn send_until(&self, mut bytes: &[u8], deadline: Instant) -> Result<()> {
        loop {
            let sent = self.send_now(bytes)?;
            bytes = &bytes[sent..];
            if bytes.is_empty() {
                return Ok(());
            }
            self.wait_ready(PollFlags::OUT, deadline)?;
        }
    }

    /// Sends all bytes within `time`, plus a second for each [`WRITE_BYTES_PER_SECOND`].
    pub fn send_within(&self, bytes: &[u8], time: Duration) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        // Nearly every response fits into the socket's buffer: read the clock only if it does not.
        let sent = self.send_now(bytes)?;
        if sent == bytes.len() {
            return Ok(());
        }
        let extra = (bytes.len() / WRITE_BYTES_PER_SECOND) as u64;
        let time = time + Duration::from_secs(extra);
        self.send_until(&bytes[sent..], Instant::now() + time)
    }

    /// Waits until the socket is ready, or fails with [`ErrorKind::TimedOut`].
    fn wait_ready(&self, events: PollFlags, deadline: Instant) -> Result<()> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            let mut socket = [PollFd::new(&self.socket, events)];
            match poll(&mut socket, Some(&timespec(left))) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(e) => return Err(Error::from(e)),
            }
        }
    }

    /// Lets the kernel close a TCP connection whose peer has acknowledged nothing for `time`: it
    /// does not read, or is gone without a reset, which otherwise takes a quarter of an hour to
    /// detect.
    pub fn set_user_timeout(&self, time: Duration) {
        if self.peer.is_some() {
            // Zero would mean never. It cannot fail for a connected socket.
            let ms = u32::try_from(time.as_millis()).unwrap_or(u32::MAX).max(1);
            let _ = rustix::net::sockopt::set_tcp_user_timeout(&self.socket, ms);
        }
    }

    /// Whether the kernel closed the connection for that reason.
    pub fn timed_out_by_kernel(&self) -> bool {
        if let Ok(Err(error)) = rustix::net::sockopt::socket_error(&self.socket) {
            self.record_failure(error);
        }
        self.timed_out_by_kernel.load(Ordering::Relaxed)
    }

    /// Remembers whether the kernel reported a timeout.
    fn record_failure(&self, error: Errno) -> Errno {
        self.timed_out_by_kernel.fetch_or(error == Errno::TIMEDOUT, Ordering::Relaxed);
        error
    }

    /// Closes the sending side.
    pub fn close_write(&self) {
        // It fails if the client is gone: then there is nothing to close. The same holds below.
        let _ = shutdown(&self.socket, Shutdown::Write);
    }

    /// Ends the input: a blocked reader sees its end once it has read what has arrived.
    pub fn close_read(&self) {
        let _ = shutdown(&self.socket, Shutdown::Read);
    }

    /// Closes both sides.
    pub fn close(&self) {
        let _ = shutdown(&self.socket, Shutdown::Both);
    }
}
