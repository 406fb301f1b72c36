//! One connection, one HTTP/1.1 answer, and the epoll instance that says which sockets have news.
//! Reading is kept cheap on purpose: the time spent here is charged to every server alike.

use std::borrow::Cow;
use std::error::Error;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};

pub type Outcome<T> = Result<T, Box<dyn Error>>;

/// Longer than any right answer takes here; past it the run has failed.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Room for one read; larger answers are put together from several.
pub const SCRATCH: usize = 64 * 1024;

pub struct Answer<'a> {
    bytes: Cow<'a, [u8]>,
    pub status: u16,
    body_at: usize,
}

impl Answer<'_> {
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn body(&self) -> &[u8] {
        &self.bytes[self.body_at..]
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = [httparse::EMPTY_HEADER; 48];
        let mut head = httparse::Response::new(&mut headers);
        head.parse(&self.bytes).ok()?;
        let found = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(found.value).ok()
    }

    /// For messages about a wrong answer.
    pub fn excerpt(&self) -> String {
        String::from_utf8_lossy(&self.bytes).chars().take(600).collect()
    }

    fn into_owned(self) -> Answer<'static> {
        Answer {
            bytes: Cow::Owned(self.bytes.into_owned()),
            status: self.status,
            body_at: self.body_at,
        }
    }
}

struct Shape {
    status: u16,
    body_at: usize,
    end: usize,
}

/// `None` while the answer is not all there.
fn shape(bytes: &[u8]) -> Outcome<Option<Shape>> {
    let mut headers = [httparse::EMPTY_HEADER; 48];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(body_at) = head.parse(bytes)? else { return Ok(None) };
    let length =
        head.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length: usize = match length {
        Some(header) => std::str::from_utf8(header.value)?.trim().parse()?,
        None => return Err("an answer without Content-Length".into()),
    };
    let end = body_at + length;
    if bytes.len() > end {
        return Err("bytes after the end of an answer".into());
    }
    let status = head.code.ok_or("an answer without a status")?;
    Ok((bytes.len() == end).then_some(Shape { status, body_at, end }))
}

pub enum Got<'a> {
    Nothing,
    /// Byte for byte the answer that was given as the pattern, which has been checked already.
    Same,
    Answer(Answer<'a>),
}

/// What went over a connection: what its socket was given and gave, without the headers of TCP.
#[derive(Clone, Copy, Default)]
pub struct Traffic {
    pub sent: u64,
    pub received: u64,
}

pub struct Conn {
    sock: TcpStream,
    partial: Vec<u8>,
    pub traffic: Traffic,
}

impl Read for Conn {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let count = self.sock.read(into)?;
        self.traffic.received += count as u64;
        Ok(count)
    }
}

impl Write for Conn {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.sock.write(bytes)?;
        self.traffic.sent += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Conn {
    /// A blocking connection. Refusals are retried, so that a server may still be starting.
    pub fn open(port: u16) -> Outcome<Conn> {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            match Conn::open_once(port) {
                Ok(conn) => return Ok(conn),
                Err(error)
                    if error.kind() == ErrorKind::ConnectionRefused
                        && Instant::now() < deadline =>
                {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(error) => return Err(format!("connect to port {port}: {error}").into()),
            }
        }
    }

    pub fn open_once(port: u16) -> std::io::Result<Conn> {
        let sock = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        sock.set_nodelay(true)?;
        sock.set_read_timeout(Some(PATIENCE))?;
        Ok(Conn { sock, partial: Vec::new(), traffic: Traffic::default() })
    }

    pub fn unblock(&self) -> Outcome<()> {
        Ok(self.sock.set_nonblocking(true)?)
    }

    /// Requests are far smaller than an empty send buffer, so a part-write means that something is
    /// wrong.
    pub fn send(&mut self, request: &[u8]) -> Outcome<()> {
        let taken = self.write(request)?;
        if taken != request.len() {
            return Err("a socket took only part of a request".into());
        }
        Ok(())
    }

    /// One read. `pattern` is an answer that was checked before; an equal one needs no parsing.
    pub fn receive<'a>(&mut self, scratch: &'a mut [u8], pattern: &[u8]) -> Outcome<Got<'a>> {
        let count = match self.read(scratch) {
            Ok(0) => return Err("the server closed a connection".into()),
            Ok(count) => count,
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                return Ok(Got::Nothing);
            }
            Err(error) => return Err(error.into()),
        };
        let fresh = &scratch[..count];
        if self.partial.is_empty() {
            if fresh == pattern {
                return Ok(Got::Same);
            }
            if let Some(Shape { status, body_at, .. }) = shape(fresh)? {
                return Ok(Got::Answer(Answer { bytes: Cow::Borrowed(fresh), status, body_at }));
            }
        }
        self.partial.extend_from_slice(fresh);
        let Some(Shape { status, body_at, end }) = shape(&self.partial)? else {
            return Ok(Got::Nothing);
        };
        let bytes = std::mem::take(&mut self.partial);
        debug_assert_eq!(bytes.len(), end);
        Ok(Got::Answer(Answer { bytes: Cow::Owned(bytes), status, body_at }))
    }

    /// Reads one answer on a blocking connection.
    pub fn answer(&mut self, scratch: &mut [u8]) -> Outcome<Answer<'static>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Got::Answer(answer) = self.receive(scratch, b"")? {
                return Ok(answer.into_owned());
            }
            if Instant::now() > deadline {
                return Err(format!("no answer within {PATIENCE:?}").into());
            }
        }
    }

    pub fn call(&mut self, request: &[u8]) -> Outcome<Answer<'static>> {
        self.send(request)?;
        self.answer(&mut [0; 16 * 1024])
    }
}

/// Level-triggered readiness of many sockets; a token is the index that its owner gave.
pub struct Watch {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

impl Watch {
    pub fn new() -> Outcome<Watch> {
        let blank =
            epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) };
        Ok(Watch { epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?, events: vec![blank; 512] })
    }

    pub fn add(&self, source: impl std::os::fd::AsFd, token: usize) -> Outcome<()> {
        let data = epoll::EventData::new_u64(token as u64);
        Ok(epoll::add(&self.epoll, source, data, epoll::EventFlags::IN)?)
    }

    pub fn add_conn(&self, conn: &Conn, token: usize) -> Outcome<()> {
        self.add(&conn.sock, token)
    }

    /// Fills `ready` with the tokens that have something to read; empty after `wait` without any.
    pub fn wait(&mut self, wait: Duration, ready: &mut Vec<usize>) -> Outcome<()> {
        ready.clear();
        let wait =
            Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) };
        let count = match epoll::wait(&self.epoll, &mut self.events[..], Some(&wait)) {
            Ok(count) => count,
            Err(rustix::io::Errno::INTR) => 0,
            Err(error) => return Err(error.into()),
        };
        ready.extend(self.events[..count].iter().map(|event| {
            let data = event.data;
            data.u64() as usize
        }));
        Ok(())
    }
}
