//! The header fields that mean something here.
//!
//! A field is recognised once, while the head is read, and is a variant from then on: no code
//! further in compares names, and no field that nobody looks at is kept.

/// The request fields that anything here looks at. Others are checked for syntax and let go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Field {
    Accept,
    AccessControlRequestMethod,
    Authorization,
    Connection,
    ContentEncoding,
    ContentLength,
    ContentType,
    EventType,
    Expect,
    /// Once in every request of HTTP/1.1; that of the target when it is in absolute form.
    Host,
    IdempotencyKey,
    IfNoneMatch,
    LastEventId,
    Origin,
    Prefer,
    SecFetchMode,
    SecFetchSite,
    SecWebSocketKey,
    SecWebSocketVersion,
    TransferEncoding,
    /// Only where `Connection` says that it is meant for this server.
    Upgrade,
    XForwardedFor,
}

impl Field {
    const NAMES: [(&str, Field); 22] = [
        ("Accept", Field::Accept),
        ("Access-Control-Request-Method", Field::AccessControlRequestMethod),
        ("Authorization", Field::Authorization),
        ("Connection", Field::Connection),
        ("Content-Encoding", Field::ContentEncoding),
        ("Content-Length", Field::ContentLength),
        ("Content-Type", Field::ContentType),
        ("Event-Type", Field::EventType),
        ("Expect", Field::Expect),
        ("Host", Field::Host),
        ("Idempotency-Key", Field::IdempotencyKey),
        ("If-None-Match", Field::IfNoneMatch),
        ("Last-Event-ID", Field::LastEventId),
        ("Origin", Field::Origin),
        ("Prefer", Field::Prefer),
        ("Sec-Fetch-Mode", Field::SecFetchMode),
        ("Sec-Fetch-Site", Field::SecFetchSite),
        ("Sec-WebSocket-Key", Field::SecWebSocketKey),
        ("Sec-WebSocket-Version", Field::SecWebSocketVersion),
        ("Transfer-Encoding", Field::TransferEncoding),
        ("Upgrade", Field::Upgrade),
        ("X-Forwarded-For", Field::XForwardedFor),
    ];
    /// For each length of a name, one bit for each field that has such a name: a look at one or two
    /// names, or at none, settles what most fields of most requests are.
    const WITH_LENGTH: [u32; 32] = {
        let (mut sets, mut place) = ([0; 32], 0);
        while place < Field::NAMES.len() {
            sets[Field::NAMES[place].0.len()] |= 1 << place;
            place += 1;
        }
        sets
    };

    /// The field of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Field> {
        let mut candidates = Field::WITH_LENGTH.get(name.len()).copied()?;
        while candidates != 0 {
            let (known, field) = Field::NAMES[candidates.trailing_zeros() as usize];
            // Most clients write it as it is written here.
            if known == name || known.eq_ignore_ascii_case(name) {
                return Some(field);
            }
            candidates &= candidates - 1;
        }
        None
    }

    /// A bit of its own, for sets of fields.
    #[must_use]
    pub fn bit(self) -> u32 {
        1 << self as u32
    }

    /// The name as it is usually written.
    #[must_use]
    pub fn name(self) -> &'static str {
        Field::NAMES[self as usize].0
    }
}

/// A character of a method or of a field's name (RFC 9110, section 5.6.2).
pub fn is_token(byte: u8) -> bool {
    let marks =
        matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~');
    marks || byte.is_ascii_alphanumeric()
}
