//! The floor: what one thread and one epoll loop need at least for the same bytes on the wire.
//! It holds polls of one topic and keeps one event. It has no log, no limits, no time-outs, and
//! hardly parses;
//! a server that does the real work can come near it but not beat it.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::args::Args;
use crate::wire::{Outcome, Watch};

const LISTENER: usize = usize::MAX;
const BODY_BYTES: usize = 32;

/// Seqs start here so that all have ten digits: an answer's length never changes.
const FIRST_SEQ: u64 = 1_000_000_000;
const EPOCH: &str = "AAAAAAAAAAAAAAAAAAAAAA";
const BODY_MARK: &str = "________________________________";

/// A rendered answer in which the digits of the seq and the event's body are patched in place.
struct Template {
    bytes: Vec<u8>,
    seq_at: Vec<usize>,
    body_at: Option<usize>,
}

impl Template {
    fn new(status: &str, headers: &str, body: &str) -> Template {
        let text = format!(
            "HTTP/1.1 {status}\r\nDate: Sat, 21 Nov 2026 12:00:00 GMT\r\nContent-Type: application/json\r\n\
             Next-Cursor: {EPOCH}.{FIRST_SEQ}\r\n{headers}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let seq_at = text.match_indices(&FIRST_SEQ.to_string()).map(|(at, _)| at).collect();
        Template { seq_at, body_at: text.find(BODY_MARK), bytes: text.into_bytes() }
    }

    /// The answer to a poll.
    fn event() -> Template {
        let body = format!(
            "{{\"events\":[{{\"seq\":{FIRST_SEQ},\"topic\":\"bench\",\"time\":\"2026-11-20T12:00:00.123Z\",\
             \"data\":\"{BODY_MARK}\"}}],\"next\":\"{EPOCH}.{FIRST_SEQ}\",\"more\":false,\"behind\":0,\
             \"reason\":\"data\"}}"
        );
        Template::new(
            "200 OK",
            "Poll-Reason: data\r\nCache-Control: no-store, no-transform\r\n",
            &body,
        )
    }

    /// The answer to a publish that released so many polls.
    fn receipt(released: usize) -> Template {
        let body = format!(
            "{{\"topic\":\"bench\",\"seq\":{FIRST_SEQ},\"cursor\":\"{EPOCH}.{FIRST_SEQ}\",\
             \"time\":\"2026-11-20T12:00:00.123Z\",\"released\":{released},\"durable\":false}}"
        );
        Template::new("201 Created", "", &body)
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

struct Client {
    sock: TcpStream,
    partial: Vec<u8>,
    held: bool,
}

struct Floor {
    clients: Vec<Option<Client>>,
    free: Vec<usize>,
    held: Vec<usize>,
    seq: u64,
    event: Template,
    receipts: HashMap<usize, Template>,
}

enum Request<'a> {
    Poll { after: u64 },
    Publish { body: &'a [u8] },
    Metrics,
    Topics,
    Health,
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}

fn digits(text: &[u8]) -> u64 {
    text.iter()
        .take_while(|byte| byte.is_ascii_digit())
        .fold(0, |sum, byte| sum * 10 + u64::from(byte - b'0'))
}

/// `None` while the request is not all there.
fn understand(bytes: &[u8]) -> Outcome<Option<Request<'_>>> {
    let Some(end) = find(bytes, b"\r\n\r\n") else { return Ok(None) };
    let (head, body) = (&bytes[..end], &bytes[end + 4..]);
    if head.starts_with(b"POST /topics/") {
        let label = b"\r\nContent-Length: ";
        let at = find(head, label).ok_or("a publish without Content-Length")? + label.len();
        return match digits(&head[at..]) as usize {
            BODY_BYTES if body.len() < BODY_BYTES => Ok(None),
            BODY_BYTES if body.len() == BODY_BYTES => Ok(Some(Request::Publish { body })),
            _ => Err("the floor takes events of 32 bytes only".into()),
        };
    }
    if head.starts_with(b"GET /topics/") {
        // `since=start` has no dot before the line ends, so it reads as 0: after nothing.
        let since = find(head, b"since=").ok_or("a poll without since")?;
        let line =
            head[since..].split(|byte| matches!(byte, b' ' | b'&')).next().unwrap_or_default();
        let after =
            line.iter().position(|byte| *byte == b'.').map_or(0, |dot| digits(&line[dot + 1..]));
        return Ok(Some(Request::Poll { after }));
    }
    match head {
        head if head.starts_with(b"GET /metrics ") => Ok(Some(Request::Metrics)),
        head if head.starts_with(b"GET /topics?") => Ok(Some(Request::Topics)),
        head if head.starts_with(b"GET /health ") => Ok(Some(Request::Health)),
        _ => Err("the floor does not know this request".into()),
    }
}

fn plain(body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// An answer always fits an empty send buffer; a client whose buffer is not empty does not play by
/// the rules.
fn write_whole(sock: &mut TcpStream, bytes: &[u8]) -> Outcome<()> {
    match sock.write(bytes) {
        Ok(count) if count == bytes.len() => Ok(()),
        Ok(_) => Err("a socket took only part of an answer".into()),
        Err(error) => Err(error.into()),
    }
}

impl Floor {
    fn new() -> Floor {
        Floor {
            clients: Vec::new(),
            free: Vec::new(),
            held: Vec::new(),
            seq: FIRST_SEQ,
            event: Template::event(),
            receipts: HashMap::new(),
        }
    }

    fn accept(&mut self, listener: &TcpListener, watch: &Watch) -> Outcome<()> {
        loop {
            let sock = match listener.accept() {
                Ok((sock, _)) => sock,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            sock.set_nonblocking(true)?;
            sock.set_nodelay(true)?;
            let token = self.free.pop().unwrap_or_else(|| {
                self.clients.push(None);
                self.clients.len() - 1
            });
            watch.add(&sock, token)?;
            self.clients[token] = Some(Client { sock, partial: Vec::new(), held: false });
        }
    }

    fn leave(&mut self, token: usize) {
        if self.clients[token].take().is_some_and(|client| client.held) {
            self.held.retain(|held| *held != token);
        }
        self.free.push(token);
    }

    /// Reads what a client sent and answers it, if it is a whole request. An error means: close it.
    fn serve(&mut self, token: usize, scratch: &mut [u8]) -> Outcome<()> {
        let Some(client) = &mut self.clients[token] else { return Ok(()) };
        let count = match client.sock.read(scratch) {
            Ok(0) => return Err("end of input".into()),
            Ok(count) => count,
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let fresh = &scratch[..count];
        if client.partial.is_empty() {
            if let Some(request) = understand(fresh)? {
                return self.answer(token, &request);
            }
        }
        client.partial.extend_from_slice(fresh);
        let whole = std::mem::take(&mut client.partial);
        if let Some(request) = understand(&whole)? {
            return self.answer(token, &request);
        }
        client.partial = whole;
        Ok(())
    }

    fn answer(&mut self, token: usize, request: &Request) -> Outcome<()> {
        let held = self.held.len();
        if let Request::Publish { body } = request {
            self.release(body);
        }
        let Some(client) = &mut self.clients[token] else { return Ok(()) };
        match request {
            Request::Poll { after } if *after < self.seq && self.seq > FIRST_SEQ => {
                write_whole(&mut client.sock, &self.event.bytes)
            }
            Request::Poll { .. } => {
                client.held = true;
                self.held.push(token);
                Ok(())
            }
            Request::Publish { body } => {
                let receipt = self.receipts.entry(held).or_insert_with(|| Template::receipt(held));
                receipt.patch(self.seq, body);
                write_whole(&mut client.sock, &receipt.bytes)
            }
            Request::Metrics => {
                write_whole(&mut client.sock, &plain(&format!("longpoll_polls_held {held}\n")))
            }
            Request::Topics => {
                let body = format!("{{\"topics\":[{{\"topic\":\"bench\",\"held\":{held}}}]}}");
                write_whole(&mut client.sock, &plain(&body))
            }
            Request::Health => write_whole(&mut client.sock, &plain("ok\n")),
        }
    }

    fn release(&mut self, body: &[u8]) {
        self.seq += 1;
        self.event.patch(self.seq, body);
        for token in std::mem::take(&mut self.held) {
            let Some(client) = &mut self.clients[token] else { continue };
            client.held = false;
            if write_whole(&mut client.sock, &self.event.bytes).is_err() {
                self.leave(token);
            }
        }
    }
}

/// Serves until the process is ended, or until `--lifetime` seconds are over.
pub fn serve(args: &mut Args) -> Outcome<()> {
    let port: u16 = args.number("port", 0)?;
    let lifetime = Duration::from_secs(args.number("lifetime", 600)?);
    args.finish()?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    listener.set_nonblocking(true)?;
    println!("listening on http://{}", listener.local_addr()?);
    let mut watch = Watch::new()?;
    watch.add(&listener, LISTENER)?;
    let (mut floor, mut scratch, mut ready) = (Floor::new(), vec![0; 16 * 1024], Vec::new());
    let end = Instant::now() + lifetime;
    while Instant::now() < end {
        watch.wait(Duration::from_secs(1), &mut ready)?;
        for &token in &ready {
            if token == LISTENER {
                floor.accept(&listener, &watch)?;
            } else if floor.serve(token, &mut scratch).is_err() {
                floor.leave(token);
            }
        }
    }
    Ok(())
}
