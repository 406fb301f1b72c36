//! A client that sends exactly the bytes that a test gives it.

use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use super::TEST_TIMEOUT;
use super::http_reader::{HttpReader, Response};

/// One connection to the server.
pub struct Client {
    pub reader: HttpReader<TcpStream>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).expect("the server accepts connections");
        stream.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client { reader: HttpReader::new(stream) }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Client {
        // A server that has refused the request may have closed already; its response says why.
        let _ = self.reader.stream_mut().write_all(bytes.as_ref());
        self
    }

    /// Sends a request without a body.
    pub fn send_request(&mut self, method: &str, target: &str) -> &mut Client {
        self.send(format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
    }

    pub fn get(&mut self, target: &str) -> Response {
        self.send_request("GET", target).response()
    }

    /// Sends a request with header lines, each with its CR LF, and a body.
    pub fn post(&mut self, target: &str, headers: &str, body: impl AsRef<[u8]>) -> Response {
        let body = body.as_ref();
        let length = body.len();
        let mut bytes = format!(
            "POST {target} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {length}\r\n\r\n"
        )
        .into_bytes();
        bytes.extend_from_slice(body);
        self.send(bytes).response()
    }

    /// Sets the kernel's receive buffer of this socket to its minimum.
    pub fn shrink_receive_buffer(&mut self) -> &mut Client {
        rustix::net::sockopt::set_socket_recv_buffer_size(self.reader.stream(), 1).unwrap();
        self
    }

    /// Closes the sending direction; responses can still be read.
    pub fn close_write(&mut self) -> &mut Client {
        self.reader.stream().shutdown(Shutdown::Write).unwrap();
        self
    }

    /// Resets the connection: bytes in flight in either direction are lost.
    pub fn reset(self) {
        let stream = self.reader.stream();
        rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO)).unwrap();
    }

    /// Reads the next response. After a HEAD request, use [`Client::response_head`] instead.
    pub fn response(&mut self) -> Response {
        self.reader.response().unwrap_or_else(|| self.fail_on_close())
    }

    /// Reads the head of the next response.
    pub fn response_head(&mut self) -> Response {
        self.response_head_or_close().unwrap_or_else(|| self.fail_on_close())
    }

    /// Reads the head of the next response; `None` if the server closes the connection first.
    pub fn response_head_or_close(&mut self) -> Option<Response> {
        self.reader.head().map(|head| Response::from_head(head.as_bytes()))
    }

    fn fail_on_close(&self) -> ! {
        let received = String::from_utf8_lossy(self.reader.buffered());
        panic!("closed before the response was complete: {received:?}")
    }

    /// Waits for a JSON response or the end of the connection; returns whether the end came first.
    pub fn closes_without_response(&mut self) -> bool {
        while !self.reader.buffered().ends_with(b"}\n") {
            if self.reader.fill() == 0 {
                return true;
            }
        }
        self.reader.take_buffered();
        false
    }

    /// Waits until the server sends or closes; returns whether it closed without another byte.
    pub fn is_closed(&mut self) -> bool {
        self.reader.buffered().is_empty() && self.reader.fill() == 0
    }

    /// Reads all bytes until the server closes the connection.
    pub fn read_to_end(&mut self) -> Vec<u8> {
        self.reader.rest()
    }

    /// Whether no byte has arrived yet.
    pub fn has_received_nothing(&mut self) -> bool {
        let stream = self.reader.stream();
        stream.set_nonblocking(true).unwrap();
        let mut byte = [0];
        let nothing =
            stream.peek(&mut byte).is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock);
        stream.set_nonblocking(false).unwrap();
        nothing && self.reader.buffered().is_empty()
    }
}
