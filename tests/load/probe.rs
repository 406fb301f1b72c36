//! The probe: a well-behaved client that runs beside an attack. It publishes, polls for its own
//! event and requests the health, one request at a time, each on a new connection.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::LoadResult;
use crate::conn::{Conn, Response};
use crate::target::{Cursor, Target};

const TOPIC: &str = "probe";
/// Between two requests.
const PAUSE: Duration = Duration::from_millis(10);
/// Before a refused request is retried. All tries of a request count as one request.
const RETRY: Duration = Duration::from_millis(100);
/// After this time without a response a request counts as unanswered.
const GIVE_UP: Duration = Duration::from_secs(15);

#[derive(Default)]
pub struct ProbeStats {
    pub requests: usize,
    pub answered: usize,
    /// Tries that were refused, or whose connection was closed.
    pub refusals: usize,
    /// The longest time from the first try to the response.
    pub slowest: Duration,
}

impl ProbeStats {
    /// Retries a request until it is answered; `None` if that takes longer than [`GIVE_UP`].
    fn request(&mut self, port: u16, request: &[u8]) -> LoadResult<Option<Response<'static>>> {
        self.requests += 1;
        let started = Instant::now();
        while started.elapsed() < GIVE_UP {
            let result = Conn::connect_once(port)
                .map_err(Into::into)
                .and_then(|mut conn| conn.call(request));
            match result {
                Ok(response) if response.status != 503 => {
                    self.answered += 1;
                    self.slowest = self.slowest.max(started.elapsed());
                    return Ok(Some(response));
                }
                Ok(response) if response.header("retry-after").is_none() => {
                    return Err(format!("503 without Retry-After:\n{}", response.excerpt()).into());
                }
                _ => self.refusals += 1,
            }
            std::thread::sleep(RETRY);
        }
        self.slowest = self.slowest.max(started.elapsed());
        Ok(None)
    }
}

/// Probes until `stop` is set.
pub fn run(target: Target, stop: &AtomicBool) -> LoadResult<ProbeStats> {
    let mut stats = ProbeStats::default();
    let mut cursor = Cursor::Start;
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        let body = format!("event {count}");
        count += 1;
        if let Some(response) = stats.request(target.port, &target.publish_request(TOPIC, &body))? {
            target.check_publish(&response, TOPIC)?;
            if let Some(response) =
                stats.request(target.port, &target.poll_request(TOPIC, &cursor))?
            {
                cursor = target.check_poll(&response, TOPIC, &body)?.cursor;
            }
        }
        std::thread::sleep(PAUSE);
        if let Some(response) = stats.request(target.port, &target.health_request())? {
            if response.status != 200 {
                return Err(format!("unhealthy:\n{}", response.excerpt()).into());
            }
        }
        std::thread::sleep(PAUSE);
    }
    Ok(stats)
}
