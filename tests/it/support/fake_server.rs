//! A server whose every byte the test chooses, for the tests of the client commands.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use super::TEST_TIMEOUT;
use super::http_reader::{HttpReader, content_length};

/// A listener that the test serves itself.
pub struct FakeServer(TcpListener);

/// One accepted connection.
pub struct FakeConnection(HttpReader<TcpStream>);

impl FakeServer {
    pub fn new() -> FakeServer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        // `accept` fails after this time instead of blocking the test forever.
        rustix::net::sockopt::set_socket_timeout(
            &listener,
            rustix::net::sockopt::Timeout::Recv,
            Some(TEST_TIMEOUT),
        )
        .unwrap();
        FakeServer(listener)
    }

    pub fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    pub fn accept(&self) -> FakeConnection {
        let (stream, _) = self.0.accept().expect("a connection");
        stream.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
        // Without Nagle's algorithm, pieces that are sent separately arrive separately.
        stream.set_nodelay(true).unwrap();
        FakeConnection(HttpReader::new(stream))
    }

    /// The heads of the requests on connections that were not accepted yet, after their client has
    /// ended.
    pub fn unaccepted_requests(&self) -> Vec<String> {
        self.0.set_nonblocking(true).unwrap();
        let heads = self.0.incoming().map_while(Result::ok);
        let heads = heads.filter_map(|stream| HttpReader::new(stream).head()).collect();
        self.0.set_nonblocking(false).unwrap();
        heads
    }

    /// Accepts a connection and answers its first request; returns the head of that request.
    pub fn serve(&self, response: impl AsRef<[u8]>) -> String {
        let mut connection = self.accept();
        let request = connection.request();
        connection.send(response);
        request
    }
}

impl FakeConnection {
    /// The head of the next request.
    pub fn request_head(&mut self) -> String {
        self.0.head().unwrap_or_else(|| panic!("closed after {:?}", self.0.buffered()))
    }

    /// The head of the next request; its body, if any, is read and dropped.
    pub fn request(&mut self) -> String {
        let head = self.request_head();
        self.0.take(content_length(&head).unwrap_or(0)).expect("the whole body");
        head
    }

    pub fn send(&mut self, response: impl AsRef<[u8]>) {
        // The client may close before it has read all of a very large response.
        let _ = self.0.stream_mut().write_all(response.as_ref());
    }

    /// Resets the connection, as a host does that knows nothing of it.
    pub fn reset(self) {
        let stream = self.0.stream();
        rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO)).unwrap();
    }
}

/// The bytes of a response.
pub fn http_response(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\n\r\n{body}")
}

/// A poll's answer with events of these seqs in the topic `news`, each with its seq as data.
pub fn page_response(seqs: &[u64], next: &str, reason: &str) -> String {
    let events: Vec<String> = seqs
        .iter()
        .map(|seq| {
            format!(
                r#"{{"seq":{seq},"topic":"news","time":"2026-11-20T12:00:00.123Z","data":{seq}}}"#
            )
        })
        .collect();
    let body = format!(
        r#"{{"events":[{}],"next":"{next}","more":false,"behind":0,"reason":"{reason}"}}"#,
        events.join(",")
    );
    http_response("200 OK", "Content-Type: application/json\r\n", &body)
}
