//! Listening sockets: binding them, taking over those of systemd, and the acceptor's loop.

use std::fmt;
use std::io::{self, Error, ErrorKind};
use std::net::{TcpListener, ToSocketAddrs as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{SocketAddrAny, SocketFlags, acceptfrom_with};

use crate::config::Listen;
use crate::limits::BACKLOG;
use crate::shutdown::Shutdown;

/// A socket that accepts connections.
pub struct Listener {
    socket: OwnedFd,
    name: String,
    /// The path of a unix socket that is ours to remove.
    path: Option<PathBuf>,
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Opens the sockets: those that systemd passed, or else those that were asked for.
///
/// # Errors
/// Names the address and says what is in the way.
pub fn open(asked: &[Listen]) -> io::Result<Vec<Listener>> {
    let passed = passed_by_systemd()?;
    if !passed.is_empty() {
        return Ok(passed);
    }
    let mut listeners = Vec::new();
    for listen in asked {
        match listen {
            Listen::Tcp(address) => listeners.extend(bind_tcp(address)?),
            Listen::Unix(path) => listeners.push(bind_unix(path)?),
        }
    }
    Ok(listeners)
}

fn explain(what: impl fmt::Display, error: &Error) -> Error {
    Error::new(error.kind(), format!("cannot listen on {what}: {error}"))
}

fn passed_by_systemd() -> io::Result<Vec<Listener>> {
    let mut passed = listenfd::ListenFd::from_env();
    let mut listeners = Vec::new();
    for index in 0..passed.len() {
        let listener = if let Ok(Some(tcp)) = passed.take_tcp_listener(index) {
            of_tcp(tcp)?
        } else if let Ok(Some(unix)) = passed.take_unix_listener(index) {
            let path = unix.local_addr()?.as_pathname().map(Path::to_owned);
            let name = format!("unix:{}", path.unwrap_or_default().display());
            new(unix.into(), name, None)?
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
                listeners.push(of_tcp(tcp)?);
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

fn of_tcp(tcp: TcpListener) -> io::Result<Listener> {
    let name = format!("http://{}", tcp.local_addr()?);
    new(tcp.into(), name, None)
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
    new(socket.into(), name, Some(path.to_owned()))
}

/// Whether the path is a socket that nobody listens on any more.
fn is_stale(path: &Path) -> bool {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket());
    let refused = |e: Error| e.kind() == ErrorKind::ConnectionRefused;
    is_socket && UnixStream::connect(path).err().is_some_and(refused)
}

fn new(socket: OwnedFd, name: String, path: Option<PathBuf>) -> io::Result<Listener> {
    // Non-blocking, because a connection may be gone between poll(2) and accept(2).
    rustix::io::ioctl_fionbio(&socket, true)?;
    // std's own backlog of 128 is less than what reconnects at once after a blip.
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(Listener { socket, name, path })
}

/// What came of waiting for a connection.
pub enum Accepted {
    Connection(OwnedFd, Option<SocketAddrAny>),
    Failed(Errno),
    Shutdown,
}

impl Listener {
    /// Whether others than this machine may reach it.
    #[must_use]
    pub fn is_beyond_loopback(&self) -> bool {
        let address = rustix::net::getsockname(&self.socket).ok();
        let address = address.and_then(|address| std::net::SocketAddr::try_from(address).ok());
        address.is_some_and(|address| !address.ip().to_canonical().is_loopback())
    }

    /// Waits for the next connection, or for the shutdown.
    pub fn accept(&self, shutdown: &Shutdown) -> Accepted {
        loop {
            if shutdown.given() {
                return Accepted::Shutdown;
            }
            match acceptfrom_with(&self.socket, SocketFlags::CLOEXEC) {
                Ok((socket, peer)) => return Accepted::Connection(socket, peer),
                // It was there and is gone, or there is none: that is no failure.
                Err(Errno::INTR | Errno::CONNABORTED) => continue,
                Err(Errno::AGAIN) => {}
                Err(error) => return Accepted::Failed(error),
            }
            let mut either = [
                PollFd::from_borrowed_fd(self.socket.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(shutdown.as_fd(), PollFlags::IN),
            ];
            if let Err(error) = poll(&mut either, None) {
                if error != Errno::INTR {
                    return Accepted::Failed(error);
                }
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // It may have been removed by somebody else; that is no harm.
            let _ = std::fs::remove_file(path);
        }
    }
}
