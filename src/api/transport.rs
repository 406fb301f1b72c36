//! The transport that a reader asks for: a poll, server-sent events or a WebSocket.
//!
//! All three have the same URL, the same `since` and the same cursors, so a client can change from
//! one to another and go on where it was. The request's header fields decide, by what every client
//! of that kind sends without being told to.

use crate::http::{HeaderName, Method, RequestHead};

/// How a reader receives events.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// One response.
    Poll,
    /// Server-sent events.
    Sse,
    WebSocket,
}

impl Transport {
    /// The transport that a request asks for. Every `EventSource` accepts `text/event-stream`, and
    /// no other client does so by accident.
    pub fn of(head: &RequestHead) -> Transport {
        let list = |field| head.get_all(field).flat_map(|value| value.split(','));
        let is_websocket = |name: &str| name.trim().eq_ignore_ascii_case("websocket");
        if head.method == Method::Get && list(HeaderName::Upgrade).any(is_websocket) {
            return Transport::WebSocket;
        }
        let accepts_sse = |range: &str| {
            let mut parts = range.split(';').map(str::trim);
            let is_zero = |quality: &str| quality.trim_matches(['0', '.']).is_empty();
            parts.next().is_some_and(|name| name.eq_ignore_ascii_case("text/event-stream"))
                && !parts.filter_map(|part| part.strip_prefix("q=")).any(is_zero)
        };
        if list(HeaderName::Accept).any(accepts_sse) { Transport::Sse } else { Transport::Poll }
    }
}
