//! Guards the log against a model: random publishes, trims and reads in random order have the same
//! results in the log and in a model that forgets nothing and scans everything.
//!
//! The model keeps every published event with the number of the trim that removed it. A cursor in
//! the model is what the contract says: a seq, and the number of trims when it was issued.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
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
const TOPIC_SETS: [&str; 8] = ["a", "b", "a*", "*", "a,b", "a.x,b*", "c,a.y", "nobody"];
const TYPES: [&str; 3] = ["", "red", "blue"];

struct ModelEvent {
    seq: u64,
    topic: &'static str,
    event_type: &'static str,
    at: Instant,
    cost: u64,
    /// The number of the trim that removed the event, counted from one.
    trimmed: Option<u64>,
}

struct Model {
    events: Vec<ModelEvent>,
    trims: u64,
    retention: Retention,
}

/// A reader: its topics and types, its last cursor, and the number of trims when it got that
/// cursor.
struct Reader {
    topics: TopicSet,
    patterns: &'static str,
    types: &'static str,
    since: Since,
    seq: u64,
    issued: u64,
}

fn matches(patterns: &str, topic: &str) -> bool {
    patterns.split(',').any(|pattern| match pattern.strip_suffix('*') {
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
            let is_expired = |i: &usize| now - self.events[*i].at >= self.retention.age;
            let oldest = self.kept(|_| true).next().filter(is_expired);
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
            self.events.push(ModelEvent { seq, topic, event_type, at: now, cost, trimmed: None });
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

    /// The number of events that a reader has lost, by topic.
    fn lost(&self, reader: &Reader) -> BTreeMap<String, Option<u64>> {
        let mut lost = BTreeMap::new();
        for event in &self.events {
            let is_lost = event.trimmed.is_some_and(|number| number > reader.issued);
            if is_lost && event.seq > reader.seq && matches(reader.patterns, event.topic) {
                *lost.entry(event.topic.to_owned()).or_insert(Some(0)).as_mut().unwrap() += 1;
            }
        }
        lost
    }

    /// The kept events that match a reader.
    fn matching(&self, reader: &Reader) -> Vec<u64> {
        self.kept(|t| matches(reader.patterns, t))
            .map(|index| &self.events[index])
            .filter(|event| {
                reader.types.is_empty() || reader.types.split(',').any(|t| t == event.event_type)
            })
            .map(|event| event.seq)
            .filter(|seq| *seq > reader.seq)
            .collect()
    }
}

/// The log and the model, which get the same operations.
struct Pair {
    log: Log<()>,
    model: Model,
    epoch: Epoch,
    clock: Timestamp,
    random: Rng,
    /// Whether topics are forgotten; a gap may then be reported where none is.
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
        let (topic, event_type) = (self.pick(&TOPICS), self.pick(&TYPES));
        let sizes: Vec<usize> =
            (0..self.random.usize(1..4)).map(|_| self.random.usize(..200)).collect();
        let events = sizes.iter().map(|size| EventContent {
            event_type: Name::new(event_type),
            kind: BodyKind::Text,
            content_type: None,
            body: vec![b'x'; *size].into(),
        });
        match self.log.append(
            &Name::new(topic).unwrap(),
            events.collect(),
            None,
            self.clock,
            &mut Vec::new(),
        ) {
            Ok(Appended::New(cursor)) => {
                self.model.publish(topic, event_type, &sizes, self.clock.at);
                assert_eq!(cursor.seq.get(), self.model.events.len() as u64);
            }
            Ok(Appended::Duplicate(_)) => panic!("a publish without a key was a repeat"),
            Err(refused) => {
                assert_eq!(refused, AppendError::TooManyTopics);
                self.model.expire(self.clock.at);
                let mut busy: Vec<_> =
                    self.model.kept(|_| true).map(|i| self.model.events[i].topic).collect();
                busy.sort_unstable();
                busy.dedup();
                assert_eq!(
                    busy.len(),
                    self.model.retention.topics,
                    "refused although a topic was empty"
                );
            }
        }
    }

    fn reader(&mut self) -> Reader {
        let patterns = self.pick(&TOPIC_SETS);
        Reader {
            topics: TopicSet::parse(patterns).unwrap(),
            patterns,
            types: self.pick(&["", "", "red", "blue,red"]),
            since: match self.random.u8(..3) {
                0 => Since::Start,
                1 => Since::Now,
                _ => Since::Last(self.random.u64(..6)),
            },
            seq: 0,
            issued: 0,
        }
    }

    /// Resolves a word instead of a cursor to a position at the time of the poll.
    fn resolve_position(&self, reader: &mut Reader) {
        let head = self.model.events.len() as u64;
        reader.seq = 0;
        reader.seq = match reader.since {
            Since::After(cursor) => cursor.seq.get(),
            Since::Start => 0,
            Since::Now | Since::Last(0) => head,
            Since::Last(last) => {
                let matching = self.model.matching(reader);
                match matching.len().checked_sub(last as usize) {
                    _ if matching.is_empty() => head,
                    Some(first) => matching[first] - 1,
                    None => 0,
                }
            }
        };
        if !matches!(reader.since, Since::After(_)) {
            reader.issued = self.model.trims;
        }
    }

    fn read(&mut self, reader: &mut Reader) {
        self.resolve_position(reader);
        let topics = reader.topics.clone();
        let limit = self.pick(&[1, 2, 5, 1000]);
        let on_gap = self.pick(&[GapPolicy::Fail, GapPolicy::Skip]);
        let types = match reader.types {
            "" => TypeFilter::default(),
            types => TypeFilter::parse(types).unwrap(),
        };
        let ask = ReadRequest { topics: &topics, types: &types, limit, bytes: usize::MAX, on_gap };
        let lost = self.model.lost(reader);
        match self.log.read(&ask, reader.since) {
            Err(gap) => {
                assert_eq!(on_gap, GapPolicy::Fail);
                self.check_gap(&gap, &lost);
                self.advance(reader, gap.resume);
            }
            Ok(slice) => {
                if let Some(gap) = &slice.gap {
                    self.check_gap(gap, &lost);
                    self.advance(reader, gap.resume);
                } else {
                    assert_eq!(lost, BTreeMap::new(), "a gap was not reported");
                }
                self.check_slice(reader, &slice, limit);
            }
        }
    }

    fn check_gap(&self, gap: &Gap, lost: &BTreeMap<String, Option<u64>>) {
        if !self.forgetful {
            let reported = gap.lost.as_ref().expect("few enough trims to count");
            let reported: BTreeMap<_, _> =
                reported.iter().map(|(t, n)| (t.to_string(), n.map(NonZeroU64::get))).collect();
            assert_eq!(reported, *lost);
        }
    }

    /// Gives the reader this cursor; all gaps up to now are reported to it. The cursor must survive
    /// its round trip through the client as text.
    fn advance(&self, reader: &mut Reader, cursor: Cursor) {
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        assert_eq!(cursor.epoch, self.epoch);
        // The cursor must not skip a kept event that the reader has not seen.
        let skipped = |seq: &u64| *seq <= cursor.seq.get();
        assert!(!self.model.matching(reader).iter().any(skipped) || reader.seq >= cursor.seq.get());
        *reader = Reader {
            since: Since::After(cursor),
            seq: cursor.seq.get(),
            issued: self.model.trims,
            topics: reader.topics.clone(),
            ..*reader
        };
    }

    fn check_slice(&self, reader: &mut Reader, slice: &LogSlice, limit: usize) {
        let matching = self.model.matching(reader);
        let (now, later) = matching.split_at(limit.min(matching.len()));
        let seqs: Vec<u64> = slice.events.iter().map(|event| event.seq.get()).collect();
        assert_eq!(seqs, now, "{:?} {:?}", reader.patterns, reader.types);
        assert_eq!(slice.behind(seqs.len()), later.len() as u64);
        // A page may end after any of its events.
        let taken = if seqs.is_empty() { 0 } else { self.random.clone().usize(1..=seqs.len()) };
        assert_eq!(slice.behind(taken), (matching.len() - taken) as u64);
        let next = slice.next(taken);
        match matching.get(taken) {
            None => assert_eq!(
                next.seq.get(),
                self.model.events.len() as u64,
                "the cursor is not at the head"
            ),
            Some(_) => assert_eq!(next.seq.get(), seqs[taken - 1]),
        }
        reader.seq = next.seq.get();
        self.advance(reader, next);
    }

    fn step(&mut self, readers: &mut Vec<Reader>) {
        match self.random.u8(..100) {
            0..50 => self.publish(),
            50..53 => {
                let topic = self.pick(&TOPICS);
                self.log.trim(&Name::new(topic).unwrap(), &mut Vec::new());
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
        // A failure prints its seed, which repeats it.
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
fn log_agrees_with_the_model() {
    run(RETENTION, 300);
}

#[test]
fn log_agrees_with_the_model_when_only_the_byte_budget_trims() {
    run(Retention { events: 1_000, age: Duration::from_secs(100_000), ..RETENTION }, 300);
}

#[test]
fn forgotten_topic_never_hides_a_gap_in_the_model() {
    run(Retention { topics: 3, ..RETENTION }, 300);
}
