//! The header fields that mean something here.
//!
//! A field is recognised once, while the head is read, and is a variant from then on: no code
//! further in compares names, and no field that nobody looks at is kept.

/// The request fields that anything here looks at. Others are checked for syntax and let go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeaderName {
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

impl HeaderName {
    const NAMES: [(&str, HeaderName); 22] = [
        ("Accept", HeaderName::Accept),
        ("Access-Control-Request-Method", HeaderName::AccessControlRequestMethod),
        ("Authorization", HeaderName::Authorization),
        ("Connection", HeaderName::Connection),
        ("Content-Encoding", HeaderName::ContentEncoding),
        ("Content-Length", HeaderName::ContentLength),
        ("Content-Type", HeaderName::ContentType),
        ("Event-Type", HeaderName::EventType),
        ("Expect", HeaderName::Expect),
        ("Host", HeaderName::Host),
        ("Idempotency-Key", HeaderName::IdempotencyKey),
        ("If-None-Match", HeaderName::IfNoneMatch),
        ("Last-Event-ID", HeaderName::LastEventId),
        ("Origin", HeaderName::Origin),
        ("Prefer", HeaderName::Prefer),
        ("Sec-Fetch-Mode", HeaderName::SecFetchMode),
        ("Sec-Fetch-Site", HeaderName::SecFetchSite),
        ("Sec-WebSocket-Key", HeaderName::SecWebSocketKey),
        ("Sec-WebSocket-Version", HeaderName::SecWebSocketVersion),
        ("Transfer-Encoding", HeaderName::TransferEncoding),
        ("Upgrade", HeaderName::Upgrade),
        ("X-Forwarded-For", HeaderName::XForwardedFor),
    ];
    /// For each length of a name, one bit for each field that has such a name: a look at one or two
    /// names, or at none, settles what most fields of most requests are.
    const WITH_LENGTH: [u32; 32] = {
        let (mut sets, mut place) = ([0; 32], 0);
        while place < HeaderName::NAMES.len() {
            sets[HeaderName::NAMES[place].0.len()] |= 1 << place;
            place += 1;
        }
        sets
    };

    /// The field of this name.
    #[must_use]
    pub fn named(name: &[u8]) -> Option<HeaderName> {
        let mut candidates = HeaderName::WITH_LENGTH.get(name.len()).copied()?;
        while candidates != 0 {
            let (known, field) = HeaderName::NAMES[candidates.trailing_zeros() as usize];
            // Most clients write it as it is written here.
            let known = known.as_bytes();
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
        HeaderName::NAMES[self as usize].0
    }
}

/// A character of a method or of a field's name (RFC 9110, section 5.6.2).
pub const fn is_token(byte: u8) -> bool {
    let marks =
        matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~');
    marks || byte.is_ascii_alphanumeric()
}
