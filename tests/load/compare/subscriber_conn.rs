//! A subscriber's connection, and the events that it receives by long polls, server-sent events or
//! WebSocket.

use std::io::{ErrorKind, Read};

use serde_json::Value;

use super::delivery_stats::TimedEvent;
use super::method::DeliveryMethod;
use crate::LoadResult;
use crate::bytes::find;
use crate::conn::{Conn, Received, Response, Traffic};
use crate::target::{Target, unexpected_response};

const NO_REQUESTS: &str = "a stream accepts no further requests";
/// The default buffer of 128 KiB is cleared for every read, which took longer than everything else.
#[cfg(feature = "websocket")]
const WEBSOCKET_BUFFER: usize = 4096;

/// The events of one read.
#[derive(Default)]
pub struct ReceivedBatch {
    pub events: Vec<TimedEvent>,
    /// The cursor of a poll's response; `None` for a stream, and while the response is incomplete.
    pub next: Option<String>,
    /// The poll's response says that more events are already there.
    pub more: bool,
}

pub enum SubscriberConn {
    Polls(Conn),
    Sse(Conn, SseDecoder),
    #[cfg(feature = "websocket")]
    WebSocket(Box<tungstenite::WebSocket<Conn>>),
}

impl SubscriberConn {
    /// Opens a connection and sends the first request.
    pub fn open(
        method: DeliveryMethod,
        target: Target,
        cursor: &str,
    ) -> LoadResult<SubscriberConn> {
        let mut conn = Conn::connect(target.port)?;
        if method == DeliveryMethod::WebSocket {
            let url = format!("ws://127.0.0.1:{}{}", target.port, method.path(cursor));
            return SubscriberConn::upgrade(conn, &url);
        }
        conn.set_nonblocking()?;
        conn.send(&method.request(target, cursor))?;
        Ok(match method {
            DeliveryMethod::Sse => SubscriberConn::Sse(conn, SseDecoder::default()),
            _ => SubscriberConn::Polls(conn),
        })
    }

    #[cfg(feature = "websocket")]
    fn upgrade(conn: Conn, url: &str) -> LoadResult<SubscriberConn> {
        let config =
            tungstenite::protocol::WebSocketConfig::default().read_buffer_size(WEBSOCKET_BUFFER);
        let (socket, _) = tungstenite::client::client_with_config(url, conn, Some(config))
            .map_err(|error| format!("WebSocket handshake: {error}"))?;
        socket.get_ref().set_nonblocking()?;
        Ok(SubscriberConn::WebSocket(Box::new(socket)))
    }

    #[cfg(not(feature = "websocket"))]
    fn upgrade(_: Conn, _: &str) -> LoadResult<SubscriberConn> {
        Err("this load generator was built without WebSocket".into())
    }

    pub fn traffic(&self) -> Traffic {
        self.conn().traffic
    }

    pub fn conn(&self) -> &Conn {
        match self {
            SubscriberConn::Polls(conn) | SubscriberConn::Sse(conn, _) => conn,
            #[cfg(feature = "websocket")]
            SubscriberConn::WebSocket(socket) => socket.get_ref(),
        }
    }

    /// Sends another poll on a connection whose last poll has been answered.
    pub fn send_poll(&mut self, request: &[u8]) -> LoadResult<()> {
        match self {
            SubscriberConn::Polls(conn) => conn.send(request),
            SubscriberConn::Sse(..) => Err(NO_REQUESTS.into()),
            #[cfg(feature = "websocket")]
            SubscriberConn::WebSocket(_) => Err(NO_REQUESTS.into()),
        }
    }

    /// Reads without blocking.
    pub fn read_events(&mut self, buffer: &mut [u8]) -> LoadResult<ReceivedBatch> {
        match self {
            SubscriberConn::Polls(conn) => match conn.receive(buffer, b"")? {
                Received::Response(response) => parse_page(&response),
                _ => Ok(ReceivedBatch::default()),
            },
            SubscriberConn::Sse(conn, decoder) => match conn.read(buffer) {
                Ok(0) => Err("the server ended a stream".into()),
                Ok(count) => decoder.decode(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(ReceivedBatch::default()),
                Err(error) => Err(error.into()),
            },
            #[cfg(feature = "websocket")]
            SubscriberConn::WebSocket(socket) => read_messages(socket),
        }
    }
}

fn parse_event(json: &Value) -> LoadResult<TimedEvent> {
    TimedEvent::parse(json["data"].as_str().ok_or_else(|| format!("not an event: {json}"))?)
}

fn parse_page(response: &Response) -> LoadResult<ReceivedBatch> {
    if response.status != 200 {
        return unexpected_response("a poll's status is not 200", response);
    }
    let page: Value = serde_json::from_slice(response.body())?;
    let (Some(events), Some(next)) = (page["events"].as_array(), page["next"].as_str()) else {
        return unexpected_response("a poll's response without events or next", response);
    };
    let events = events.iter().map(parse_event).collect::<LoadResult<_>>()?;
    Ok(ReceivedBatch { events, next: Some(next.into()), more: page["more"] == true })
}

#[cfg(feature = "websocket")]
fn read_messages(socket: &mut tungstenite::WebSocket<Conn>) -> LoadResult<ReceivedBatch> {
    use tungstenite::{Error, Message};
    let mut batch = ReceivedBatch::default();
    loop {
        match socket.read() {
            Ok(Message::Text(text)) => {
                batch.events.push(parse_event(&serde_json::from_str(&text)?)?);
            }
            Ok(Message::Ping(_)) => {}
            Ok(other) => return Err(format!("unexpected message: {other:?}").into()),
            Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => return Ok(batch),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Decodes a chunked response of server-sent events, and keeps what is incomplete between reads.
#[derive(Default)]
pub struct SseDecoder {
    head_is_read: bool,
    /// An incomplete head, then an incomplete chunk.
    bytes: Vec<u8>,
    /// An incomplete event.
    text: String,
}

impl SseDecoder {
    fn decode(&mut self, fresh: &[u8]) -> LoadResult<ReceivedBatch> {
        self.bytes.extend_from_slice(fresh);
        if !self.head_is_read {
            let Some(end) = find(&self.bytes, b"\r\n\r\n") else {
                return Ok(ReceivedBatch::default());
            };
            let head = String::from_utf8(self.bytes.drain(..end + 4).collect())?;
            let is_chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
            if !head.starts_with("HTTP/1.1 200 ") || !is_chunked {
                return Err(format!("expected a chunked stream:\n{head}").into());
            }
            self.head_is_read = true;
        }
        while let Some(end) = find(&self.bytes, b"\r\n") {
            let size = usize::from_str_radix(std::str::from_utf8(&self.bytes[..end])?, 16)?;
            let chunk_end = end + 2 + size + 2;
            if self.bytes.len() < chunk_end {
                break;
            }
            self.text.push_str(std::str::from_utf8(&self.bytes[end + 2..chunk_end - 2])?);
            self.bytes.drain(..chunk_end);
        }
        let mut batch = ReceivedBatch::default();
        while let Some(end) = self.text.find("\n\n") {
            let block: String = self.text.drain(..end + 2).collect();
            if let Some(data) = block.lines().find_map(|line| line.strip_prefix("data: ")) {
                batch.events.push(parse_event(&serde_json::from_str(data)?)?);
            }
        }
        Ok(batch)
    }
}
