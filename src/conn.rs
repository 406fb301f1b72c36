//! One client's socket, TCP or unix: reading and writing within deadlines.
//!
//! Sockets stay in blocking mode: a worker that waits for its next request blocks in one plain
//! `recv`, whose time limit is set once. Everything with a deadline of its own goes through
//! poll(2) with what is left of it.

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
    /// It was, because the other end took nothing. The system says so once, to whoever uses the
    /// socket next.
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

/// poll(2) takes no longer time than this at once.
const LONGEST_POLL: Duration = Duration::from_secs(1 << 30);

/// A time as poll(2) takes it.
pub fn timespec(time: Duration) -> Timespec {
    let time = time.min(LONGEST_POLL);
    Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) }
}

impl Conn {
    /// A socket that was just accepted. [`Conn::recv`] will wait `idle` at most.
    pub fn accepted(socket: OwnedFd, peer: Option<SocketAddrAny>, idle: Duration) -> Result<Conn> {
        let peer = peer.and_then(|peer| std::net::SocketAddr::try_from(peer).ok());
        if peer.is_some() {
            // An answer is one write; it must not wait for the acknowledgement of the one before.
            set_tcp_nodelay(&socket, true)?;
        }
        set_socket_timeout(&socket, Timeout::Recv, Some(idle))?;
        Ok(Conn { socket, peer, timed_out_by_kernel: AtomicBool::new(false) })
    }

    /// Whether it is no TCP connection.
    #[must_use]
    pub fn is_unix(&self) -> bool {
        self.peer.is_none()
    }

    /// The address at the other end of a TCP connection.
    #[must_use]
    pub fn peer(&self) -> Option<std::net::SocketAddr> {
        self.peer
    }

    /// Appends what has arrived to `buffer`, up to its capacity; waits up to the idle time for
    /// it. Zero: the client will send no more.
    pub fn recv(&self, buffer: &mut Vec<u8>) -> Result<usize> {
        loop {
            match recv(&self.socket, spare_capacity(buffer), RecvFlags::empty()) {
                Err(Errno::INTR) => {}
                // That is how a socket says that its time is over.
                Err(Errno::AGAIN) => return Err(ErrorKind::TimedOut.into()),
                done => return Ok(done.map(|(got, _)| got)?),
            }
        }
    }

    /// The same, but until `deadline`.
    pub fn recv_until(&self, buffer: &mut Vec<u8>, deadline: Instant) -> Result<usize> {
        loop {
            match recv(&self.socket, spare_capacity(buffer), RecvFlags::DONTWAIT) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.ready(PollFlags::IN, deadline)?,
                done => return Ok(done.map(|(got, _)| got)?),
            }
        }
    }

    /// How many bytes have arrived and were not taken yet.
    #[must_use]
    pub fn arrived(&self) -> u64 {
        // It fails for no socket that is open.
        rustix::io::ioctl_fionread(&self.socket).unwrap_or_default()
    }

    /// Looks at what has arrived, without taking it, as far as `buffer` has room.
    pub fn peek(&self, buffer: &mut Vec<u8>) -> Result<usize> {
        let flags = RecvFlags::DONTWAIT | RecvFlags::PEEK;
        Ok(recv(&self.socket, spare_capacity(buffer), flags).map(|(got, _)| got)?)
    }

    /// Fills `buffer` with what has arrived, as far as that goes; waits for some until `deadline`.
    pub fn recv_into(&self, buffer: &mut [u8], deadline: Instant) -> Result<usize> {
        loop {
            match recv(&self.socket, &mut *buffer, RecvFlags::DONTWAIT) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.ready(PollFlags::IN, deadline)?,
                done => return Ok(done.map(|(got, _)| got).map_err(|e| self.failed(e))?),
            }
        }
    }

    /// Sends what fits without waiting, and says how much that was.
    pub fn send_now(&self, bytes: &[u8]) -> Result<usize> {
        loop {
            match send(&self.socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(0),
                done => return Ok(done.map_err(|e| self.failed(e))?),
            }
        }
    }

    /// Sends everything by `deadline`.
    pub fn send_until(&self, mut bytes: &[u8], deadline: Instant) -> Result<()> {
        loop {
            let sent = self.send_now(bytes)?;
            bytes = &bytes[sent..];
            if bytes.is_empty() {
                return Ok(());
            }
            self.ready(PollFlags::OUT, deadline)?;
        }
    }

    /// Sends everything within `time`, and a second more for each [`WRITE_BYTES_PER_SECOND`].
    pub fn send_within(&self, bytes: &[u8], time: Duration) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        // Nearly every answer fits into the socket's buffer at once, and needs no clock.
        let sent = self.send_now(bytes)?;
        if sent == bytes.len() {
            return Ok(());
        }
        let extra = (bytes.len() / WRITE_BYTES_PER_SECOND) as u64;
        let time = time + Duration::from_secs(extra);
        self.send_until(&bytes[sent..], Instant::now() + time)
    }

    /// Waits until the socket is ready, or fails with [`ErrorKind::TimedOut`].
    fn ready(&self, what: PollFlags, deadline: Instant) -> Result<()> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            let mut socket = [PollFd::new(&self.socket, what)];
            match poll(&mut socket, Some(&timespec(left))) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(e) => return Err(Error::from(e)),
            }
        }
    }

    /// Breaks a TCP connection off when the other end has taken nothing for `time` of what was
    /// sent: it does not read, or has gone without a word, which would else take a quarter of an
    /// hour to be noticed.
    #[cfg(feature = "streams")]
    pub fn set_user_timeout(&self, time: Duration) {
        if self.peer.is_some() {
            // Zero would mean never. It fails for no socket that is connected.
            let ms = u32::try_from(time.as_millis()).unwrap_or(u32::MAX).max(1);
            let _ = rustix::net::sockopt::set_tcp_user_timeout(&self.socket, ms);
        }
    }

    /// Whether it was broken off so.
    #[cfg(feature = "streams")]
    pub fn timed_out_by_kernel(&self) -> bool {
        if let Ok(Err(error)) = rustix::net::sockopt::socket_error(&self.socket) {
            self.failed(error);
        }
        self.timed_out_by_kernel.load(Ordering::Relaxed)
    }

    /// Takes note of why the connection has ended.
    fn failed(&self, error: Errno) -> Errno {
        self.timed_out_by_kernel.fetch_or(error == Errno::TIMEDOUT, Ordering::Relaxed);
        error
    }

    /// Says that nothing more will be sent.
    pub fn close_write(&self) {
        // It fails when the client has gone: then there is nobody to tell. The same below.
        let _ = shutdown(&self.socket, Shutdown::Write);
    }

    /// Lets a blocked reader see the end of input once it has read what is there.
    pub fn close_read(&self) {
        let _ = shutdown(&self.socket, Shutdown::Read);
    }

    /// Ends it both ways.
    pub fn close(&self) {
        let _ = shutdown(&self.socket, Shutdown::Both);
    }
}
