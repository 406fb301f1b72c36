//! The header fields that mean something here.

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
    /// One bit for each length that a name has: most fields of most requests end there.
    const LENGTHS: u32 = {
        let (mut bits, mut place) = (0, 0);
        while place < Field::NAMES.len() {
            bits |= 1 << Field::NAMES[place].0.len();
            place += 1;
        }
        bits
    };

    /// The field of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Field> {
        let length = name.len();
        if length >= 32 || Field::LENGTHS >> length & 1 == 0 {
            return None;
        }
        let same =
            |(known, _): &&(&str, Field)| known.len() == length && known.eq_ignore_ascii_case(name);
        Field::NAMES.iter().find(same).map(|(_, field)| *field)
    }

    /// The name as it is usually written.
    #[must_use]
    pub fn name(self) -> &'static str {
        Field::NAMES[self as usize].0
    }
}
