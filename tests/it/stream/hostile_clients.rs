//! Guards WebSocket against hostile clients: with any input, the client gets complete frames in
//! order, other clients are served, and no thread, descriptor or permit is left afterwards.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::websocket::{handshake, open};
use crate::support::data_dir::{SmallFileSystem, start_with_data};
use crate::support::http_reader::HttpReader;
use crate::support::{Server, TEST_TIMEOUT, fresh_path, wait_until};

/// A WebSocket connection after its handshake, as raw bytes.
struct RawWebSocket(HttpReader<TcpStream>);

/// A frame from the server: its first byte and its payload.
type Frame = (u8, Vec<u8>);

impl RawWebSocket {
    /// Opens a connection; `receives` overrides the size of its receive buffer.
    fn open(server: &Server, target: &str, receives: Option<usize>) -> RawWebSocket {
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
        if let Some(bytes) = receives {
            rustix::net::sockopt::set_socket_recv_buffer_size(&stream, bytes).unwrap();
        }
        stream.write_all(handshake(target, "", "").as_bytes()).unwrap();
        let mut reader = HttpReader::new(stream);
        let head = reader.head().expect("a response");
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        RawWebSocket(reader)
    }

    fn send(&mut self, kind: u8, payload: &[u8]) -> std::io::Result<()> {
        self.0.stream_mut().write_all(&frame(kind, payload))
    }

    /// Reads to an orderly close; returns the complete frames and the bytes of an incomplete one.
    fn rest(mut self) -> (Vec<Frame>, Vec<u8>) {
        let mut bytes = self.0.take_buffered();
        self.0.stream_mut().read_to_end(&mut bytes).expect("an orderly close, not a reset");
        frames(&bytes)
    }
}

const LAST: u8 = 0x80;
const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// A client's frame, with a mask of zeros. Without [`LAST`] in `kind`, more fragments follow.
fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = match payload.len() {
        short @ 0..=125 => vec![0x80 | short as u8],
        middle @ 126..=0xffff => [&[0x80 | 0x7e][..], &(middle as u16).to_be_bytes()].concat(),
        long => [&[0x80 | 0x7f][..], &(long as u64).to_be_bytes()].concat(),
    };
    [&[kind][..], &length, &[0; 4], payload].concat()
}

/// Splits bytes into frames. Fails for a frame that this server never sends.
fn frames(bytes: &[u8]) -> (Vec<Frame>, Vec<u8>) {
    let (mut frames, mut rest) = (Vec::new(), bytes);
    loop {
        let (start, length) = match *rest {
            [_, 126, a, b, ..] => (4, usize::from(u16::from_be_bytes([a, b]))),
            [_, 127, ref long @ ..] if long.len() >= 8 => {
                (10, u64::from_be_bytes(long[..8].try_into().unwrap()) as usize)
            }
            [_, short @ 0..=125, ..] => (2, usize::from(short)),
            _ => return (frames, rest.to_vec()),
        };
        let kind = rest[0];
        assert!([TEXT, CLOSE, PING, PONG].contains(&(kind ^ LAST)), "{kind:#x} starts no frame");
        let Some(payload) = rest.get(start..start + length) else { return (frames, rest.to_vec()) };
        if kind == LAST | TEXT {
            let _: Value = serde_json::from_slice(payload).expect("a text in JSON");
        }
        frames.push((kind ^ LAST, payload.to_vec()));
        rest = &rest[start + length..];
    }
}

/// The number of events, of receipts for publishes, and of refusals.
fn counts(frames: &[Frame]) -> [usize; 3] {
    let texts: Vec<Value> = frames
        .iter()
        .filter(|(kind, _)| *kind == TEXT)
        .map(|(_, payload)| serde_json::from_slice(payload).unwrap())
        .collect();
    ["seq", "published", "error"]
        .map(|member| texts.iter().filter(|text| text.get(member).is_some()).count())
}

fn code(frames: &[Frame]) -> Option<u16> {
    let (CLOSE, payload) = frames.last()? else { return None };
    Some(u16::from_be_bytes(payload[..2].try_into().unwrap()))
}

/// The server's threads of this name.
fn threads(server: &Server, name: &str) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap();
    let names =
        tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|found| found.trim() == name).count()
}

#[test]
fn client_that_publishes_and_does_not_read_is_disconnected() {
    for kind in [TEXT, PING] {
        let server = Server::start(&["--write-timeout", "1s"]);
        let mut raw = RawWebSocket::open(&server, "/topics/payload?type=none&since=now", Some(1));
        while raw.send(LAST | kind, &[b'x'; 100]).is_ok() {}
        server.wait_until_held(0);
        wait_until("no thread reads from the client", || threads(&server, "listen") == 0);
        assert_eq!(server.get("/topics/payload?since=now&wait=0").status, 200);
    }
}

#[test]
fn too_large_text_is_refused_with_a_code_while_it_is_sent() {
    let server = Server::start(&[]);
    let part = [b'x'; 10_000];
    // The server reads for one more second after its close. A slow machine may need several tries.
    let was_read = (0..20).any(|_| {
        let mut raw = RawWebSocket::open(&server, "/topics/news?since=now", None);
        raw.0.stream_mut().write_all(&frame(LAST | TEXT, &part.repeat(50))[..10_000]).unwrap();
        let mut rest = raw.0.stream().try_clone().unwrap();
        let (frames, cut) = raw.rest();
        assert_eq!((code(&frames), cut.len()), (Some(1009), 0));
        let mut other = server.connect();
        (0..49).all(|_| other.get("/health").status == 200 && rest.write_all(&part).is_ok())
    });
    assert!(was_read, "the close was a reset, which can drop bytes that were sent before");
}

#[test]
fn publishes_in_progress_at_a_drain_are_answered_before_the_close() {
    for round in 1..=5 {
        let path = fresh_path("sockets-drain");
        let mut server = start_with_data(&path, &["--retain-events", "100000"]);
        let raw = RawWebSocket::open(&server, "/topics/payload?since=now", None);
        let mut writer = raw.0.stream().try_clone().unwrap();
        let answered = thread::scope(|scope| {
            scope.spawn(move || while writer.write_all(&frame(LAST | TEXT, b"x")).is_ok() {});
            wait_until("the client publishes", || server.metric("publishes_total") > 20.0);
            server.signal(15);
            let (frames, _) = raw.rest();
            assert_eq!(code(&frames), Some(1001));
            counts(&frames)[1]
        });
        assert!(server.wait().0.success());
        let server = start_with_data(&path, &["--retain-events", "100000"]);
        let listed = server.get("/topics?prefix=payload").json();
        assert_eq!(listed["topics"][0]["events"], answered, "round {round}");
    }
}

#[test]
fn text_may_be_fragmented_with_pings_between_and_inside_characters() {
    let server = Server::start(&[]);
    let mut raw = RawWebSocket::open(&server, "/topics/news?since=now", None);
    let text = "\u{e9}\u{1f41b}".repeat(20);
    raw.send(TEXT, b"").unwrap();
    for byte in text.bytes() {
        raw.send(0, &[byte]).unwrap();
        raw.send(LAST | PING, b"p").unwrap();
    }
    raw.send(LAST, b"").unwrap();
    // An empty text is an event, too.
    raw.send(LAST | TEXT, b"").unwrap();
    raw.send(LAST | CLOSE, &1000u16.to_be_bytes()).unwrap();
    let (frames, rest) = raw.rest();
    assert_eq!((code(&frames), counts(&frames)[1], rest.len()), (Some(1000), 2, 0));
    assert!(frames.iter().any(|frame| *frame == (PONG, b"p".to_vec())));
    assert_eq!(server.get("/topics/news?wait=0").data(), [&*text, ""]);
}

#[test]
fn thousands_of_connections_with_any_end_leave_nothing_behind() {
    let server = Server::start(&["--max-polls", "40", "--max-event", "1000"]);
    let mut random = fastrand::Rng::with_seed(5);
    server.publish("news", "warm");
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().count();
    let before = descriptors();
    let mut kept = std::collections::VecDeque::new();
    for n in 0..2_000 {
        if kept.len() == 20 {
            kept.pop_front();
        }
        // While earlier connections end, all permits may be taken for a moment.
        wait_until("a permit is free", || server.metric("polls_held") < 40.0);
        let mut raw = RawWebSocket::open(&server, "/topics/news", None);
        let _ = match random.u8(0..8) {
            0 => raw.send(LAST | CLOSE, b""),
            1 => raw
                .send(LAST | TEXT, b"payload")
                .and_then(|()| raw.0.stream().shutdown(Shutdown::Write)),
            2 => raw.send(LAST | TEXT, &[b'x'; 2_000]),
            3 => raw.0.stream_mut().write_all(b"\x81"),
            4 => raw.send(LAST | 2, b"binary"),
            5 => raw.0.stream().shutdown(Shutdown::Both),
            6 => rustix::net::sockopt::set_socket_linger(raw.0.stream(), Some(Duration::ZERO))
                .map_err(Into::into),
            _ => raw.send(LAST | PING, b"x"),
        };
        kept.push_back(raw);
        if n % 100 == 0 {
            server.publish("news", &n.to_string());
        }
    }
    drop(kept);
    server.wait_until_held(0);
    wait_until("no thread reads from a client", || threads(&server, "listen") == 0);
    wait_until("all descriptors are released", || descriptors() <= before);
    let counted = |reason| server.metric(&format!("streams_total{{reason=\"{reason}\"}}"));
    let ended = || ["drain", "hung_up", "revoked", "slow"].map(counted).iter().sum::<f64>();
    wait_until("each end is counted", || ended() == 2_000.0);
    assert_eq!(server.metric("streams_begun_total"), 2_000.0);
    let _all: Vec<_> = (0..40).map(|_| open(&server, "/topics/news?since=now")).collect();
    server.wait_until_held(40);
}

#[test]
fn full_disk_refuses_publishes_and_the_socket_stays_open() {
    let Some(disk) = SmallFileSystem::mount("sockets-full", 1024) else { return };
    let server = start_with_data(&disk.0.join("data"), &[]);
    let mut socket = open(&server, "/topics/news?since=now");
    let mut say = |text: &str| {
        socket.send(text);
        loop {
            let response = socket.next();
            if response.get("seq").is_none() {
                return response;
            }
        }
    };
    assert_eq!(say("before")["published"]["durable"], true);
    let filler = disk.fill();
    let refused = say(&"x".repeat(20_000));
    assert_eq!(refused["error"]["status"], 507, "{refused}");
    std::fs::remove_file(&filler).unwrap();
    wait_until("publishes succeed again", || say("again").get("published").is_some());
    assert_eq!(server.get("/topics/news?wait=0").data(), ["before", "again"]);
}

#[test]
fn only_pages_of_allowed_origins_can_open_a_websocket() {
    let server = Server::start(&["--allow-origin", "https://app.example"]);
    let own = format!("Origin: http://{}", server.address);
    for (without, fields, status) in [
        ("", "Origin: https://app.example", 101),
        ("", "Origin: https://app.example.evil", 403),
        ("", "Origin: http://app.example", 403),
        ("", "Origin: null", 403),
        ("", "Origin: http://localhost", 101),
        ("", "Origin: http://localhost:1", 403),
        ("", "Origin: https://app.example\r\nOrigin: https://evil.example", 400),
        ("", "Sec-Fetch-Site: cross-site", 403),
        // DNS rebinding: a foreign name that resolves to this machine.
        ("Host", "Host: evil.example\r\nOrigin: http://evil.example", 403),
        ("Host", &format!("Host: {}\r\n{own}", server.address), 101),
        ("Host", &format!("Host: localhost:1\r\n{own}"), 403),
    ] {
        let mut client = server.connect();
        client.send(handshake("/topics/news", without, fields));
        assert_eq!(client.response_head().status, status, "{fields}");
    }
}

#[test]
fn only_a_get_of_http_1_1_is_upgraded() {
    let server = Server::start(&[]);
    server.publish("news", "x");
    let request = handshake("/topics/news", "", "");
    let with = |from: &str, to: &str| request.replacen(from, to, 1);
    for (request, status) in [
        (with("HTTP/1.1", "HTTP/1.0"), 200),
        (with("GET", "HEAD"), 200),
        (with("\r\n\r\n", "\r\nContent-Length: 2\r\n\r\nhi"), 413),
        (with("\r\n\r\n", "\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"), 413),
        (with("/topics/news", "/health"), 200),
        (with("/topics/news", "/topics/ne%20ws"), 400),
        (with("/topics/news", "/topics/news?wait=3"), 400),
        (with("/topics/news", "/topics/news?since=x"), 400),
    ] {
        let mut client = server.connect();
        client.send(&request);
        assert_eq!(client.response_head().status, status, "{request}");
    }
    assert_eq!(server.metric("streams_begun_total"), 0.0);
}
