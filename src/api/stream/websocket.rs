//! The WebSocket handshake (RFC 6455, section 4.2), and the limit on open connections of this kind.

use tungstenite::handshake::derive_accept_key;

use crate::api::framing::websocket::WebSocketFraming;
use crate::http::{HeaderName, RequestHead, Response};
use crate::limits::MAX_WEBSOCKETS;
use crate::problem::{Cause, Problem};
use crate::semaphore::{Permit, Semaphore};

/// The only version of the protocol.
const VERSION: &str = "13";
/// Characters of the handshake's key: 16 bytes in base64.
const HANDSHAKE_KEY_CHARS: usize = 24;

/// Accepts a handshake: returns the framing of the stream, and the response.
///
/// # Errors
/// If the request has another version or no key.
pub fn accept(head: &RequestHead) -> Result<(WebSocketFraming, Response), Problem> {
    if head.get(HeaderName::SecWebSocketVersion)? != Some(VERSION) {
        let detail = "header Sec-WebSocket-Version: expected 13";
        return Err(Problem::new(Cause::UpgradeRequired, detail)
            .with_header("Sec-WebSocket-Version", VERSION)
            .with_header("Upgrade", "websocket")
            .with_header("Connection", "Upgrade"));
    }
    let key = head.get(HeaderName::SecWebSocketKey)?.filter(|key| key.len() == HANDSHAKE_KEY_CHARS);
    let key = key.ok_or_else(|| {
        Problem::bad_request("header Sec-WebSocket-Key: expected 16 random bytes in base64")
    })?;
    let response = Response::without_body(101)
        .with_header("Upgrade", "websocket")
        .with_header("Connection", "Upgrade")
        .with_header("Sec-WebSocket-Accept", &derive_accept_key(key.as_bytes()));
    Ok((WebSocketFraming, response))
}

/// Limits the open WebSocket connections; each has a second thread, which reads.
pub struct WebSocketPermits(Semaphore);

/// Counts one open WebSocket; held only to be dropped with it.
pub struct WebSocketPermit {
    _permit: Permit,
}

impl WebSocketPermits {
    pub fn new() -> WebSocketPermits {
        WebSocketPermits(Semaphore::new(MAX_WEBSOCKETS))
    }

    /// # Errors
    /// If as many as allowed are open.
    pub fn acquire(&self, _: WebSocketFraming) -> Result<WebSocketPermit, Problem> {
        let permit = self.0.try_acquire(1).ok_or_else(|| {
            let limit = self.0.capacity();
            let detail =
                format!("{limit} WebSockets are open already; poll, or connect again later");
            Problem::new(Cause::PollCap, detail)
        })?;
        Ok(WebSocketPermit { _permit: permit })
    }
}
