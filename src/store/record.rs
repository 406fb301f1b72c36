//! The records of a store: the JSON of each line, written and parsed.
//!
//! The parser is strict: it accepts members only in the order in which this file writes them. A
//! record with a correct checksum that does not parse was not written by this program.

use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::cursor::{Seq, TrimCount};
use crate::json::JsonObject;
use crate::log::{BodyKind, EventContent, KeyId, LastTrim, TopicTrims};
use crate::names::Name;

/// The content of one line.
#[derive(Debug)]
pub enum Record {
    Event(StoredEvent),
    /// The idempotency key of a publish whose last event compaction has dropped.
    Key(KeyRecord),
    /// All events of this topic were trimmed.
    Trim(Name),
    /// All events up to this seq were trimmed because of their age.
    Expire(Seq),
    /// The server started with a `--sync` that acknowledges events before it syncs them.
    Opened,
    /// The server shut down cleanly, with everything synced.
    Closed,
    /// The last record of a compacted segment: how many events and keys are before it, and the last
    /// seq among them. So a segment that lost its end is not taken for a whole one.
    CompactedEnd {
        records: u64,
        last: Seq,
    },
    /// Part of a snapshot: one topic.
    Topic(TopicTrims),
    /// Part of a snapshot: consecutive entries of the trim history, all of one topic.
    Trimmed(Name, Vec<Seq>),
}

/// An event on disk.
#[derive(Debug)]
pub struct StoredEvent {
    pub seq: Seq,
    pub topic: Name,
    pub time: SystemTime,
    /// Events in its publish, on the first of them; 1 on the others.
    pub batch: usize,
    /// The publish's idempotency key, on its last event.
    pub key: Option<StoredKey>,
    pub content: EventContent,
}

/// The idempotency key of a publish, as fingerprints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredKey {
    pub id: KeyId,
    pub fingerprint: u128,
    /// Events in the batch, if it was one.
    pub count: Option<u32>,
}

/// An idempotency key without its event.
#[derive(Debug)]
pub struct KeyRecord {
    /// The last event of the publish.
    pub seq: Seq,
    pub topic: Name,
    pub time: SystemTime,
    pub key: StoredKey,
}

/// An event to write; borrows what [`StoredEvent`] owns.
pub struct EventRecord<'a> {
    pub seq: Seq,
    pub topic: &'a Name,
    pub time: SystemTime,
    pub batch: usize,
    pub key: Option<&'a StoredKey>,
    pub content: &'a EventContent,
}

impl EventRecord<'_> {
    /// Appends the record's JSON.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut object = JsonObject::begin(out);
        object.number("seq", self.seq.get()).unescaped("topic", self.topic).time("time", self.time);
        if self.batch > 1 {
            object.number("batch", self.batch as u64);
        }
        if let Some(key) = self.key {
            push_key(&mut object, key);
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

/// Writes a JSON body of one line as JSON, any other JSON or text as a string unless base64 is
/// shorter, and binary bodies as base64.
fn push_body(object: &mut JsonObject<'_>, content: &EventContent) {
    let body = &content.body;
    if content.kind == BodyKind::Json && !body.contains(&b'\n') {
        // Byte for byte. It is the last member, so the reader finds its end without parsing it.
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

/// 128 bits as 32 hexadecimal digits, which [`RecordReader::hex`] parses.
#[must_use]
pub fn hex(bits: u128) -> String {
    format!("{:016x}{:016x}", (bits >> 64) as u64, bits as u64)
}

fn push_key(object: &mut JsonObject<'_>, key: &StoredKey) {
    object.unescaped("key", &hex(key.id.0)).unescaped("print", &hex(key.fingerprint));
    if let Some(count) = key.count {
        object.number("count", count.into());
    }
}

impl KeyRecord {
    /// Appends the record's JSON.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut object = JsonObject::begin(out);
        object
            .number("used", self.seq.get())
            .unescaped("topic", &self.topic)
            .time("time", self.time);
        push_key(&mut object, &self.key);
        object.end();
    }
}

/// Writes a [`Record::Trim`].
pub fn write_trim(out: &mut Vec<u8>, topic: &Name) {
    let mut object = JsonObject::begin(out);
    object.unescaped("trim", topic);
    object.end();
}

/// Writes a [`Record::Expire`].
pub fn write_expire(out: &mut Vec<u8>, through: Seq) {
    let mut object = JsonObject::begin(out);
    object.number("expire", through.get());
    object.end();
}

/// Writes [`Record::Opened`] or [`Record::Closed`]: `word` is `opened` or `closed`.
pub fn write_word(out: &mut Vec<u8>, word: &str) {
    let mut object = JsonObject::begin(out);
    object.boolean(word, true);
    object.end();
}

/// Writes a [`Record::CompactedEnd`].
pub fn write_compacted_end(out: &mut Vec<u8>, records: u64, last: Seq) {
    let mut object = JsonObject::begin(out);
    object.number("compacted_records", records).number("last", last.get());
    object.end();
}

/// Writes a [`Record::Topic`].
pub fn write_topic(out: &mut Vec<u8>, topic: &TopicTrims) {
    let mut object = JsonObject::begin(out);
    object
        .unescaped("name", &topic.topic)
        .number("trimmed_through", topic.last.seq.get())
        .number("trim", topic.last.number.get())
        .number("uncounted_through", topic.uncounted_through.get());
    object.end();
}

/// Writes a [`Record::Trimmed`].
pub fn write_trimmed(out: &mut Vec<u8>, topic: &Name, seqs: &[Seq]) {
    let mut object = JsonObject::begin(out);
    object.unescaped("trimmed", topic).with("seqs", |out| {
        for (place, seq) in seqs.iter().enumerate() {
            out.push(if place == 0 { b'[' } else { b',' });
            crate::json::push_number(out, seq.get());
        }
        out.push(b']');
    });
    object.end();
}

impl Record {
    /// Parses a record.
    #[must_use]
    pub fn parse(json: &[u8]) -> Option<Record> {
        let mut r = RecordReader(json);
        let record = if r.take("{\"seq\":") {
            return r.event();
        } else if r.take("{\"expire\":") {
            Record::Expire(r.seq()?)
        } else if r.take("{\"trim\":") {
            Record::Trim(r.name()?)
        } else if r.take("{\"used\":") {
            let seq = r.seq()?;
            let topic = r.member("topic")?.name()?;
            let time = r.member("time")?.time()?;
            Record::Key(KeyRecord { seq, topic, time, key: r.key()?? })
        } else if r.take("{\"compacted_records\":") {
            let records = r.number()?;
            Record::CompactedEnd { records, last: r.member("last")?.seq()? }
        } else if r.take("{\"opened\":true") {
            Record::Opened
        } else if r.take("{\"closed\":true") {
            Record::Closed
        } else if r.take("{\"name\":") {
            let topic = r.name()?;
            let seq = r.member("trimmed_through")?.seq()?;
            let number = r.member("trim")?.trim_count()?;
            let uncounted_through = r.member("uncounted_through")?.seq()?;
            Record::Topic(TopicTrims { topic, last: LastTrim { seq, number }, uncounted_through })
        } else if r.take("{\"trimmed\":") {
            let topic = r.name()?;
            r.member("seqs")?;
            let mut seqs = Vec::new();
            while r.take(if seqs.is_empty() { "[" } else { "," }) {
                seqs.push(r.seq()?);
            }
            r.take("]").then_some(Record::Trimmed(topic, seqs))?
        } else {
            return None;
        };
        (r.0 == b"}").then_some(record)
    }
}

/// The largest number in a store: adding 1 to it cannot overflow. At a million events a second,
/// seqs reach it in 290,000 years.
pub const MAX_NUMBER: u64 = u64::MAX / 2;

/// Parses a record from front to back; holds the rest of the input.
pub struct RecordReader<'a>(pub &'a [u8]);

impl<'a> RecordReader<'a> {
    /// Consumes `literal` if the input starts with it.
    pub fn take(&mut self, literal: &str) -> bool {
        let rest = self.0.strip_prefix(literal.as_bytes());
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    /// Advances to the value of the next member; `None` if it has another key.
    pub fn member(&mut self, key: &str) -> Option<&mut Self> {
        self.optional(key).then_some(self)
    }

    /// Advances to the value of the next member if it has this key.
    pub fn optional(&mut self, key: &str) -> bool {
        let mut ahead = RecordReader(self.0);
        let found = ahead.take(",\"") && ahead.take(key) && ahead.take("\":");
        if found {
            self.0 = ahead.0;
        }
        found
    }

    /// An unsigned decimal number, at most [`MAX_NUMBER`].
    pub fn number(&mut self) -> Option<u64> {
        let digits = self.0.iter().take_while(|b| b.is_ascii_digit()).count();
        let (number, rest) = self.0.split_at(digits);
        self.0 = rest;
        std::str::from_utf8(number).ok()?.parse().ok().filter(|number| *number <= MAX_NUMBER)
    }

    /// A [`Seq`].
    pub fn seq(&mut self) -> Option<Seq> {
        self.number().map(Seq::new)
    }

    /// A [`TrimCount`].
    pub fn trim_count(&mut self) -> Option<TrimCount> {
        self.number().map(TrimCount::new)
    }

    /// A string without escapes.
    pub fn unescaped(&mut self) -> Option<&'a str> {
        let rest = self.0.strip_prefix(b"\"")?;
        let end = rest.iter().position(|b| *b == b'"')?;
        self.0 = &rest[end + 1..];
        std::str::from_utf8(&rest[..end]).ok()
    }

    /// 128 bits in 32 hexadecimal digits.
    pub fn hex(&mut self) -> Option<u128> {
        let (high, low) =
            self.unescaped()?.split_at_checked(16).filter(|(_, low)| low.len() == 16)?;
        let half = |digits| u64::from_str_radix(digits, 16).ok();
        Some(u128::from(half(high)?) << 64 | u128::from(half(low)?))
    }

    /// A string as `serde_json` writes it: only the characters that JSON requires are escaped.
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
        self.unescaped().and_then(Name::new)
    }

    fn time(&mut self) -> Option<SystemTime> {
        humantime::parse_rfc3339(self.unescaped()?).ok()
    }

    /// The optional key. The outer `None` is a parse error, the inner one an absent key.
    #[expect(clippy::option_option, reason = "absent and malformed differ")]
    fn key(&mut self) -> Option<Option<StoredKey>> {
        if !self.optional("key") {
            return Some(None);
        }
        let id = KeyId(self.hex()?);
        let fingerprint = self.member("print")?.hex()?;
        let count = if self.optional("count") { Some(self.number()? as u32) } else { None };
        Some(Some(StoredKey { id, fingerprint, count }))
    }

    fn event(mut self) -> Option<Record> {
        let r = &mut self;
        let seq = r.seq()?;
        let topic = r.member("topic")?.name()?;
        let time = r.member("time")?.time()?;
        let batch = if r.optional("batch") { r.number()? as usize } else { 1 };
        let key = r.key()?;
        let event_type = if r.optional("type") { Some(r.name()?) } else { None };
        let content_type =
            if r.optional("content_type") { String::from_utf8(r.string()?).ok() } else { None };
        let (kind, body) = if r.optional("data") {
            (BodyKind::Json, r.0.strip_suffix(b"}")?.to_vec())
        } else {
            let kind = if r.optional("form") { Some(r.unescaped()?) } else { None };
            let (implied, body) = if r.optional("text") {
                (BodyKind::Text, r.string()?)
            } else {
                (BodyKind::Binary, BASE64.decode(r.member("base64")?.unescaped()?).ok()?)
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
        Some(Record::Event(StoredEvent { seq, topic, time, batch, key, content }))
    }
}

#[cfg(test)]
mod tests;
