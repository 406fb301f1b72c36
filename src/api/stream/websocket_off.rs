//! Stands for `websocket.rs` in a build without the feature: every handshake is refused.

use crate::api::framing::websocket::WebSocketFraming;
use crate::api::not_built::not_built;
use crate::http::{RequestHead, Response};
use crate::problem::Problem;

/// # Errors
/// Always: a `501`.
pub fn accept(_: &RequestHead) -> Result<(WebSocketFraming, Response), Problem> {
    Err(not_built("websocket"))
}

pub struct WebSocketPermits;

pub enum WebSocketPermit {}

impl WebSocketPermits {
    pub fn new() -> WebSocketPermits {
        WebSocketPermits
    }

    #[expect(clippy::unused_self, reason = "the signature is that of `websocket.rs`")]
    pub fn acquire(&self, framing: WebSocketFraming) -> Result<WebSocketPermit, Problem> {
        match framing {}
    }
}
