//! The age of recovered events and idempotency keys.
//!
//! Records have the time of the wall clock, but ages run on the monotonic clock, which begins anew
//! with each boot. So a start derives ages from the times of the records and its own. A host without
//! a battery may boot in 1970, and any clock may be set wrong; an event that is trimmed because of
//! that is gone for good. So a step from one time to the next, forward or back, counts only if it is
//! shorter than the longest age. A longer one would expire everything before it, although the last
//! run, which had a clock without steps, kept it. Steps back count because publishers read the clock
//! before they queue for their seq: the times of consecutive records often change places, and the
//! forward steps alone would add up to more than the time that passed.

use std::time::{Duration, SystemTime};

/// Adds up the time from record to record.
pub struct AgeClock {
    /// Steps of this length or more do not count.
    longest: Duration,
    last: Option<SystemTime>,
    /// Nanoseconds from the first record to the last one; and the most that this ever was.
    elapsed: i128,
    furthest: Duration,
}

impl AgeClock {
    /// A clock for records that are kept up to this age.
    #[must_use]
    pub fn new(longest: Duration) -> AgeClock {
        AgeClock { longest, last: None, elapsed: 0, furthest: Duration::ZERO }
    }

    /// Moves on to the next record, or to the start. Returns the time since the first record, which
    /// never decreases.
    pub fn advance(&mut self, time: SystemTime) -> Duration {
        let counted = |step: &Duration| *step < self.longest;
        let nanos = |step: Duration| step.as_nanos() as i128;
        let step = self.last.map(|last| match time.duration_since(last) {
            Ok(step) => Some(step).filter(counted).map_or(0, nanos),
            Err(back) => -Some(back.duration()).filter(counted).map_or(0, nanos),
        });
        self.elapsed = self.elapsed.saturating_add(step.unwrap_or_default());
        let elapsed = u64::try_from(self.elapsed).unwrap_or_default();
        self.furthest = self.furthest.max(Duration::from_nanos(elapsed));
        self.last = Some(time);
        self.furthest
    }

    /// The step forward to this time, if it is too long to count.
    #[must_use]
    pub fn distrusted_step(&self, time: SystemTime) -> Option<Duration> {
        let step = time.duration_since(self.last?).ok();
        step.filter(|step| *step >= self.longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_that_change_places_add_up_to_the_time_that_passed() {
        let at = |millis| SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
        let mut clock = AgeClock::new(Duration::from_secs(60));
        let ages: Vec<_> =
            [10, 9, 11, 8, 12, 12, 9, 20].map(|ms| clock.advance(at(ms)).as_millis()).into();
        assert_eq!(ages, [0, 0, 1, 1, 2, 2, 2, 10]);
    }

    #[test]
    fn steps_of_the_longest_age_do_not_count() {
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
