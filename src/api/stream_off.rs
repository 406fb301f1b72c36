//! Stands for `stream/` in a build without streams: every request for one is refused.

#![expect(
    clippy::unused_self,
    clippy::needless_pass_by_value,
    reason = "the signatures are those of `stream/`"
)]

use std::time::Duration;

use super::caller::Caller;
use super::not_built::not_built;
use super::poll::Poller;
use crate::access::{Access, RequiredRight};
use crate::http::{RequestHead, Response};
use crate::problem::Problem;

/// Has no value, so no function that takes one can be called.
#[derive(Debug)]
pub enum StreamQuery {}

impl StreamQuery {
    /// # Errors
    /// Always: a `501`.
    pub fn parse_sse(_: &str, _: &RequestHead) -> Result<StreamQuery, Problem> {
        Err(not_built("streams"))
    }

    /// # Errors
    /// Always: a `501`.
    pub fn parse_websocket(_: &str, _: &RequestHead) -> Result<StreamQuery, Problem> {
        Err(not_built("websocket"))
    }

    #[must_use]
    pub fn required_right(&self) -> RequiredRight {
        match *self {}
    }

    #[must_use]
    pub fn into_opening(self) -> Response {
        match self {}
    }
}

pub struct Streams;

/// Has no value either.
pub enum StartedStream<'a> {
    Never(StreamQuery, &'a Poller),
}

impl Streams {
    pub fn new(_: Duration) -> Streams {
        Streams
    }

    /// # Errors
    /// Never: there is no query to call it with.
    pub fn open<'a>(
        &self,
        _: &'a Poller,
        _: &'a Access,
        query: StreamQuery,
        _: &Caller<'_>,
    ) -> Result<StartedStream<'a>, Problem> {
        match query {}
    }
}
