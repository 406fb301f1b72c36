//! The names of the header fields that this program uses.
//!
//! A name is compared once, when the head is parsed; from then on it is a variant of an enum. Other
//! fields are not kept.

/// The header fields that the server or the client reads. Others are checked for syntax and
/// dropped.
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
    /// Exactly once in a request of HTTP/1.1; a target in absolute form replaces its value.
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
    /// Kept only if `Connection` lists it (RFC 9110, section 7.8).
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

    /// Looks up a name, in any case of letters.
    #[must_use]
    pub fn parse(name: &[u8]) -> Option<HeaderName> {
        // Most clients use the usual case. Without `==` before it, the comparison that ignores case
        // cost 4 % more instructions for a publish.
        let is_same = |known: &[u8]| known == name || known.eq_ignore_ascii_case(name);
        let mut names = HeaderName::NAMES.iter();
        names.find(|(known, _)| is_same(known.as_bytes())).map(|(_, name)| *name)
    }

    /// The name in its usual case.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        HeaderName::NAMES[self as usize].0
    }
}

/// Whether a byte may be in a token: a method or a field name (RFC 9110, section 5.6.2).
pub const fn is_token(byte: u8) -> bool {
    let is_mark =
        matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~');
    is_mark || byte.is_ascii_alphanumeric()
}
