//! Stands for `websocket.rs` in a build without the feature: every handshake is refused.

use crate::api::framing::websocket::WebSocketFraming;
use crate::api::not_built::not_built;
use crate::http::{RequestHead, Response};
use crate::problem::Problem;

pub use self::{NoWebSocketPermit as WebSocketPermit, NoWebSocketPermits as WebSocketPermits};

/// # Errors
/// Always: a `501`.
pub fn accept(_: &RequestHead) -> Result<(WebSocketFraming, Response), Problem> {
    Err(not_built("websocket"))
}

pub struct NoWebSocketPermits;

pub enum NoWebSocketPermit {}

impl NoWebSocketPermits {
    pub fn new() -> NoWebSocketPermits {
        NoWebSocketPermits
    }

    #[expect(clippy::unused_self, reason = "the signature is that of `websocket.rs`")]
    pub fn acquire(&self, framing: WebSocketFraming) -> Result<NoWebSocketPermit, Problem> {
        match framing {}
    }
}
