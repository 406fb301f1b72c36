//! One request and its response, on the previous connection if that is still usable.
//!
//! A response arrives whole or counts as a failure, so the follow and publish loops need no case
//! for a truncated one. The token file is read for each request, so that an operator can replace
//! the token under a client that runs for years.

use std::io::{Error as IoError, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::connection::{ClientConnection, Connector, deadline_after};
use super::error::Error;
use super::moment::Moment;
use super::response::{ClientResponse, ResponseParser};
use super::untrusted::read_small_file;
use super::url::Url;
use crate::VERSION;
use crate::limits::{
    CONNECT_TIMEOUT, CONNECTION_REUSE_MAX, RESPONSE_TIMEOUT, RETRY_FOR_MAX, SEND_TIMEOUT,
    TOKEN_FILE_BYTES,
};
use crate::shutdown::Shutdown;

/// Sends requests to one server.
pub struct HttpClient {
    connector: Connector,
    /// Ends the wait for a response.
    shutdown: Shutdown,
    url: Url,
    token_file: Option<PathBuf>,
    /// The longest time from a request to the head of its response.
    head_timeout: Duration,
    idle: Option<IdleConnection>,
}

/// The connection of the previous response.
struct IdleConnection {
    connection: ClientConnection,
    since: Moment,
}

impl IdleConnection {
    fn is_usable(&self, now: &Moment) -> bool {
        now.since(&self.since) < CONNECTION_REUSE_MAX && self.connection.is_reusable()
    }
}

/// The idempotency key of a publish, and its age.
pub struct RetryKey {
    text: String,
    created: Moment,
}

impl RetryKey {
    /// A key whose first attempt begins now.
    pub fn new(text: String) -> RetryKey {
        RetryKey { text, created: Moment::now() }
    }

    /// The time since the first attempt began.
    pub fn age(&self) -> Duration {
        self.created.elapsed()
    }
}

/// Why a request has no response.
enum ExchangeError {
    /// The connection ended before the first byte of a response.
    NoResponse,
    /// The connection could not be opened, or failed.
    Io(IoError),
    /// The connection was opened when the server may have forgotten the idempotency key.
    TooLate,
    /// No longpoll server responds like this.
    BadResponse(String),
}

impl HttpClient {
    /// A client that connects with its first request. The head of a response must arrive within
    /// `head_timeout`, and the shutdown signal ends every wait.
    ///
    /// # Errors
    /// When the token file cannot be read.
    pub fn new(
        url: &Url,
        token_file: Option<PathBuf>,
        head_timeout: Duration,
        shutdown: Shutdown,
    ) -> Result<HttpClient, Error> {
        let client = HttpClient {
            connector: Connector::new(url.address.clone(), shutdown.clone()),
            shutdown,
            url: url.clone(),
            token_file,
            head_timeout,
            idle: None,
        };
        // Report a missing file now, not after the first failed attempt.
        client.authorization()?;
        Ok(client)
    }

    /// Sets another signal for the end of an attempt to connect. The end of the wait for a response
    /// stays as it is.
    pub fn set_connect_shutdown(&mut self, shutdown: Shutdown) {
        self.connector.shutdown = shutdown;
    }

    /// Sends a GET request.
    pub fn get(&mut self, target: &str) -> Result<ClientResponse, Error> {
        let request = self.request_head("GET", target, &[])?;
        self.send(&request, None)
    }

    /// Sends a POST request with these header fields. It needs an idempotency key, because the
    /// client may send it twice; it sends nothing when the key is older than [`RETRY_FOR_MAX`].
    pub fn post(
        &mut self,
        target: &str,
        key: &RetryKey,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> Result<ClientResponse, Error> {
        let length = body.len().to_string();
        let own_fields = [("Idempotency-Key", &*key.text), ("Content-Length", &length)];
        let mut request = self.request_head("POST", target, &[fields, &own_fields].concat())?;
        request.extend_from_slice(body);
        self.send(&request, Some(key))
    }

    /// The error for a successful response with a body that is not longpoll's.
    pub fn bad_body(&self) -> Error {
        Error::BadResponse(format!("the response of {} is not that of a longpoll server", self.url))
    }

    /// Encodes a request head. All parts are validated where they enter the program, so none
    /// contains a line end.
    fn request_head(
        &self,
        method: &str,
        target: &str,
        fields: &[(&str, &str)],
    ) -> Result<Vec<u8>, Error> {
        let Url { authority, prefix, .. } = &self.url;
        let mut head = format!(
            "{method} {prefix}{target} HTTP/1.1\r\nHost: {authority}\r\n\
             User-Agent: longpoll/{VERSION}\r\nAccept: */*\r\n"
        );
        let authorization = self.authorization()?;
        let authorization = authorization.as_deref().map(|value| ("Authorization", value));
        for (name, value) in fields.iter().copied().chain(authorization) {
            head.extend([name, ": ", value, "\r\n"]);
        }
        head.push_str("\r\n");
        Ok(head.into_bytes())
    }

    /// The value of the `Authorization` field, from the current content of the token file.
    fn authorization(&self) -> Result<Option<String>, Error> {
        let Some(path) = &self.token_file else { return Ok(None) };
        read_token(path).map(|token| Some(format!("Bearer {token}"))).map_err(Error::Token)
    }

    fn send(&mut self, request: &[u8], key: Option<&RetryKey>) -> Result<ClientResponse, Error> {
        let idle = self.idle.take().filter(|idle| idle.is_usable(&Moment::now()));
        if let Some(IdleConnection { connection, .. }) = idle {
            match self.exchange(connection, request, key) {
                // The server or a proxy closed the idle connection just now, as it may. Whether it
                // processed the request is unknown, but repeating it is harmless: a GET changes
                // nothing, and a POST has an idempotency key.
                Err(ExchangeError::NoResponse) => {}
                result => return result.map_err(|error| self.to_error(error)),
            }
        }
        let socket = self.connector.connect(CONNECT_TIMEOUT).map_err(ExchangeError::Io);
        let result = socket.and_then(|socket| {
            self.exchange(ClientConnection::new(socket, self.shutdown.clone()), request, key)
        });
        result.map_err(|error| self.to_error(error))
    }

    /// Sends a request and reads its response.
    fn exchange(
        &mut self,
        connection: ClientConnection,
        request: &[u8],
        key: Option<&RetryKey>,
    ) -> Result<ClientResponse, ExchangeError> {
        // Here, after the last wait before the request: the machine may have slept in any of them.
        if key.is_some_and(|key| key.age() >= RETRY_FOR_MAX) {
            return Err(ExchangeError::TooLate);
        }
        let was_sent = match connection.send_all(request, SEND_TIMEOUT) {
            Ok(()) => true,
            // A server may refuse a large request and close before it has read the whole; its
            // response has arrived all the same.
            Err(error) if is_close(&error) => false,
            Err(error) => return Err(ExchangeError::Io(error)),
        };
        let head_deadline = deadline_after(self.head_timeout);
        let mut parser = ResponseParser::new();
        loop {
            if let Some(complete) = parser.parse().map_err(ExchangeError::BadResponse)? {
                if complete.keeps_alive && was_sent {
                    self.idle = Some(IdleConnection { connection, since: Moment::now() });
                }
                return Ok(complete.response);
            }
            let body_timeout = self.head_timeout.max(RESPONSE_TIMEOUT);
            let deadline =
                if parser.has_head() { deadline_after(body_timeout) } else { head_deadline };
            match connection.read(parser.input_buffer(), deadline) {
                Ok(1..) => {}
                Err(error) if !is_close(&error) => return Err(ExchangeError::Io(error)),
                _ if parser.is_empty() => return Err(ExchangeError::NoResponse),
                _ => {
                    let truncated = || ExchangeError::Io(ErrorKind::UnexpectedEof.into());
                    let complete = parser.finish();
                    return complete.map(|complete| complete.response).ok_or_else(truncated);
                }
            }
        }
    }

    fn to_error(&self, error: ExchangeError) -> Error {
        let url = &self.url;
        match error {
            ExchangeError::BadResponse(what) => Error::BadResponse(format!("{url} {what}")),
            ExchangeError::TooLate => {
                let why = "the server may have forgotten the idempotency key by now";
                Error::Network(format!("{url}: {why}"))
            }
            ExchangeError::NoResponse => {
                Error::Network(format!("{url} hangs up without a response"))
            }
            ExchangeError::Io(error) if is_close(&error) => {
                Error::Network(format!("{url} hangs up before its response is complete"))
            }
            ExchangeError::Io(error) if error.kind() == ErrorKind::TimedOut => {
                Error::Network(format!("{url} does not respond in time"))
            }
            ExchangeError::Io(error) => Error::Network(format!("{url}: {error}")),
        }
    }
}

/// Whether an error means that the other side closed the connection.
fn is_close(error: &IoError) -> bool {
    matches!(
        error.kind(),
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
    )
}

fn read_token(path: &Path) -> Result<String, String> {
    let name = path.display();
    let text =
        read_small_file(path, TOKEN_FILE_BYTES).map_err(|e| format!("token file {name}: {e}"))?;
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(format!("token file {name}: expected one word of printable ASCII"));
    }
    Ok(token.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_connection_is_usable_while_it_is_recent_open_and_without_input() {
        let (server, client) = std::os::unix::net::UnixStream::pair().unwrap();
        let connection = ClientConnection::new(client.into(), Shutdown::new().unwrap());
        let since = Moment::now();
        let idle = IdleConnection { connection, since };
        let half = since.after(CONNECTION_REUSE_MAX / 2, CONNECTION_REUSE_MAX / 2);
        assert!(idle.is_usable(&since) && idle.is_usable(&half));
        // The machine slept.
        assert!(!idle.is_usable(&since.after(Duration::ZERO, CONNECTION_REUSE_MAX)));
        std::io::Write::write_all(&mut &server, b"x").unwrap();
        assert!(!idle.is_usable(&since));
        idle.connection.read(&mut Vec::with_capacity(8), deadline_after(Duration::ZERO)).unwrap();
        assert!(idle.is_usable(&since));
        drop(server);
        assert!(!idle.is_usable(&since));
    }
}
