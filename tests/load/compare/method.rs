//! The ways to learn of events, and how each asks.

use std::time::Duration;

use crate::target::Target;
use crate::wire::Outcome;

pub const TOPIC: &str = "compare";

/// How long a long poll is willing to be held: the server's own default.
const WAIT: &str = "&wait=25";
/// A short poll takes whatever there is.
const SHORT: &str = "&wait=0&limit=1000";

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Method {
    /// Asks again after so long, with its cursor.
    Short(Duration),
    /// Asks after so long for the latest event, and has no cursor.
    NaiveShort(Duration),
    Long,
    /// A long poll that opens a connection for every request.
    LongAnew,
    /// Each long poll waits for what comes after it has arrived, and has no cursor.
    NaiveLong,
    /// Two long polls open at once; each answer is taken as it is, and its cursor is the next one.
    TwoLoose,
    /// The same, but of each answer only what is beyond the cursor is taken.
    TwoStrict,
    Sse,
    WebSocket,
}

impl Method {
    /// `short-0.1` and `naive-short-1` have their interval in seconds; the others have a name only.
    pub fn parse(name: &str) -> Outcome<Method> {
        let every = |text: &str| match text.parse() {
            Ok(seconds) if (0.01..=60.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
            _ => Err(format!("'{text}' is not an interval from 0.01 to 60 seconds")),
        };
        if let Some(text) = name.strip_prefix("short-") {
            return Ok(Method::Short(every(text)?));
        }
        if let Some(text) = name.strip_prefix("naive-short-") {
            return Ok(Method::NaiveShort(every(text)?));
        }
        Ok(match name {
            "long" => Method::Long,
            "long-anew" => Method::LongAnew,
            "naive-long" => Method::NaiveLong,
            "two-loose" => Method::TwoLoose,
            "two-strict" => Method::TwoStrict,
            "sse" => Method::Sse,
            "websocket" => Method::WebSocket,
            _ => return Err(format!("unknown method '{name}'").into()),
        })
    }

    pub fn title(self) -> String {
        match self {
            Method::Short(every) => format!("short polling, {} s", every.as_secs_f64()),
            Method::NaiveShort(every) => {
                format!("short polling, {} s, no cursor", every.as_secs_f64())
            }
            Method::Long => "long polling".into(),
            Method::LongAnew => "long polling, new connections".into(),
            Method::NaiveLong => "long polling, no cursor".into(),
            Method::TwoLoose => "two long polls, careless".into(),
            Method::TwoStrict => "two long polls, by the cursor".into(),
            Method::Sse => "server-sent events".into(),
            Method::WebSocket => "WebSocket".into(),
        }
    }

    /// From one request to the next, where it is the client that waits.
    pub fn every(self) -> Option<Duration> {
        match self {
            Method::Short(every) | Method::NaiveShort(every) => Some(every),
            _ => None,
        }
    }

    /// Whoever goes on from the cursor of the answer before gets each event once, in order. Whoever
    /// does not can blame nobody.
    pub fn promises_all(self) -> bool {
        !matches!(self, Method::NaiveShort(_) | Method::NaiveLong | Method::TwoLoose)
    }

    /// Whether the client itself has to look which events it has had. The others hand over all that
    /// comes, so that what comes twice is seen.
    pub fn takes_only_newer(self) -> bool {
        matches!(self, Method::NaiveShort(_) | Method::TwoStrict)
    }

    /// How many requests of one client are open at once.
    pub fn width(self) -> usize {
        if matches!(self, Method::TwoLoose | Method::TwoStrict) { 2 } else { 1 }
    }

    pub fn closes(self) -> bool {
        self == Method::LongAnew
    }

    /// What a client asks for that knows everything up to `cursor`.
    pub fn path(self, cursor: &str) -> String {
        let query = match self {
            Method::Short(_) => format!("{cursor}{SHORT}"),
            Method::NaiveShort(_) => format!("last:1{SHORT}"),
            Method::NaiveLong => format!("now{WAIT}"),
            Method::Sse | Method::WebSocket => cursor.into(),
            _ => format!("{cursor}{WAIT}"),
        };
        format!("/topics/{TOPIC}?since={query}")
    }

    pub fn request(self, target: Target, cursor: &str) -> Vec<u8> {
        let fields = match self {
            Method::LongAnew => "Connection: close\r\n",
            Method::Sse => "Accept: text/event-stream\r\n",
            _ => "",
        };
        target.get(&self.path(cursor), fields)
    }
}
