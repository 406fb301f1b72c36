//! The connection: TCP or a unix socket, every wait on it with a deadline, and none that outlasts
//! the order to stop.
//!
//! `ureq` speaks HTTP over whatever gives it these few methods. Its own sockets know neither unix
//! paths nor how to leave a read when the program is to end.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::addr::SocketAddrArg;
use rustix::net::{
    AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, send, socket_with,
    sockopt,
};
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport,
};

use super::url::Place;
use crate::shutdown::Shutdown;

/// Makes connections to one place.
#[derive(Debug)]
pub struct Dialer {
    pub place: Place,
    pub stop: Shutdown,
}

/// Looks up nothing: the dialer knows its place.
#[derive(Debug)]
pub struct NoLookup;

/// One connection.
#[derive(Debug)]
pub struct Link {
    /// Not blocking: what waits is poll(2), which also sees the order to stop.
    socket: OwnedFd,
    buffers: LazyBuffers,
    stop: Shutdown,
}

impl Resolver for NoLookup {
    fn resolve(
        &self,
        _: &Uri,
        _: &Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let mut addresses = self.empty();
        // At least one is asked for.
        addresses.push(SocketAddr::from(([0, 0, 0, 0], 0)));
        Ok(addresses)
    }
}

impl Connector for Dialer {
    type Out = Link;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        _: Option<()>,
    ) -> Result<Option<Link>, ureq::Error> {
        let until = deadline(details.timeout);
        let socket = match &self.place {
            Place::Unix(path) => {
                let address = SocketAddrUnix::new(path).map_err(io::Error::from)?;
                self.dial(AddressFamily::UNIX, &address, until)?
            }
            Place::Tcp { host, port } => self.dial_any(host, *port, until)?,
        };
        let config = details.config;
        let buffers = LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size());
        Ok(Some(Link { socket, buffers, stop: self.stop.clone() }))
    }
}

impl Dialer {
    /// A name may stand for several addresses; the first that takes the connection is used.
    fn dial_any(&self, host: &str, port: u16, until: Instant) -> io::Result<OwnedFd> {
        let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        let addresses: Vec<SocketAddr> = (host, port).to_socket_addrs()?.collect();
        for (index, address) in addresses.iter().enumerate() {
            let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
            // One that does not answer leaves time for those after it.
            let now = Instant::now();
            let share = until.saturating_duration_since(now) / (addresses.len() - index) as u32;
            match self.dial(family, address, now + share) {
                Ok(socket) => {
                    sockopt::set_tcp_nodelay(&socket, true)?;
                    return Ok(socket);
                }
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    fn dial(
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

impl Transport for Link {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        let until = deadline(timeout.for_write());
        let mut sent = 0;
        while sent < amount {
            match send(&self.socket, &self.buffers.output()[sent..amount], SendFlags::NOSIGNAL) {
                Ok(count) => sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.wait(PollFlags::OUT, until)?;
                }
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        let until = deadline(timeout.for_read());
        loop {
            match rustix::io::read(&self.socket, self.buffers.input_append_buf()) {
                Ok(count) => {
                    self.buffers.input_appended(count);
                    return Ok(count > 0);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.wait(PollFlags::IN, until)?;
                }
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
    }

    /// Between two requests nothing arrives but the end.
    fn is_open(&mut self) -> bool {
        let mut socket = [PollFd::new(&self.socket, PollFlags::IN)];
        poll(&mut socket, Some(&Timespec::default())) == Ok(0)
    }
}

/// Longer than any time-out here; it only has to be added to a clock.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

fn deadline(timeout: NextTimeout) -> Instant {
    Instant::now() + (*timeout.after).min(FOREVER)
}

impl Link {
    fn wait(&self, flags: PollFlags, until: Instant) -> io::Result<()> {
        wait(&self.socket, flags, until, &self.stop)
    }
}

/// Blocks until the socket is ready.
fn wait(socket: &OwnedFd, flags: PollFlags, until: Instant, stop: &Shutdown) -> io::Result<()> {
    let is_ready = stop.wait_for(&PollFd::new(socket, flags), Some(until))?;
    if is_ready { Ok(()) } else { Err(io::ErrorKind::TimedOut.into()) }
}
