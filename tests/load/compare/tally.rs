//! What one client knows of what was published, and how late it came to know it.

use std::time::Duration;

use crate::stats::millis;
use crate::wire::Outcome;

/// So long is every event's text, whatever it says.
const LENGTH: usize = 64;

/// An event as its publisher wrote it. Times are since the start of the lane: one process publishes
/// and reads, so it is one monotonic clock.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Event {
    /// Its place in the list of what was published.
    pub number: usize,
    pub published: Duration,
}

impl Event {
    pub fn text(self) -> String {
        format!("{:<LENGTH$}", format!("{} {}", self.number, self.published.as_nanos()))
    }

    pub fn parse(text: &str) -> Outcome<Event> {
        let mut words = text.split_whitespace();
        let mut word = || words.next().ok_or("an event's text is too short");
        let (number, nanos) = (word()?.parse()?, word()?.parse()?);
        Ok(Event { number, published: Duration::from_nanos(nanos) })
    }
}

/// Of all clients of a lane together.
#[derive(Default)]
pub struct Deliveries {
    /// In ms, from the moment that the publisher wrote the event.
    pub latencies: Vec<f64>,
    /// The longest, in ms, that what a client showed was out of date.
    pub stalest: f64,
    /// Events that were handed over a second time.
    pub repeated: usize,
    /// Events that were handed over right after a later one.
    pub backwards: usize,
}

/// One client's.
pub struct Tally {
    seen: Vec<bool>,
    newest: usize,
    last: usize,
}

impl Tally {
    /// Event 0 is known from the start.
    pub fn new() -> Tally {
        Tally { seen: vec![true], newest: 0, last: 0 }
    }

    pub fn newest(&self) -> usize {
        self.newest
    }

    pub fn count(&self) -> usize {
        self.seen.iter().filter(|seen| **seen).count() - 1
    }

    /// An event is handed to the program behind the client.
    pub fn hand_over(
        &mut self,
        event: Event,
        at: Duration,
        published: &[Event],
        all: &mut Deliveries,
    ) -> Outcome<()> {
        let number = event.number;
        if published.get(number) != Some(&event) {
            return Err(format!("an event that nobody published: {event:?}").into());
        }
        all.backwards += usize::from(number < self.last);
        self.last = number;
        if self.seen.len() <= number {
            self.seen.resize(number + 1, false);
        }
        if std::mem::replace(&mut self.seen[number], true) {
            all.repeated += 1;
            return Ok(());
        }
        all.latencies.push(millis(at.saturating_sub(event.published)));
        if number > self.newest {
            self.note_staleness(at, published, all);
            self.newest = number;
        }
        Ok(())
    }

    /// Since the first event that it does not know of was published, what it shows is out of date;
    /// also when it will never get that one.
    pub fn note_staleness(&self, at: Duration, published: &[Event], all: &mut Deliveries) {
        if let Some(missing) = published.get(self.newest + 1) {
            all.stalest = all.stalest.max(millis(at.saturating_sub(missing.published)));
        }
    }
}
