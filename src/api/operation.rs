//! The operation that a request head asks for.
//!
//! An [`Operation`] exists only for a head that is valid, so the code that performs it checks
//! nothing again. Because the head is decided before the body is read, a client with an invalid
//! request learns so before it sends any. The right that an operation needs and its largest body are
//! properties of the operation, in one place each.

use std::time::Duration;

use super::poll_query::PollQuery;
use super::publish_request::PublishRequest;
use super::query_params::QueryParams;
use super::static_files::FileRequest;
use super::stream::StreamQuery;
use super::topics::TopicListQuery;
use super::transport::Transport;
use crate::access::{RequiredRight, Right};
use crate::config::Config;
use crate::http::{HeaderName, Method, RequestHead, percent_decode};
use crate::names::{NAME_RULE, Name, Pattern};
use crate::problem::{Cause, Problem};

/// A request whose head is valid.
#[derive(Debug)]
pub enum Operation {
    Publish(PublishRequest),
    Poll(PollQuery),
    Stream(StreamQuery),
    Trim(Name),
    Topics(TopicListQuery),
    Health,
    Metrics,
    /// `OPTIONS`; the methods of that path.
    Options(&'static str),
    /// A browser's question before it sends a request of another site's page.
    Preflight,
    File(FileRequest),
}

const TOPIC_METHODS: &str = "GET, HEAD, POST, DELETE, OPTIONS";
const PAGE_METHODS: &str = "GET, HEAD, OPTIONS";

impl Operation {
    /// Parses a head. `max_wait` is `--max-wait`; `has_console` is whether `/` is served.
    ///
    /// # Errors
    /// Names the part that is wrong, and what is expected.
    pub fn parse(
        head: &RequestHead,
        max_wait: Duration,
        has_console: bool,
    ) -> Result<Operation, Problem> {
        let path = percent_decode(head.path())?;
        if head.method == Method::Options {
            return parse_options(head, &path);
        }
        if let Some(topics) = path.strip_prefix("/topics/") {
            return parse_topic(topics, head, max_wait);
        }
        let operation = match &*path {
            "/topics" => TopicListQuery::parse(head).map(Operation::Topics),
            "/health" => QueryParams::parse(head.query(), &[]).map(|_| Operation::Health),
            "/metrics" => QueryParams::parse(head.query(), &[]).map(|_| Operation::Metrics),
            "/" => FileRequest::parse_console(head, has_console).map(Operation::File),
            "/longpoll.js" => FileRequest::parse_module(head).map(Operation::File),
            path => {
                let detail = format!(
                    "there is no {path:?}; expected /, /longpoll.js, /topics, /topics/TOPIC, /health or /metrics"
                );
                return Err(Problem::new(Cause::NotFound, detail));
            }
        };
        match head.method {
            Method::Get | Method::Head => operation,
            _ => Err(wrong_method(head, PAGE_METHODS)),
        }
    }

    /// The largest body, in bytes.
    #[must_use]
    pub fn body_limit(&self, config: &Config) -> usize {
        match self {
            Operation::Publish(request) => request.body_limit(config),
            _ => 0,
        }
    }

    /// The right that the operation needs if the server has tokens.
    pub(super) fn required_right(&self) -> Option<RequiredRight> {
        match self {
            Operation::Publish(request) => Some((Right::Publish, vec![request.pattern()])),
            Operation::Poll(query) => Some(query.required_right()),
            Operation::Stream(query) => Some(query.required_right()),
            Operation::Trim(topic) => Some((Right::Admin, vec![Pattern::Topic(topic.clone())])),
            Operation::Topics(query) => Some((Right::Admin, vec![query.pattern()])),
            // Metrics belong to no topic.
            Operation::Metrics => Some((Right::Admin, Vec::new())),
            Operation::Health
            | Operation::File(_)
            | Operation::Options(_)
            | Operation::Preflight => None,
        }
    }
}

fn parse_topic(topics: &str, head: &RequestHead, max_wait: Duration) -> Result<Operation, Problem> {
    match head.method {
        Method::Get | Method::Head => match Transport::of(head) {
            Transport::Poll => PollQuery::parse(topics, head, max_wait).map(Operation::Poll),
            Transport::Sse => StreamQuery::parse_sse(topics, head).map(Operation::Stream),
            Transport::WebSocket => {
                StreamQuery::parse_websocket(topics, head).map(Operation::Stream)
            }
        },
        Method::Post => PublishRequest::parse(topics, head).map(Operation::Publish),
        Method::Delete => {
            QueryParams::parse(head.query(), &[])?;
            let topic = Name::new(topics).ok_or_else(|| {
                Problem::bad_request(format!(
                    "topic {topics:?}: DELETE takes one topic; expected {NAME_RULE}"
                ))
            })?;
            Ok(Operation::Trim(topic))
        }
        _ => Err(wrong_method(head, TOPIC_METHODS)),
    }
}

/// `OPTIONS` is answered for every path: if a preflight were refused, the author of a page would
/// learn less from it than from the refusal of the request that follows.
fn parse_options(head: &RequestHead, path: &str) -> Result<Operation, Problem> {
    let is_topic = path == "*" || path.starts_with("/topics/");
    Ok(match head.get(HeaderName::AccessControlRequestMethod)? {
        Some(_) => Operation::Preflight,
        None => Operation::Options(if is_topic { TOPIC_METHODS } else { PAGE_METHODS }),
    })
}

fn wrong_method(head: &RequestHead, allowed: &'static str) -> Problem {
    let detail = format!("{} does not accept {}; expected {allowed}", head.path(), head.method);
    Problem::new(Cause::MethodNotAllowed, detail).with_header("Allow", allowed)
}
