//! Level-triggered epoll: one thread waits for thousands of sockets, in the load generator and in
//! the floor server.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{Timespec, epoll};

use crate::LoadResult;

/// Sockets are known by tokens, which the caller chooses.
pub struct Epoll {
    descriptor: OwnedFd,
    events: Vec<epoll::Event>,
}

impl Epoll {
    pub fn new() -> LoadResult<Epoll> {
        let blank =
            epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) };
        let descriptor = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Epoll { descriptor, events: vec![blank; 512] })
    }

    pub fn add(&self, source: impl AsFd, token: usize) -> LoadResult<()> {
        let data = epoll::EventData::new_u64(token as u64);
        Ok(epoll::add(&self.descriptor, source, data, epoll::EventFlags::IN)?)
    }

    /// Fills `ready` with the tokens of readable sockets; leaves it empty after `timeout`.
    pub fn wait(&mut self, timeout: Duration, ready: &mut Vec<usize>) -> LoadResult<()> {
        ready.clear();
        let timeout = Timespec {
            tv_sec: timeout.as_secs() as i64,
            tv_nsec: i64::from(timeout.subsec_nanos()),
        };
        let count = match epoll::wait(&self.descriptor, &mut self.events[..], Some(&timeout)) {
            Ok(count) => count,
            Err(rustix::io::Errno::INTR) => 0,
            Err(error) => return Err(error.into()),
        };
        ready.extend(self.events[..count].iter().map(|event| {
            let data = event.data;
            data.u64() as usize
        }));
        Ok(())
    }
}
