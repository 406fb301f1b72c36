//! The requests that each kind of server understands, and the checks of its responses. The floor
//! server speaks longpoll's protocol.

use serde_json::Value;

use crate::LoadResult;
use crate::bytes::number_after;
use crate::conn::{Conn, Response};

#[derive(Clone, Copy, PartialEq)]
pub enum ServerKind {
    Longpoll,
    Nchan,
}

/// A poller's position, as its next request states it.
#[derive(Clone, PartialEq, Debug)]
pub enum Cursor {
    Start,
    /// After the newest event; longpoll only.
    Now,
    /// The value of longpoll's `Next-Cursor`.
    After(String),
    /// nchan's position: the values of `Last-Modified` and `ETag`.
    Conditional {
        last_modified: String,
        etag: String,
    },
}

/// The event that a poll returned.
pub struct PolledEvent {
    /// The position after it.
    pub cursor: Cursor,
    /// Longpoll only; nchan has no sequence numbers.
    pub seq: Option<u64>,
}

/// The response to a publish.
pub struct PublishReceipt {
    pub seq: Option<u64>,
    /// The number of held polls that the publish released, as the server reports it.
    pub released: usize,
}

/// The server under test.
#[derive(Clone, Copy)]
pub struct Target {
    pub port: u16,
    pub kind: ServerKind,
}

pub fn unexpected_response<T>(what: &str, response: &Response) -> LoadResult<T> {
    Err(format!("{what}; the response was:\n{}", response.excerpt()).into())
}

impl Target {
    pub fn parse(name: &str, port: u16) -> LoadResult<Target> {
        let kind = match name {
            "longpoll" | "floor" => ServerKind::Longpoll,
            "nchan" => ServerKind::Nchan,
            other => {
                return Err(
                    format!("unknown server '{other}': expected longpoll, nchan or floor").into()
                );
            }
        };
        Ok(Target { port, kind })
    }

    pub fn get_request(self, path: &str, headers: &str) -> Vec<u8> {
        format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n{headers}\r\n", self.port)
            .into_bytes()
    }

    /// A poll with more query parameters, which begin with `&`. `topics` may be a pattern with
    /// longpoll.
    pub fn poll_request_with(self, topics: &str, cursor: &Cursor, parameters: &str) -> Vec<u8> {
        match (self.kind, cursor) {
            (ServerKind::Longpoll, Cursor::After(cursor)) => {
                self.get_request(&format!("/topics/{topics}?since={cursor}{parameters}"), "")
            }
            (ServerKind::Longpoll, Cursor::Now) => {
                self.get_request(&format!("/topics/{topics}?since=now{parameters}"), "")
            }
            (ServerKind::Longpoll, _) => {
                self.get_request(&format!("/topics/{topics}?since=start{parameters}"), "")
            }
            (ServerKind::Nchan, Cursor::Conditional { last_modified, etag }) => {
                let headers =
                    format!("If-Modified-Since: {last_modified}\r\nIf-None-Match: {etag}\r\n");
                self.get_request(&format!("/sub/{topics}"), &headers)
            }
            (ServerKind::Nchan, _) => self.get_request(&format!("/sub/{topics}"), ""),
        }
    }

    /// A poll that may be held longer than any run lasts.
    pub fn poll_request(self, topics: &str, cursor: &Cursor) -> Vec<u8> {
        self.poll_request_with(topics, cursor, "&wait=300")
    }

    pub fn publish_request(self, topic: &str, body: &str) -> Vec<u8> {
        self.publish_request_as(topic, body, "text/plain")
    }

    pub fn publish_request_as(self, topic: &str, body: &str, content_type: &str) -> Vec<u8> {
        let folder = if self.kind == ServerKind::Longpoll { "topics" } else { "pub" };
        format!(
            "POST /{folder}/{topic} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Type: {content_type}\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.port,
            body.len()
        )
        .into_bytes()
    }

    /// The number of polls that the server reports as held.
    pub fn held_polls(self, control: &mut Conn) -> LoadResult<usize> {
        let (path, label): (_, &[u8]) = match self.kind {
            ServerKind::Longpoll => ("/metrics", b"\nlongpoll_polls_held "),
            ServerKind::Nchan => ("/status", b"\nsubscribers: "),
        };
        self.read_figure(control, path, label)
    }

    /// The number of polls that wait for one topic. longpoll's gauge counts a poll as held shortly
    /// before its thread blocks; with thousands of threads on one core, that is not short.
    pub fn waiting_polls(self, control: &mut Conn, topic: &str) -> LoadResult<usize> {
        match self.kind {
            ServerKind::Nchan => {
                self.read_figure(control, &format!("/pub/{topic}"), b"\nactive subscribers: ")
            }
            ServerKind::Longpoll => {
                self.read_figure(control, &format!("/topics?prefix={topic}&limit=1"), b"\"held\":")
            }
        }
    }

    /// The value of a metric, by its name after `longpoll_`; longpoll only.
    pub fn metric(self, control: &mut Conn, name: &str) -> LoadResult<usize> {
        self.read_figure(control, "/metrics", format!("\nlongpoll_{name} ").as_bytes())
    }

    /// longpoll only.
    pub fn health_request(self) -> Vec<u8> {
        self.get_request("/health", "")
    }

    /// The number of messages published since the start; nchan only.
    pub fn published_messages(self, control: &mut Conn) -> LoadResult<usize> {
        self.read_figure(control, "/status", b"\ntotal published messages: ")
    }

    fn read_figure(self, control: &mut Conn, path: &str, label: &[u8]) -> LoadResult<usize> {
        let response = control.call(&self.get_request(path, ""))?;
        // A label begins with a line break so that it cannot match inside a name; the first line
        // needs one added.
        let text = [b"\n", response.body()].concat();
        match number_after(&text, label) {
            Some(count) if response.status == 200 => Ok(count as usize),
            _ => unexpected_response(&format!("{path} lacks the figure"), &response),
        }
    }

    /// Checks every field of a poll's response, which must hold exactly one event.
    pub fn check_poll(
        self,
        response: &Response,
        topic: &str,
        body: &str,
    ) -> LoadResult<PolledEvent> {
        if response.status != 200 {
            return unexpected_response("a poll's status is not 200", response);
        }
        if self.kind == ServerKind::Nchan {
            if response.body() != body.as_bytes() {
                return unexpected_response(
                    &format!("a poll's response is not '{body}'"),
                    response,
                );
            }
            return match (response.header("last-modified"), response.header("etag")) {
                (Some(last_modified), Some(etag)) => {
                    let (last_modified, etag) = (last_modified.into(), etag.into());
                    let cursor = Cursor::Conditional { last_modified, etag };
                    Ok(PolledEvent { cursor, seq: None })
                }
                _ => unexpected_response(
                    "a poll's response without Last-Modified and ETag",
                    response,
                ),
            };
        }
        let page: Value = serde_json::from_slice(response.body())?;
        let event = &page["events"][0];
        let matches = page["events"].as_array().is_some_and(|events| events.len() == 1)
            && event["topic"] == topic
            && event["data"] == body
            && page["reason"] == "data"
            && page["more"] == false
            && response.header("poll-reason") == Some("data");
        let next = response.header("next-cursor").unwrap_or_default();
        let seq = event["seq"].as_u64();
        if !matches || seq.is_none() || next.is_empty() || page["next"] != next {
            return unexpected_response(
                &format!("a poll's response is not exactly the event '{body}' of '{topic}'"),
                response,
            );
        }
        Ok(PolledEvent { cursor: Cursor::After(next.into()), seq })
    }

    /// Checks every field of a publish's response.
    pub fn check_publish(self, response: &Response, topic: &str) -> LoadResult<PublishReceipt> {
        if self.kind == ServerKind::Nchan {
            self.check_publish_quick(response)?;
            let released = number_after(response.body(), b"active subscribers: ");
            return match released {
                Some(released) => Ok(PublishReceipt { seq: None, released: released as usize }),
                None => {
                    unexpected_response("a publish's response without active subscribers", response)
                }
            };
        }
        if response.status != 201 {
            return unexpected_response("a publish's status is not 201", response);
        }
        let receipt: Value = serde_json::from_slice(response.body())?;
        let cursor = response.header("next-cursor").unwrap_or_default();
        match (receipt["seq"].as_u64(), receipt["released"].as_u64()) {
            (Some(seq), Some(released))
                if receipt["topic"] == topic && receipt["cursor"] == cursor =>
            {
                Ok(PublishReceipt { seq: Some(seq), released: released as usize })
            }
            _ => unexpected_response("a publish's response has a missing or wrong field", response),
        }
    }

    /// Checks the status and returns the seq: cheap enough for every publish at full rate.
    pub fn check_publish_quick(self, response: &Response) -> LoadResult<Option<u64>> {
        match self.kind {
            ServerKind::Longpoll if response.status == 201 => {
                match number_after(response.body(), b"\"seq\":") {
                    Some(seq) => Ok(Some(seq)),
                    None => unexpected_response("a publish's response without a seq", response),
                }
            }
            ServerKind::Nchan if matches!(response.status, 201 | 202) => {
                match number_after(response.body(), b"queued messages: ") {
                    Some(queued) if queued > 0 => Ok(None),
                    _ => unexpected_response(
                        "a publish's response without queued messages",
                        response,
                    ),
                }
            }
            _ => unexpected_response("a publish's status is not 201 or 202", response),
        }
    }
}
