//! In which way a poll's URL is asked for: as a poll, or as a poll that goes on.
//!
//! The URL is the same for a poll, a stream and a WebSocket, with the same words for where to
//! begin: who can do one can do the others, and a cursor of one is good for all. The request's head
//! decides, by what every client of that kind says by itself.

use crate::http::{HeaderName, Method, RequestHead};
#[cfg(not(feature = "websocket"))]
use crate::problem::{Cause, Problem};

/// In which way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// One answer.
    Poll,
    /// Server-sent events.
    Sse,
    /// A WebSocket.
    WebSocket,
}

impl Transport {
    /// What a request asks for. Every `EventSource` asks for events, and nothing else by accident.
    pub fn of(head: &RequestHead) -> Transport {
        let list = |field| head.get_all(field).flat_map(|value| value.split(','));
        let is_websocket = |name: &str| name.trim().eq_ignore_ascii_case("websocket");
        if head.method == Method::Get && list(HeaderName::Upgrade).any(is_websocket) {
            return Transport::WebSocket;
        }
        let events = |range: &str| {
            let mut parts = range.split(';').map(str::trim);
            let refuses = |quality: &str| quality.trim_matches(['0', '.']).is_empty();
            parts.next().is_some_and(|name| name.eq_ignore_ascii_case("text/event-stream"))
                && !parts.filter_map(|part| part.strip_prefix("q=")).any(refuses)
        };
        if list(HeaderName::Accept).any(events) { Transport::Sse } else { Transport::Poll }
    }
}

/// Says that this build does not have what is asked for.
#[cfg(not(feature = "websocket"))]
pub fn not_built(feature: &str) -> Problem {
    let detail = format!("this build is without {feature} (a cargo feature); a poll will do");
    Problem::new(Cause::NotBuilt, detail)
}
