//! The addresses of a host name.
//!
//! The system library resolves names, for as long as it likes: getaddrinfo(3) takes no deadline, and
//! nothing interrupts it. So it runs on a thread of its own, and only the wait for that thread has
//! a deadline and ends at the shutdown signal.
//!
//! A thread whose answer is late cannot be stopped. It is kept, and the next attempt waits for its
//! answer instead of starting another, so each client has at most one. Dropping the client detaches
//! the thread, which holds nothing but the name; it ends when the library returns, or with the
//! program.

use std::io::{Error, Result};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::os::unix::net::UnixStream;
use std::thread::{Builder, JoinHandle};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags};

use super::moment::Moment;
use crate::limits::LATE_ADDRESSES_MAX;
use crate::shutdown::Shutdown;

/// Resolves the name of one server.
#[derive(Debug, Default)]
pub struct Resolver {
    /// A resolution that an earlier attempt did not wait for to the end, and when that attempt gave
    /// up.
    late: Option<(Resolution, Moment)>,
}

/// A call of the system library on a thread of its own.
#[derive(Debug)]
struct Resolution {
    thread: JoinHandle<Result<Vec<SocketAddr>>>,
    /// The thread holds the other end, so this one hangs up when the thread ends.
    end: UnixStream,
}

impl Resolver {
    /// Returns the addresses of a host.
    ///
    /// # Errors
    /// When the name has no address, when the deadline passes or the shutdown signal is given
    /// before the answer, and when the system refuses a thread.
    pub fn resolve(
        &mut self,
        host: &str,
        port: u16,
        deadline: Instant,
        shutdown: &Shutdown,
    ) -> Result<Vec<SocketAddr>> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![(address, port).into()]);
        }
        let host = host.to_owned();
        let lookup = move || Ok((&*host, port).to_socket_addrs()?.collect());
        self.resolve_with(lookup, deadline, shutdown)
    }

    fn resolve_with(
        &mut self,
        lookup: impl FnOnce() -> Result<Vec<SocketAddr>> + Send + 'static,
        deadline: Instant,
        shutdown: &Shutdown,
    ) -> Result<Vec<SocketAddr>> {
        let resolution = match self.take_late(&Moment::now()) {
            Some(late) if late.thread.is_finished() => match late.addresses() {
                Ok(addresses) => return Ok(addresses),
                // The cause of an earlier failure may be over.
                Err(_) => Resolution::start(lookup)?,
            },
            Some(late) => late,
            None => Resolution::start(lookup)?,
        };
        let ended = PollFd::new(&resolution.end, PollFlags::IN);
        match shutdown.wait_for(&ended, Some(deadline)) {
            Ok(true) => resolution.addresses(),
            failure => {
                self.late = Some((resolution, Moment::now()));
                failure?;
                Err(Error::other("its name was not resolved in time"))
            }
        }
    }

    /// The late resolution, unless its answer may be old by now.
    fn take_late(&mut self, now: &Moment) -> Option<Resolution> {
        let (resolution, abandoned) = self.late.take()?;
        let is_recent = now.since(&abandoned) < LATE_ADDRESSES_MAX;
        (is_recent || !resolution.thread.is_finished()).then_some(resolution)
    }
}

impl Resolution {
    fn start(
        lookup: impl FnOnce() -> Result<Vec<SocketAddr>> + Send + 'static,
    ) -> Result<Resolution> {
        let (end, thread_end) = UnixStream::pair()?;
        let work = move || {
            let addresses = lookup();
            drop(thread_end);
            addresses
        };
        // With the stack size of std: the system may add modules to its resolver.
        let thread = Builder::new().name("resolver".into()).spawn(work)?;
        Ok(Resolution { thread, end })
    }

    /// Waits for the end of the thread.
    fn addresses(self) -> Result<Vec<SocketAddr>> {
        self.thread.join().unwrap_or_else(|_| Err(Error::other("the resolver panicked")))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};
    use std::time::Duration;

    use super::*;

    /// Longer than any test takes.
    const LONG: Duration = Duration::from_secs(120);

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    /// A lookup that hangs until the test sends its answer.
    fn hanging() -> (Sender<SocketAddr>, impl FnOnce() -> Result<Vec<SocketAddr>>) {
        let (answer, receiver) = channel();
        (answer, move || receiver.recv().map(|address| vec![address]).map_err(Error::other))
    }

    fn never_called() -> Result<Vec<SocketAddr>> {
        panic!("a second thread was started")
    }

    #[test]
    fn late_answer_is_used_by_the_next_attempt_and_no_second_thread_is_started() {
        let shutdown = Shutdown::new().unwrap();
        let mut resolver = Resolver::default();
        let (answer, lookup) = hanging();
        let error = resolver.resolve_with(lookup, Instant::now(), &shutdown).unwrap_err();
        assert!(error.to_string().contains("in time"), "{error}");
        assert!(resolver.resolve_with(never_called, Instant::now(), &shutdown).is_err());
        answer.send(address(1)).unwrap();
        let addresses = resolver.resolve_with(never_called, Instant::now() + LONG, &shutdown);
        assert_eq!(addresses.unwrap(), [address(1)]);
        let lookup = || Ok(vec![address(2)]);
        let addresses = resolver.resolve_with(lookup, Instant::now() + LONG, &shutdown);
        assert_eq!(addresses.unwrap(), [address(2)]);
    }

    #[test]
    fn answer_at_the_deadline_is_either_returned_or_kept() {
        let shutdown = Shutdown::new().unwrap();
        for round in 0..2_000 {
            let mut resolver = Resolver::default();
            let deadline = Instant::now() + Duration::from_micros(fastrand::u64(0..200));
            let first =
                resolver.resolve_with(move || Ok(vec![address(round)]), deadline, &shutdown);
            let addresses = first
                .or_else(|_| resolver.resolve_with(never_called, Instant::now() + LONG, &shutdown));
            assert_eq!(addresses.unwrap(), [address(round)]);
        }
    }

    #[test]
    fn late_answer_is_not_used_after_a_long_time() {
        let shutdown = Shutdown::new().unwrap();
        let mut resolver = Resolver::default();
        let (answer, lookup) = hanging();
        resolver.resolve_with(lookup, Instant::now(), &shutdown).unwrap_err();
        let (resolution, abandoned) = resolver.late.take().unwrap();
        let later = abandoned.after(LATE_ADDRESSES_MAX, LATE_ADDRESSES_MAX);
        resolver.late = Some((resolution, abandoned));
        // Without an answer so far, that answer cannot be old.
        let resolution = resolver.take_late(&later).unwrap();
        answer.send(address(1)).unwrap();
        while !resolution.thread.is_finished() {
            std::thread::yield_now();
        }
        resolver.late = Some((resolution, abandoned));
        assert!(resolver.take_late(&later).is_none());
    }

    #[test]
    fn shutdown_ends_the_wait_for_an_answer() {
        let shutdown = Shutdown::new().unwrap();
        let (_answer, lookup) = hanging();
        let stop = shutdown.clone();
        let waiting = std::thread::spawn(move || {
            Resolver::default().resolve_with(lookup, Instant::now() + LONG, &shutdown)
        });
        stop.trigger();
        assert!(waiting.join().unwrap().is_err());
    }

    #[test]
    fn number_needs_no_lookup_and_a_failed_or_panicking_lookup_is_an_error() {
        let shutdown = Shutdown::new().unwrap();
        let mut resolver = Resolver::default();
        for (host, address) in [("192.0.2.1", "192.0.2.1:7"), ("::1", "[::1]:7")] {
            // Without a lookup, even a deadline that has passed is no failure.
            let addresses = resolver.resolve(host, 7, Instant::now(), &shutdown);
            assert_eq!(addresses.unwrap(), [address.parse().unwrap()]);
        }
        let deadline = Instant::now() + LONG;
        let failed =
            resolver.resolve_with(|| Err(Error::other("no such name")), deadline, &shutdown);
        assert_eq!(failed.unwrap_err().to_string(), "no such name");
        let panicked = resolver.resolve_with(|| panic!("on purpose"), deadline, &shutdown);
        assert!(panicked.unwrap_err().to_string().contains("panicked"));
    }
}
