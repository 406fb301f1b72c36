//! Which events each client has received, and the latency, duplicates and losses of all deliveries.

use std::time::Duration;

use crate::LoadResult;
use crate::stats::millis;

/// Every event's text is padded to this length.
const TEXT_LENGTH: usize = 64;

/// An event of a scenario, which states when it was published. Times are since the scenario's
/// start: one process publishes and reads, so both use one monotonic clock.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct TimedEvent {
    /// Its index in the list of published events.
    pub number: usize,
    pub published_at: Duration,
}

impl TimedEvent {
    pub fn text(self) -> String {
        format!("{:<TEXT_LENGTH$}", format!("{} {}", self.number, self.published_at.as_nanos()))
    }

    pub fn parse(text: &str) -> LoadResult<TimedEvent> {
        let mut words = text.split_whitespace();
        let mut word = || words.next().ok_or("an event's text is too short");
        let (number, nanos) = (word()?.parse()?, word()?.parse()?);
        Ok(TimedEvent { number, published_at: Duration::from_nanos(nanos) })
    }
}

/// The figures of all clients of a scenario together.
#[derive(Default)]
pub struct DeliveryStats {
    /// In ms, from the publisher's write to the client's use of the event.
    pub latencies: Vec<f64>,
    /// In ms: the longest time for which a client's newest event was not the newest published one.
    pub max_staleness: f64,
    /// Deliveries of an event that the client had received before.
    pub duplicates: usize,
    /// Deliveries of an event directly after a later one.
    pub out_of_order: usize,
}

/// The events that one client has received.
pub struct ReceivedEvents {
    received: Vec<bool>,
    newest: usize,
    last: usize,
}

impl ReceivedEvents {
    /// Every client has event 0 from the start.
    pub fn new() -> ReceivedEvents {
        ReceivedEvents { received: vec![true], newest: 0, last: 0 }
    }

    pub fn newest(&self) -> usize {
        self.newest
    }

    /// The number of received events, event 0 excluded.
    pub fn count(&self) -> usize {
        self.received.iter().filter(|received| **received).count() - 1
    }

    /// Records the delivery of an event at a time.
    pub fn deliver(
        &mut self,
        event: TimedEvent,
        at: Duration,
        published: &[TimedEvent],
        stats: &mut DeliveryStats,
    ) -> LoadResult<()> {
        let number = event.number;
        if published.get(number) != Some(&event) {
            return Err(format!("received an event that was not published: {event:?}").into());
        }
        stats.out_of_order += usize::from(number < self.last);
        self.last = number;
        if self.received.len() <= number {
            self.received.resize(number + 1, false);
        }
        if std::mem::replace(&mut self.received[number], true) {
            stats.duplicates += 1;
            return Ok(());
        }
        stats.latencies.push(millis(at.saturating_sub(event.published_at)));
        if number > self.newest {
            self.record_staleness(at, published, stats);
            self.newest = number;
        }
        Ok(())
    }

    /// Records for how long the client has been out of date: since the first event after its newest
    /// one was published, even if it never receives that event.
    pub fn record_staleness(
        &self,
        at: Duration,
        published: &[TimedEvent],
        stats: &mut DeliveryStats,
    ) {
        if let Some(missing) = published.get(self.newest + 1) {
            let staleness = millis(at.saturating_sub(missing.published_at));
            stats.max_staleness = stats.max_staleness.max(staleness);
        }
    }
}
