//! The connection to the server: TCP or a Unix socket. Every wait has a deadline and ends when the
//! shutdown signal is given.
//!
//! Only poll(2) blocks here, and it watches the socket and the shutdown signal together. So a
//! program ends promptly in the middle of any wait.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::addr::SocketAddrArg;
use rustix::net::{
    AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, send, socket_with,
    sockopt,
};

use super::resolver::Resolver;
use super::url::ServerAddress;
use crate::shutdown::Shutdown;

/// Opens connections to one server.
#[derive(Debug)]
pub struct Connector {
    address: ServerAddress,
    resolver: Resolver,
    /// Ends the attempt to connect.
    pub shutdown: Shutdown,
}

/// One connection to a server.
#[derive(Debug)]
pub struct ClientConnection {
    /// Non-blocking, because poll(2) does the waiting.
    socket: OwnedFd,
    shutdown: Shutdown,
}

impl Connector {
    pub fn new(address: ServerAddress, shutdown: Shutdown) -> Connector {
        Connector { address, resolver: Resolver::default(), shutdown }
    }

    /// Opens a new connection; fails after `timeout`. Returns its socket, which is non-blocking.
    pub fn connect(&mut self, timeout: Duration) -> io::Result<OwnedFd> {
        let deadline = deadline_after(timeout);
        match &self.address {
            ServerAddress::Unix(path) => {
                self.connect_to(AddressFamily::UNIX, &SocketAddrUnix::new(path)?, deadline)
            }
            ServerAddress::Tcp { host, port } => {
                let addresses = self.resolver.resolve(host, *port, deadline, &self.shutdown)?;
                self.connect_to_any(&addresses, deadline)
            }
        }
    }

    /// Tries addresses in turn until one accepts the connection.
    fn connect_to_any(&self, addresses: &[SocketAddr], deadline: Instant) -> io::Result<OwnedFd> {
        let mut last_error = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for (index, address) in addresses.iter().enumerate() {
            let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
            // Divide the remaining time, so that a silent address leaves some for the others.
            let now = Instant::now();
            let share = deadline.saturating_duration_since(now) / (addresses.len() - index) as u32;
            match self.connect_to(family, address, now + share) {
                Ok(socket) => {
                    sockopt::set_tcp_nodelay(&socket, true)?;
                    return Ok(socket);
                }
                Err(error) => last_error = error,
            }
        }
        Err(last_error)
    }

    fn connect_to(
        &self,
        family: AddressFamily,
        address: &impl SocketAddrArg,
        deadline: Instant,
    ) -> io::Result<OwnedFd> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(family, SocketType::STREAM, flags, None)?;
        match connect(&socket, address) {
            Ok(()) => return Ok(socket),
            Err(Errno::INPROGRESS | Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        wait(&socket, PollFlags::OUT, deadline, &self.shutdown)?;
        sockopt::socket_error(&socket)??;
        Ok(socket)
    }
}

impl ClientConnection {
    /// Wraps a connected, non-blocking socket.
    pub fn new(socket: OwnedFd, shutdown: Shutdown) -> ClientConnection {
        ClientConnection { socket, shutdown }
    }

    /// Sends all `bytes`; fails after `timeout`.
    pub fn send_all(&self, mut bytes: &[u8], timeout: Duration) -> io::Result<()> {
        let deadline = deadline_after(timeout);
        while !bytes.is_empty() {
            match send(&self.socket, bytes, SendFlags::NOSIGNAL) {
                Ok(count) => bytes = &bytes[count..],
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => wait(&self.socket, PollFlags::OUT, deadline, &self.shutdown)?,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Waits for input until `deadline` and appends it to `buffer`, up to the buffer's capacity.
    /// Returns the number of bytes; zero means the end of input.
    pub fn read(&self, buffer: &mut Vec<u8>, deadline: Instant) -> io::Result<usize> {
        loop {
            match rustix::io::read(&self.socket, spare_capacity(buffer)) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => wait(&self.socket, PollFlags::IN, deadline, &self.shutdown)?,
                result => return Ok(result?),
            }
        }
    }

    /// Whether the connection can carry another request: between two requests, input is either the
    /// end of the connection or something that no request asked for.
    pub fn is_reusable(&self) -> bool {
        let mut socket = [PollFd::new(&self.socket, PollFlags::IN)];
        poll(&mut socket, Some(&Timespec::default())) == Ok(0)
    }
}

/// Longer than any timeout here, and short enough to be added to a clock.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// The moment at which `timeout` ends; a timeout beyond a year counts as a year.
pub fn deadline_after(timeout: Duration) -> Instant {
    Instant::now() + timeout.min(FOREVER)
}

/// Blocks until the socket is ready.
fn wait(
    socket: &OwnedFd,
    flags: PollFlags,
    deadline: Instant,
    shutdown: &Shutdown,
) -> io::Result<()> {
    let is_ready = shutdown.wait_for(&PollFd::new(socket, flags), Some(deadline))?;
    if is_ready { Ok(()) } else { Err(io::ErrorKind::TimedOut.into()) }
}
