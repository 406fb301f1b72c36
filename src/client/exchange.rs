//! One request and its answer, on the connection of the last one if that is still good.
//!
//! The answer is had whole or not at all: one that was cut off is a failure, never a short answer,
//! so the loops need no case for half of one. The token is read anew for each request, so that it
//! can be changed under a client that runs for years.

use std::io::{Error as IoError, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::answer::{Answer, Arriving};
use super::link::{Dialer, Link, deadline};
use super::trouble::Error;
use super::url::Url;
use crate::VERSION;
use crate::limits::{
    CONNECT_TIMEOUT, CONNECTION_REUSE_MAX, RESPONSE_TIMEOUT, SEND_TIMEOUT, TOKEN_FILE_BYTES,
};
use crate::shutdown::Shutdown;

/// Asks one server.
pub struct Asker {
    dialer: Dialer,
    url: Url,
    token_file: Option<PathBuf>,
    /// How long an answer's head may take.
    patience: Duration,
    kept: Option<Kept>,
}

/// The connection of the last answer.
struct Kept {
    link: Link,
    since: Instant,
}

impl Kept {
    fn is_usable(&self, now: Instant) -> bool {
        now < self.since + CONNECTION_REUSE_MAX && self.link.is_quiet()
    }
}

/// Why there is no answer.
enum Failure {
    /// The connection has ended, and nothing had come.
    Unanswered,
    /// It could not be made, or it failed on the way.
    Line(IoError),
    /// What the server does and no longpoll server would.
    Foreign(String),
}

impl Asker {
    /// Connects when it is first asked. An answer has to begin within `patience`, and the order to
    /// stop ends every wait.
    ///
    /// # Errors
    /// When the token cannot be read.
    pub fn new(
        url: &Url,
        token_file: Option<PathBuf>,
        patience: Duration,
        stop: Shutdown,
    ) -> Result<Asker, Error> {
        let dialer = Dialer { place: url.place.clone(), stop };
        let asker = Asker { dialer, url: url.clone(), token_file, patience, kept: None };
        // A missing file is better told now than after the first try.
        asker.token()?;
        Ok(asker)
    }

    /// Sends a GET.
    pub fn get(&mut self, target: &str) -> Result<Answer, Error> {
        let request = self.head("GET", target, &[])?;
        self.ask(&request)
    }

    /// Sends a POST with these header fields. It has a key, because it may be sent twice.
    pub fn post(
        &mut self,
        target: &str,
        key: &str,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answer, Error> {
        let length = body.len().to_string();
        let own = [("Idempotency-Key", key), ("Content-Length", &length)];
        let mut request = self.head("POST", target, &[fields, &own].concat())?;
        request.extend_from_slice(body);
        self.ask(&request)
    }

    /// A request's head. Whatever becomes a part of it was checked where it came in: nothing can
    /// end its line.
    fn head(&self, method: &str, target: &str, fields: &[(&str, &str)]) -> Result<Vec<u8>, Error> {
        let Url { authority, prefix, .. } = &self.url;
        let mut head = format!(
            "{method} {prefix}{target} HTTP/1.1\r\nHost: {authority}\r\n\
             User-Agent: longpoll/{VERSION}\r\nAccept: */*\r\n"
        );
        let token = self.token()?;
        let token = token.as_deref().map(|token| ("Authorization", token));
        for (name, value) in fields.iter().copied().chain(token) {
            head.extend([name, ": ", value, "\r\n"]);
        }
        head.push_str("\r\n");
        Ok(head.into_bytes())
    }

    /// The token as a field's value. Read anew each time, so that it can be changed while this
    /// runs.
    fn token(&self) -> Result<Option<String>, Error> {
        let Some(path) = &self.token_file else { return Ok(None) };
        read_token(path).map(|token| Some(format!("Bearer {token}"))).map_err(Error::Token)
    }

    fn ask(&mut self, request: &[u8]) -> Result<Answer, Error> {
        let kept = self.kept.take().filter(|kept| kept.is_usable(Instant::now()));
        if let Some(Kept { link, .. }) = kept {
            match self.exchange(link, request) {
                // The server, or what stands between, has closed it just now, as it may. Whether
                // the request was taken is unknown, but asking twice does no harm: a GET changes
                // nothing, and a POST has its key.
                Err(Failure::Unanswered) => {}
                done => return done.map_err(|failure| self.error(failure)),
            }
        }
        let link = self.dialer.dial(CONNECT_TIMEOUT).map_err(Failure::Line);
        let done = link.and_then(|link| self.exchange(link, request));
        done.map_err(|failure| self.error(failure))
    }

    /// Sends a request and reads the answer.
    fn exchange(&mut self, link: Link, request: &[u8]) -> Result<Answer, Failure> {
        let was_sent = match link.send(request, SEND_TIMEOUT) {
            Ok(()) => true,
            // Whoever refuses a large request may do so before it is read, and hang up: then the
            // answer is there all the same.
            Err(error) if is_end(&error) => false,
            Err(error) => return Err(Failure::Line(error)),
        };
        let begins_by = deadline(self.patience);
        let mut arriving = Arriving::new();
        loop {
            if let Some(whole) = arriving.read().map_err(Failure::Foreign)? {
                if whole.keeps_alive && was_sent {
                    self.kept = Some(Kept { link, since: Instant::now() });
                }
                return Ok(whole.answer);
            }
            let silence = self.patience.max(RESPONSE_TIMEOUT);
            let until = if arriving.has_head() { deadline(silence) } else { begins_by };
            match link.read(arriving.room(), until) {
                Ok(1..) => {}
                Err(error) if !is_end(&error) => return Err(Failure::Line(error)),
                _ if arriving.is_untouched() => return Err(Failure::Unanswered),
                _ => {
                    let whole = arriving.end();
                    let cut_off = || Failure::Line(ErrorKind::UnexpectedEof.into());
                    return whole.map(|whole| whole.answer).ok_or_else(cut_off);
                }
            }
        }
    }

    fn error(&self, failure: Failure) -> Error {
        let url = &self.url;
        match failure {
            Failure::Foreign(what) => Error::Foreign(format!("{url} {what}")),
            Failure::Unanswered => Error::Network(format!("{url} hangs up")),
            Failure::Line(error) if is_end(&error) => Error::Network(format!("{url} hangs up")),
            Failure::Line(error) if error.kind() == ErrorKind::TimedOut => {
                Error::Network(format!("{url} does not answer in time"))
            }
            Failure::Line(error) => Error::Network(format!("{url}: {error}")),
        }
    }
}

/// Whether a connection that fails so has ended at the other side.
fn is_end(error: &IoError) -> bool {
    matches!(
        error.kind(),
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
    )
}

fn read_token(path: &Path) -> Result<String, String> {
    let name = path.display();
    let text = read_small(path, TOKEN_FILE_BYTES).map_err(|e| format!("token file {name}: {e}"))?;
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(format!("token file {name}: has to hold one word of printable ASCII"));
    }
    Ok(token.to_owned())
}

/// A text file of at most so many bytes.
pub fn read_small(path: &Path, most: usize) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    let file = std::fs::File::open(path)?;
    file.take(most as u64 + 1).read_to_string(&mut text)?;
    if text.len() > most {
        return Err(std::io::Error::other(format!("is larger than {most} bytes")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_used_again_while_it_is_young_and_nothing_has_come() {
        let (server, client) = std::os::unix::net::UnixStream::pair().unwrap();
        let link = Link::new(client.into(), Shutdown::new().unwrap());
        let since = Instant::now();
        let kept = Kept { link, since };
        assert!(kept.is_usable(since) && kept.is_usable(since + CONNECTION_REUSE_MAX / 2));
        assert!(!kept.is_usable(since + CONNECTION_REUSE_MAX));
        std::io::Write::write_all(&mut &server, b"x").unwrap();
        assert!(!kept.is_usable(since));
        kept.link.read(&mut Vec::with_capacity(8), since).unwrap();
        assert!(kept.is_usable(since));
        drop(server);
        assert!(!kept.is_usable(since));
    }
}
