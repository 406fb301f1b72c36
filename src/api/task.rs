//! What a request asks for, as far as its head tells.
//!
//! A [`Task`] can only be had from a head that makes sense, so whatever is done with one need not
//! check anything again; and as the body comes later, a client who asks for the impossible is told
//! before it has sent any. Which right a task needs, and how large its body may be, are properties
//! of the task, in one place each.

use super::params::Params;
#[cfg(feature = "streams")]
use super::stream;
use super::wants::Wants;
use super::{Api, poll, publish, topics, web};
use crate::access::{Need, Right};
use crate::config::Config;
use crate::error::{Cause, Problem};
use crate::http::{Field, Head, Method, percent_decode};
use crate::names::{NAME_RULE, Name, Pattern};

/// A request whose head makes sense.
#[derive(Debug)]
pub enum Task {
    Publish(publish::Ask),
    Poll(poll::Query),
    #[cfg(feature = "streams")]
    Stream(stream::Query),
    Trim(Name),
    Topics(topics::Query),
    Health,
    Metrics,
    /// The methods that there are.
    Options(&'static str),
    /// What a browser asks before it sends another site's request.
    Preflight,
    File(web::Ask),
}

impl Task {
    /// The largest body that goes with it.
    #[must_use]
    pub fn body_limit(&self, config: &Config) -> usize {
        match self {
            Task::Publish(ask) => ask.body_limit(config),
            _ => 0,
        }
    }

    /// The right that it needs, where tokens are asked for.
    pub(super) fn need(&self) -> Option<Need> {
        match self {
            Task::Publish(ask) => Some((Right::Publish, vec![ask.pattern()])),
            Task::Poll(query) => Some(query.need()),
            #[cfg(feature = "streams")]
            Task::Stream(query) => Some(query.need()),
            Task::Trim(topic) => Some((Right::Admin, vec![Pattern::Topic(topic.clone())])),
            Task::Topics(query) => Some((Right::Admin, vec![query.pattern()])),
            // What it counts belongs to no topic.
            Task::Metrics => Some((Right::Admin, Vec::new())),
            Task::Health | Task::File(_) | Task::Options(_) | Task::Preflight => None,
        }
    }
}

impl Api {
    /// Reads a head.
    pub(super) fn task(&self, head: &Head) -> Result<Task, Problem> {
        let path = percent_decode(head.path())?;
        if head.method == Method::Options {
            return options(head, &path);
        }
        if let Some(topics) = path.strip_prefix("/topics/") {
            return match head.method {
                Method::Get | Method::Head => match Wants::of(head) {
                    Wants::Answer => poll::Query::read(topics, head, self.max_wait).map(Task::Poll),
                    #[cfg(feature = "streams")]
                    Wants::Events => stream::Query::read(topics, head).map(Task::Stream),
                    #[cfg(feature = "websocket")]
                    Wants::Socket => stream::Query::upgrade(topics, head).map(Task::Stream),
                    #[cfg(not(feature = "streams"))]
                    Wants::Events => Err(super::wants::not_built("streams")),
                    #[cfg(not(feature = "websocket"))]
                    Wants::Socket => Err(super::wants::not_built("websocket")),
                },
                Method::Post => publish::Ask::read(topics, head).map(Task::Publish),
                Method::Delete => {
                    Params::read(head.query(), &[])?;
                    let topic = Name::new(topics).ok_or_else(|| {
                        Problem::bad(format!("topic {topics:?}: one topic is trimmed, {NAME_RULE}"))
                    })?;
                    Ok(Task::Trim(topic))
                }
                _ => Err(wrong_method(head, TOPIC_METHODS)),
            };
        }
        let task = match &*path {
            "/topics" => topics::Query::read(head).map(Task::Topics),
            "/health" => Params::read(head.query(), &[]).map(|_| Task::Health),
            "/metrics" => Params::read(head.query(), &[]).map(|_| Task::Metrics),
            "/" => web::Ask::console(head, self.console).map(Task::File),
            "/longpoll.js" => web::Ask::module(head).map(Task::File),
            path => {
                let detail = format!(
                    "there is no {path:?}; there are /, /longpoll.js, /topics, /topics/TOPIC, /health and /metrics"
                );
                return Err(Problem::new(Cause::NotFound, detail));
            }
        };
        match head.method {
            Method::Get | Method::Head => task,
            _ => Err(wrong_method(head, PAGE_METHODS)),
        }
    }
}

const TOPIC_METHODS: &str = "GET, HEAD, POST, DELETE, OPTIONS";
const PAGE_METHODS: &str = "GET, HEAD, OPTIONS";

/// What may be asked here, whatever path it is: a preflight that was refused would tell a page's
/// author less than the refusal of what comes after it.
fn options(head: &Head, path: &str) -> Result<Task, Problem> {
    let is_topic = path == "*" || path.starts_with("/topics/");
    Ok(match head.one(Field::AccessControlRequestMethod)? {
        Some(_) => Task::Preflight,
        None => Task::Options(if is_topic { TOPIC_METHODS } else { PAGE_METHODS }),
    })
}

fn wrong_method(head: &Head, allowed: &'static str) -> Problem {
    let detail = format!("{} does not take {}; it takes {allowed}", head.path(), head.method);
    Problem::new(Cause::MethodNotAllowed, detail).with_header("Allow", allowed)
}
