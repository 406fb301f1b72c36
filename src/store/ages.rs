//! The age of recovered events and idempotency keys.
//!
//! Records have the time of the wall clock, but ages run on the monotonic clock, which begins anew
//! with each boot. So a start derives ages from the times of the records and its own. A host without
//! a battery may boot in 1970, and any clock may be set wrong; an event that is trimmed because of
//! that is gone for good. So a step from one time to the next counts only if it can be true: it does
//! not go back, and is shorter than the longest age. A longer one would expire everything before
//! it, although the last run, which had a clock without steps, kept it.

use std::time::{Duration, SystemTime};

/// Adds up the time from record to record.
pub struct AgeClock {
    /// Steps of this length or more do not count.
    longest: Duration,
    last: Option<SystemTime>,
    elapsed: Duration,
}

impl AgeClock {
    /// A clock for records that are kept up to this age.
    #[must_use]
    pub fn new(longest: Duration) -> AgeClock {
        AgeClock { longest, last: None, elapsed: Duration::ZERO }
    }

    /// Moves on to the next record, or to the start. Returns the time since the first record.
    pub fn advance(&mut self, time: SystemTime) -> Duration {
        let step = self.step_to(time).filter(|step| *step < self.longest);
        self.elapsed = self.elapsed.saturating_add(step.unwrap_or_default());
        self.last = Some(time);
        self.elapsed
    }

    /// The step to this time, if it is too long to count.
    #[must_use]
    pub fn distrusted_step(&self, time: SystemTime) -> Option<Duration> {
        self.step_to(time).filter(|step| *step >= self.longest)
    }

    fn step_to(&self, time: SystemTime) -> Option<Duration> {
        time.duration_since(self.last?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_back_and_steps_of_the_longest_age_do_not_count() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let mut clock = AgeClock::new(Duration::from_secs(60));
        let mut advance = |seconds| clock.advance(at(seconds)).as_secs();
        assert_eq!(advance(1_000), 0);
        assert_eq!(advance(1_059), 59);
        assert_eq!(advance(20), 59);
        assert_eq!(advance(30), 69);
        assert_eq!(advance(1_059), 69);
        assert_eq!(advance(1_119), 69);
        assert_eq!(clock.distrusted_step(at(1_178)), None);
        assert_eq!(clock.distrusted_step(at(1_179)), Some(Duration::from_secs(60)));
        assert_eq!(clock.distrusted_step(at(1_000)), None);
    }
}
