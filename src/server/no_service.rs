//! In the place of `service.rs` in a build without the cargo feature `systemd`: no sockets are
//! passed, and nothing is notified.

use std::io;

use super::listener::Listener;
use crate::logger::Logger;
use crate::shutdown::Shutdown;

#[expect(clippy::unnecessary_wraps, reason = "service.rs can fail")]
pub fn passed_listeners() -> io::Result<Vec<Listener>> {
    Ok(Vec::new())
}

pub use self::NoService as Service;

pub struct NoService;

impl NoService {
    #[expect(clippy::unnecessary_wraps, reason = "service.rs can fail")]
    pub fn from_env(_: &Logger) -> io::Result<NoService> {
        Ok(NoService)
    }

    #[expect(clippy::unused_self, reason = "service.rs has a connection to the service manager")]
    pub fn notify_ready(&self, _: &[String]) {}

    #[expect(clippy::unused_self, reason = "service.rs has a connection to the service manager")]
    pub fn wait(&self, shutdown: &Shutdown, _: impl Fn() -> bool) {
        shutdown.wait();
    }
}
