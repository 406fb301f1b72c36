//! A client's HTTP/1.1 connection and the responses read from it. Reading is kept cheap, because
//! the load generator's time is part of every server's figures.

use std::borrow::Cow;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use crate::LoadResult;

/// Longer than any correct response takes; a run that waits longer has failed.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);

/// The size of a buffer for one read; larger responses are assembled from several reads.
pub const READ_BUFFER: usize = 64 * 1024;
const SMALL_READ_BUFFER: usize = 16 * 1024;

/// How long [`Conn::connect`] retries while the server may still be starting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECT_RETRY: Duration = Duration::from_millis(5);

pub struct Response<'a> {
    bytes: Cow<'a, [u8]>,
    pub status: u16,
    body_at: usize,
}

impl Response<'_> {
    /// The whole response, head and body.
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

    /// The beginning of the response, for error messages.
    pub fn excerpt(&self) -> String {
        String::from_utf8_lossy(&self.bytes).chars().take(600).collect()
    }

    fn into_owned(self) -> Response<'static> {
        Response {
            bytes: Cow::Owned(self.bytes.into_owned()),
            status: self.status,
            body_at: self.body_at,
        }
    }
}

struct ResponseHead {
    status: u16,
    body_at: usize,
}

/// `None` while the response is incomplete. Bytes after its end are an error, since no load
/// pipelines requests.
fn parse_complete(bytes: &[u8]) -> LoadResult<Option<ResponseHead>> {
    let mut headers = [httparse::EMPTY_HEADER; 48];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(body_at) = head.parse(bytes)? else { return Ok(None) };
    let length =
        head.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length: usize = match length {
        Some(header) => std::str::from_utf8(header.value)?.trim().parse()?,
        None => return Err("a response without Content-Length".into()),
    };
    let end = body_at + length;
    if bytes.len() > end {
        return Err("bytes after the end of a response".into());
    }
    let status = head.code.ok_or("a response without a status")?;
    Ok((bytes.len() == end).then_some(ResponseHead { status, body_at }))
}

/// The result of one read.
pub enum Received<'a> {
    Incomplete,
    /// Byte for byte the response given as `expected`, which has been checked already.
    AsExpected,
    Response(Response<'a>),
}

/// Bytes read from and written to a socket, without TCP headers.
#[derive(Clone, Copy, Default)]
pub struct Traffic {
    pub sent: u64,
    pub received: u64,
}

impl Traffic {
    pub fn add(&mut self, other: Traffic) {
        self.sent += other.sent;
        self.received += other.received;
    }
}

pub struct Conn {
    socket: TcpStream,
    partial: Vec<u8>,
    pub traffic: Traffic,
}

impl AsFd for Conn {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Read for Conn {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.socket.read(buffer)?;
        self.traffic.received += count as u64;
        Ok(count)
    }
}

impl Write for Conn {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.socket.write(bytes)?;
        self.traffic.sent += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Conn {
    /// Opens a blocking connection, and retries while the server refuses because it is starting.
    pub fn connect(port: u16) -> LoadResult<Conn> {
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        loop {
            match Conn::connect_once(port) {
                Ok(conn) => return Ok(conn),
                Err(error)
                    if error.kind() == ErrorKind::ConnectionRefused
                        && Instant::now() < deadline =>
                {
                    std::thread::sleep(CONNECT_RETRY);
                }
                Err(error) => return Err(format!("connect to port {port}: {error}").into()),
            }
        }
    }

    pub fn connect_once(port: u16) -> std::io::Result<Conn> {
        let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(RESPONSE_TIMEOUT))?;
        Ok(Conn { socket, partial: Vec::new(), traffic: Traffic::default() })
    }

    pub fn set_nonblocking(&self) -> LoadResult<()> {
        Ok(self.socket.set_nonblocking(true)?)
    }

    /// Sends a request with one write. Requests are far smaller than an empty send buffer, so a
    /// partial write is an error.
    pub fn send(&mut self, request: &[u8]) -> LoadResult<()> {
        if self.write(request)? != request.len() {
            return Err("a socket accepted only part of a request".into());
        }
        Ok(())
    }

    /// Reads once. A response equal to `expected`, which was checked before, is not parsed.
    pub fn receive<'a>(
        &mut self,
        buffer: &'a mut [u8],
        expected: &[u8],
    ) -> LoadResult<Received<'a>> {
        let count = match self.read(buffer) {
            Ok(0) => return Err("the server closed a connection".into()),
            Ok(count) => count,
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                return Ok(Received::Incomplete);
            }
            Err(error) => return Err(error.into()),
        };
        let fresh = &buffer[..count];
        if self.partial.is_empty() {
            if fresh == expected {
                return Ok(Received::AsExpected);
            }
            if let Some(ResponseHead { status, body_at }) = parse_complete(fresh)? {
                let bytes = Cow::Borrowed(fresh);
                return Ok(Received::Response(Response { bytes, status, body_at }));
            }
        }
        self.partial.extend_from_slice(fresh);
        let Some(ResponseHead { status, body_at }) = parse_complete(&self.partial)? else {
            return Ok(Received::Incomplete);
        };
        let bytes = Cow::Owned(std::mem::take(&mut self.partial));
        Ok(Received::Response(Response { bytes, status, body_at }))
    }

    /// Reads one response from a blocking connection.
    pub fn read_response(&mut self, buffer: &mut [u8]) -> LoadResult<Response<'static>> {
        let deadline = Instant::now() + RESPONSE_TIMEOUT;
        loop {
            if let Received::Response(response) = self.receive(buffer, b"")? {
                return Ok(response.into_owned());
            }
            if Instant::now() > deadline {
                return Err(format!("no response within {RESPONSE_TIMEOUT:?}").into());
            }
        }
    }

    /// Sends a request and reads its response.
    pub fn call(&mut self, request: &[u8]) -> LoadResult<Response<'static>> {
        self.send(request)?;
        self.read_response(&mut [0; SMALL_READ_BUFFER])
    }
}
