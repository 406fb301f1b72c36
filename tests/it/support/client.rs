//! A client that speaks in bytes: what a test sends is what goes over the wire.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use super::HANG;

/// One connection.
pub struct Client {
    stream: TcpStream,
    unused: Vec<u8>,
}

/// One answer, taken apart.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    /// The bytes before the body.
    pub head: String,
    pub body: Vec<u8>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).expect("the server accepts connections");
        stream.set_read_timeout(Some(HANG)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client { stream, unused: Vec::new() }
    }

    /// Sends these bytes.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Client {
        // A server that has refused may have closed already; the answer says what happened.
        let _ = self.stream.write_all(bytes.as_ref());
        self
    }

    /// Sends a request without a body.
    pub fn ask(&mut self, method: &str, target: &str) -> &mut Client {
        self.send(format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
    }

    pub fn get(&mut self, target: &str) -> Answer {
        self.ask("GET", target).answer()
    }

    /// Sends a request with header lines (each with its CR LF) and a body of that length.
    pub fn post(&mut self, target: &str, headers: &str, body: impl AsRef<[u8]>) -> Answer {
        let body = body.as_ref();
        let length = body.len();
        let mut bytes = format!(
            "POST {target} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {length}\r\n\r\n"
        )
        .into_bytes();
        bytes.extend_from_slice(body);
        self.send(bytes).answer()
    }

    /// Makes the system's buffer for what arrives as small as may be.
    pub fn receive_little(&mut self) -> &mut Client {
        rustix::net::sockopt::set_socket_recv_buffer_size(&self.stream, 1).unwrap();
        self
    }

    /// Says that nothing more will be sent.
    pub fn end_output(&mut self) -> &mut Client {
        self.stream.shutdown(Shutdown::Write).unwrap();
        self
    }

    /// Breaks the connection off: what is on its way either way is lost.
    pub fn reset(self) {
        rustix::net::sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO)).unwrap();
    }

    /// Reads the next answer; one to a HEAD request by [`Client::head`] instead.
    pub fn answer(&mut self) -> Answer {
        let mut answer = self.head();
        let length: usize = answer.header("Content-Length").map_or(0, |n| n.parse().unwrap());
        while self.unused.len() < length {
            assert!(self.more() > 0, "the body ended early: {answer:?}");
        }
        answer.body = self.unused.drain(..length).collect();
        answer
    }

    /// Reads the next answer's head only.
    pub fn head(&mut self) -> Answer {
        self.head_or_end().unwrap_or_else(|| {
            panic!("closed before an answer: {:?}", String::from_utf8_lossy(&self.unused))
        })
    }

    /// The same, if there is one before the server closes.
    pub fn head_or_end(&mut self) -> Option<Answer> {
        let end = loop {
            if let Some(at) = self.unused.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            if self.more() == 0 {
                return None;
            }
        };
        let head = String::from_utf8(self.unused.drain(..end).collect()).unwrap();
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status line");
        Some(Answer { status, head, body: Vec::new() })
    }

    /// Waits for an answer, and says whether none came because the connection has ended.
    pub fn ends(&mut self) -> bool {
        while !self.unused.ends_with(b"}\n") {
            if self.more() == 0 {
                return true;
            }
        }
        self.unused.clear();
        false
    }

    /// Whether the server closes now without another byte.
    pub fn is_closed(&mut self) -> bool {
        self.unused.is_empty() && self.more() == 0
    }

    /// Reads whatever comes until the end.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.more() > 0 {}
        std::mem::take(&mut self.unused)
    }

    #[cfg(feature = "streams")]
    /// Reads up to and with these bytes; nothing when the end comes before.
    pub fn through(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.unused.windows(end.len()).position(|w| w == end) {
                return Some(self.unused.drain(..at + end.len()).collect());
            }
            if self.more() == 0 {
                return None;
            }
        }
    }

    #[cfg(feature = "streams")]
    /// Reads so many bytes; nothing when the end comes before.
    pub fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.unused.len() < count {
            if self.more() == 0 {
                return None;
            }
        }
        Some(self.unused.drain(..count).collect())
    }

    /// Nothing has arrived by now.
    pub fn has_nothing(&mut self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let mut byte = [0];
        let nothing =
            self.stream.peek(&mut byte).is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock);
        self.stream.set_nonblocking(false).unwrap();
        nothing && self.unused.is_empty()
    }

    fn more(&mut self) -> usize {
        let mut chunk = [0; 16 << 10];
        // A reset is an end, too.
        let got = match self.stream.read(&mut chunk) {
            // A signal, such as that of a program that has ended.
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => return self.more(),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                panic!("no answer for {HANG:?}")
            }
            got => got.unwrap_or(0),
        };
        self.unused.extend_from_slice(&chunk[..got]);
        got
    }
}

impl Answer {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.split("\r\n").find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body of text")
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    /// The cursor to go on from.
    pub fn next(&self) -> &str {
        self.header("Next-Cursor").expect("a Next-Cursor header")
    }

    /// The seqs of its events.
    pub fn seqs(&self) -> Vec<u64> {
        let json = self.json();
        let events = json["events"].as_array().expect("a poll answer");
        events.iter().map(|event| event["seq"].as_u64().unwrap()).collect()
    }

    /// The data of its events.
    pub fn data(&self) -> Vec<serde_json::Value> {
        let json = self.json();
        let events = json["events"].as_array().expect("a poll answer");
        events.iter().map(|event| event["data"].clone()).collect()
    }

    /// A problem's detail.
    pub fn detail(&self) -> String {
        assert_eq!(self.header("Content-Type"), Some("application/problem+json"), "{self:?}");
        let json = self.json();
        assert_eq!(json["status"], self.status);
        json["detail"].as_str().expect("a detail").to_owned()
    }
}
