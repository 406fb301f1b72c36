//! One connection of a client, whatever is spoken on it, and the events that come over it.

use std::io::{ErrorKind, Read};

use serde_json::Value;

use super::method::Method;
use super::tally::Event;
use crate::target::{Target, wrong};
use crate::wire::{Answer, Conn, Got, Outcome, Traffic, Watch};

const NO_REQUEST: &str = "a stream is not asked again";

/// What a look at a connection brought.
#[derive(Default)]
pub struct News {
    pub events: Vec<Event>,
    /// Of a poll that was answered: where to go on.
    pub next: Option<String>,
    /// Of such a poll: that there is more already.
    pub more: bool,
}

pub enum Line {
    Polls(Conn),
    Stream(Conn, Unread),
    #[cfg(feature = "websocket")]
    Socket(Box<tungstenite::WebSocket<Conn>>),
}

impl Line {
    /// Opens a connection and sends what the method asks on it first.
    pub fn open(method: Method, target: Target, cursor: &str) -> Outcome<Line> {
        let mut conn = Conn::open(target.port)?;
        if method == Method::WebSocket {
            let url = format!("ws://127.0.0.1:{}{}", target.port, method.path(cursor));
            return Line::upgrade(conn, &url);
        }
        conn.unblock()?;
        conn.send(&method.request(target, cursor))?;
        Ok(match method {
            Method::Sse => Line::Stream(conn, Unread::default()),
            _ => Line::Polls(conn),
        })
    }

    #[cfg(feature = "websocket")]
    fn upgrade(conn: Conn, url: &str) -> Outcome<Line> {
        // Its own choice of 128 KiB is cleared for every read, which took longer than all the rest.
        let config = tungstenite::protocol::WebSocketConfig::default().read_buffer_size(4096);
        let (socket, _) = tungstenite::client::client_with_config(url, conn, Some(config))
            .map_err(|error| format!("no WebSocket: {error}"))?;
        socket.get_ref().unblock()?;
        Ok(Line::Socket(Box::new(socket)))
    }

    #[cfg(not(feature = "websocket"))]
    fn upgrade(_: Conn, _: &str) -> Outcome<Line> {
        Err("this load generator was built without WebSocket".into())
    }

    pub fn watch(&self, watch: &Watch, token: usize) -> Outcome<()> {
        watch.add_conn(self.conn(), token)
    }

    pub fn traffic(&self) -> Traffic {
        self.conn().traffic
    }

    fn conn(&self) -> &Conn {
        match self {
            Line::Polls(conn) | Line::Stream(conn, _) => conn,
            #[cfg(feature = "websocket")]
            Line::Socket(socket) => socket.get_ref(),
        }
    }

    /// Another poll on a connection that has had its answer.
    pub fn ask(&mut self, request: &[u8]) -> Outcome<()> {
        match self {
            Line::Polls(conn) => conn.send(request),
            Line::Stream(..) => Err(NO_REQUEST.into()),
            #[cfg(feature = "websocket")]
            Line::Socket(_) => Err(NO_REQUEST.into()),
        }
    }

    /// What has arrived.
    pub fn hear(&mut self, scratch: &mut [u8]) -> Outcome<News> {
        match self {
            Line::Polls(conn) => match conn.receive(scratch, b"")? {
                Got::Answer(answer) => page(&answer),
                _ => Ok(News::default()),
            },
            Line::Stream(conn, unread) => match conn.read(scratch) {
                Ok(0) => Err("the server ended a stream".into()),
                Ok(count) => unread.take(&scratch[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(News::default()),
                Err(error) => Err(error.into()),
            },
            #[cfg(feature = "websocket")]
            Line::Socket(socket) => frames(socket),
        }
    }
}

fn event(json: &Value) -> Outcome<Event> {
    Event::parse(json["data"].as_str().ok_or_else(|| format!("not an event: {json}"))?)
}

fn page(answer: &Answer) -> Outcome<News> {
    if answer.status != 200 {
        return wrong("a poll's status is not 200", answer);
    }
    let page: Value = serde_json::from_slice(answer.body())?;
    let (Some(events), Some(next)) = (page["events"].as_array(), page["next"].as_str()) else {
        return wrong("a poll's answer without events or next", answer);
    };
    let events = events.iter().map(event).collect::<Outcome<_>>()?;
    Ok(News { events, next: Some(next.into()), more: page["more"] == true })
}

#[cfg(feature = "websocket")]
fn frames(socket: &mut tungstenite::WebSocket<Conn>) -> Outcome<News> {
    use tungstenite::{Error, Message};
    let mut news = News::default();
    loop {
        match socket.read() {
            Ok(Message::Text(text)) => news.events.push(event(&serde_json::from_str(&text)?)?),
            Ok(Message::Ping(_)) => {}
            Ok(other) => return Err(format!("not what a server sends: {other:?}").into()),
            Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => return Ok(news),
            Err(error) => return Err(error.into()),
        }
    }
}

/// What has come of a stream of server-sent events and is not a whole event yet.
#[derive(Default)]
pub struct Unread {
    begun: bool,
    /// Of the head, then of a chunk.
    bytes: Vec<u8>,
    /// Of the events.
    text: String,
}

impl Unread {
    fn take(&mut self, fresh: &[u8]) -> Outcome<News> {
        self.bytes.extend_from_slice(fresh);
        if !self.begun {
            let Some(end) = find(&self.bytes, b"\r\n\r\n") else { return Ok(News::default()) };
            let head = String::from_utf8(self.bytes.drain(..end + 4).collect())?;
            let is_chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
            if !head.starts_with("HTTP/1.1 200 ") || !is_chunked {
                return Err(format!("not a stream:\n{head}").into());
            }
            self.begun = true;
        }
        while let Some(end) = find(&self.bytes, b"\r\n") {
            let size = usize::from_str_radix(std::str::from_utf8(&self.bytes[..end])?, 16)?;
            let whole = end + 2 + size + 2;
            if self.bytes.len() < whole {
                break;
            }
            self.text.push_str(std::str::from_utf8(&self.bytes[end + 2..whole - 2])?);
            self.bytes.drain(..whole);
        }
        let mut news = News::default();
        while let Some(end) = self.text.find("\n\n") {
            let block: String = self.text.drain(..end + 2).collect();
            if let Some(data) = block.lines().find_map(|line| line.strip_prefix("data: ")) {
                news.events.push(event(&serde_json::from_str(data)?)?);
            }
        }
        Ok(news)
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
