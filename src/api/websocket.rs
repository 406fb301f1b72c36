//! Messages from a WebSocket's client: each is published, and answered with one frame.

use super::caller::Caller;
use super::framing::websocket::text_frame;
use super::publish_request::PublishRequest;
use super::router::Api;
use crate::access::Right;
use crate::http::Response;
use crate::json::JsonObject;
use crate::names::{Pattern, TopicSet};
use crate::problem::Problem;

pub use super::framing::websocket::{close_frame, pong_frame};

impl Api {
    /// Publishes a client's message, and returns the frame that answers it. `topics` are those of
    /// the WebSocket's URL.
    #[must_use]
    pub fn publish_message(
        &self,
        topics: &TopicSet,
        message: Vec<u8>,
        caller: &Caller<'_>,
    ) -> Vec<u8> {
        let (member, json) = match self.try_publish_message(topics, message, caller) {
            Ok(response) => ("published", response.body_text().to_vec()),
            Err(problem) => {
                self.metrics().count_refusal(problem.cause());
                ("error", problem.body().trim_ascii_end().to_vec())
            }
        };
        let mut out = Vec::new();
        let mut object = JsonObject::begin(&mut out);
        object.raw(member, &json);
        object.end();
        text_frame(out)
    }

    fn try_publish_message(
        &self,
        topics: &TopicSet,
        message: Vec<u8>,
        caller: &Caller<'_>,
    ) -> Result<Response, Problem> {
        let [Pattern::Topic(topic)] = topics.patterns() else {
            return Err(Problem::bad_request(
                "this WebSocket is open for several topics; expected one topic, without *, to publish",
            ));
        };
        let required = || (Right::Publish, vec![Pattern::Topic(topic.clone())]);
        self.access.recheck(caller.grant, required)?;
        self.publisher.publish(&PublishRequest::plain_text(topic.clone()), message, caller)
    }
}
