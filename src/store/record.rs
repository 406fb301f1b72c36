//! What a line of a store says, as JSON and back.
//!
//! Reading is strict: members come in the order in which they are written here, and nothing else
//! passes. Whatever has a right checksum and still cannot be read was not written by this program.

use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::json::JsonObject;
use crate::log::{BodyKind, EventContent, LastTrim, TopicTrims};
use crate::names::Name;

/// One line.
#[derive(Debug)]
pub enum Record {
    Event(StoredEvent),
    /// What is left of a keyed publish whose last event is gone.
    Key(KeyRecord),
    /// Everything in this topic was trimmed.
    Trim(Name),
    /// Everything up to this seq was trimmed, because of its age.
    Expire(u64),
    /// A run of the program began that does not sync before it acknowledges.
    Opened,
    /// A run of the program ended in order, everything synced.
    Closed,
    /// Of a snapshot: a topic.
    Topic(TopicTrims),
    /// Of a snapshot: the next of the trims that are remembered one by one, all in one topic.
    Trimmed(Name, Vec<u64>),
}

/// An event on disk.
#[derive(Debug)]
pub struct StoredEvent {
    pub seq: u64,
    pub topic: Name,
    pub time: SystemTime,
    /// On the first event of a publish: how many there are in it.
    pub batch: usize,
    /// On the last event of a publish.
    pub stamp: Option<KeyStamp>,
    pub content: EventContent,
}

/// The key under which something was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyStamp {
    pub id: u128,
    pub fingerprint: u128,
    /// Of a batch, how many events it had.
    pub count: Option<u32>,
}

#[derive(Debug)]
pub struct KeyRecord {
    pub seq: u64,
    pub topic: Name,
    pub time: SystemTime,
    pub stamp: KeyStamp,
}

/// An event as it is written.
pub struct EventRecord<'a> {
    pub seq: u64,
    pub topic: &'a Name,
    pub time: SystemTime,
    pub batch: usize,
    pub stamp: Option<&'a KeyStamp>,
    pub content: &'a EventContent,
}

impl EventRecord<'_> {
    /// Writes it.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut object = JsonObject::begin(out);
        object.number("seq", self.seq).unescaped("topic", self.topic).time("time", self.time);
        if self.batch > 1 {
            object.number("batch", self.batch as u64);
        }
        if let Some(stamp) = self.stamp {
            push_stamp(&mut object, stamp);
        }
        if let Some(event_type) = &self.content.event_type {
            object.unescaped("type", event_type);
        }
        if let Some(content_type) = &self.content.content_type {
            object.string("content_type", content_type);
        }
        push_body(&mut object, self.content);
        object.end();
    }
}

/// A body as JSON where it is that, as a string where that is legible and no longer than base64,
/// else as base64.
fn push_body(object: &mut JsonObject<'_>, content: &EventContent) {
    let body = &content.body;
    if content.kind == BodyKind::Json && !body.contains(&b'\n') {
        // Byte for byte: it is the last member, so that nothing has to be parsed to find its end.
        object.with("data", |out| out.extend_from_slice(body));
        return;
    }
    let string = std::str::from_utf8(body).ok().map(crate::json::encode_string);
    let string =
        string.filter(|s| content.kind != BodyKind::Binary && s.len() <= body.len() / 3 * 4 + 6);
    let implied = if string.is_some() { BodyKind::Text } else { BodyKind::Binary };
    if content.kind != implied {
        object.unescaped("form", if content.kind == BodyKind::Json { "json" } else { "text" });
    }
    match string {
        Some(string) => object.with("text", |out| out.extend_from_slice(&string)),
        None => object.unescaped("base64", &BASE64.encode(body)),
    };
}

/// 128 bits, as [`RecordReader::hex`] reads them.
#[must_use]
pub fn hex(bits: u128) -> String {
    format!("{:016x}{:016x}", (bits >> 64) as u64, bits as u64)
}

fn push_stamp(object: &mut JsonObject<'_>, stamp: &KeyStamp) {
    object.unescaped("key", &hex(stamp.id)).unescaped("print", &hex(stamp.fingerprint));
    if let Some(count) = stamp.count {
        object.number("count", count.into());
    }
}

impl KeyRecord {
    /// Writes it.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut object = JsonObject::begin(out);
        object.number("used", self.seq).unescaped("topic", &self.topic).time("time", self.time);
        push_stamp(&mut object, &self.stamp);
        object.end();
    }
}

/// Writes that a topic was trimmed.
pub fn write_trim(out: &mut Vec<u8>, topic: &Name) {
    let mut object = JsonObject::begin(out);
    object.unescaped("trim", topic);
    object.end();
}

/// Writes that events have passed their age.
pub fn write_expire(out: &mut Vec<u8>, through: u64) {
    let mut object = JsonObject::begin(out);
    object.number("expire", through);
    object.end();
}

/// Writes that a run of the program begins or ends.
pub fn write_word(out: &mut Vec<u8>, word: &str) {
    let mut object = JsonObject::begin(out);
    object.boolean(word, true);
    object.end();
}

/// Writes a topic of a snapshot.
pub fn write_topic(out: &mut Vec<u8>, topic: &TopicTrims) {
    let mut object = JsonObject::begin(out);
    object
        .unescaped("name", &topic.topic)
        .number("trimmed_through", topic.last.seq)
        .number("trim", topic.last.number)
        .number("uncounted_through", topic.uncounted_through);
    object.end();
}

/// Writes trims of a snapshot.
pub fn write_trimmed(out: &mut Vec<u8>, topic: &Name, seqs: &[u64]) {
    let mut object = JsonObject::begin(out);
    object.unescaped("trimmed", topic).with("seqs", |out| {
        for (place, seq) in seqs.iter().enumerate() {
            out.push(if place == 0 { b'[' } else { b',' });
            crate::json::push_number(out, *seq);
        }
        out.push(b']');
    });
    object.end();
}

impl Record {
    /// Reads what a line says.
    #[must_use]
    pub fn read(json: &[u8]) -> Option<Record> {
        let mut r = RecordReader(json);
        let record = if r.take("{\"seq\":") {
            return r.event();
        } else if r.take("{\"expire\":") {
            Record::Expire(r.number()?)
        } else if r.take("{\"trim\":") {
            Record::Trim(r.name()?)
        } else if r.take("{\"used\":") {
            let seq = r.number()?;
            let topic = r.member("topic")?.name()?;
            let time = r.member("time")?.time()?;
            Record::Key(KeyRecord { seq, topic, time, stamp: r.stamp()?? })
        } else if r.take("{\"opened\":true") {
            Record::Opened
        } else if r.take("{\"closed\":true") {
            Record::Closed
        } else if r.take("{\"name\":") {
            let topic = r.name()?;
            let seq = r.member("trimmed_through")?.number()?;
            let number = r.member("trim")?.number()?;
            let uncounted_through = r.member("uncounted_through")?.number()?;
            Record::Topic(TopicTrims { topic, last: LastTrim { seq, number }, uncounted_through })
        } else if r.take("{\"trimmed\":") {
            let topic = r.name()?;
            r.member("seqs")?;
            let mut seqs = Vec::new();
            while r.take(if seqs.is_empty() { "[" } else { "," }) {
                seqs.push(r.number()?);
            }
            r.take("]").then_some(Record::Trimmed(topic, seqs))?
        } else {
            return None;
        };
        (r.0 == b"}").then_some(record)
    }
}

/// No number in a store is larger, so that one more is always a number: at a million events a second
/// there would be as many in 290,000 years.
pub const LARGEST: u64 = u64::MAX / 2;

/// What is left to read.
pub struct RecordReader<'a>(pub &'a [u8]);

impl<'a> RecordReader<'a> {
    /// Takes this, if it comes next.
    pub fn take(&mut self, literal: &str) -> bool {
        let rest = self.0.strip_prefix(literal.as_bytes());
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    /// Goes to the value of the next member, which has to have this key.
    pub fn member(&mut self, key: &str) -> Option<&mut Self> {
        self.optional(key).then_some(self)
    }

    /// The same, if the next member has this key.
    pub fn optional(&mut self, key: &str) -> bool {
        let mut ahead = RecordReader(self.0);
        let there = ahead.take(",\"") && ahead.take(key) && ahead.take("\":");
        if there {
            self.0 = ahead.0;
        }
        there
    }

    /// A whole number, up to [`LARGEST`].
    pub fn number(&mut self) -> Option<u64> {
        let digits = self.0.iter().take_while(|b| b.is_ascii_digit()).count();
        let (number, rest) = self.0.split_at(digits);
        self.0 = rest;
        std::str::from_utf8(number).ok()?.parse().ok().filter(|number| *number <= LARGEST)
    }

    /// A string in which nothing is escaped.
    pub fn plain(&mut self) -> Option<&'a str> {
        let rest = self.0.strip_prefix(b"\"")?;
        let end = rest.iter().position(|b| *b == b'"')?;
        self.0 = &rest[end + 1..];
        std::str::from_utf8(&rest[..end]).ok()
    }

    /// 128 bits.
    pub fn hex(&mut self) -> Option<u128> {
        let (high, low) = self.plain()?.split_at_checked(16).filter(|(_, low)| low.len() == 16)?;
        let half = |digits| u64::from_str_radix(digits, 16).ok();
        Some(u128::from(half(high)?) << 64 | u128::from(half(low)?))
    }

    /// A string as `serde_json` writes it: what has to be escaped is, and nothing else.
    fn string(&mut self) -> Option<Vec<u8>> {
        let mut rest = self.0.strip_prefix(b"\"")?.iter();
        let mut text = Vec::new();
        loop {
            match rest.next()? {
                b'"' => break,
                b'\\' => text.push(match rest.next()? {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'f' => 12,
                    b'u' => {
                        let (code, after) = rest.as_slice().split_at_checked(4)?;
                        rest = after.iter();
                        u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok()?
                    }
                    plain @ (b'"' | b'\\') => *plain,
                    _ => return None,
                }),
                plain => text.push(*plain),
            }
        }
        self.0 = rest.as_slice();
        std::str::from_utf8(&text).is_ok().then_some(text)
    }

    fn name(&mut self) -> Option<Name> {
        self.plain().and_then(Name::new)
    }

    fn time(&mut self) -> Option<SystemTime> {
        humantime::parse_rfc3339(self.plain()?).ok()
    }

    /// The outer is none when it is there and cannot be read.
    #[expect(clippy::option_option, reason = "absent and unreadable are two things")]
    fn stamp(&mut self) -> Option<Option<KeyStamp>> {
        if !self.optional("key") {
            return Some(None);
        }
        let id = self.hex()?;
        let fingerprint = self.member("print")?.hex()?;
        let count = if self.optional("count") { Some(self.number()? as u32) } else { None };
        Some(Some(KeyStamp { id, fingerprint, count }))
    }

    fn event(mut self) -> Option<Record> {
        let r = &mut self;
        let seq = r.number()?;
        let topic = r.member("topic")?.name()?;
        let time = r.member("time")?.time()?;
        let batch = if r.optional("batch") { r.number()? as usize } else { 1 };
        let stamp = r.stamp()?;
        let event_type = if r.optional("type") { Some(r.name()?) } else { None };
        let content_type =
            if r.optional("content_type") { String::from_utf8(r.string()?).ok() } else { None };
        let (kind, body) = if r.optional("data") {
            (BodyKind::Json, r.0.strip_suffix(b"}")?.to_vec())
        } else {
            let kind = if r.optional("form") { Some(r.plain()?) } else { None };
            let (implied, body) = if r.optional("text") {
                (BodyKind::Text, r.string()?)
            } else {
                (BodyKind::Binary, BASE64.decode(r.member("base64")?.plain()?).ok()?)
            };
            (r.0 == b"}").then_some(())?;
            let kind = match kind {
                None => implied,
                Some("json") => BodyKind::Json,
                Some("text") => BodyKind::Text,
                Some(_) => return None,
            };
            (kind, body)
        };
        let content_type = content_type.map(String::into_boxed_str);
        let content =
            EventContent { event_type, kind, content_type, body: body.into_boxed_slice() };
        Some(Record::Event(StoredEvent { seq, topic, time, batch, stamp, content }))
    }
}

#[cfg(test)]
mod tests;
