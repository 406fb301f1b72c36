//! The result of an operation, for the connection's thread to write.

use std::sync::Arc;

use super::held_poll::{Delivery, PendingPoll};
use super::page::RenderedPage;
use crate::http::Response;
use crate::problem::Problem;

/// The result of [`super::Api::perform`].
pub enum Outcome {
    Reply(Reply),
    /// A poll without an event yet. [`super::Api::hold`] waits for one; the caller first drops the
    /// request's buffers, because a held poll should cost little more than its stack.
    Hold(Box<PendingPoll>),
}

/// A reply to a request.
pub enum Reply {
    Response(Response),
    Page(Arc<RenderedPage>),
    Refused(Problem),
    /// A page that a publisher has written already, or begun to write.
    Delivered(Delivery),
    /// The client has hung up: there is nobody to reply to.
    HungUp,
}
