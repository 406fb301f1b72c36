//! The server as a service of systemd: the sockets that systemd passes, and the notifications and
//! watchdog pings that it receives. `no_service.rs` takes the place of this file in a build without
//! the cargo feature `systemd`.

use std::io::{self, Error, ErrorKind};
use std::path::Path;

use super::listener::{Listener, SocketSource};
use crate::logger::Logger;
use crate::shutdown::Shutdown;
use crate::systemd::ServiceManager;

/// The listening sockets that systemd has passed.
pub fn passed_listeners() -> io::Result<Vec<Listener>> {
    let mut passed = listenfd::ListenFd::from_env();
    let mut listeners = Vec::new();
    for index in 0..passed.len() {
        let (socket, name) = if let Ok(Some(tcp)) = passed.take_tcp_listener(index) {
            let name = format!("http://{}", tcp.local_addr()?);
            (tcp.into(), name)
        } else if let Ok(Some(unix)) = passed.take_unix_listener(index) {
            let path = unix.local_addr()?.as_pathname().map(Path::to_owned);
            let name = format!("unix:{}", path.unwrap_or_default().display());
            (unix.into(), name)
        } else {
            let detail =
                format!("socket {index} from systemd is not usable; expected TCP or unix stream");
            return Err(Error::new(ErrorKind::InvalidInput, detail));
        };
        listeners.push(Listener::new(socket, name, SocketSource::Passed)?);
    }
    Ok(listeners)
}

/// The connection to the service manager.
pub struct Service(ServiceManager);

impl Service {
    /// Reads the environment that systemd has set.
    ///
    /// # Errors
    /// Names the variable that is invalid.
    pub fn from_env(logger: &Logger) -> io::Result<Service> {
        ServiceManager::from_env(|name| std::env::var_os(name), logger.clone()).map(Service)
    }

    /// Reports that the server accepts connections.
    pub fn notify_ready(&self, names: &[String]) {
        self.0.notify(&format!("READY=1\nSTATUS=listening on {}", names.join(", ")));
    }

    /// Waits for the shutdown, and sends watchdog pings while the server is alive; then reports
    /// that it stops.
    pub fn wait(&self, shutdown: &Shutdown, is_alive: impl Fn() -> bool) {
        self.0.feed_watchdog(shutdown, is_alive);
        self.0.notify("STOPPING=1");
    }
}
