//! What a request asks for, as far as its head tells.
//!
//! A [`Operation`] can only be had from a head that makes sense, so whatever is done with one need not
//! check anything again; and as the body comes later, a client who asks for the impossible is told
//! before it has sent any. Which right a task needs, and how large its body may be, are properties
//! of the task, in one place each.

use super::params::QueryParams;
#[cfg(feature = "streams")]
use super::stream;
use super::transport::Transport;
use super::{Api, poll, publish, topics, web};
use crate::access::{RequiredRight, Right};
use crate::config::Config;
use crate::http::{HeaderName, Method, RequestHead, percent_decode};
use crate::names::{NAME_RULE, Name, Pattern};
use crate::problem::{Cause, Problem};

/// A request whose head makes sense.
#[derive(Debug)]
pub enum Operation {
    Publish(publish::PublishRequest),
    Poll(poll::PollQuery),
    #[cfg(feature = "streams")]
    Stream(stream::StreamQuery),
    Trim(Name),
    Topics(topics::TopicListQuery),
    Health,
    Metrics,
    /// The methods that there are.
    Options(&'static str),
    /// What a browser asks before it sends another site's request.
    Preflight,
    File(web::FileRequest),
}

impl Operation {
    /// The largest body that goes with it.
    #[must_use]
    pub fn body_limit(&self, config: &Config) -> usize {
        match self {
            Operation::Publish(ask) => ask.body_limit(config),
            _ => 0,
        }
    }

    /// The right that it needs, where tokens are asked for.
    pub(super) fn need(&self) -> Option<RequiredRight> {
        match self {
            Operation::Publish(ask) => Some((Right::Publish, vec![ask.pattern()])),
            Operation::Poll(query) => Some(query.need()),
            #[cfg(feature = "streams")]
            Operation::Stream(query) => Some(query.need()),
            Operation::Trim(topic) => Some((Right::Admin, vec![Pattern::Topic(topic.clone())])),
            Operation::Topics(query) => Some((Right::Admin, vec![query.pattern()])),
            // What it counts belongs to no topic.
            Operation::Metrics => Some((Right::Admin, Vec::new())),
            Operation::Health
            | Operation::File(_)
            | Operation::Options(_)
            | Operation::Preflight => None,
        }
    }
}

impl Api {
    /// Reads a head.
    pub(super) fn operation(&self, head: &RequestHead) -> Result<Operation, Problem> {
        let path = percent_decode(head.path())?;
        if head.method == Method::Options {
            return options(head, &path);
        }
        if let Some(topics) = path.strip_prefix("/topics/") {
            return match head.method {
                Method::Get | Method::Head => match Transport::of(head) {
                    Transport::Poll => {
                        poll::PollQuery::read(topics, head, self.max_wait).map(Operation::Poll)
                    }
                    #[cfg(feature = "streams")]
                    Transport::Sse => {
                        stream::StreamQuery::read(topics, head).map(Operation::Stream)
                    }
                    #[cfg(feature = "websocket")]
                    Transport::WebSocket => {
                        stream::StreamQuery::upgrade(topics, head).map(Operation::Stream)
                    }
                    #[cfg(not(feature = "streams"))]
                    Transport::Sse => Err(super::transport::not_built("streams")),
                    #[cfg(not(feature = "websocket"))]
                    Transport::WebSocket => Err(super::transport::not_built("websocket")),
                },
                Method::Post => publish::PublishRequest::read(topics, head).map(Operation::Publish),
                Method::Delete => {
                    QueryParams::read(head.query(), &[])?;
                    let topic = Name::new(topics).ok_or_else(|| {
                        Problem::bad_request(format!(
                            "topic {topics:?}: one topic is trimmed, {NAME_RULE}"
                        ))
                    })?;
                    Ok(Operation::Trim(topic))
                }
                _ => Err(wrong_method(head, TOPIC_METHODS)),
            };
        }
        let operation = match &*path {
            "/topics" => topics::TopicListQuery::read(head).map(Operation::Topics),
            "/health" => QueryParams::read(head.query(), &[]).map(|_| Operation::Health),
            "/metrics" => QueryParams::read(head.query(), &[]).map(|_| Operation::Metrics),
            "/" => web::FileRequest::console(head, self.console).map(Operation::File),
            "/longpoll.js" => web::FileRequest::module(head).map(Operation::File),
            path => {
                let detail = format!(
                    "there is no {path:?}; there are /, /longpoll.js, /topics, /topics/TOPIC, /health and /metrics"
                );
                return Err(Problem::new(Cause::NotFound, detail));
            }
        };
        match head.method {
            Method::Get | Method::Head => operation,
            _ => Err(wrong_method(head, PAGE_METHODS)),
        }
    }
}

const TOPIC_METHODS: &str = "GET, HEAD, POST, DELETE, OPTIONS";
const PAGE_METHODS: &str = "GET, HEAD, OPTIONS";

/// What may be asked here, whatever path it is: a preflight that was refused would tell a page's
/// author less than the refusal of what comes after it.
fn options(head: &RequestHead, path: &str) -> Result<Operation, Problem> {
    let is_topic = path == "*" || path.starts_with("/topics/");
    Ok(match head.get(HeaderName::AccessControlRequestMethod)? {
        Some(_) => Operation::Preflight,
        None => Operation::Options(if is_topic { TOPIC_METHODS } else { PAGE_METHODS }),
    })
}

fn wrong_method(head: &RequestHead, allowed: &'static str) -> Problem {
    let detail = format!("{} does not take {}; it takes {allowed}", head.path(), head.method);
    Problem::new(Cause::MethodNotAllowed, detail).with_header("Allow", allowed)
}
