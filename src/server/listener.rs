//! Listening sockets: binding them, taking over those of systemd, and waiting for connections.
//!
//! A name may stand for several addresses, and all are bound. A unix socket that a crash has left
//! behind is recognised by nobody's answering, and replaced; one that is in use is not. A failure
//! to accept is handed to the acceptor, which knows what can be done about it; it never ends the
//! listening.

use std::fmt;
use std::io::{self, Error, ErrorKind};
use std::net::{TcpListener, ToSocketAddrs as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SocketAddrAny, SocketFlags, acceptfrom_with};

use crate::config::{DEFAULT_LISTEN, ListenAddress};
use crate::conn::timespec;
use crate::limits::LISTEN_BACKLOG;
use crate::shutdown::Shutdown;

/// A socket that accepts connections.
pub struct Listener {
    socket: OwnedFd,
    name: String,
    origin: SocketSource,
}

/// Where a socket comes from.
enum SocketSource {
    /// From systemd, which keeps it for the next start.
    #[cfg(feature = "systemd")]
    Passed,
    Bound,
    /// A unix socket, which is ours to remove.
    BoundAt(PathBuf),
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Opens the sockets: those that systemd passed, or else those that were asked for, or else the
/// usual one.
///
/// # Errors
/// Names the address and says what is in the way.
pub fn open(asked: &[ListenAddress]) -> io::Result<Vec<Listener>> {
    #[cfg(feature = "systemd")]
    {
        let passed = passed_by_systemd()?;
        if !passed.is_empty() {
            return Ok(passed);
        }
    }
    let usual = [ListenAddress::Tcp(DEFAULT_LISTEN.into())];
    let mut listeners = Vec::new();
    for listen in if asked.is_empty() { &usual } else { asked } {
        match listen {
            ListenAddress::Tcp(address) => listeners.extend(bind_tcp(address)?),
            ListenAddress::Unix(path) => listeners.push(bind_unix(path)?),
        }
    }
    Ok(listeners)
}

fn explain(what: impl fmt::Display, error: &Error) -> Error {
    Error::new(error.kind(), format!("cannot listen on {what}: {error}"))
}

#[cfg(feature = "systemd")]
fn passed_by_systemd() -> io::Result<Vec<Listener>> {
    let mut passed = listenfd::ListenFd::from_env();
    let mut listeners = Vec::new();
    for index in 0..passed.len() {
        let listener = if let Ok(Some(tcp)) = passed.take_tcp_listener(index) {
            of_tcp(tcp, SocketSource::Passed)?
        } else if let Ok(Some(unix)) = passed.take_unix_listener(index) {
            let path = unix.local_addr()?.as_pathname().map(Path::to_owned);
            let name = format!("unix:{}", path.unwrap_or_default().display());
            new(unix.into(), name, SocketSource::Passed)?
        } else {
            let why = format!("socket {index} from systemd is neither TCP nor unix stream");
            return Err(Error::new(ErrorKind::InvalidInput, why));
        };
        listeners.push(listener);
    }
    Ok(listeners)
}

/// A name such as localhost may stand for several addresses; all are bound, on one port.
fn bind_tcp(address: &str) -> io::Result<Vec<Listener>> {
    let resolved = address.to_socket_addrs().map_err(|e| explain(address, &e))?;
    let mut listeners: Vec<Listener> = Vec::new();
    let mut port = None;
    let mut failed = None;
    for mut address in resolved {
        if let (0, Some(port)) = (address.port(), port) {
            address.set_port(port);
        }
        match TcpListener::bind(address) {
            Ok(tcp) => {
                port = Some(tcp.local_addr()?.port());
                listeners.push(of_tcp(tcp, SocketSource::Bound)?);
            }
            // A host may know an address of a family that it does not have.
            Err(e) if e.kind() == ErrorKind::AddrNotAvailable => failed = Some(e),
            Err(e) => return Err(explain(address, &e)),
        }
    }
    match failed {
        Some(e) if listeners.is_empty() => Err(explain(address, &e)),
        _ => Ok(listeners),
    }
}

fn of_tcp(tcp: TcpListener, origin: SocketSource) -> io::Result<Listener> {
    let name = format!("http://{}", tcp.local_addr()?);
    new(tcp.into(), name, origin)
}

fn bind_unix(path: &Path) -> io::Result<Listener> {
    let name = format!("unix:{}", path.display());
    let bound = match UnixListener::bind(path) {
        Err(e) if e.kind() == ErrorKind::AddrInUse && is_stale(path) => {
            std::fs::remove_file(path).and_then(|()| UnixListener::bind(path))
        }
        bound => bound,
    };
    let socket = bound.map_err(|e| explain(&name, &e))?;
    new(socket.into(), name, SocketSource::BoundAt(path.to_owned()))
}

/// Whether the path is a socket that nobody listens on any more.
fn is_stale(path: &Path) -> bool {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket());
    let refused = |e: Error| e.kind() == ErrorKind::ConnectionRefused;
    is_socket && UnixStream::connect(path).err().is_some_and(refused)
}

fn new(socket: OwnedFd, name: String, origin: SocketSource) -> io::Result<Listener> {
    // Non-blocking, because a connection may be gone between poll(2) and accept(2).
    rustix::io::ioctl_fionbio(&socket, true)?;
    // std's own backlog of 128 is less than what reconnects at once after a blip.
    rustix::net::listen(&socket, LISTEN_BACKLOG)?;
    Ok(Listener { socket, name, origin })
}

/// What came of waiting for a connection.
pub enum Accepted {
    Connection(OwnedFd, Option<SocketAddrAny>),
    Failed(Errno),
    Shutdown,
    /// Something else is to be looked after.
    Nobody,
}

/// Something else that is waited for, and how long.
pub type Meanwhile<'a> = (BorrowedFd<'a>, Instant);

/// Waits for the shutdown, or for something else.
pub fn wait(shutdown: &Shutdown, (other, until): Meanwhile<'_>) -> Accepted {
    let mut either = [
        PollFd::from_borrowed_fd(shutdown.as_fd(), PollFlags::IN),
        PollFd::from_borrowed_fd(other, PollFlags::IN),
    ];
    match poll(&mut either, Some(&time_until(until))) {
        Err(error) if error != Errno::INTR => Accepted::Failed(error),
        _ if shutdown.is_triggered() => Accepted::Shutdown,
        _ => Accepted::Nobody,
    }
}

fn time_until(deadline: Instant) -> Timespec {
    timespec(deadline.saturating_duration_since(Instant::now()))
}

impl Listener {
    /// Whether others than this machine may reach it.
    #[must_use]
    pub fn is_beyond_loopback(&self) -> bool {
        let address = rustix::net::getsockname(&self.socket).ok();
        let address = address.and_then(|address| std::net::SocketAddr::try_from(address).ok());
        address.is_some_and(|address| !address.ip().to_canonical().is_loopback())
    }

    /// Whether systemd passed it.
    #[cfg(feature = "systemd")]
    #[must_use]
    pub fn is_passed(&self) -> bool {
        matches!(self.origin, SocketSource::Passed)
    }

    /// Waits for the next connection, for the shutdown, or for something else.
    pub fn accept(&self, shutdown: &Shutdown, (other, until): Meanwhile<'_>) -> Accepted {
        loop {
            if shutdown.is_triggered() {
                return Accepted::Shutdown;
            }
            match acceptfrom_with(&self.socket, SocketFlags::CLOEXEC) {
                Ok((socket, peer)) => return Accepted::Connection(socket, peer),
                // It was there and is gone, or there is none: that is no failure.
                Err(Errno::INTR | Errno::CONNABORTED) => continue,
                Err(Errno::AGAIN) => {}
                Err(error) => return Accepted::Failed(error),
            }
            let mut all = [self.socket.as_fd(), shutdown.as_fd(), other]
                .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
            match poll(&mut all, Some(&time_until(until))) {
                Err(Errno::INTR) => {}
                Err(error) => return Accepted::Failed(error),
                Ok(_) if all[..2].iter().all(|one| one.revents().is_empty()) => {
                    return Accepted::Nobody;
                }
                Ok(_) => {}
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let SocketSource::BoundAt(path) = &self.origin {
            // It may have been removed by somebody else; that is no harm.
            let _ = std::fs::remove_file(path);
        }
    }
}
