//! Opening the listening sockets: those that systemd passes, or else those of `--listen`.
//!
//! A host name may resolve to several addresses, and all are bound. A unix socket that a crash has
//! left behind refuses connections, and is replaced; one that is in use is not.

use std::fmt;
use std::io::{self, Error, ErrorKind};
use std::net::{TcpListener, ToSocketAddrs as _};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use super::listener::{Listener, SocketSource};
use super::service;
use crate::config::{DEFAULT_LISTEN, ListenAddress};

/// Opens the sockets that systemd has passed, or else binds these addresses, or else the default
/// one.
///
/// # Errors
/// Names the address and the reason.
pub fn listen(addresses: &[ListenAddress]) -> io::Result<Vec<Listener>> {
    let passed = service::passed_listeners()?;
    if !passed.is_empty() {
        return Ok(passed);
    }
    let default = [ListenAddress::Tcp(DEFAULT_LISTEN.into())];
    let mut listeners = Vec::new();
    for address in if addresses.is_empty() { &default } else { addresses } {
        match address {
            ListenAddress::Tcp(address) => listeners.extend(bind_tcp(address)?),
            ListenAddress::Unix(path) => listeners.push(bind_unix(path)?),
        }
    }
    Ok(listeners)
}

fn explain(address: impl fmt::Display, error: &Error) -> Error {
    Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
}

/// Binds all addresses that a name such as localhost resolves to, on one port.
fn bind_tcp(address: &str) -> io::Result<Vec<Listener>> {
    let resolved = address.to_socket_addrs().map_err(|e| explain(address, &e))?;
    let mut listeners: Vec<Listener> = Vec::new();
    let mut port = None;
    let mut unavailable = None;
    for mut address in resolved {
        if let (0, Some(port)) = (address.port(), port) {
            address.set_port(port);
        }
        match TcpListener::bind(address) {
            Ok(tcp) => {
                let address = tcp.local_addr()?;
                port = Some(address.port());
                let name = format!("http://{address}");
                listeners.push(Listener::new(tcp.into(), name, SocketSource::Bound)?);
            }
            // A host may resolve a name to an address of a family that it does not have.
            Err(e) if e.kind() == ErrorKind::AddrNotAvailable => unavailable = Some(e),
            Err(e) => return Err(explain(address, &e)),
        }
    }
    match unavailable {
        Some(e) if listeners.is_empty() => Err(explain(address, &e)),
        _ => Ok(listeners),
    }
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
    Listener::new(socket.into(), name, SocketSource::BoundAt(path.to_owned()))
}

/// Whether the path is a socket that no process listens on any more.
fn is_stale(path: &Path) -> bool {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket());
    let refused = |e: Error| e.kind() == ErrorKind::ConnectionRefused;
    is_socket && UnixStream::connect(path).err().is_some_and(refused)
}
