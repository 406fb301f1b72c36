//! The list of topics.
//!
//! For people and for the console: which topics there are, what is kept of each, and how many polls
//! are held for it. It comes in pages, in the order of the names, since there may be thousands. It
//! also gives the cursor of the moment, from which a reader of any of them can go on.

use super::params::{QueryParams, whole};
use super::{Api, Reply};
use crate::http::{RequestHead, Response};
use crate::json::{JsonObject, push_number};
use crate::limits::MAX_LISTED_TOPICS;
use crate::log::TopicStatus;
use crate::names::Pattern;
use crate::problem::Problem;

/// A list as it was asked for.
#[derive(Debug)]
pub struct TopicListQuery {
    prefix: String,
    after: String,
    limit: usize,
}

impl TopicListQuery {
    /// Reads the parameters.
    ///
    /// # Errors
    /// Names what is wrong, and what is allowed.
    pub fn read(head: &RequestHead) -> Result<TopicListQuery, Problem> {
        let params = QueryParams::read(head.query(), &["prefix", "limit", "after"])?;
        let text = |name| params.get(name).unwrap_or_default().to_owned();
        Ok(TopicListQuery {
            prefix: text("prefix"),
            after: text("after"),
            limit: params
                .parsed("limit", MAX_LISTED_TOPICS, |text| whole(text, 1, MAX_LISTED_TOPICS))?,
        })
    }
}

impl TopicListQuery {
    /// The topics that it is about.
    pub fn pattern(&self) -> Pattern {
        Pattern::Prefix(self.prefix.as_str().into())
    }
}

impl Api {
    pub(super) fn list_topics(&self, query: &TopicListQuery) -> Reply {
        let (topics, head) = self.log.topics(&query.prefix, &query.after, query.limit);
        let mut body = Vec::new();
        let mut object = JsonObject::begin(&mut body);
        object.with("topics", |out| {
            out.push(b'[');
            for (index, topic) in topics.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                self.push_topic(out, topic);
            }
            out.push(b']');
        });
        object.string("head", &head.to_string());
        object.end();
        body.push(b'\n');
        Reply::Response(Response::json(200, body))
    }

    fn push_topic(&self, out: &mut Vec<u8>, status: &TopicStatus) {
        let seq = |seq: Option<u64>| {
            move |out: &mut Vec<u8>| match seq {
                Some(seq) => push_number(out, seq),
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
            .number("held", self.waiters.held_for(&status.topic) as u64);
        object.end();
    }
}
