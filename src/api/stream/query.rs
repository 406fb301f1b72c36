//! The query parameters of a stream.

use crate::access::RequiredRight;
use crate::api::framing::StreamFraming;
use crate::api::page::{PageKey, PageShape};
use crate::api::poll_query::parse_since;
use crate::api::query_params::QueryParams;
use crate::cursor::Since;
use crate::http::{HeaderName, HttpVersion, RequestHead, Response};
use crate::limits::DEFAULT_PAGE_EVENTS;
use crate::log::GapPolicy;
use crate::names::{TopicSet, TypeFilter};
use crate::problem::Problem;

use super::websocket;

/// A stream's topics and parameters.
#[derive(Debug)]
pub struct StreamQuery {
    pub(super) key: PageKey,
    pub(super) framing: StreamFraming,
    /// The head of the response.
    pub(super) opening: Response,
}

impl StreamQuery {
    /// Parses a request for server-sent events.
    ///
    /// # Errors
    /// Names the part that is wrong, and what is expected.
    pub fn parse_sse(topics: &str, head: &RequestHead) -> Result<StreamQuery, Problem> {
        let opening = Response::without_body(200)
            .with_header("Content-Type", "text/event-stream")
            .with_header("Cache-Control", "no-store, no-transform")
            // nginx would otherwise buffer events until it has several.
            .with_header("X-Accel-Buffering", "no");
        let (framing, opening) = match head.version {
            HttpVersion::Http10 => (StreamFraming::Sse, opening),
            HttpVersion::Http11 => {
                (StreamFraming::ChunkedSse, opening.with_header("Transfer-Encoding", "chunked"))
            }
        };
        StreamQuery::parse(framing, opening, topics, head)
    }

    /// Parses a WebSocket handshake.
    ///
    /// # Errors
    /// Names the part that is wrong, and what is expected.
    pub fn parse_websocket(topics: &str, head: &RequestHead) -> Result<StreamQuery, Problem> {
        let (framing, opening) = websocket::accept(head)?;
        StreamQuery::parse(StreamFraming::WebSocket(framing), opening, topics, head)
    }

    /// A stream has no end and no pages, its transport determines the format, and it reports gaps as
    /// it finds them: so `wait`, `limit`, `format` and `gap` are unknown parameters here.
    fn parse(
        framing: StreamFraming,
        opening: Response,
        topics: &str,
        head: &RequestHead,
    ) -> Result<StreamQuery, Problem> {
        let topics = TopicSet::parse(topics).map_err(Problem::bad_request)?;
        let params = QueryParams::parse(head.query(), &["since", "type"])?;
        let since = params.get_parsed("since", Since::Start, parse_since)?;
        let last_id = head.get(HeaderName::LastEventId)?.filter(|id| !id.is_empty());
        let last_id = last_id.map(|id| {
            let cursor = id.parse().map(Since::After);
            cursor.map_err(|_| {
                let detail =
                    format!("header Last-Event-ID: {id:?}: expected an id from this server");
                Problem::bad_request(detail)
            })
        });
        let key = PageKey {
            topics,
            since: last_id.transpose()?.unwrap_or(since),
            types: params.get_parsed("type", TypeFilter::default(), TypeFilter::parse)?,
            limit: DEFAULT_PAGE_EVENTS,
            shape: PageShape::Part(framing),
            on_gap: GapPolicy::Skip,
            applied_wait: None,
            cors: None,
        };
        Ok(StreamQuery { key, framing, opening })
    }

    /// The right that the stream needs.
    #[must_use]
    pub fn required_right(&self) -> RequiredRight {
        self.key.required_right()
    }

    /// The response to a HEAD request: the head alone.
    #[must_use]
    pub fn into_opening(self) -> Response {
        self.opening
    }
}
