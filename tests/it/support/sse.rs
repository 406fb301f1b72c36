//! A reader of server-sent events that shares no code with the server's writer: it decodes the
//! chunks and parses the lines as the HTML standard specifies.

use std::time::Instant;

use super::{Client, Response, Server, TEST_TIMEOUT};

/// An open stream.
pub struct SseReader {
    client: Client,
    pub opening: Response,
    /// Decoded text that was not read yet.
    text: String,
    /// The id from which a browser would resume.
    pub last_id: String,
}

/// One block of lines. A browser dispatches it only if it has `data`.
#[derive(Debug, PartialEq, Eq, Clone)]
pub struct SseBlock {
    pub id: Option<String>,
    pub event: Option<String>,
    pub data: Option<String>,
    pub retry: Option<u64>,
}

impl SseBlock {
    pub fn json(&self) -> serde_json::Value {
        let data = self.data.as_ref().unwrap_or_else(|| panic!("no data: {self:?}"));
        serde_json::from_str(data).unwrap_or_else(|e| panic!("{e}: {data}"))
    }
}

impl SseReader {
    /// Requests a stream, with additional header lines, and reads the head of the response.
    pub fn open(server: &Server, target: &str, fields: &str) -> SseReader {
        SseReader::send(server.connect(), target, fields)
    }

    /// Requests a stream on an open connection.
    pub fn send(mut client: Client, target: &str, fields: &str) -> SseReader {
        client.send(format!(
            "GET {target} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n{fields}\r\n"
        ));
        let opening = client.response_head();
        SseReader { client, opening, text: String::new(), last_id: String::new() }
    }

    /// The next block; `None` when the stream has ended.
    pub fn block(&mut self) -> Option<SseBlock> {
        loop {
            if let Some(end) = self.text.find("\n\n") {
                let block: String = self.text.drain(..end + 2).collect();
                return Some(self.parse(&block));
            }
            match self.chunk()? {
                text if text.is_empty() => {
                    assert_eq!(self.text, "", "the stream ended inside a block");
                    return None;
                }
                text => self.text.push_str(&text),
            }
        }
    }

    /// The next block; fails if the stream has ended.
    pub fn next(&mut self) -> SseBlock {
        self.block().expect("another block")
    }

    /// The next block that has data.
    pub fn message(&mut self) -> SseBlock {
        loop {
            let block = self.next();
            if block.data.is_some() {
                return block;
            }
        }
    }

    /// The data of the next `count` events.
    pub fn data(&mut self, count: usize) -> Vec<serde_json::Value> {
        (0..count).map(|_| self.message().json()["data"].clone()).collect()
    }

    /// Reads to the end; returns the last block and whether the stream ended with a last chunk.
    pub fn read_to_end(mut self) -> (Option<SseBlock>, bool) {
        let (mut last, deadline) = (None, Instant::now() + TEST_TIMEOUT);
        while let Some(message) = self.block() {
            assert!(Instant::now() < deadline, "the stream does not end: {message:?}");
            last = Some(message);
        }
        (last, self.text.is_empty() && self.client.is_closed())
    }

    pub fn into_client(self) -> Client {
        self.client
    }

    /// The content of the next chunk, empty for the last one; `None` if the connection ended
    /// without a last chunk.
    fn chunk(&mut self) -> Option<String> {
        let size = String::from_utf8(self.client.reader.through(b"\r\n")?).unwrap();
        let size = usize::from_str_radix(size.trim_end(), 16).expect("the size of a chunk");
        let mut content = self.client.reader.take(size + 2)?;
        assert_eq!(content.split_off(size), b"\r\n");
        Some(String::from_utf8(content).expect("text"))
    }

    fn parse(&mut self, block: &str) -> SseBlock {
        let mut message = SseBlock { id: None, event: None, data: None, retry: None };
        for line in block.lines().filter(|line| !line.is_empty()) {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
            match field {
                "id" => {
                    self.last_id.clone_from(&value);
                    message.id = Some(value);
                }
                "event" => message.event = Some(value),
                "data" => {
                    assert_eq!(message.data, None, "`data` has one line");
                    message.data = Some(value);
                }
                "retry" => message.retry = Some(value.parse().unwrap()),
                _ => panic!("unknown field in {block:?}"),
            }
        }
        message
    }
}
