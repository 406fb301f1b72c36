//! The connection: TCP or a unix socket, every wait on it with a deadline, and none that outlasts
//! the order to stop.
//!
//! Nothing here blocks but poll(2), which looks at the socket and at the order to stop at once: so
//! a program that is told to end does so in the middle of whatever it waits for.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
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

use super::url::Place;
use crate::shutdown::Shutdown;

/// Makes connections to one place.
#[derive(Debug)]
pub struct Dialer {
    pub place: Place,
    pub stop: Shutdown,
}

/// One connection.
#[derive(Debug)]
pub struct Link {
    /// Not blocking: what waits is poll(2), which also sees the order to stop.
    socket: OwnedFd,
    stop: Shutdown,
}

impl Dialer {
    /// A new connection, within this time.
    pub fn dial(&self, within: Duration) -> io::Result<Link> {
        let until = deadline(within);
        let socket = match &self.place {
            Place::Unix(path) => {
                self.connect(AddressFamily::UNIX, &SocketAddrUnix::new(path)?, until)?
            }
            Place::Tcp { host, port } => self.connect_any(host, *port, until)?,
        };
        Ok(Link::new(socket, self.stop.clone()))
    }

    /// A name may stand for several addresses; the first that takes the connection is used.
    fn connect_any(&self, host: &str, port: u16, until: Instant) -> io::Result<OwnedFd> {
        let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        let addresses: Vec<SocketAddr> = (host, port).to_socket_addrs()?.collect();
        for (index, address) in addresses.iter().enumerate() {
            let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
            // One that does not answer leaves time for those after it.
            let now = Instant::now();
            let share = until.saturating_duration_since(now) / (addresses.len() - index) as u32;
            match self.connect(family, address, now + share) {
                Ok(socket) => {
                    sockopt::set_tcp_nodelay(&socket, true)?;
                    return Ok(socket);
                }
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    fn connect(
        &self,
        family: AddressFamily,
        address: &impl SocketAddrArg,
        until: Instant,
    ) -> io::Result<OwnedFd> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(family, SocketType::STREAM, flags, None)?;
        match connect(&socket, address) {
            Ok(()) => return Ok(socket),
            Err(Errno::INPROGRESS | Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        wait(&socket, PollFlags::OUT, until, &self.stop)?;
        sockopt::socket_error(&socket)??;
        Ok(socket)
    }
}

impl Link {
    pub fn new(socket: OwnedFd, stop: Shutdown) -> Link {
        Link { socket, stop }
    }

    /// Sends everything, within this time.
    pub fn send(&self, mut bytes: &[u8], within: Duration) -> io::Result<()> {
        let until = deadline(within);
        while !bytes.is_empty() {
            match send(&self.socket, bytes, SendFlags::NOSIGNAL) {
                Ok(count) => bytes = &bytes[count..],
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => wait(&self.socket, PollFlags::OUT, until, &self.stop)?,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Appends what has arrived to `buffer`, up to its capacity; waits for some until this moment.
    /// Zero: nothing more will come.
    pub fn read(&self, buffer: &mut Vec<u8>, until: Instant) -> io::Result<usize> {
        loop {
            match rustix::io::read(&self.socket, spare_capacity(buffer)) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => wait(&self.socket, PollFlags::IN, until, &self.stop)?,
                done => return Ok(done?),
            }
        }
    }

    /// Whether it can be used again: between two requests nothing arrives but the end.
    pub fn is_quiet(&self) -> bool {
        let mut socket = [PollFd::new(&self.socket, PollFlags::IN)];
        poll(&mut socket, Some(&Timespec::default())) == Ok(0)
    }
}

/// Longer than any time-out here; it only has to be added to a clock.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// When this time is over.
pub fn deadline(within: Duration) -> Instant {
    Instant::now() + within.min(FOREVER)
}

/// Blocks until the socket is ready.
fn wait(socket: &OwnedFd, flags: PollFlags, until: Instant, stop: &Shutdown) -> io::Result<()> {
    let is_ready = stop.wait_for(&PollFd::new(socket, flags), Some(until))?;
    if is_ready { Ok(()) } else { Err(io::ErrorKind::TimedOut.into()) }
}
