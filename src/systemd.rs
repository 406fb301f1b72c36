//! Notifications to systemd: the server is ready, alive or stopping.
//!
//! Each is one datagram to the socket in `NOTIFY_SOCKET`, in the format of `sd_notify(3)`. Without
//! that variable nothing is sent. The variable stays in the environment, because the server starts
//! no other program.
//!
//! Written here, because the crate `sd-notify` 0.5.0 sends without a timeout and only to paths:
//! with a receiver that does not read, its 11th message blocked for good, and an abstract socket
//! gave `NotFound`.
//!
//! The watchdog is fed only after a check that the server is alive: one that a timer feeds guards
//! nothing. `Server::lives` is that check.

use std::ffi::OsString;
use std::fmt::{Debug, Display};
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use crate::config::units::parse_integer;
use crate::limits::{ACCEPT_WAKE_INTERVAL, MIN_WATCHDOG_TIMEOUT, NOTIFY_TIMEOUT};
use crate::logger::{Logger, RateLimited};
use crate::shutdown::Shutdown;

/// The service manager that started the program, if there is one.
pub struct ServiceManager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// Half of the watchdog's timeout; `None` without a watchdog.
    watchdog_interval: Option<Duration>,
    failures: RateLimited,
    logger: Logger,
}

impl ServiceManager {
    /// Reads the environment that systemd sets.
    ///
    /// # Errors
    /// Names the invalid variable, and says what is expected.
    pub fn from_env(
        env: impl Fn(&str) -> Option<OsString>,
        logger: Logger,
    ) -> io::Result<ServiceManager> {
        let name = env("NOTIFY_SOCKET").filter(|name| !name.is_empty());
        let socket = match &name {
            None => None,
            Some(name) => {
                let socket = open_socket(name.as_bytes());
                Some(socket.map_err(|e| invalid_variable("NOTIFY_SOCKET", name, &e))?)
            }
        };
        let watchdog_interval = if socket.is_some() { watchdog_interval(env)? } else { None };
        Ok(ServiceManager { socket, watchdog_interval, failures: RateLimited::default(), logger })
    }

    /// Sends a state. Returns whether it was sent; a failure is logged and has no other effect.
    pub fn notify(&self, state: &str) -> bool {
        let Some((socket, address)) = &self.socket else { return true };
        let Err(error) = socket.send_to_addr(state.as_bytes(), address) else { return true };
        if let Some(suppressed) = self.failures.record(Instant::now()) {
            self.logger.error(format_args!(
                "cannot notify systemd {state:?}: {error} ({suppressed} earlier failures not logged)"
            ));
        }
        false
    }

    /// Blocks until the shutdown. Meanwhile feeds the watchdog while `is_alive` returns true.
    pub fn feed_watchdog(&self, shutdown: &Shutdown, is_alive: impl Fn() -> bool) {
        let Some(interval) = self.watchdog_interval else { return shutdown.wait() };
        let mut pause = interval;
        while !shutdown.wait_until(Instant::now() + pause) {
            // After a failure, retry soon: half of the watchdog's timeout is left.
            let is_fed = is_alive() && self.notify("WATCHDOG=1");
            pause = if is_fed { interval } else { ACCEPT_WAKE_INTERVAL / 4 };
        }
    }
}

fn invalid_variable(variable: &str, value: &dyn Debug, why: &dyn Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{variable}={value:?}: {why}"))
}

fn open_socket(name: &[u8]) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name))?,
        _ => return Err(io::Error::other("expected an absolute path, or @ and a name")),
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(NOTIFY_TIMEOUT))?;
    Ok((socket, address))
}

/// Half of `WATCHDOG_USEC`, if that is meant for this process.
fn watchdog_interval(env: impl Fn(&str) -> Option<OsString>) -> io::Result<Option<Duration>> {
    let number = |variable: &str| match env(variable) {
        None => Ok(None),
        Some(value) => match value.to_str().and_then(parse_integer) {
            None => Err(invalid_variable(variable, &value, &"expected a whole number")),
            number => Ok(number),
        },
    };
    let is_foreign =
        number("WATCHDOG_PID")?.is_some_and(|pid| pid != u64::from(std::process::id()));
    let Some(micros) = number("WATCHDOG_USEC")?.filter(|micros| *micros > 0 && !is_foreign) else {
        return Ok(None);
    };
    let timeout = Duration::from_micros(micros);
    if timeout < MIN_WATCHDOG_TIMEOUT {
        let why = format!(
            "acceptors are checked every {} s; expected a WatchdogSec of at least {} s",
            ACCEPT_WAKE_INTERVAL.as_secs(),
            MIN_WATCHDOG_TIMEOUT.as_secs()
        );
        return Err(invalid_variable("WATCHDOG_USEC", &micros, &why));
    }
    Ok(Some(timeout / 2))
}
