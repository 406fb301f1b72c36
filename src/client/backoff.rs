//! How long to wait before the next try: at random between nothing and a bound that doubles.
//!
//! That is "full jitter". Clients that lost the same server at the same moment come back spread
//! over the whole bound, not in waves.

use std::time::Duration;

use crate::limits::{BACKOFF_BASE, BACKOFF_MAX, RETRY_AFTER_MAX};

/// The pauses between tries that fail one after another.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The pause after one more failure; not shorter than what the server asked for.
    pub fn next(&mut self, at_least: Duration) -> Duration {
        let bound = self.bound();
        self.failures += 1;
        let jitter = Duration::from_micros(fastrand::u64(0..=bound.as_micros() as u64));
        at_least.min(RETRY_AFTER_MAX) + jitter
    }

    /// A try has succeeded.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    fn bound(&self) -> Duration {
        let doubled = 2u32.checked_pow(self.failures).map(|n| BACKOFF_BASE.saturating_mul(n));
        doubled.unwrap_or(BACKOFF_MAX).min(BACKOFF_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_spread_over_a_bound_that_doubles_up_to_a_limit() {
        let longest = |failures| {
            let pauses = (0..1_000).map(|_| Backoff { failures }.next(Duration::ZERO));
            let (least, most) = pauses.fold((Duration::MAX, Duration::ZERO), |(a, b), pause| {
                (a.min(pause), b.max(pause))
            });
            // Full jitter: also next to nothing. Wrong by chance once in 10^40 runs.
            assert!(least < most / 10, "{least:?} {most:?}");
            most
        };
        for (failures, bound) in [(0, 250), (1, 500), (4, 4_000), (7, 30_000), (40, 30_000)] {
            let bound = Duration::from_millis(bound);
            let most = longest(failures);
            assert!(most <= bound && most > bound * 9 / 10, "{failures}: {most:?}");
        }
    }

    #[test]
    fn the_server_decides_how_long_at_least_within_reason() {
        let mut backoff = Backoff::default();
        let asked = Duration::from_secs(3);
        assert!((asked..=asked + BACKOFF_BASE).contains(&backoff.next(asked)));
        assert!(backoff.next(Duration::MAX) <= RETRY_AFTER_MAX + BACKOFF_MAX);
        backoff.reset();
        assert!(backoff.next(Duration::ZERO) <= BACKOFF_BASE);
    }
}
