//! How a publish and a poll are said to each kind of server, and what a right answer looks like.
//! The floor server speaks longpoll's dialect.

use serde_json::Value;

use crate::wire::{Answer, Conn, Outcome};

#[derive(Clone, Copy, PartialEq)]
pub enum Dialect {
    Longpoll,
    Nchan,
}

/// Where a poller stands, ready to be put into its next request.
#[derive(Clone, PartialEq, Debug)]
pub enum Cursor {
    Start,
    /// After what there is; longpoll only.
    Now,
    /// The value of `Next-Cursor`.
    After(String),
    /// The two conditional request headers.
    Since {
        modified: String,
        tag: String,
    },
}

pub struct Seen {
    pub cursor: Cursor,
    /// Known for longpoll only.
    pub seq: Option<u64>,
}

pub struct Receipt {
    pub seq: Option<u64>,
    /// How many held polls the server says this publish answered.
    pub released: usize,
}

#[derive(Clone, Copy)]
pub struct Target {
    pub port: u16,
    pub dialect: Dialect,
}

pub fn wrong<T>(what: &str, answer: &Answer) -> Outcome<T> {
    Err(format!("{what}; the answer was:\n{}", answer.excerpt()).into())
}

/// The number after `label` in a text.
fn number_after(text: &[u8], label: &[u8]) -> Option<u64> {
    let at = text.windows(label.len()).position(|window| window == label)? + label.len();
    let digits = text[at..].iter().take_while(|byte| byte.is_ascii_digit());
    let mut value = None;
    for digit in digits {
        value = Some(value.unwrap_or(0) * 10 + u64::from(digit - b'0'));
    }
    value
}

impl Target {
    pub fn parse(name: &str, port: u16) -> Outcome<Target> {
        let dialect = match name {
            "longpoll" | "floor" => Dialect::Longpoll,
            "nchan" => Dialect::Nchan,
            other => {
                return Err(format!("unknown server '{other}': longpoll, nchan or floor").into());
            }
        };
        Ok(Target { port, dialect })
    }

    pub fn get(self, path: &str, headers: &str) -> Vec<u8> {
        format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n{headers}\r\n", self.port)
            .into_bytes()
    }

    /// `topics` may be a pattern where the dialect has patterns. `rest` are more query parameters.
    pub fn poll_with(self, topics: &str, cursor: &Cursor, rest: &str) -> Vec<u8> {
        match (self.dialect, cursor) {
            (Dialect::Longpoll, Cursor::After(cursor)) => {
                self.get(&format!("/topics/{topics}?since={cursor}{rest}"), "")
            }
            (Dialect::Longpoll, Cursor::Now) => {
                self.get(&format!("/topics/{topics}?since=now{rest}"), "")
            }
            (Dialect::Longpoll, _) => self.get(&format!("/topics/{topics}?since=start{rest}"), ""),
            (Dialect::Nchan, Cursor::Since { modified, tag }) => {
                let headers = format!("If-Modified-Since: {modified}\r\nIf-None-Match: {tag}\r\n");
                self.get(&format!("/sub/{topics}"), &headers)
            }
            (Dialect::Nchan, _) => self.get(&format!("/sub/{topics}"), ""),
        }
    }

    /// A poll that is willing to be held longer than any run lasts.
    pub fn poll(self, topics: &str, cursor: &Cursor) -> Vec<u8> {
        self.poll_with(topics, cursor, "&wait=300")
    }

    pub fn publish(self, topic: &str, body: &str) -> Vec<u8> {
        self.publish_as(topic, body, "text/plain")
    }

    pub fn publish_as(self, topic: &str, body: &str, content_type: &str) -> Vec<u8> {
        let folder = if self.dialect == Dialect::Longpoll { "topics" } else { "pub" };
        format!(
            "POST /{folder}/{topic} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Type: {content_type}\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.port,
            body.len()
        )
        .into_bytes()
    }

    /// How many polls the server says it holds now.
    pub fn held(self, control: &mut Conn) -> Outcome<usize> {
        let (path, label): (_, &[u8]) = match self.dialect {
            Dialect::Longpoll => ("/metrics", b"\nlongpoll_polls_held "),
            Dialect::Nchan => ("/status", b"\nsubscribers: "),
        };
        self.gauge(control, path, label)
    }

    /// How many polls of one topic wait by now. longpoll's gauge counts a poll as held a little
    /// before its thread waits, and with thousands of threads on one core that little is long.
    pub fn waiting(self, control: &mut Conn, topic: &str) -> Outcome<usize> {
        match self.dialect {
            Dialect::Nchan => {
                self.gauge(control, &format!("/pub/{topic}"), b"\nactive subscribers: ")
            }
            Dialect::Longpoll => {
                self.gauge(control, &format!("/topics?prefix={topic}&limit=1"), b"\"held\":")
            }
        }
    }

    /// longpoll only: one of its metrics.
    pub fn metric(self, control: &mut Conn, name: &str) -> Outcome<usize> {
        self.gauge(control, "/metrics", format!("\nlongpoll_{name} ").as_bytes())
    }

    /// longpoll only.
    pub fn health(self) -> Vec<u8> {
        self.get("/health", "")
    }

    /// nchan only: every message that was ever published.
    pub fn published(self, control: &mut Conn) -> Outcome<usize> {
        self.gauge(control, "/status", b"\ntotal published messages: ")
    }

    fn gauge(self, control: &mut Conn, path: &str, label: &[u8]) -> Outcome<usize> {
        let answer = control.call(&self.get(path, ""))?;
        // The label begins with a line break so that it can't match inside a name; the first line
        // has none before it.
        let text = [b"\n", answer.body()].concat();
        match number_after(&text, label) {
            Some(count) if answer.status == 200 => Ok(count as usize),
            _ => wrong(&format!("{path} does not tell the figure"), &answer),
        }
    }

    /// Checks everything that a poll's answer with exactly one event must say.
    pub fn check_poll(self, answer: &Answer, topic: &str, body: &str) -> Outcome<Seen> {
        if answer.status != 200 {
            return wrong("a poll's status is not 200", answer);
        }
        if self.dialect == Dialect::Nchan {
            if answer.body() != body.as_bytes() {
                return wrong(&format!("a poll's answer does not hold '{body}'"), answer);
            }
            return match (answer.header("last-modified"), answer.header("etag")) {
                (Some(modified), Some(tag)) => {
                    let cursor = Cursor::Since { modified: modified.into(), tag: tag.into() };
                    Ok(Seen { cursor, seq: None })
                }
                _ => wrong("a poll's answer without its position", answer),
            };
        }
        let page: Value = serde_json::from_slice(answer.body())?;
        let event = &page["events"][0];
        let right = page["events"].as_array().is_some_and(|events| events.len() == 1)
            && event["topic"] == topic
            && event["data"] == body
            && page["reason"] == "data"
            && page["more"] == false
            && answer.header("poll-reason") == Some("data");
        let next = answer.header("next-cursor").unwrap_or_default();
        let seq = event["seq"].as_u64();
        if !right || seq.is_none() || next.is_empty() || page["next"] != next {
            return wrong(
                &format!("a poll's answer is not exactly the event '{body}' of '{topic}'"),
                answer,
            );
        }
        Ok(Seen { cursor: Cursor::After(next.into()), seq })
    }

    /// Checks a publish's answer as a whole.
    pub fn check_publish(self, answer: &Answer, topic: &str) -> Outcome<Receipt> {
        if self.dialect == Dialect::Nchan {
            self.check_publish_quick(answer)?;
            let released = number_after(answer.body(), b"active subscribers: ");
            return match released {
                Some(released) => Ok(Receipt { seq: None, released: released as usize }),
                None => wrong("a publish's answer without its subscribers", answer),
            };
        }
        if answer.status != 201 {
            return wrong("a publish's status is not 201", answer);
        }
        let receipt: Value = serde_json::from_slice(answer.body())?;
        let cursor = answer.header("next-cursor").unwrap_or_default();
        match (receipt["seq"].as_u64(), receipt["released"].as_u64()) {
            (Some(seq), Some(released))
                if receipt["topic"] == topic && receipt["cursor"] == cursor =>
            {
                Ok(Receipt { seq: Some(seq), released: released as usize })
            }
            _ => wrong("a publish's answer lacks a field or has a wrong one", answer),
        }
    }

    /// The check that is cheap enough for every publish at full rate: status, and the event's seq.
    pub fn check_publish_quick(self, answer: &Answer) -> Outcome<Option<u64>> {
        match self.dialect {
            Dialect::Longpoll if answer.status == 201 => {
                match number_after(answer.body(), b"\"seq\":") {
                    Some(seq) => Ok(Some(seq)),
                    None => wrong("a publish's answer without a seq", answer),
                }
            }
            Dialect::Nchan if matches!(answer.status, 201 | 202) => {
                match number_after(answer.body(), b"queued messages: ") {
                    Some(queued) if queued > 0 => Ok(None),
                    _ => wrong("a publish's answer without its queue", answer),
                }
            }
            _ => wrong("a publish's status is wrong", answer),
        }
    }
}
