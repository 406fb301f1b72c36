//! A well-behaved client: it publishes, polls for what it has published, and asks for the health,
//! each on a new connection, one after the other, for as long as it is told to.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::target::{Cursor, Target};
use crate::wire::{Answer, Conn, Outcome};

const TOPIC: &str = "probe";
/// Between two requests.
const PAUSE: Duration = Duration::from_millis(10);
/// After a refusal the same request is sent again, until it is served: that all counts as one.
const RETRY: Duration = Duration::from_millis(100);
/// A request that is not served by then is lost.
const PATIENCE: Duration = Duration::from_secs(15);

/// What it saw.
#[derive(Default)]
pub struct Seen {
    pub asked: usize,
    pub answered: usize,
    /// How often it was refused, or cut off, before it was served.
    pub refused: usize,
    pub slowest: Duration,
}

impl Seen {
    /// Sends a request until it is served.
    fn ask(&mut self, port: u16, request: &[u8]) -> Outcome<Option<Answer<'static>>> {
        self.asked += 1;
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            let answer = Conn::open_once(port).map_err(Into::into).and_then(|mut conn| {
                conn.send(request)?;
                conn.answer(&mut [0; 16 * 1024])
            });
            match answer {
                Ok(answer) if answer.status != 503 => {
                    self.answered += 1;
                    self.slowest = self.slowest.max(begun.elapsed());
                    return Ok(Some(answer));
                }
                Ok(answer) if answer.header("retry-after").is_none() => {
                    return Err(format!("503 without Retry-After:\n{}", answer.excerpt()).into());
                }
                _ => self.refused += 1,
            }
            std::thread::sleep(RETRY);
        }
        self.slowest = self.slowest.max(begun.elapsed());
        Ok(None)
    }
}

/// Probes until it is told to stop.
pub fn run(target: Target, stop: &AtomicBool) -> Outcome<Seen> {
    let mut seen = Seen::default();
    let mut cursor = Cursor::Start;
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        let body = format!("event {count}");
        count += 1;
        if let Some(answer) = seen.ask(target.port, &target.publish(TOPIC, &body))? {
            target.check_publish(&answer, TOPIC)?;
            if let Some(answer) = seen.ask(target.port, &target.poll(TOPIC, &cursor))? {
                cursor = target.check_poll(&answer, TOPIC, &body)?.cursor;
            }
        }
        std::thread::sleep(PAUSE);
        if let Some(answer) = seen.ask(target.port, &target.health())? {
            if answer.status != 200 {
                return Err(format!("not well:\n{}", answer.excerpt()).into());
            }
        }
        std::thread::sleep(PAUSE);
    }
    Ok(seen)
}
