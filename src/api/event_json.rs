//! Events and gaps as JSON, as all transports send them.
//!
//! An event's body goes out as it came in; it is not parsed again for each reader. The limits on how
//! much fits into one page are applied here too, by bytes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::page_memory::PageMemory;
use crate::json::{self, JsonObject};
use crate::limits::PAGE_BYTES;
use crate::log::{BodyKind, Event, Gap, LogSlice};

/// Appends events until the next one would exceed the page or its `memory`, but at least one if
/// there is one, and returns how many. `push` gets each event with its index.
pub fn push_events(
    out: &mut Vec<u8>,
    slice: &LogSlice,
    memory: &mut PageMemory,
    push: &dyn Fn(&mut Vec<u8>, usize, &Event),
) -> usize {
    let start = out.len();
    for (index, event) in slice.events.iter().enumerate() {
        let end = out.len();
        push(out, index, event);
        let is_covered = memory.cover(out.capacity());
        if index > 0 && (out.len() - start > PAGE_BYTES || !is_covered) {
            out.truncate(end);
            return index;
        }
    }
    slice.events.len()
}

/// Appends an event as an object, on one line.
pub fn push_event(out: &mut Vec<u8>, event: &Event) {
    let content = &event.content;
    let mut object = JsonObject::begin(out);
    object
        .number("seq", event.seq.get())
        .unescaped("topic", event.topic())
        .time("time", event.time);
    if let Some(event_type) = &content.event_type {
        object.unescaped("type", event_type);
    }
    if let Some(content_type) =
        content.content_type.as_ref().filter(|_| content.kind != BodyKind::Json)
    {
        object.string("content_type", content_type);
    }
    match (content.kind, std::str::from_utf8(&content.body)) {
        (BodyKind::Json, _) => object.raw("data", &content.body),
        (BodyKind::Text, Ok(text)) => object.string("data", text),
        (BodyKind::Binary | BodyKind::Text, _) => {
            object.string("data_base64", &BASE64.encode(&content.body))
        }
    };
    object.end();
}

const NULL: &[u8] = b"null";

/// The members of a gap object, each value as JSON.
pub struct GapMembers([(&'static str, Vec<u8>); 4]);

impl GapMembers {
    pub fn of(gap: &Gap) -> GapMembers {
        let lost = gap.lost.as_ref().map(|lost| {
            let mut out = Vec::new();
            let mut object = JsonObject::begin(&mut out);
            for (topic, count) in lost {
                match count {
                    Some(count) => object.number(topic, count.get()),
                    None => object.raw(topic, NULL),
                };
            }
            object.end();
            out
        });
        let oldest = gap.oldest.map(|oldest| json::encode_string(&oldest.to_string()));
        GapMembers([
            ("why", json::encode_string(gap.why.label())),
            ("lost", lost.unwrap_or_else(|| NULL.to_vec())),
            ("oldest", oldest.unwrap_or_else(|| NULL.to_vec())),
            ("resume", json::encode_string(&gap.resume.to_string())),
        ])
    }

    /// Removes the counts of lost events, the only member without a bound on its length.
    pub fn without_counts(mut self) -> GapMembers {
        self.0[1].1 = NULL.to_vec();
        self
    }

    /// Appends the gap object, on one line.
    pub fn push(&self, out: &mut Vec<u8>) {
        let mut object = JsonObject::begin(out);
        for (name, value) in &self.0 {
            object.raw(name, value);
        }
        object.end();
    }
}

impl IntoIterator for GapMembers {
    type Item = (&'static str, Vec<u8>);
    type IntoIter = std::array::IntoIter<(&'static str, Vec<u8>), 4>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// Appends a gap as an object, on one line.
pub fn push_gap(out: &mut Vec<u8>, gap: &Gap) {
    GapMembers::of(gap).push(out);
}
