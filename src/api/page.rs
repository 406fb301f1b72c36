//! Poll answers as bytes: rendered once, head included, and shared by equal polls.
//!
//! All polls at the same cursor with the same parameters get the same page. A page is true as long
//! as the log has not changed since it was read, so the log's version is all that has to be
//! compared.
//!
//! *Lock.* Each place of [`Pages`] has one, held for a comparison; pages are rendered outside.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use parking_lot::Mutex;

use crate::cursor::Since;
use crate::http::Answer;
use crate::json::{self, Object};
use crate::limits::{ANSWERS_BYTES, GAP_HEADER_BYTES, PAGE_BYTES, SHARED_PAGE_BYTES, SHARED_PAGES};
use crate::log::{Event, Form, Gap, OnGap, Slice};
use crate::names::{TopicSet, TypeFilter};
use crate::permits::{Permit, Permits};
use crate::seconds::Seconds;

/// How events are shown.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Format {
    Json,
    Ndjson,
    Raw,
}

/// Everything that decides what a page says, at one version of the log.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct PageKey {
    pub topics: TopicSet,
    pub since: Since,
    pub types: TypeFilter,
    pub limit: usize,
    pub format: Format,
    pub on_gap: OnGap,
    /// `Prefer: wait` as it was honoured.
    pub preferred: Option<u64>,
}

impl PageKey {
    /// Whether the two differ at most in where they begin.
    pub fn same_but_since(&self, other: &PageKey) -> bool {
        let PageKey { topics, since: _, types, limit, format, on_gap, preferred } = other;
        self.topics == *topics
            && self.types == *types
            && self.limit == *limit
            && self.format == *format
            && self.on_gap == *on_gap
            && self.preferred == *preferred
    }
}

/// Why a poll was answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    Data,
    /// After so long.
    Timeout(Duration),
    Drain,
}

impl Reason {
    /// As the wire says it.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Reason::Data => "data",
            Reason::Timeout(_) => "timeout",
            Reason::Drain => "drain",
        }
    }
}

/// A rendered answer.
pub struct Page {
    bytes: Vec<u8>,
    /// When its first event was appended.
    pub first_at: Option<Instant>,
    /// Its room among all answers in flight.
    _room: Permit,
}

impl Page {
    /// The whole message.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Where its head ends.
    #[must_use]
    pub fn head_length(&self) -> usize {
        let end = self.bytes.windows(4).position(|window| window == b"\r\n\r\n");
        end.map_or(self.bytes.len(), |at| at + 4)
    }
}

/// Pages that were rendered lately.
pub struct Pages {
    places: [Mutex<Option<Shared>>; SHARED_PAGES],
    hash: RandomState,
    /// Room for rendered answers.
    room: Permits,
}

struct Shared {
    key: PageKey,
    version: u64,
    /// A page says when it was made; it is shared only within that second.
    second: u64,
    found: Found,
}

/// What a look at the log brought, at some version of it.
#[derive(Clone)]
pub enum Found {
    /// Something to tell.
    Data(Arc<Page>),
    /// Nothing; this slice says from where to look next.
    Nothing(Arc<Slice>),
}

impl Default for Pages {
    fn default() -> Pages {
        Pages {
            places: std::array::from_fn(|_| Mutex::new(None)),
            hash: RandomState::new(),
            room: Permits::new(ANSWERS_BYTES),
        }
    }
}

impl Pages {
    fn place(&self, key: &PageKey) -> &Mutex<Option<Shared>> {
        &self.places[self.hash.hash_one(key) as usize % SHARED_PAGES]
    }

    /// What was found for this key at this version, if that is known.
    pub fn get(&self, key: &PageKey, version: u64) -> Option<Found> {
        let second = second();
        let place = self.place(key).lock();
        let shared = place.as_ref()?;
        let same = shared.version == version && shared.second == second && shared.key == *key;
        same.then(|| shared.found.clone())
    }

    /// Room for the next page: as much as it may have, or whatever is left.
    pub fn room_for_one(&self) -> Permit {
        self.room.take_up_to(PAGE_BYTES)
    }

    /// Counts another answer among those in flight, for as long as the permit lives.
    pub fn count(&self, bytes: usize) -> Permit {
        self.room.count(bytes)
    }

    /// Bytes of answers in flight, shared ones included.
    pub fn in_flight(&self) -> usize {
        self.room.taken()
    }

    /// Keeps what was found for the next equal poll, unless it is large.
    pub fn keep(&self, key: &PageKey, version: u64, found: &Found) {
        if matches!(found, Found::Data(page) if page.bytes.len() > SHARED_PAGE_BYTES) {
            return;
        }
        let found = found.clone();
        let shared = Shared { key: key.clone(), version, second: second(), found };
        // What it replaces is freed outside of the lock.
        let _replaced = self.place(key).lock().replace(shared);
    }
}

/// Renders a page of at most `room`, or of one event.
pub fn render(key: &PageKey, slice: &Slice, reason: Reason, mut room: Permit) -> Arc<Page> {
    let most = room.size();
    let first = slice.events.first();
    let (content_type, body, taken) = match key.format {
        Format::Json => {
            let (body, taken) = json_body(slice, reason, most);
            ("application/json".into(), body, taken)
        }
        Format::Ndjson => {
            let mut body = Vec::new();
            let taken = push_events(&mut body, slice, most, b"", b"\n");
            ("application/x-ndjson".into(), body, taken)
        }
        Format::Raw => {
            let body = first.map_or(Vec::new(), |event| event.draft.body.to_vec());
            (raw_content_type(first), body, slice.events.len().min(1))
        }
    };
    let mut answer = Answer::new(200, content_type, body)
        .with("Next-Cursor", slice.next(taken).to_string())
        .with("Poll-Reason", reason.label())
        .with("Cache-Control", "no-store, no-transform");
    if let Reason::Timeout(granted) = reason {
        answer = answer.with("Poll-Wait", Seconds(granted).to_string());
    }
    if key.format == Format::Raw {
        // What a publisher sent must not run in a reader's browser.
        answer = answer
            .with("Content-Security-Policy", "sandbox")
            .with("X-Content-Type-Options", "nosniff");
    }
    if let Some(gap) = slice.gap.as_ref().filter(|_| key.format != Format::Json) {
        answer = answer.with("Poll-Gap", gap_header(gap));
    }
    if let Some(wait) = key.preferred {
        answer = answer.with("Preference-Applied", format!("wait={wait}"));
    }
    let bytes = answer.encode(false, false);
    room.resize(bytes.capacity());
    Arc::new(Page { bytes, first_at: first.map(|event| event.at), _room: room })
}

fn second() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn json_body(slice: &Slice, reason: Reason, room: usize) -> (Vec<u8>, usize) {
    let mut body = Vec::new();
    let mut taken = 0;
    let mut object = Object::open(&mut body);
    object.nested("events", |out| {
        out.push(b'[');
        taken = push_events(out, slice, room, b",", b"");
        out.push(b']');
    });
    let behind = slice.behind(taken);
    object
        .string("next", &slice.next(taken).to_string())
        .boolean("more", behind > 0)
        .number("behind", behind)
        .string("reason", reason.label());
    if let Some(gap) = &slice.gap {
        object.nested("gap", |out| push_gap(out, &gap_members(gap)));
    }
    object.close();
    body.push(b'\n');
    (body, taken)
}

/// Appends events until the next would exceed `room`, at least one if there is one.
fn push_events(
    out: &mut Vec<u8>,
    slice: &Slice,
    room: usize,
    between: &[u8],
    after: &[u8],
) -> usize {
    let start = out.len();
    for (taken, event) in slice.events.iter().enumerate() {
        let end = out.len();
        if taken > 0 {
            out.extend_from_slice(between);
        }
        push_event(out, event);
        out.extend_from_slice(after);
        if taken > 0 && out.len() - start > room {
            out.truncate(end);
            return taken;
        }
    }
    slice.events.len()
}

fn push_event(out: &mut Vec<u8>, event: &Event) {
    let draft = &event.draft;
    let mut object = Object::open(out);
    object
        .number("seq", event.seq)
        .string("topic", event.topic())
        .string("time", &rfc3339(event.time));
    if let Some(tag) = &draft.tag {
        object.string("type", tag);
    }
    if let Some(content_type) = draft.content_type.as_ref().filter(|_| draft.form != Form::Json) {
        object.string("content_type", content_type);
    }
    match (draft.form, std::str::from_utf8(&draft.body)) {
        (Form::Json, _) => object.checked("data", &draft.body),
        (Form::Text, Ok(text)) => object.string("data", text),
        (Form::Binary | Form::Text, _) => object.string("data_base64", &BASE64.encode(&draft.body)),
    };
    object.close();
}

/// A time as the wire says it: RFC 3339, UTC, milliseconds.
#[must_use]
pub fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

fn raw_content_type(event: Option<&Arc<Event>>) -> std::borrow::Cow<'static, str> {
    let Some(event) = event else { return "text/plain; charset=utf-8".into() };
    match (&event.draft.content_type, event.draft.form) {
        (Some(own), _) => String::from(&**own).into(),
        (None, Form::Json) => "application/json".into(),
        (None, Form::Text) => "text/plain; charset=utf-8".into(),
        (None, Form::Binary) => "application/octet-stream".into(),
    }
}

/// The gap object's members, each as JSON.
pub fn gap_members(gap: &Gap) -> [(&'static str, Vec<u8>); 4] {
    let lost = gap.lost.as_ref().map(|lost| {
        let mut out = Vec::new();
        let mut object = Object::open(&mut out);
        for (topic, count) in lost {
            match count {
                Some(count) => object.number(topic, *count),
                None => object.checked(topic, NULL),
            };
        }
        object.close();
        out
    });
    let oldest = gap.oldest.map(|oldest| json::string(&oldest.to_string()));
    [
        ("why", json::string(gap.why.label())),
        ("lost", lost.unwrap_or_else(|| NULL.to_vec())),
        ("oldest", oldest.unwrap_or_else(|| NULL.to_vec())),
        ("resume", json::string(&gap.resume.to_string())),
    ]
}

const NULL: &[u8] = b"null";

fn push_gap(out: &mut Vec<u8>, members: &[(&'static str, Vec<u8>)]) {
    let mut object = Object::open(out);
    for (name, value) in members {
        object.checked(name, value);
    }
    object.close();
}

/// The gap object on one line; without the counts where those would not fit into a header.
fn gap_header(gap: &Gap) -> String {
    let mut members = gap_members(gap);
    let mut text = Vec::new();
    push_gap(&mut text, &members);
    if text.len() > GAP_HEADER_BYTES {
        members[1].1 = NULL.to_vec();
        text.clear();
        push_gap(&mut text, &members);
    }
    String::from_utf8_lossy(&text).into_owned()
}
