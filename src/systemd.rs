//! What runs the program as a service: telling systemd that it is ready, that it lives, and that it
//! stops.
//!
//! Each word is one datagram to the socket that `NOTIFY_SOCKET` names; `sd_notify(3)` has the words.
//! Without that variable nothing is sent. It stays in the environment: the server starts no other
//! program.
//!
//! *That it lives* is said only when it was seen: a watchdog that a timer feeds guards nothing. See
//! `Door::lives` for what is looked at.

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

/// Who started the program and wants to know how it goes, if anybody does.
pub struct ServiceManager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// Half of the time after which it takes silence for death.
    beat: Option<Duration>,
    failures: RateLimited,
    logger: Logger,
}

impl ServiceManager {
    /// Reads what systemd has put into the environment.
    ///
    /// # Errors
    /// Names the variable that makes no sense, and says what is allowed.
    pub fn from_env(
        env: impl Fn(&str) -> Option<OsString>,
        logger: Logger,
    ) -> io::Result<ServiceManager> {
        let name = env("NOTIFY_SOCKET").filter(|name| !name.is_empty());
        let socket = match &name {
            None => None,
            Some(name) => {
                let socket = socket(name.as_bytes());
                Some(socket.map_err(|e| wrong("NOTIFY_SOCKET", name, &e))?)
            }
        };
        let beat = if socket.is_some() { beat(env)? } else { None };
        Ok(ServiceManager { socket, beat, failures: RateLimited::default(), logger })
    }

    /// Says it, and whether it was taken. A failure costs the server nothing, and is told.
    pub fn tell(&self, words: &str) -> bool {
        let Some((socket, address)) = &self.socket else { return true };
        let Err(error) = socket.send_to_addr(words.as_bytes(), address) else { return true };
        if let Some(untold) = self.failures.untold(Instant::now()) {
            self.logger.error(format_args!(
                "cannot tell systemd {words:?}: {error} ({untold} times before untold)"
            ));
        }
        false
    }

    /// Blocks until the shutdown, saying all the while that the server lives, as long as it does.
    pub fn attend(&self, shutdown: &Shutdown, lives: impl Fn() -> bool) {
        let Some(beat) = self.beat else { return shutdown.wait() };
        let mut pause = beat;
        while !shutdown.wait_until(Instant::now() + pause) {
            // If it was not seen, or not taken, again soon: half of the time is left.
            pause =
                if lives() && self.tell("WATCHDOG=1") { beat } else { ACCEPT_WAKE_INTERVAL / 4 };
        }
    }
}

fn wrong(variable: &str, value: &dyn Debug, why: &dyn Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{variable}={value:?}: {why}"))
}

fn socket(name: &[u8]) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name))?,
        _ => return Err(io::Error::other("allowed is a path from the root, or @ and a name")),
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(NOTIFY_TIMEOUT))?;
    Ok((socket, address))
}

/// How often it wants to hear of this process that it lives.
fn beat(env: impl Fn(&str) -> Option<OsString>) -> io::Result<Option<Duration>> {
    let number = |variable: &str| match env(variable) {
        None => Ok(None),
        Some(value) => match value.to_str().and_then(parse_integer) {
            None => Err(wrong(variable, &value, &"allowed is a whole number")),
            number => Ok(number),
        },
    };
    let another = number("WATCHDOG_PID")?.is_some_and(|pid| pid != u64::from(std::process::id()));
    let Some(micros) = number("WATCHDOG_USEC")?.filter(|micros| *micros > 0 && !another) else {
        return Ok(None);
    };
    let time = Duration::from_micros(micros);
    if time < MIN_WATCHDOG_TIMEOUT {
        let why = format!(
            "the server looks at itself every {} s; allowed is a WatchdogSec of at least {} s",
            ACCEPT_WAKE_INTERVAL.as_secs(),
            MIN_WATCHDOG_TIMEOUT.as_secs()
        );
        return Err(wrong("WATCHDOG_USEC", &micros, &why));
    }
    Ok(Some(time / 2))
}
