//! A reader of server-sent events, as far apart from the server's writer as can be: it takes the
//! chunks apart and reads the lines as the standard says.

use std::time::Instant;

use super::{Answer, Client, HANG, Server};

/// A stream that is being read.
pub struct Events {
    client: Client,
    pub opening: Answer,
    /// Of what arrived, and was not read yet.
    text: String,
    /// The id that a browser would resume from.
    pub last_id: String,
}

/// What a browser would dispatch; a block of lines without data has none.
#[derive(Debug, PartialEq, Eq, Clone)]
pub struct Message {
    pub id: Option<String>,
    pub event: Option<String>,
    pub data: Option<String>,
    pub retry: Option<u64>,
}

impl Message {
    pub fn json(&self) -> serde_json::Value {
        let data = self.data.as_ref().unwrap_or_else(|| panic!("no data: {self:?}"));
        serde_json::from_str(data).unwrap_or_else(|e| panic!("{e}: {data}"))
    }
}

impl Events {
    /// Asks for a stream, with more header lines if need be, and reads its head.
    pub fn open(server: &Server, target: &str, fields: &str) -> Events {
        Events::ask(server.connect(), target, fields)
    }

    pub fn ask(mut client: Client, target: &str, fields: &str) -> Events {
        client.send(format!(
            "GET {target} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n{fields}\r\n"
        ));
        let opening = client.head();
        Events { client, opening, text: String::new(), last_id: String::new() }
    }

    /// The next block of lines; nothing when the stream has ended as it should.
    pub fn block(&mut self) -> Option<Message> {
        loop {
            if let Some(end) = self.text.find("\n\n") {
                let block: String = self.text.drain(..end + 2).collect();
                return Some(self.read(&block));
            }
            match self.chunk()? {
                text if text.is_empty() => {
                    assert_eq!(self.text, "", "the end of a part of a block");
                    return None;
                }
                text => self.text.push_str(&text),
            }
        }
    }

    /// The next block; there has to be one.
    pub fn next(&mut self) -> Message {
        self.block().expect("the stream goes on")
    }

    /// The next block that has data.
    pub fn message(&mut self) -> Message {
        loop {
            let block = self.next();
            if block.data.is_some() {
                return block;
            }
        }
    }

    /// The data of so many events.
    pub fn data(&mut self, count: usize) -> Vec<serde_json::Value> {
        (0..count).map(|_| self.message().json()["data"].clone()).collect()
    }

    /// Reads to the end: the last block, and whether the end was regular.
    pub fn end(mut self) -> (Option<Message>, bool) {
        let (mut last, stuck) = (None, Instant::now() + HANG);
        while let Some(message) = self.block() {
            assert!(Instant::now() < stuck, "it goes on: {message:?}");
            last = Some(message);
        }
        (last, self.text.is_empty() && self.client.is_closed())
    }

    pub fn into_client(self) -> Client {
        self.client
    }

    /// One chunk's content; empty is the last one. Nothing when the connection ended without.
    fn chunk(&mut self) -> Option<String> {
        let size = String::from_utf8(self.client.through(b"\r\n")?).unwrap();
        let size = usize::from_str_radix(size.trim_end(), 16).expect("a chunk's size");
        let mut content = self.client.take(size + 2)?;
        assert_eq!(content.split_off(size), b"\r\n");
        Some(String::from_utf8(content).expect("text"))
    }

    fn read(&mut self, block: &str) -> Message {
        let mut message = Message { id: None, event: None, data: None, retry: None };
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
                    assert_eq!(message.data, None, "data has one line");
                    message.data = Some(value);
                }
                "retry" => message.retry = Some(value.parse().unwrap()),
                _ => panic!("unknown field in {block:?}"),
            }
        }
        message
    }
}
