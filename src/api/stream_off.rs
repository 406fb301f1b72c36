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

pub use self::{
    NoStartedStream as StartedStream, NoStreamQuery as StreamQuery, NoStreams as Streams,
};

/// Has no value, so no function that takes one can be called.
#[derive(Debug)]
pub enum NoStreamQuery {}

impl NoStreamQuery {
    /// # Errors
    /// Always: a `501`.
    pub fn parse_sse(_: &str, _: &RequestHead) -> Result<NoStreamQuery, Problem> {
        Err(not_built("streams"))
    }

    /// # Errors
    /// Always: a `501`.
    pub fn parse_websocket(_: &str, _: &RequestHead) -> Result<NoStreamQuery, Problem> {
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

pub struct NoStreams;

/// Has no value either.
pub enum NoStartedStream<'a> {
    Never(NoStreamQuery, &'a Poller),
}

impl NoStreams {
    pub fn new(_: Duration) -> NoStreams {
        NoStreams
    }

    /// # Errors
    /// Never: there is no query to call it with.
    pub fn open<'a>(
        &self,
        _: &'a Poller,
        _: &'a Access,
        query: NoStreamQuery,
        _: &Caller<'_>,
    ) -> Result<NoStartedStream<'a>, Problem> {
        match query {}
    }
}
