//! The delivery methods: how a client of each method requests events.

use std::time::Duration;

use crate::LoadResult;
use crate::target::Target;

pub const TOPIC: &str = "compare";

/// How long a long poll may be held: the server's default.
const LONG_WAIT: &str = "&wait=25";
/// A short poll returns immediately, with all events there are.
const NO_WAIT: &str = "&wait=0&limit=1000";

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum DeliveryMethod {
    /// Polls at an interval, with a cursor.
    ShortPoll(Duration),
    /// Polls at an interval for the newest event, without a cursor.
    ShortPollWithoutCursor(Duration),
    LongPoll,
    /// A long poll that opens a connection for every request.
    LongPollNewConnection,
    /// Each long poll waits for events after its own arrival, without a cursor.
    LongPollWithoutCursor,
    /// Two long polls open at once; the client uses every event of each response.
    TwoPollsUnfiltered,
    /// Two long polls open at once; the client uses only events after its newest one.
    TwoPollsFiltered,
    Sse,
    WebSocket,
}

impl DeliveryMethod {
    /// Parses `short-0.1` and `naive-short-1`, whose interval is in seconds, and the fixed names of
    /// the other methods.
    pub fn parse(name: &str) -> LoadResult<DeliveryMethod> {
        let interval = |text: &str| match text.parse() {
            Ok(seconds) if (0.01..=60.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
            _ => Err(format!("interval '{text}': expected 0.01 to 60 seconds")),
        };
        if let Some(text) = name.strip_prefix("short-") {
            return Ok(DeliveryMethod::ShortPoll(interval(text)?));
        }
        if let Some(text) = name.strip_prefix("naive-short-") {
            return Ok(DeliveryMethod::ShortPollWithoutCursor(interval(text)?));
        }
        Ok(match name {
            "long" => DeliveryMethod::LongPoll,
            "long-anew" => DeliveryMethod::LongPollNewConnection,
            "naive-long" => DeliveryMethod::LongPollWithoutCursor,
            "two-loose" => DeliveryMethod::TwoPollsUnfiltered,
            "two-strict" => DeliveryMethod::TwoPollsFiltered,
            "sse" => DeliveryMethod::Sse,
            "websocket" => DeliveryMethod::WebSocket,
            _ => return Err(format!("unknown method '{name}'").into()),
        })
    }

    /// The name in the published tables.
    pub fn title(self) -> String {
        match self {
            DeliveryMethod::ShortPoll(interval) => {
                format!("short polling, {} s", interval.as_secs_f64())
            }
            DeliveryMethod::ShortPollWithoutCursor(interval) => {
                format!("short polling, {} s, no cursor", interval.as_secs_f64())
            }
            DeliveryMethod::LongPoll => "long polling".into(),
            DeliveryMethod::LongPollNewConnection => "long polling, new connections".into(),
            DeliveryMethod::LongPollWithoutCursor => "long polling, no cursor".into(),
            DeliveryMethod::TwoPollsUnfiltered => "two long polls, careless".into(),
            DeliveryMethod::TwoPollsFiltered => "two long polls, by the cursor".into(),
            DeliveryMethod::Sse => "server-sent events".into(),
            DeliveryMethod::WebSocket => "WebSocket".into(),
        }
    }

    /// The time from one request to the next; `None` unless the client polls at an interval.
    pub fn interval(self) -> Option<Duration> {
        match self {
            DeliveryMethod::ShortPoll(interval)
            | DeliveryMethod::ShortPollWithoutCursor(interval) => Some(interval),
            _ => None,
        }
    }

    /// Whether each client must receive every event once and in order. The server promises that to
    /// a client that continues from the cursor of the previous response.
    pub fn is_exactly_once(self) -> bool {
        !matches!(
            self,
            DeliveryMethod::ShortPollWithoutCursor(_)
                | DeliveryMethod::LongPollWithoutCursor
                | DeliveryMethod::TwoPollsUnfiltered
        )
    }

    /// Whether the client drops events that are not newer than its newest one. The others use all
    /// events, so that duplicates show in the figures.
    pub fn drops_known_events(self) -> bool {
        matches!(self, DeliveryMethod::ShortPollWithoutCursor(_) | DeliveryMethod::TwoPollsFiltered)
    }

    /// The number of requests that one client has open at once.
    pub fn open_requests(self) -> usize {
        match self {
            DeliveryMethod::TwoPollsUnfiltered | DeliveryMethod::TwoPollsFiltered => 2,
            _ => 1,
        }
    }

    /// Whether the client opens a connection for every request.
    pub fn closes_connections(self) -> bool {
        self == DeliveryMethod::LongPollNewConnection
    }

    /// The request target of a client that has all events up to `cursor`.
    pub fn path(self, cursor: &str) -> String {
        let query = match self {
            DeliveryMethod::ShortPoll(_) => format!("{cursor}{NO_WAIT}"),
            DeliveryMethod::ShortPollWithoutCursor(_) => format!("last:1{NO_WAIT}"),
            DeliveryMethod::LongPollWithoutCursor => format!("now{LONG_WAIT}"),
            DeliveryMethod::Sse | DeliveryMethod::WebSocket => cursor.into(),
            _ => format!("{cursor}{LONG_WAIT}"),
        };
        format!("/topics/{TOPIC}?since={query}")
    }

    pub fn request(self, target: Target, cursor: &str) -> Vec<u8> {
        let headers = match self {
            DeliveryMethod::LongPollNewConnection => "Connection: close\r\n",
            DeliveryMethod::Sse => "Accept: text/event-stream\r\n",
            _ => "",
        };
        target.get_request(&self.path(cursor), headers)
    }
}
