//! A point in time from which durations are right even if the machine sleeps in between.

use std::time::{Duration, Instant, SystemTime};

/// A point in time by two clocks, since each can show too little: the monotonic clock stops while
/// the machine sleeps, and the wall clock may be set back.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    monotonic: Instant,
    wall: SystemTime,
}

impl Moment {
    pub fn now() -> Moment {
        Moment { monotonic: Instant::now(), wall: SystemTime::now() }
    }

    /// The time since an earlier moment, by the clock that has advanced more.
    pub fn since(&self, earlier: &Moment) -> Duration {
        let monotonic = self.monotonic.saturating_duration_since(earlier.monotonic);
        // An error means that the wall clock was set back.
        monotonic.max(self.wall.duration_since(earlier.wall).unwrap_or_default())
    }

    /// The time since this moment.
    pub fn elapsed(&self) -> Duration {
        Moment::now().since(self)
    }
}

#[cfg(test)]
impl Moment {
    /// The moment at which the clocks have advanced by this much.
    pub fn after(&self, monotonic: Duration, wall: Duration) -> Moment {
        Moment { monotonic: self.monotonic + monotonic, wall: self.wall + wall }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_that_has_advanced_more_counts() {
        let [second, hour] = [1, 3_600].map(Duration::from_secs);
        let start = Moment::now();
        assert_eq!(start.after(second, second).since(&start), second);
        // The machine slept for an hour.
        assert_eq!(start.after(second, hour).since(&start), hour);
        // The wall clock was set back by an hour.
        let late = Moment { wall: start.wall + hour, ..start };
        assert_eq!(Moment { wall: start.wall, ..late.after(second, second) }.since(&late), second);
        assert_eq!(start.since(&start.after(second, hour)), Duration::ZERO);
    }
}
