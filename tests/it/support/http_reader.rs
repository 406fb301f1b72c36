//! The one reader of HTTP messages in these tests, used at both ends of a connection. It splits
//! heads from bodies itself, so that a bug in the server's parser cannot hide in the tests.

use std::io::{ErrorKind, Read};

use super::TEST_TIMEOUT;

/// A stream and the bytes that arrived on it and were not read yet.
pub struct HttpReader<S> {
    stream: S,
    buffer: Vec<u8>,
}

/// One response.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    /// The status line and the header fields, through the empty line.
    pub head: String,
    pub body: Vec<u8>,
}

impl<S: Read> HttpReader<S> {
    pub fn new(stream: S) -> HttpReader<S> {
        HttpReader { stream, buffer: Vec::new() }
    }

    pub fn stream(&self) -> &S {
        &self.stream
    }

    pub fn stream_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    /// The bytes that arrived and were not read yet.
    pub fn buffered(&self) -> &[u8] {
        &self.buffer
    }

    /// Removes and returns the buffered bytes.
    pub fn take_buffered(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }

    /// The next message head, through its empty line; `None` if the stream ends first.
    pub fn head(&mut self) -> Option<String> {
        self.through(b"\r\n\r\n").map(|head| String::from_utf8(head).expect("a head in UTF-8"))
    }

    /// The next response with the body that `Content-Length` announces. `None` if the stream ends
    /// first: the incomplete response then stays in the buffer.
    pub fn response(&mut self) -> Option<Response> {
        let head_end = self.position_after(b"\r\n\r\n")?;
        let mut response = Response::from_head(&self.buffer[..head_end]);
        let length = content_length(&response.head).unwrap_or(0);
        self.fill_to(head_end + length)?;
        response.body = self.buffer.drain(..head_end + length).skip(head_end).collect();
        Some(response)
    }

    /// The bytes through the first occurrence of `end`; `None` if the stream ends first.
    pub fn through(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        let position = self.position_after(end)?;
        Some(self.buffer.drain(..position).collect())
    }

    /// The next `count` bytes; `None` if the stream ends first.
    pub fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        self.fill_to(count)?;
        Some(self.buffer.drain(..count).collect())
    }

    /// All bytes up to the end of the stream.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.fill() > 0 {}
        self.take_buffered()
    }

    /// Reads once from the stream into the buffer; 0 at its end, and a reset counts as an end.
    pub fn fill(&mut self) -> usize {
        let mut chunk = [0; 16 << 10];
        let count = loop {
            match self.stream.read(&mut chunk) {
                // A signal, for example when a child process exits.
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    panic!("nothing arrived for {TEST_TIMEOUT:?}")
                }
                result => break result.unwrap_or(0),
            }
        };
        self.buffer.extend_from_slice(&chunk[..count]);
        count
    }

    fn fill_to(&mut self, length: usize) -> Option<()> {
        while self.buffer.len() < length {
            if self.fill() == 0 {
                return None;
            }
        }
        Some(())
    }

    /// Where `end` ends in the buffer, after reading as much as that takes.
    fn position_after(&mut self, end: &[u8]) -> Option<usize> {
        loop {
            if let Some(at) = self.buffer.windows(end.len()).position(|bytes| bytes == end) {
                return Some(at + end.len());
            }
            if self.fill() == 0 {
                return None;
            }
        }
    }
}

/// The value of a header field in a message head; field names are case-insensitive.
pub fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.split("\r\n").find_map(|line| {
        let (key, value) = line.split_once(": ")?;
        key.eq_ignore_ascii_case(name).then_some(value)
    })
}

/// The length of the body that follows a head, if the head states one.
pub fn content_length(head: &str) -> Option<usize> {
    header(head, "Content-Length").map(|length| length.parse().expect("a decimal length"))
}

impl Response {
    /// A response without its body.
    pub fn from_head(head: &[u8]) -> Response {
        let head = String::from_utf8(head.to_vec()).expect("a head in UTF-8");
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status line");
        Response { status, head, body: Vec::new() }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body of text")
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    /// The cursor of the next poll.
    pub fn next_cursor(&self) -> &str {
        self.header("Next-Cursor").expect("a Next-Cursor header")
    }

    /// The seqs of the events in the body.
    pub fn seqs(&self) -> Vec<u64> {
        let json = self.json();
        let events = json["events"].as_array().expect("a poll's answer");
        events.iter().map(|event| event["seq"].as_u64().unwrap()).collect()
    }

    /// The `data` members of the events in the body.
    pub fn data(&self) -> Vec<serde_json::Value> {
        let json = self.json();
        let events = json["events"].as_array().expect("a poll's answer");
        events.iter().map(|event| event["data"].clone()).collect()
    }

    /// The `detail` of a problem; checks that the body is a problem and repeats the status.
    pub fn detail(&self) -> String {
        assert_eq!(self.header("Content-Type"), Some("application/problem+json"), "{self:?}");
        let json = self.json();
        assert_eq!(json["status"], self.status);
        json["detail"].as_str().expect("a detail").to_owned()
    }
}

#[test]
fn reader_splits_a_stream_into_messages_and_keeps_an_incomplete_one() {
    let stream = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\nok\
                  3\r\nabc\r\nHTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut";
    // `chain` ends the first read inside a head.
    let (start, end) = stream.as_bytes().split_at(40);
    let mut reader = HttpReader::new(start.chain(end));
    assert_eq!(reader.head().as_deref(), Some("HTTP/1.1 100 Continue\r\n\r\n"));
    let response = reader.response().unwrap();
    assert_eq!((response.status, response.text()), (201, "ok"));
    assert_eq!(response.header("Content-Length"), Some("2"));
    assert_eq!(reader.through(b"\r\n").as_deref(), Some(&b"3\r\n"[..]));
    assert_eq!(reader.take(5).as_deref(), Some(&b"abc\r\n"[..]));
    assert!(reader.response().is_none());
    assert!(reader.buffered().starts_with(b"HTTP/1.1 200 OK\r\n"));
    assert!(reader.rest().ends_with(b"cut"));
}
