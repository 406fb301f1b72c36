//! The floor server, the baseline of the benchmark: the least that one thread with an epoll loop
//! needs for the same bytes on the wire. It holds polls of one topic and keeps one event. It has no
//! log, no limits and no time-outs, and parses almost nothing, so a complete server can approach
//! its figures but not beat them.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::LoadResult;
use crate::args::Args;
use crate::bytes::{find, number_after};
use crate::epoll::Epoll;

const LISTENER: usize = usize::MAX;
const BODY_BYTES: usize = 32;

/// Seqs start here so that all have ten digits: the length of a response never changes.
const FIRST_SEQ: u64 = 1_000_000_000;
const EPOCH: &str = "AAAAAAAAAAAAAAAAAAAAAA";
const BODY_PLACEHOLDER: &str = "________________________________";

/// A rendered response; the seq's digits and the event's body are patched in place.
struct ResponseTemplate {
    bytes: Vec<u8>,
    seq_at: Vec<usize>,
    body_at: Option<usize>,
}

impl ResponseTemplate {
    fn new(status: &str, headers: &str, body: &str) -> ResponseTemplate {
        let text = format!(
            "HTTP/1.1 {status}\r\nDate: Sat, 21 Nov 2026 12:00:00 GMT\r\nContent-Type: application/json\r\n\
             Next-Cursor: {EPOCH}.{FIRST_SEQ}\r\n{headers}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let seq_at = text.match_indices(&FIRST_SEQ.to_string()).map(|(at, _)| at).collect();
        ResponseTemplate { seq_at, body_at: text.find(BODY_PLACEHOLDER), bytes: text.into_bytes() }
    }

    /// The response to a poll.
    fn event() -> ResponseTemplate {
        let body = format!(
            "{{\"events\":[{{\"seq\":{FIRST_SEQ},\"topic\":\"bench\",\"time\":\"2026-11-20T12:00:00.123Z\",\
             \"data\":\"{BODY_PLACEHOLDER}\"}}],\"next\":\"{EPOCH}.{FIRST_SEQ}\",\"more\":false,\"behind\":0,\
             \"reason\":\"data\"}}"
        );
        ResponseTemplate::new(
            "200 OK",
            "Poll-Reason: data\r\nCache-Control: no-store, no-transform\r\n",
            &body,
        )
    }

    /// The response to a publish that released `released` polls.
    fn receipt(released: usize) -> ResponseTemplate {
        let body = format!(
            "{{\"topic\":\"bench\",\"seq\":{FIRST_SEQ},\"cursor\":\"{EPOCH}.{FIRST_SEQ}\",\
             \"time\":\"2026-11-20T12:00:00.123Z\",\"released\":{released},\"durable\":false}}"
        );
        ResponseTemplate::new("201 Created", "", &body)
    }

    fn patch(&mut self, seq: u64, body: &[u8]) {
        let mut digits = [b'0'; 10];
        let mut rest = seq;
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        for &at in &self.seq_at {
            self.bytes[at..at + digits.len()].copy_from_slice(&digits);
        }
        if let Some(at) = self.body_at {
            self.bytes[at..at + body.len()].copy_from_slice(body);
        }
    }
}

struct FloorConn {
    socket: TcpStream,
    partial: Vec<u8>,
    /// A poll of this connection is held.
    held: bool,
}

struct FloorServer {
    /// Indexed by token.
    conns: Vec<Option<FloorConn>>,
    free_tokens: Vec<usize>,
    /// The tokens of the connections with a held poll.
    held: Vec<usize>,
    seq: u64,
    event: ResponseTemplate,
    /// The response to a publish, by the number of polls that it released.
    receipts: HashMap<usize, ResponseTemplate>,
}

enum FloorRequest<'a> {
    Poll { after: u64 },
    Publish { body: &'a [u8] },
    Metrics,
    Topics,
    Health,
}

/// `None` while the request is incomplete.
fn parse_request(bytes: &[u8]) -> LoadResult<Option<FloorRequest<'_>>> {
    let Some(end) = find(bytes, b"\r\n\r\n") else { return Ok(None) };
    let (head, body) = (&bytes[..end], &bytes[end + 4..]);
    if head.starts_with(b"POST /topics/") {
        let label = b"\r\nContent-Length: ";
        let length = number_after(head, label).ok_or("a publish without Content-Length")?;
        return match length as usize {
            BODY_BYTES if body.len() < BODY_BYTES => Ok(None),
            BODY_BYTES if body.len() == BODY_BYTES => Ok(Some(FloorRequest::Publish { body })),
            _ => Err("the floor accepts only events of 32 bytes".into()),
        };
    }
    if head.starts_with(b"GET /topics/") {
        // `since=start` contains no dot, so it reads as 0: before the first event.
        let since = find(head, b"since=").ok_or("a poll without since")?;
        let cursor =
            head[since..].split(|byte| matches!(byte, b' ' | b'&')).next().unwrap_or_default();
        let after = number_after(cursor, b".").unwrap_or(0);
        return Ok(Some(FloorRequest::Poll { after }));
    }
    match head {
        head if head.starts_with(b"GET /metrics ") => Ok(Some(FloorRequest::Metrics)),
        head if head.starts_with(b"GET /topics?") => Ok(Some(FloorRequest::Topics)),
        head if head.starts_with(b"GET /health ") => Ok(Some(FloorRequest::Health)),
        _ => Err("the floor does not know this request".into()),
    }
}

fn text_response(body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Writes a response with one write. It fits an empty send buffer, so a partial write means that
/// the client does not read its responses.
fn write_response(socket: &mut TcpStream, bytes: &[u8]) -> LoadResult<()> {
    match socket.write(bytes) {
        Ok(count) if count == bytes.len() => Ok(()),
        Ok(_) => Err("a socket accepted only part of a response".into()),
        Err(error) => Err(error.into()),
    }
}

impl FloorServer {
    fn new() -> FloorServer {
        FloorServer {
            conns: Vec::new(),
            free_tokens: Vec::new(),
            held: Vec::new(),
            seq: FIRST_SEQ,
            event: ResponseTemplate::event(),
            receipts: HashMap::new(),
        }
    }

    fn accept(&mut self, listener: &TcpListener, epoll: &Epoll) -> LoadResult<()> {
        loop {
            let socket = match listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            socket.set_nonblocking(true)?;
            socket.set_nodelay(true)?;
            let token = self.free_tokens.pop().unwrap_or_else(|| {
                self.conns.push(None);
                self.conns.len() - 1
            });
            epoll.add(&socket, token)?;
            self.conns[token] = Some(FloorConn { socket, partial: Vec::new(), held: false });
        }
    }

    fn close(&mut self, token: usize) {
        if self.conns[token].take().is_some_and(|conn| conn.held) {
            self.held.retain(|held| *held != token);
        }
        self.free_tokens.push(token);
    }

    /// Reads once and answers a complete request. The caller closes the connection on an error.
    fn handle_readable(&mut self, token: usize, buffer: &mut [u8]) -> LoadResult<()> {
        let Some(conn) = &mut self.conns[token] else { return Ok(()) };
        let count = match conn.socket.read(buffer) {
            Ok(0) => return Err("end of input".into()),
            Ok(count) => count,
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let fresh = &buffer[..count];
        if conn.partial.is_empty() {
            if let Some(request) = parse_request(fresh)? {
                return self.respond(token, &request);
            }
        }
        conn.partial.extend_from_slice(fresh);
        let whole = std::mem::take(&mut conn.partial);
        if let Some(request) = parse_request(&whole)? {
            return self.respond(token, &request);
        }
        conn.partial = whole;
        Ok(())
    }

    fn respond(&mut self, token: usize, request: &FloorRequest) -> LoadResult<()> {
        let held = self.held.len();
        if let FloorRequest::Publish { body } = request {
            self.publish(body);
        }
        let Some(conn) = &mut self.conns[token] else { return Ok(()) };
        match request {
            FloorRequest::Poll { after } if *after < self.seq && self.seq > FIRST_SEQ => {
                write_response(&mut conn.socket, &self.event.bytes)
            }
            FloorRequest::Poll { .. } => {
                conn.held = true;
                self.held.push(token);
                Ok(())
            }
            FloorRequest::Publish { body } => {
                let receipt =
                    self.receipts.entry(held).or_insert_with(|| ResponseTemplate::receipt(held));
                receipt.patch(self.seq, body);
                write_response(&mut conn.socket, &receipt.bytes)
            }
            FloorRequest::Metrics => write_response(
                &mut conn.socket,
                &text_response(&format!("longpoll_polls_held {held}\n")),
            ),
            FloorRequest::Topics => {
                let body = format!("{{\"topics\":[{{\"topic\":\"bench\",\"held\":{held}}}]}}");
                write_response(&mut conn.socket, &text_response(&body))
            }
            FloorRequest::Health => write_response(&mut conn.socket, &text_response("ok\n")),
        }
    }

    /// Publishes an event to all held polls.
    fn publish(&mut self, body: &[u8]) {
        self.seq += 1;
        self.event.patch(self.seq, body);
        for token in std::mem::take(&mut self.held) {
            let Some(conn) = &mut self.conns[token] else { continue };
            conn.held = false;
            if write_response(&mut conn.socket, &self.event.bytes).is_err() {
                self.close(token);
            }
        }
    }
}

/// Serves for `--lifetime` seconds, or until the process is ended.
pub fn serve(args: &mut Args) -> LoadResult<()> {
    let port: u16 = args.number("port", 0)?;
    let lifetime = Duration::from_secs(args.number("lifetime", 600)?);
    args.finish()?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    listener.set_nonblocking(true)?;
    println!("listening on http://{}", listener.local_addr()?);
    let mut epoll = Epoll::new()?;
    epoll.add(&listener, LISTENER)?;
    let (mut server, mut buffer, mut ready) = (FloorServer::new(), vec![0; 16 * 1024], Vec::new());
    let end = Instant::now() + lifetime;
    while Instant::now() < end {
        epoll.wait(Duration::from_secs(1), &mut ready)?;
        for &token in &ready {
            if token == LISTENER {
                server.accept(&listener, &epoll)?;
            } else if server.handle_readable(token, &mut buffer).is_err() {
                server.close(token);
            }
        }
    }
    Ok(())
}
