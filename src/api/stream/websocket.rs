//! The WebSocket handshake (RFC 6455, section 4.2), and the limit on open connections of this kind.

use tungstenite::handshake::derive_accept_key;

use crate::api::framing::websocket::WebSocketFraming;
use crate::http::{HeaderName, RequestHead, Response};
use crate::limits::MAX_WEBSOCKETS;
use crate::problem::{Cause, Problem};
use crate::semaphore::{OwnedPermit, PermitReleaser, Semaphore};

/// The only version of the protocol.
const VERSION: &str = "13";
/// Characters of 16 bytes in base64, without the padding.
const KEY_CHARS: usize = 22;
/// The padding of 16 bytes in base64.
const KEY_PADDING: &str = "==";

/// Accepts a handshake: returns the framing of the stream, and the response.
///
/// # Errors
/// If the request has another version, or no key of 16 bytes in base64.
pub fn accept(head: &RequestHead) -> Result<(WebSocketFraming, Response), Problem> {
    if head.get(HeaderName::SecWebSocketVersion)? != Some(VERSION) {
        let detail = "header Sec-WebSocket-Version: expected 13";
        return Err(Problem::new(Cause::UpgradeRequired, detail)
            .with_header("Sec-WebSocket-Version", VERSION)
            .with_header("Upgrade", "websocket")
            .with_header("Connection", "Upgrade"));
    }
    let key = head.get(HeaderName::SecWebSocketKey)?.filter(|key| is_key(key));
    let key = key.ok_or_else(|| {
        Problem::bad_request(
            "header Sec-WebSocket-Key: expected 16 random bytes in base64, 24 characters that end in ==",
        )
    })?;
    let response = Response::without_body(101)
        .with_header("Upgrade", "websocket")
        .with_header("Connection", "Upgrade")
        .with_header("Sec-WebSocket-Accept", &derive_accept_key(key.as_bytes()));
    Ok((WebSocketFraming, response))
}

/// Whether a key is 16 bytes in base64 (RFC 6455, section 4.2.1). Its pad bits may be set: a decoder
/// may refuse that (RFC 4648, section 3.5), but the server decodes no key, and small clients draw 22
/// random characters.
fn is_key(key: &str) -> bool {
    let is_in_alphabet = |b: u8| b.is_ascii_alphanumeric() || b == b'+' || b == b'/';
    let chars = key.strip_suffix(KEY_PADDING).filter(|chars| chars.len() == KEY_CHARS);
    chars.is_some_and(|chars| chars.bytes().all(is_in_alphabet))
}

/// Limits the open WebSocket connections; each has a second thread, which reads.
pub struct WebSocketPermits(Semaphore);

/// Counts one open WebSocket, until it is dropped or released.
pub struct WebSocketPermit(OwnedPermit);

impl WebSocketPermit {
    #[must_use]
    pub fn releaser(&self) -> PermitReleaser {
        self.0.releaser()
    }
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
        Ok(WebSocketPermit(OwnedPermit::new(permit)))
    }
}
