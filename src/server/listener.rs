//! A listening socket, and waiting for its connections.
//!
//! A failure to accept goes to the acceptor, which knows the remedies; it never ends the listening.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SocketAddrAny, SocketFlags, acceptfrom_with};

use crate::conn::timespec;
use crate::limits::LISTEN_BACKLOG;
use crate::shutdown::Shutdown;

/// A socket that accepts connections.
pub struct Listener {
    socket: OwnedFd,
    name: String,
    source: SocketSource,
}

/// Where a socket comes from.
#[derive(PartialEq, Eq)]
pub enum SocketSource {
    /// From systemd, which keeps the socket for the next start.
    Passed,
    Bound,
    /// A unix socket that was bound here, and whose path is removed at the end.
    BoundAt(PathBuf),
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// The result of waiting for a connection.
pub enum Accepted {
    Connection(OwnedFd, Option<SocketAddrAny>),
    Failed(Errno),
    Shutdown,
    /// No connection: the other descriptor is readable, or the deadline has passed.
    Nothing,
}

/// Another descriptor to wait for, and a deadline.
pub type Meanwhile<'a> = (BorrowedFd<'a>, Instant);

/// Waits for the shutdown, the other descriptor or the deadline, and accepts nothing.
pub fn wait(shutdown: &Shutdown, (other, deadline): Meanwhile<'_>) -> Accepted {
    let mut either = [
        PollFd::from_borrowed_fd(shutdown.as_fd(), PollFlags::IN),
        PollFd::from_borrowed_fd(other, PollFlags::IN),
    ];
    match poll(&mut either, Some(&time_until(deadline))) {
        Err(error) if error != Errno::INTR => Accepted::Failed(error),
        _ if shutdown.is_triggered() => Accepted::Shutdown,
        _ => Accepted::Nothing,
    }
}

fn time_until(deadline: Instant) -> Timespec {
    timespec(deadline.saturating_duration_since(Instant::now()))
}

impl Listener {
    /// A listener on a bound socket.
    ///
    /// # Errors
    /// When the socket cannot listen.
    pub(super) fn new(socket: OwnedFd, name: String, source: SocketSource) -> io::Result<Listener> {
        // Non-blocking, because a connection may be gone between poll(2) and accept(2).
        rustix::io::ioctl_fionbio(&socket, true)?;
        // std's own backlog of 128 is less than the clients that reconnect at once after an outage.
        rustix::net::listen(&socket, LISTEN_BACKLOG)?;
        Ok(Listener { socket, name, source })
    }

    /// Whether other machines may reach the socket.
    #[must_use]
    pub fn is_beyond_loopback(&self) -> bool {
        let address = rustix::net::getsockname(&self.socket).ok();
        let address = address.and_then(|address| std::net::SocketAddr::try_from(address).ok());
        address.is_some_and(|address| !address.ip().to_canonical().is_loopback())
    }

    /// Whether systemd passed the socket.
    #[must_use]
    pub fn is_passed(&self) -> bool {
        self.source == SocketSource::Passed
    }

    /// Waits for the next connection, the shutdown, the other descriptor or the deadline.
    pub fn accept(&self, shutdown: &Shutdown, (other, deadline): Meanwhile<'_>) -> Accepted {
        loop {
            if shutdown.is_triggered() {
                return Accepted::Shutdown;
            }
            match acceptfrom_with(&self.socket, SocketFlags::CLOEXEC) {
                Ok((socket, peer)) => return Accepted::Connection(socket, peer),
                // The client has already gone, or there is none: neither is a failure.
                Err(Errno::INTR | Errno::CONNABORTED) => continue,
                Err(Errno::AGAIN) => {}
                Err(error) => return Accepted::Failed(error),
            }
            let mut all = [self.socket.as_fd(), shutdown.as_fd(), other]
                .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
            match poll(&mut all, Some(&time_until(deadline))) {
                Err(Errno::INTR) => {}
                Err(error) => return Accepted::Failed(error),
                Ok(_) if all[..2].iter().all(|one| one.revents().is_empty()) => {
                    return Accepted::Nothing;
                }
                Ok(_) => {}
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let SocketSource::BoundAt(path) = &self.source {
            // Another process may have removed it: that does no harm.
            let _ = std::fs::remove_file(path);
        }
    }
}
