//! Goal: whatever is published, trimmed and asked for, in whatever order, the log answers as a
//! model does that never forgets anything and looks at everything.
//!
//! The model keeps every event ever published with the number of the trim that took it. A cursor
//! is to it what the contract says: a seq, and how many trims there had been when it was issued.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use fastrand::Rng;
use longpoll::cursor::{Cursor, Epoch, Since};
use longpoll::limits::EVENT_OVERHEAD_BYTES;
use longpoll::log::{
    AppendError, Appended, BodyKind, EventContent, Gap, GapPolicy, Log, LogSlice, ReadRequest,
    Retention, Timestamp,
};
use longpoll::names::{Name, TopicSet, TypeFilter};

const TOPICS: [&str; 6] = ["a", "a.x", "a.y", "b", "b.x", "c"];
const ASKED: [&str; 8] = ["a", "b", "a*", "*", "a,b", "a.x,b*", "c,a.y", "nobody"];
const TAGS: [&str; 3] = ["", "red", "blue"];

struct KeyLookup {
    seq: u64,
    topic: &'static str,
    event_type: &'static str,
    at: Instant,
    cost: u64,
    /// Which trim took it, counted from one.
    trimmed: Option<u64>,
}

struct Model {
    events: Vec<KeyLookup>,
    trims: u64,
    retention: Retention,
}

/// A reader: what it asks for, the cursor it got last, and how many trims there had been then.
struct Reader {
    topics: TopicSet,
    asked: &'static str,
    tags: &'static str,
    since: Since,
    seq: u64,
    issued: u64,
}

fn matches(asked: &str, topic: &str) -> bool {
    asked.split(',').any(|pattern| match pattern.strip_suffix('*') {
        Some(prefix) => topic.starts_with(prefix),
        None => topic == pattern,
    })
}

impl Model {
    fn kept<'m>(&'m self, topic: impl Fn(&str) -> bool + 'm) -> impl Iterator<Item = usize> + 'm {
        (0..self.events.len())
            .filter(move |i| self.events[*i].trimmed.is_none() && topic(self.events[*i].topic))
    }

    fn trim(&mut self, index: Option<usize>) {
        if let Some(index) = index {
            self.trims += 1;
            self.events[index].trimmed = Some(self.trims);
        }
    }

    fn expire(&mut self, now: Instant) {
        loop {
            let aged = |i: &usize| now - self.events[*i].at >= self.retention.age;
            let oldest = self.kept(|_| true).next().filter(aged);
            if oldest.is_none() {
                return;
            }
            self.trim(oldest);
        }
    }

    fn publish(
        &mut self,
        topic: &'static str,
        event_type: &'static str,
        sizes: &[usize],
        now: Instant,
    ) {
        self.expire(now);
        for size in sizes {
            let seq = self.events.len() as u64 + 1;
            let cost = (size + event_type.len() + EVENT_OVERHEAD_BYTES) as u64;
            self.events.push(KeyLookup { seq, topic, event_type, at: now, cost, trimmed: None });
        }
        while self.kept(|t| t == topic).count() > self.retention.events {
            let oldest = self.kept(|t| t == topic).next();
            self.trim(oldest);
        }
        while self.kept(|_| true).map(|i| self.events[i].cost).sum::<u64>() > self.retention.bytes {
            let oldest = self.kept(|_| true).next();
            self.trim(oldest);
        }
    }

    fn delete(&mut self, topic: &str) {
        let all: Vec<_> = self.kept(|t| t == topic).collect();
        for index in all {
            self.trim(Some(index));
        }
    }

    /// What a reader has lost, by topic.
    fn lost(&self, reader: &Reader) -> BTreeMap<String, Option<u64>> {
        let mut lost = BTreeMap::new();
        for event in &self.events {
            let gone = event.trimmed.is_some_and(|number| number > reader.issued);
            if gone && event.seq > reader.seq && matches(reader.asked, event.topic) {
                *lost.entry(event.topic.to_owned()).or_insert(Some(0)).as_mut().unwrap() += 1;
            }
        }
        lost
    }

    /// The kept events that a reader wants.
    fn wanted(&self, reader: &Reader) -> Vec<u64> {
        self.kept(|t| matches(reader.asked, t))
            .map(|index| &self.events[index])
            .filter(|event| {
                reader.tags.is_empty() || reader.tags.split(',').any(|t| t == event.event_type)
            })
            .map(|event| event.seq)
            .filter(|seq| *seq > reader.seq)
            .collect()
    }
}

/// The log and the model side by side.
struct Pair {
    log: Log<()>,
    model: Model,
    epoch: Epoch,
    clock: Timestamp,
    random: Rng,
    /// Whether topics are forgotten, so that a gap may be told where there is none.
    forgetful: bool,
}

impl Pair {
    fn new(seed: u64, retention: Retention) -> Pair {
        let epoch = Epoch::from_bits(seed);
        Pair {
            log: Log::new(epoch, retention),
            model: Model { events: Vec::new(), trims: 0, retention },
            epoch,
            clock: Timestamp { at: Instant::now(), wall: SystemTime::UNIX_EPOCH },
            random: Rng::with_seed(seed),
            forgetful: retention.topics < TOPICS.len(),
        }
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.random.usize(..from.len())]
    }

    fn publish(&mut self) {
        let (topic, event_type) = (self.pick(&TOPICS), self.pick(&TAGS));
        let sizes: Vec<usize> =
            (0..self.random.usize(1..4)).map(|_| self.random.usize(..200)).collect();
        let events = sizes.iter().map(|size| EventContent {
            event_type: Name::new(event_type),
            kind: BodyKind::Text,
            content_type: None,
            body: vec![b'x'; *size].into(),
        });
        match self.log.append(&Name::new(topic).unwrap(), events.collect(), None, self.clock) {
            Ok(Appended::New(cursor)) => {
                self.model.publish(topic, event_type, &sizes, self.clock.at);
                assert_eq!(cursor.seq, self.model.events.len() as u64);
            }
            Ok(Appended::Duplicate(_)) => panic!("there was no key"),
            Err(refused) => {
                assert_eq!(refused, AppendError::TooManyTopics);
                self.model.expire(self.clock.at);
                let mut busy: Vec<_> =
                    self.model.kept(|_| true).map(|i| self.model.events[i].topic).collect();
                busy.sort_unstable();
                busy.dedup();
                assert_eq!(busy.len(), self.model.retention.topics, "an empty one was there");
            }
        }
    }

    fn reader(&mut self) -> Reader {
        let asked = self.pick(&ASKED);
        Reader {
            topics: TopicSet::parse(asked).unwrap(),
            asked,
            tags: self.pick(&["", "", "red", "blue,red"]),
            since: match self.random.u8(..3) {
                0 => Since::Start,
                1 => Since::Now,
                _ => Since::Last(self.random.u64(..6)),
            },
            seq: 0,
            issued: 0,
        }
    }

    /// A word instead of a cursor means a place at the time of the poll.
    fn place(&self, reader: &mut Reader) {
        let head = self.model.events.len() as u64;
        reader.seq = 0;
        reader.seq = match reader.since {
            Since::After(cursor) => cursor.seq,
            Since::Start => 0,
            Since::Now | Since::Last(0) => head,
            Since::Last(last) => {
                let wanted = self.model.wanted(reader);
                match wanted.len().checked_sub(last as usize) {
                    _ if wanted.is_empty() => head,
                    Some(first) => wanted[first] - 1,
                    None => 0,
                }
            }
        };
        if !matches!(reader.since, Since::After(_)) {
            reader.issued = self.model.trims;
        }
    }

    fn read(&mut self, reader: &mut Reader) {
        self.place(reader);
        let topics = reader.topics.clone();
        let limit = self.pick(&[1, 2, 5, 1000]);
        let on_gap = self.pick(&[GapPolicy::Fail, GapPolicy::Skip]);
        let types = match reader.tags {
            "" => TypeFilter::default(),
            tags => TypeFilter::parse(tags).unwrap(),
        };
        let ask = ReadRequest { topics: &topics, types: &types, limit, bytes: usize::MAX, on_gap };
        let lost = self.model.lost(reader);
        match self.log.read(&ask, reader.since) {
            Err(gap) => {
                assert_eq!(on_gap, GapPolicy::Fail);
                self.check_gap(&gap, &lost);
                self.go_on(reader, gap.resume);
            }
            Ok(slice) => {
                if let Some(gap) = &slice.gap {
                    self.check_gap(gap, &lost);
                    self.go_on(reader, gap.resume);
                } else {
                    assert_eq!(lost, BTreeMap::new(), "not told about it");
                }
                self.check_slice(reader, &slice, limit);
            }
        }
    }

    fn check_gap(&self, gap: &Gap, lost: &BTreeMap<String, Option<u64>>) {
        if !self.forgetful {
            let trims_seen = gap.lost.as_ref().expect("few enough to count");
            let trims_seen: BTreeMap<_, _> =
                trims_seen.iter().map(|(t, n)| (t.to_string(), *n)).collect();
            assert_eq!(trims_seen, *lost);
        }
    }

    /// From now on the reader has this cursor, and was told of everything up to now. The cursor
    /// has to survive its way through the client.
    fn go_on(&self, reader: &mut Reader, cursor: Cursor) {
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        assert_eq!(cursor.epoch, self.epoch);
        // No kept event that the reader still needs may be left out.
        let skipped = |seq: &u64| *seq <= cursor.seq;
        assert!(!self.model.wanted(reader).iter().any(skipped) || reader.seq >= cursor.seq);
        *reader = Reader {
            since: Since::After(cursor),
            seq: cursor.seq,
            issued: self.model.trims,
            topics: reader.topics.clone(),
            ..*reader
        };
    }

    fn check_slice(&self, reader: &mut Reader, slice: &LogSlice, limit: usize) {
        let wanted = self.model.wanted(reader);
        let (now, later) = wanted.split_at(limit.min(wanted.len()));
        let seqs: Vec<u64> = slice.events.iter().map(|event| event.seq).collect();
        assert_eq!(seqs, now, "{:?} {:?}", reader.asked, reader.tags);
        assert_eq!(slice.behind(seqs.len()), later.len() as u64);
        // A page may be cut anywhere after its first event.
        let taken = if seqs.is_empty() { 0 } else { self.random.clone().usize(1..=seqs.len()) };
        assert_eq!(slice.behind(taken), (wanted.len() - taken) as u64);
        let next = slice.next(taken);
        match wanted.get(taken) {
            None => assert_eq!(next.seq, self.model.events.len() as u64, "not at the head"),
            Some(_) => assert_eq!(next.seq, seqs[taken - 1]),
        }
        reader.seq = next.seq;
        self.go_on(reader, next);
    }

    fn step(&mut self, readers: &mut Vec<Reader>) {
        match self.random.u8(..100) {
            0..50 => self.publish(),
            50..53 => {
                let topic = self.pick(&TOPICS);
                self.log.trim(&Name::new(topic).unwrap());
                self.model.delete(topic);
            }
            53..60 => self.clock.at += Duration::from_secs(self.random.u64(..30)),
            60..63 => {
                self.log.expire(self.clock.at);
                self.model.expire(self.clock.at);
            }
            63..70 => {
                let reader = self.reader();
                readers.push(reader);
                if readers.len() > 12 {
                    readers.swap_remove(self.random.usize(..12));
                }
            }
            _ if readers.is_empty() => {}
            _ => {
                let mut reader = readers.swap_remove(self.random.usize(..readers.len()));
                self.read(&mut reader);
                readers.push(reader);
            }
        }
    }
}

fn run(retention: Retention, rounds: u64) {
    for seed in 0..rounds {
        // A failure names its seed, and the seed repeats it.
        let guard = std::panic::catch_unwind(|| {
            let mut pair = Pair::new(seed, retention);
            let mut readers = Vec::new();
            (0..400).for_each(|_| pair.step(&mut readers));
        });
        assert!(guard.is_ok(), "seed {seed}");
    }
}

const RETENTION: Retention =
    Retention { events: 6, age: Duration::from_secs(60), bytes: 6_000, topics: 100 };

#[test]
fn the_log_agrees_with_a_model_that_looks_at_everything() {
    run(RETENTION, 300);
}

#[test]
fn the_log_agrees_when_only_the_byte_budget_trims() {
    run(Retention { events: 1_000, age: Duration::from_secs(100_000), ..RETENTION }, 300);
}

#[test]
fn a_forgotten_topic_never_hides_a_gap() {
    run(Retention { topics: 3, ..RETENTION }, 300);
}
