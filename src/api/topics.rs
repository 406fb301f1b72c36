//! The list of topics, for people and for the console.
//!
//! It says which topics there are, what is kept of each, and how many polls are held for it. It has
//! pages, in the order of the names, because there may be thousands of topics. Its `head` is the
//! cursor of that moment, from which a reader of any topic can continue.

use super::held_poll::HeldPolls;
use super::query_params::{QueryParams, parse_integer};
use super::receipt::PublishReceipt;
use crate::cursor::Seq;
use crate::http::{RequestHead, Response};
use crate::json::{JsonObject, push_number};
use crate::limits::MAX_LISTED_TOPICS;
use crate::log::{Log, TopicStatus};
use crate::names::Pattern;
use crate::problem::Problem;

/// The query parameters of a list.
#[derive(Debug)]
pub struct TopicListQuery {
    prefix: String,
    after: String,
    limit: usize,
}

impl TopicListQuery {
    /// # Errors
    /// Names the parameter that is wrong, and what is expected.
    pub fn parse(head: &RequestHead) -> Result<TopicListQuery, Problem> {
        let params = QueryParams::parse(head.query(), &["prefix", "limit", "after"])?;
        let text = |name| params.get(name).unwrap_or_default().to_owned();
        Ok(TopicListQuery {
            prefix: text("prefix"),
            after: text("after"),
            limit: params.get_parsed("limit", MAX_LISTED_TOPICS, |text| {
                parse_integer(text, 1, MAX_LISTED_TOPICS)
            })?,
        })
    }

    /// The topics of the list, for the right that it needs.
    pub fn pattern(&self) -> Pattern {
        Pattern::Prefix(self.prefix.as_str().into())
    }
}

/// Lists topics.
pub fn list_topics(
    log: &Log<PublishReceipt>,
    waiters: &HeldPolls,
    query: &TopicListQuery,
) -> Response {
    let (topics, head) = log.topics(&query.prefix, &query.after, query.limit);
    let mut body = Vec::new();
    let mut object = JsonObject::begin(&mut body);
    object.with("topics", |out| {
        out.push(b'[');
        for (index, topic) in topics.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            push_topic(out, topic, waiters.held_for(&topic.topic));
        }
        out.push(b']');
    });
    object.string("head", &head.to_string());
    object.end();
    body.push(b'\n');
    Response::json(200, body)
}

fn push_topic(out: &mut Vec<u8>, status: &TopicStatus, held: usize) {
    let seq = |seq: Option<Seq>| {
        move |out: &mut Vec<u8>| match seq {
            Some(seq) => push_number(out, seq.get()),
            None => out.extend_from_slice(b"null"),
        }
    };
    let mut object = JsonObject::begin(out);
    object
        .string("topic", &status.topic)
        .number("events", status.events)
        .number("bytes", status.bytes)
        .with("oldest", seq(status.oldest))
        .with("newest", seq(status.newest))
        .number("held", held as u64);
    object.end();
}
