//! Many connections with a held poll on each, and the waits until a server holds them all.

use std::time::{Duration, Instant};

use crate::LoadResult;
use crate::conn::{Conn, READ_BUFFER, RESPONSE_TIMEOUT, Received, Response};
use crate::epoll::Epoll;
use crate::target::{Cursor, Target};

/// Connections are opened in groups with a pause between them: a full accept queue would cost a
/// client the 1 s retry of its SYN.
const GROUP: usize = 64;
const GROUP_PAUSE: Duration = Duration::from_millis(2);

/// After the server reports that it holds all polls, its threads still need a moment to block.
const SETTLE: Duration = Duration::from_millis(50);
/// Between two requests for the number of held polls.
const POLL_COUNT_INTERVAL: Duration = Duration::from_millis(5);

pub struct HeldPolls {
    conns: Vec<Conn>,
    epoll: Epoll,
    buffer: Vec<u8>,
    /// The last round in which each connection received a response; a second one is an error.
    answered_in: Vec<u32>,
    round: u32,
}

impl HeldPolls {
    /// Opens `count` connections; connection `i` sends `request(i)`.
    pub fn open(
        port: u16,
        count: usize,
        request: impl Fn(usize) -> Vec<u8>,
    ) -> LoadResult<HeldPolls> {
        let epoll = Epoll::new()?;
        let mut conns = Vec::with_capacity(count);
        for token in 0..count {
            let mut conn = Conn::connect(port)?;
            conn.set_nonblocking()?;
            conn.send(&request(token))?;
            epoll.add(&conn, token)?;
            conns.push(conn);
            if token % GROUP == GROUP - 1 {
                std::thread::sleep(GROUP_PAUSE);
            }
        }
        let buffer = vec![0; READ_BUFFER];
        Ok(HeldPolls { conns, epoll, buffer, answered_in: vec![0; count], round: 0 })
    }

    pub fn send_all(&mut self, request: &[u8]) -> LoadResult<()> {
        self.conns.iter_mut().try_for_each(|conn| conn.send(request))
    }

    /// Reads one response on every connection, and returns for each the time from `started` until
    /// it was complete. Calls `check` for each response that differs from the last checked one.
    pub fn read_all(
        &mut self,
        started: Instant,
        mut check: impl FnMut(&Response) -> LoadResult<()>,
    ) -> LoadResult<Vec<Duration>> {
        self.round += 1;
        let mut checked = Vec::new();
        let mut times = Vec::with_capacity(self.conns.len());
        let mut ready = Vec::new();
        while times.len() < self.conns.len() {
            self.epoll.wait(RESPONSE_TIMEOUT, &mut ready)?;
            if ready.is_empty() {
                let (all, missing) = (self.conns.len(), self.conns.len() - times.len());
                return Err(format!("{missing} of {all} polls are still unanswered").into());
            }
            for &token in &ready {
                match self.conns[token].receive(&mut self.buffer, &checked)? {
                    Received::Incomplete => continue,
                    Received::AsExpected => times.push(started.elapsed()),
                    Received::Response(response) => {
                        times.push(started.elapsed());
                        check(&response)?;
                        checked.clear();
                        checked.extend_from_slice(response.bytes());
                    }
                }
                let last_round = std::mem::replace(&mut self.answered_in[token], self.round);
                if last_round == self.round {
                    return Err("a poll was answered twice".into());
                }
            }
        }
        Ok(times)
    }
}

/// Creates a topic by publishing its first event; returns the cursor after that event.
pub fn create_topic(
    target: Target,
    control: &mut Conn,
    topic: &str,
    body: &str,
) -> LoadResult<Cursor> {
    target.check_publish(&control.call(&target.publish_request(topic, body))?, topic)?;
    let response = control.call(&target.poll_request(topic, &Cursor::Start))?;
    Ok(target.check_poll(&response, topic, body)?.cursor)
}

/// Waits until the server holds exactly `count` polls, on all topics together.
pub fn wait_until_held(target: Target, control: &mut Conn, count: usize) -> LoadResult<()> {
    wait_for_count(count, || target.held_polls(control))
}

/// Waits until exactly `count` polls of an existing topic are held and their threads are waiting.
pub fn wait_until_waiting(
    target: Target,
    control: &mut Conn,
    topic: &str,
    count: usize,
) -> LoadResult<()> {
    wait_until_held(target, control, count)?;
    wait_for_count(count, || target.waiting_polls(control, topic))
}

fn wait_for_count(count: usize, mut current: impl FnMut() -> LoadResult<usize>) -> LoadResult<()> {
    let deadline = Instant::now() + RESPONSE_TIMEOUT;
    loop {
        let held = current()?;
        if held == count {
            std::thread::sleep(SETTLE);
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("{held} polls are held instead of {count}").into());
        }
        std::thread::sleep(POLL_COUNT_INTERVAL);
    }
}
