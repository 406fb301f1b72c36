//! Many connections with a poll held on each.

use std::time::{Duration, Instant};

use crate::target::{Cursor, Target};
use crate::wire::{Answer, Conn, Got, Outcome, PATIENCE, SCRATCH, Watch};

/// Connections are opened in groups, so that no server's accept queue overflows and costs a client
/// its 1 s SYN retry.
const GROUP: usize = 64;

/// After the server says that all polls are held, its threads still need a moment to fall asleep.
const SETTLE: Duration = Duration::from_millis(50);

pub struct Flock {
    conns: Vec<Conn>,
    watch: Watch,
    scratch: Vec<u8>,
    /// The round in which each connection was last answered: an answer too many is an error.
    answered: Vec<u32>,
    round: u32,
}

impl Flock {
    /// Opens `count` connections; the `i`th sends `request(i)`.
    pub fn open(port: u16, count: usize, request: impl Fn(usize) -> Vec<u8>) -> Outcome<Flock> {
        let watch = Watch::new()?;
        let mut conns = Vec::with_capacity(count);
        for token in 0..count {
            let mut conn = Conn::open(port)?;
            conn.unblock()?;
            conn.send(&request(token))?;
            watch.add_conn(&conn, token)?;
            conns.push(conn);
            if token % GROUP == GROUP - 1 {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        Ok(Flock { conns, watch, scratch: vec![0; SCRATCH], answered: vec![0; count], round: 0 })
    }

    pub fn poll_all(&mut self, request: &[u8]) -> Outcome<()> {
        self.conns.iter_mut().try_for_each(|conn| conn.send(request))
    }

    /// Reads one answer on every connection. `check` sees each answer that differs from the one
    /// checked before it.
    /// Gives, per answer, the time since `started` at which it had been read completely.
    pub fn gather(
        &mut self,
        started: Instant,
        mut check: impl FnMut(&Answer) -> Outcome<()>,
    ) -> Outcome<Vec<Duration>> {
        self.round += 1;
        let mut pattern = Vec::new();
        let mut times = Vec::with_capacity(self.conns.len());
        let mut ready = Vec::new();
        while times.len() < self.conns.len() {
            self.watch.wait(PATIENCE, &mut ready)?;
            if ready.is_empty() {
                let missing = self.conns.len() - times.len();
                return Err(format!(
                    "{missing} of {} polls are still unanswered",
                    self.conns.len()
                )
                .into());
            }
            for &token in &ready {
                match self.conns[token].receive(&mut self.scratch, &pattern)? {
                    Got::Nothing => continue,
                    Got::Same => times.push(started.elapsed()),
                    Got::Answer(answer) => {
                        times.push(started.elapsed());
                        check(&answer)?;
                        pattern.clear();
                        pattern.extend_from_slice(answer.bytes());
                    }
                }
                if std::mem::replace(&mut self.answered[token], self.round) == self.round {
                    return Err("a poll was answered twice".into());
                }
            }
        }
        Ok(times)
    }
}

/// Makes the topic with a first event, and gives the cursor after it.
pub fn seed(target: Target, control: &mut Conn, topic: &str, body: &str) -> Outcome<Cursor> {
    target.check_publish(&control.call(&target.publish(topic, body))?, topic)?;
    let answer = control.call(&target.poll(topic, &Cursor::Start))?;
    Ok(target.check_poll(&answer, topic, body)?.cursor)
}

/// Returns when the server says that it holds exactly `count` polls, of whatever topics.
pub fn wait_held(target: Target, control: &mut Conn, count: usize) -> Outcome<()> {
    wait_for(count, || target.held(control))
}

/// Returns when the server says that exactly `count` polls of an existing topic wait.
pub fn wait_waiting(target: Target, control: &mut Conn, topic: &str, count: usize) -> Outcome<()> {
    wait_held(target, control, count)?;
    wait_for(count, || target.waiting(control, topic))
}

fn wait_for(count: usize, mut now: impl FnMut() -> Outcome<usize>) -> Outcome<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let held = now()?;
        if held == count {
            std::thread::sleep(SETTLE);
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("{held} polls are held instead of {count}").into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
