//! The pause before a retry: random, between zero and a bound that doubles with each failure.
//!
//! This is "full jitter": clients that lost the same server at the same moment return spread over
//! the whole bound, not in waves.

use std::time::Duration;

use crate::limits::{BACKOFF_BASE, BACKOFF_MAX, RETRY_AFTER_MAX};

/// The pauses between attempts that fail one after another.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Counts a failure and returns the pause after it: at least `at_least`, which the server asked
    /// for and which is capped at [`RETRY_AFTER_MAX`].
    pub fn next(&mut self, at_least: Duration) -> Duration {
        let bound = self.bound();
        self.failures += 1;
        let jitter = Duration::from_micros(fastrand::u64(0..=bound.as_micros() as u64));
        at_least.min(RETRY_AFTER_MAX) + jitter
    }

    /// Restarts at the shortest bound, after a success.
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
        let longest_pause = |failures| {
            let pauses = (0..1_000).map(|_| Backoff { failures }.next(Duration::ZERO));
            let (min, max) = pauses.fold((Duration::MAX, Duration::ZERO), |(min, max), pause| {
                (min.min(pause), max.max(pause))
            });
            // Full jitter includes pauses near zero. This fails by chance once in 10^40 runs.
            assert!(min < max / 10, "{min:?} {max:?}");
            max
        };
        for (failures, bound) in [(0, 250), (1, 500), (4, 4_000), (7, 30_000), (40, 30_000)] {
            let bound = Duration::from_millis(bound);
            let max = longest_pause(failures);
            assert!(max <= bound && max > bound * 9 / 10, "{failures}: {max:?}");
        }
    }

    #[test]
    fn retry_after_is_the_shortest_pause_up_to_a_limit() {
        let mut backoff = Backoff::default();
        let retry_after = Duration::from_secs(3);
        let range = retry_after..=retry_after + BACKOFF_BASE;
        assert!(range.contains(&backoff.next(retry_after)));
        assert!(backoff.next(Duration::MAX) <= RETRY_AFTER_MAX + BACKOFF_MAX);
        backoff.reset();
        assert!(backoff.next(Duration::ZERO) <= BACKOFF_BASE);
    }
}
