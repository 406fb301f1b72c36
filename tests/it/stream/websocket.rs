//! Guards WebSocket: it delivers the same events in the same order as the other transports,
//! publishes the client's texts, and closes with a code that says why.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::thread;

use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest;
use tungstenite::error::Error;
use tungstenite::http::HeaderValue;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Message, WebSocket};

use crate::support::TEST_TIMEOUT;
use crate::support::tokens::{TokenFile, bearer, new_token};
use crate::support::{Client, Server, wait_until};

/// The target of the raw connections.
const NEWS: &str = "/topics/news?since=now";

/// A WebSocket client on top of `tungstenite`.
pub struct WebSocketClient(pub WebSocket<TcpStream>);

/// Opens a WebSocket, with an optional header field; an error is the status of the refusal.
pub fn try_open(
    server: &Server,
    target: &str,
    field: Option<(&'static str, &str)>,
) -> Result<WebSocketClient, u16> {
    let mut request = format!("ws://{}{target}", server.address).into_client_request().unwrap();
    if let Some((name, value)) = field {
        request.headers_mut().insert(name, HeaderValue::from_str(value).unwrap());
    }
    let stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
    match tungstenite::client(request, stream) {
        Ok((socket, _)) => Ok(WebSocketClient(socket)),
        Err(tungstenite::HandshakeError::Failure(Error::Http(response))) => {
            Err(response.status().as_u16())
        }
        Err(other) => panic!("{other}"),
    }
}

pub fn open(server: &Server, target: &str) -> WebSocketClient {
    try_open(server, target, None).unwrap_or_else(|status| panic!("{status}"))
}

impl WebSocketClient {
    pub fn send(&mut self, text: &str) {
        self.0.send(Message::text(text)).unwrap();
    }

    /// The next text, as JSON.
    pub fn next(&mut self) -> Value {
        loop {
            match self.0.read().unwrap() {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Ping(_) => {}
                other => panic!("{other}"),
            }
        }
    }

    /// The data of the next event; skips the receipts of publishes.
    pub fn data(&mut self) -> Value {
        loop {
            let json = self.next();
            if json.get("seq").is_some() {
                return json["data"].clone();
            }
        }
    }

    /// Reads to the close; returns its code.
    fn close_code(mut self) -> CloseCode {
        loop {
            match self.0.read() {
                Ok(Message::Close(Some(frame))) => return frame.code,
                Ok(Message::Close(None)) => panic!("a close without a code"),
                Ok(_) => {}
                Err(e) => panic!("ended without a close frame: {e}"),
            }
        }
    }
}

#[test]
fn events_equal_those_of_a_poll_and_have_a_cursor() {
    let server = Server::start(&[]);
    server.publish("news", "before");
    let mut socket = open(&server, "/topics/news,other");
    assert_eq!(socket.next()["data"], "before");
    server.wait_until_held(1);
    let response = server.connect().post(
        "/topics/other?type=alert",
        "Content-Type: application/json\r\n",
        "{\"a\":[1]}",
    );
    assert_eq!(response.json()["released"], 1);
    let mut event = socket.next();
    assert_eq!(
        event.as_object_mut().unwrap().remove("cursor"),
        Some(response.next_cursor().into())
    );
    assert_eq!(event, server.get("/topics/other").json()["events"][0]);
    let large = "\u{e9}".repeat(30_000);
    server.publish("news", &large);
    assert_eq!(socket.next()["data"], large);
    let target = format!("/topics/news,other?since={}", response.next_cursor());
    assert_eq!(open(&server, &target).next()["data"], large);
    assert_eq!(open(&server, "/topics/*?type=alert").next()["data"], json!({"a": [1]}));
}

#[test]
fn texts_are_published_and_acknowledged_in_order() {
    let server = Server::start(&[]);
    let mut socket = open(&server, "/topics/news?since=now");
    let mut reader = open(&server, "/topics/news");
    for n in 0..100 {
        socket.send(&n.to_string());
    }
    let (mut published, mut events) = (Vec::new(), Vec::new());
    while published.len() < 100 || events.len() < 100 {
        let json = socket.next();
        match json.get("published") {
            Some(response) => {
                assert_eq!(
                    (&response["topic"], &response["durable"]),
                    (&"news".into(), &false.into())
                );
                published.push(response["seq"].as_u64().unwrap());
            }
            None => events.push(json["data"].as_str().unwrap().to_owned()),
        }
    }
    assert_eq!(published, (1..=100).collect::<Vec<_>>());
    let all: Vec<_> = (0..100).map(|n| n.to_string()).collect();
    assert_eq!(events, all);
    assert_eq!((0..100).map(|_| reader.data()).collect::<Vec<_>>(), all);
    // A poll gets the same events.
    socket.send("last");
    assert_eq!(server.get("/topics/news?since=last:1&wait=0").status, 200);
    let several = open(&server, "/topics/news,other?since=now");
    let prefix = open(&server, "/topics/n*?since=now");
    for mut socket in [several, prefix] {
        socket.send("whereto");
        let error = loop {
            let json = socket.next();
            if json.get("error").is_some() {
                break json["error"].clone();
            }
        };
        assert_eq!(error["status"], 400);
        assert!(error["detail"].as_str().unwrap().contains("one topic"), "{error}");
        // The socket stays open.
        server.publish("news", "still there");
        while socket.data() != "still there" {}
    }
}

#[test]
fn client_that_reconnects_repeatedly_gets_each_event_once() {
    const COUNT: usize = 300;
    let server = Server::start(&[]);
    thread::scope(|scope| {
        scope.spawn(|| server.publish_many("news", COUNT));
        let (mut seen, mut since) = (Vec::new(), "start".to_owned());
        while seen.len() < COUNT {
            let mut socket = open(&server, &format!("/topics/news?since={since}"));
            for _ in 0..7.min(COUNT - seen.len()) {
                let event = socket.next();
                event["cursor"].as_str().unwrap().clone_into(&mut since);
                seen.push(event["data"].clone());
            }
            rustix::net::sockopt::set_socket_linger(
                socket.0.get_ref(),
                Some(std::time::Duration::ZERO),
            )
            .unwrap();
        }
        assert_eq!(seen, (0..COUNT).map(|n| n.to_string()).collect::<Vec<_>>());
    });
    // All connections have released their permits.
    server.wait_until_held(0);
}

#[test]
fn gap_is_reported_and_the_events_continue() {
    let server = Server::start(&["--retain-events", "2"]);
    let first = server.publish("news", "0").next_cursor().to_owned();
    server.publish_many("news", 5);
    let mut socket = open(&server, &format!("/topics/news?since={first}"));
    let gap = socket.next();
    assert_eq!((&gap["gap"]["why"], &gap["gap"]["lost"]["news"]), (&"trimmed".into(), &3.into()));
    assert_eq!((socket.data(), socket.data()), ("3".into(), "4".into()));
}

#[test]
fn every_close_has_its_code() {
    let mut server = Server::start(&["--max-event", "1000"]);
    let mut closes = open(&server, "/topics/news");
    closes.0.close(None).unwrap();
    assert!(matches!(closes.0.read(), Ok(Message::Ping(_) | Message::Close(_))));
    let mut binary = open(&server, "/topics/news");
    binary.0.send(Message::binary(b"x".to_vec())).unwrap();
    assert_eq!(binary.close_code(), CloseCode::Unsupported);
    let mut large = open(&server, "/topics/news");
    large.send(&"x".repeat(1000));
    while large.next().get("published").is_none() {}
    let _ = large.0.send(Message::text("x".repeat(1001)));
    assert_eq!(large.close_code(), CloseCode::Size);
    server.wait_until_held(0);
    let mut last = open(&server, "/topics/news?since=now");
    server.wait_until_held(1);
    // A ping is answered with its payload.
    last.0.send(Message::Ping(b"hello".as_slice().into())).unwrap();
    while last.0.read().unwrap() != Message::Pong(b"hello".as_slice().into()) {}
    server.signal(15);
    assert_eq!(last.close_code(), CloseCode::Away);
    assert_eq!(server.wait().0.code(), Some(0));
}

/// A raw connection after its handshake.
pub fn open_raw(server: &Server) -> Client {
    let mut client = server.connect();
    client.send(handshake(NEWS, "", ""));
    let response = client.response_head();
    assert_eq!((response.status, response.header("Upgrade")), (101, Some("websocket")));
    // From the example in RFC 6455, section 1.3.
    assert_eq!(response.header("Sec-WebSocket-Accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(response.header("Content-Length"), None);
    client
}

/// The handshake of that example, without one of its fields and with another one.
pub fn handshake(target: &str, without: &str, with: &str) -> String {
    let fields: Vec<&str> = [
        "Host: localhost",
        "Connection: keep-alive, Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ]
    .into_iter()
    .filter(|field| without.is_empty() || !field.starts_with(without))
    .chain((!with.is_empty()).then_some(with))
    .collect();
    format!("GET {target} HTTP/1.1\r\n{}\r\n\r\n", fields.join("\r\n"))
}

#[test]
fn invalid_handshake_is_refused_or_handled_as_a_poll() {
    let server = Server::start(&["--max-wait", "0"]);
    for (without, with, status) in [
        ("Sec-WebSocket-Version", "", 426),
        ("Sec-WebSocket-Version", "Sec-WebSocket-Version: 8", 426),
        ("Sec-WebSocket-Key", "", 400),
        ("Sec-WebSocket-Key", "Sec-WebSocket-Key: short", 400),
        ("", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", 400),
        ("", "Origin: https://evil.example", 403),
        // Requests without an upgrade to WebSocket.
        ("Upgrade", "", 200),
        ("Upgrade", "Upgrade: h2c", 200),
        ("Connection", "", 200),
    ] {
        let mut client = server.connect();
        let response = client.send(handshake(NEWS, without, with)).response();
        assert_eq!(response.status, status, "{without} {with}");
        if status == 426 {
            assert_eq!(response.header("Sec-WebSocket-Version"), Some("13"));
        }
        assert_eq!(client.get("/health").status, 200);
    }
}

#[test]
fn text_sent_together_with_the_handshake_is_published() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.send([handshake(NEWS, "", "").as_bytes(), b"\x81\x82\0\0\0\0hi"].concat());
    assert_eq!(client.response_head().status, 101);
    wait_until("the text is published", || server.get("/topics/news?wait=0").data() == ["hi"]);
}

#[test]
fn token_decides_who_may_read_and_publish() {
    let (reader, writer) = (new_token("r", "read", "*"), new_token("w", "read,publish", "news"));
    let file = TokenFile::new("sockets", &format!("{}{}", reader.0, writer.0));
    let server = Server::start(&["--tokens", file.path()]);
    let open = |token: &str| {
        let field = bearer(token);
        let (_, value) = field.trim().split_once(": ").unwrap();
        try_open(&server, "/topics/news", Some(("Authorization", value)))
    };
    assert_eq!(try_open(&server, "/topics/news", None).err(), Some(401));
    let (mut r, mut w) = (open(&reader.1).unwrap(), open(&writer.1).unwrap());
    r.send("may I?");
    let error = r.next();
    assert_eq!(error["error"]["status"], 403, "{error}");
    w.send("I may");
    while w.next().get("published").is_none() {}
    assert_eq!(r.data(), "I may");
    file.write(&writer.0);
    assert_eq!(r.close_code(), CloseCode::Policy);
    w.send("still");
    while w.data() != "still" {}
}

#[test]
fn slow_reader_is_disconnected_and_can_resume() {
    let server = Server::start(&["--write-timeout", "1s"]);
    let mut slow = open(&server, "/topics/large");
    let cut_off = || server.metric("streams_total{reason=\"slow\"}") == 1.0;
    let mut count = 0;
    while !cut_off() {
        // One event at a time, because the time-out of a reader grows with the bytes that it is
        // sent.
        server.publish("large", &format!("{count} {}", "x".repeat(60_000)));
        count += 1;
        wait_until("the socket waits again or is disconnected", || {
            server.metric("polls_held") == 1.0 || cut_off()
        });
    }
    let (mut seen, mut since) = (0, "start".to_owned());
    let number = |event: &Value| {
        event["data"].as_str().unwrap().split(' ').next().unwrap().parse::<usize>().unwrap()
    };
    while let Ok(message) = slow.0.read() {
        if let Message::Text(text) = message {
            let event: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(number(&event), seen);
            event["cursor"].as_str().unwrap().clone_into(&mut since);
            seen += 1;
        }
    }
    assert!(seen < count);
    let mut again = open(&server, &format!("/topics/large?since={since}"));
    for n in seen..count {
        assert_eq!(number(&again.next()), n);
    }
}

#[test]
fn websockets_count_as_held_polls_up_to_the_cap() {
    let server = Server::start(&["--max-polls", "2"]);
    let sockets: Vec<_> = (0..2).map(|_| open(&server, "/topics/news?since=now")).collect();
    server.wait_until_held(2);
    assert_eq!(try_open(&server, "/topics/news", None).err(), Some(503));
    drop(sockets);
    server.wait_until_held(0);
    let server = Server::start(&[]);
    let _sockets: Vec<_> = (0..128).map(|_| open(&server, "/topics/news?since=now")).collect();
    assert_eq!(try_open(&server, "/topics/news", None).err(), Some(503));
    assert_eq!(server.get("/topics/news?wait=0").status, 200);
}

#[test]
fn client_that_closes_and_connects_again_at_once_is_never_refused_at_the_cap() {
    // The former bug: the close frame was sent before the permit was released.
    let server = Server::start(&["--max-connections", "200", "--max-polls", "4"]);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for round in 0..500 {
                    let mut client = TcpStream::connect(server.address).unwrap();
                    client.write_all(handshake(NEWS, "", "").as_bytes()).unwrap();
                    let mut received = read_until(&mut client, b"\r\n\r\n");
                    assert!(received.starts_with(b"HTTP/1.1 101 "), "round {round}");
                    // A masked close frame with code 1000; the mask is zero.
                    client.write_all(&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xE8]).unwrap();
                    received = read_until(&mut client, &[0x88, 2, 0x03, 0xE8]);
                    assert!(!received.is_empty(), "round {round}");
                }
            });
        }
    });
}

/// Reads until the end of `expected`, without waiting for the end of the connection.
fn read_until(client: &mut TcpStream, expected: &[u8]) -> Vec<u8> {
    let mut received = Vec::new();
    let mut byte = [0];
    while !received.ends_with(expected) {
        assert_eq!(client.read(&mut byte).unwrap(), 1, "{:?}", String::from_utf8_lossy(&received));
        received.push(byte[0]);
    }
    received
}
