//! One request and its answer, whole or not at all.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tiny_http::StatusCode;
use ureq::http::{Response, header};
use ureq::{Agent, Body};

use super::event::{Members, member};
use super::link::{Dialer, NoLookup};
use super::trouble::{Error, plain};
use super::url::Url;
use crate::VERSION;
use crate::limits::{ANSWER_BYTES, CONNECT, SEND, SILENCE, TOKEN_BYTES};
use crate::shutdown::Shutdown;

/// Asks one server.
pub struct Asker {
    agent: Agent,
    url: Url,
    token_file: Option<PathBuf>,
}

/// What came back, whatever its status.
pub struct Answer {
    pub status: u16,
    pub is_json: bool,
    pub body: Vec<u8>,
    retry_after: Option<Duration>,
    location: Option<String>,
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
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // A redirect would be to another server, or to TLS: better to be told.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .user_agent(format!("longpoll/{VERSION}"))
            .timeout_connect(Some(CONNECT))
            .timeout_send_request(Some(SEND))
            .timeout_send_body(Some(SEND))
            .timeout_recv_response(Some(patience))
            .timeout_per_read(Some(patience.max(SILENCE)))
            .build();
        let dialer = Dialer { place: url.place.clone(), stop };
        let asker = Asker {
            agent: Agent::with_parts(config, dialer, NoLookup),
            url: url.clone(),
            token_file,
        };
        // A missing file is better told now than after the first try.
        asker.token()?;
        Ok(asker)
    }

    /// Sends a GET.
    pub fn get(&self, target: &str) -> Result<Answer, Error> {
        let mut request = self.agent.get(format!("{}{target}", self.url.base));
        if let Some(token) = self.token()? {
            request = request.header(header::AUTHORIZATION, token);
        }
        self.answer(request.call())
    }

    /// Sends a POST with these header fields.
    pub fn post(
        &self,
        target: &str,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answer, Error> {
        let mut request = self.agent.post(format!("{}{target}", self.url.base));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        if let Some(token) = self.token()? {
            request = request.header(header::AUTHORIZATION, token);
        }
        self.answer(request.send(body))
    }

    /// The token as a field's value. Read anew each time, so that it can be changed while this
    /// runs.
    fn token(&self) -> Result<Option<String>, Error> {
        let Some(path) = &self.token_file else { return Ok(None) };
        read_token(path).map(|token| Some(format!("Bearer {token}"))).map_err(Error::Token)
    }

    fn answer(&self, answer: Result<Response<Body>, ureq::Error>) -> Result<Answer, Error> {
        let url = &self.url;
        let failed = |error: ureq::Error| match error {
            ureq::Error::BodyExceedsLimit(_) => Error::Foreign(format!(
                "{url} answers with more than {ANSWER_BYTES} bytes; is that a longpoll server?"
            )),
            ureq::Error::Protocol(error) => {
                Error::Foreign(format!("{url} does not speak HTTP: {error}"))
            }
            ureq::Error::Timeout(_) => Error::Network(format!("{url} does not answer in time")),
            ureq::Error::Io(error) => match error.kind() {
                ErrorKind::TimedOut => Error::Network(format!("{url} does not answer in time")),
                ErrorKind::UnexpectedEof => Error::Network(format!("{url} hangs up")),
                _ => Error::Network(format!("{url}: {error}")),
            },
            error => Error::Network(format!("{url}: {error}")),
        };
        let mut answer = answer.map_err(failed)?;
        let field = |name| answer.headers().get(name).and_then(|value| value.to_str().ok());
        let status = answer.status().as_u16();
        let is_json = field(header::CONTENT_TYPE).is_some_and(|text| {
            let essence = text.split(';').next().unwrap_or_default().trim();
            essence == "application/json" || essence.ends_with("+json")
        });
        let retry_after = field(header::RETRY_AFTER).and_then(retry_after);
        let location = field(header::LOCATION).map(plain);
        let has_end = [header::CONTENT_LENGTH, header::TRANSFER_ENCODING];
        let has_end = has_end.into_iter().any(|name| field(name).is_some());
        // Without a length, an answer that was cut off looks like one that ended. Of a refusal the
        // status is enough.
        if matches!(status, 200 | 201) && !has_end {
            return Err(Error::Foreign(format!("{url} answers without saying how much")));
        }
        let body = answer.body_mut().with_config().limit(ANSWER_BYTES as u64).read_to_vec();
        Ok(Answer { status, is_json, body: body.map_err(failed)?, retry_after, location })
    }
}

impl Answer {
    /// The refusal that it is.
    pub fn refusal(&self) -> Error {
        let detail = match (&self.location, self.problem("detail")) {
            (Some(place), _) if (300..400).contains(&self.status) => {
                format!("go to {place}; redirects are not followed, give that URL if it is right")
            }
            (_, Some(detail)) => detail,
            _ => {
                let reason = StatusCode(self.status).default_reason_phrase();
                format!("{reason} (no longpoll server says it so)")
            }
        };
        Error::Refused {
            status: self.status,
            detail: plain(&detail),
            retry_after: self.retry_after,
        }
    }

    fn problem(&self, name: &str) -> Option<String> {
        let members: Members<'_> = serde_json::from_slice(&self.body).ok()?;
        member(&members, name)
    }
}

/// Seconds, or a date (RFC 9110, section 10.2.3).
fn retry_after(value: &str) -> Option<Duration> {
    let seconds = value.trim().parse().map(Duration::from_secs).ok();
    seconds.or_else(|| {
        let date = httpdate::parse_http_date(value.trim()).ok()?;
        Some(date.duration_since(SystemTime::now()).unwrap_or_default())
    })
}

fn read_token(path: &Path) -> Result<String, String> {
    let name = path.display();
    let text = read_small(path, TOKEN_BYTES).map_err(|e| format!("token file {name}: {e}"))?;
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
