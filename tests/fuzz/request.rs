//! The invariants of the request reader, for any bytes on a connection. The fuzz target and the
//! replay in the ordinary tests both check them.

use std::fmt::Write as _;

use longpoll::http::chunked::{BodySink as _, ChunkedDecoder};
use longpoll::http::{BodyFraming, HeaderName, Method};
use longpoll::problem::{Cause, Problem};
use longpoll::server::body::{BodyBudget, RequestBody};
use longpoll::server::head::{HeadParser, ParsedHead};

/// Small limits, so that inputs of the fuzzer's size reach them.
const HEAD_LIMIT: usize = 1_000;
const BODY_LIMIT: usize = 300;

/// A request that was read completely.
#[derive(Debug, PartialEq)]
struct CompleteRequest {
    method: Method,
    path: String,
    query: String,
    fields: Vec<(HeaderName, String)>,
    framing: BodyFraming,
    keep_alive: bool,
    expects_continue: bool,
    body: Vec<u8>,
    /// The offsets in the stream at which the head and the request end.
    head_end: usize,
    end: usize,
}

/// The result of reading a stream of bytes.
#[derive(Debug, PartialEq)]
struct StreamResult {
    requests: Vec<CompleteRequest>,
    /// Status and problem body of the refusal that ended the stream.
    refused: Option<(u16, String)>,
}

/// Reads a stream as the server does, without a socket.
struct StreamReader<'a> {
    stream: Vec<u8>,
    /// The number of bytes that have been read from `stream`.
    used: usize,
    head: HeadParser,
    parsed: Option<(ParsedHead, ChunkedDecoder)>,
    budget: &'a BodyBudget,
    body: RequestBody<'a>,
    result: StreamResult,
}

impl<'a> StreamReader<'a> {
    fn new(budget: &'a BodyBudget) -> StreamReader<'a> {
        StreamReader {
            stream: Vec::new(),
            used: 0,
            head: HeadParser::default(),
            parsed: None,
            body: RequestBody::new(budget),
            budget,
            result: StreamResult { requests: Vec::new(), refused: None },
        }
    }

    /// Appends bytes and reads as many requests as they complete, up to a refusal.
    fn feed(&mut self, piece: &[u8]) {
        self.stream.extend_from_slice(piece);
        while self.result.refused.is_none() {
            match self.step() {
                Ok(true) => {}
                Ok(false) => return,
                Err(problem) => {
                    let body = String::from_utf8(problem.body()).expect("a problem is text");
                    self.result.refused = Some((problem.cause().status(), body));
                }
            }
        }
    }

    /// Reads one head or one body. False: it needs more bytes.
    fn step(&mut self) -> Result<bool, Problem> {
        let unused = &self.stream[self.used..];
        let Some((parsed, chunks)) = &mut self.parsed else {
            let Some(parsed) = self.head.read(unused, HEAD_LIMIT)? else { return Ok(false) };
            assert!(parsed.length <= unused.len().min(HEAD_LIMIT));
            self.used += parsed.length;
            self.head = HeadParser::default();
            if matches!(parsed.framing, BodyFraming::Sized(length) if length > BODY_LIMIT as u64) {
                return Err(Problem::new(Cause::TooLarge, "the body is too large"));
            }
            self.parsed = Some((parsed, ChunkedDecoder::default()));
            return Ok(true);
        };
        match parsed.framing {
            BodyFraming::Sized(length) => {
                let Some(bytes) = unused.get(..length as usize) else { return Ok(false) };
                self.body.push_bytes(bytes)?;
                self.used += bytes.len();
            }
            BodyFraming::Chunked => {
                self.used += chunks.decode(unused, &mut self.body, BODY_LIMIT)?;
                assert!(self.body.bytes.len() <= BODY_LIMIT);
                if !chunks.is_done() {
                    return Ok(false);
                }
            }
        }
        let body = std::mem::replace(&mut self.body, RequestBody::new(self.budget)).bytes;
        let Some((ParsedHead { head, length, framing, keep_alive, expects_continue }, _)) =
            self.parsed.take()
        else {
            return Ok(false);
        };
        let begin = self.result.requests.last().map_or(0, |before| before.end);
        self.result.requests.push(CompleteRequest {
            path: head.path().to_owned(),
            query: head.query().to_owned(),
            fields: head.fields().map(|(field, value)| (field, value.to_owned())).collect(),
            method: head.method,
            framing,
            keep_alive,
            expects_continue,
            body,
            head_end: begin + length,
            end: self.used,
        });
        Ok(true)
    }
}

fn read_stream<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> StreamResult {
    let budget = BodyBudget::new(1 << 20);
    let mut reader = StreamReader::new(&budget);
    for piece in pieces {
        reader.feed(piece);
    }
    reader.result
}

/// Panics if an invariant is violated.
pub fn check(bytes: &[u8]) {
    let whole = read_stream(std::iter::once(bytes));
    assert_eq!(read_stream(bytes.chunks(1)), whole, "read byte by byte");
    assert_eq!(read_stream(random_pieces(bytes).into_iter()), whole, "read in pieces");
    if let Some((status, body)) = &whole.refused {
        let problem: serde_json::Value = serde_json::from_str(body).expect("JSON");
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert!([400, 405, 411, 413, 414, 417, 431, 501, 505].contains(status), "{body}");
        assert!(!detail.is_empty(), "{body}");
    }
    let mut begin = 0;
    for request in &whole.requests {
        let (head, body) = (&bytes[begin..request.head_end], &bytes[request.head_end..request.end]);
        check_head(head, request);
        if request.framing == BodyFraming::Sized(request.body.len() as u64) {
            assert_eq!(body, request.body);
        } else {
            assert_eq!(request.framing, BodyFraming::Chunked);
            assert!(body.starts_with(b"0") || !request.body.is_empty());
            assert!(body.ends_with(b"\r\n\r\n") && body.len() >= request.body.len() + 5);
        }
        check_round_trip(request);
        begin = request.end;
    }
}

/// The bytes, split at random positions that are the same for the same bytes.
fn random_pieces(bytes: &[u8]) -> Vec<&[u8]> {
    let seed = bytes.iter().fold(bytes.len() as u64, |seed, b| seed * 31 % 65_521 + u64::from(*b));
    let mut random = fastrand::Rng::with_seed(seed);
    let mut rest = bytes;
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        let (piece, tail) = rest.split_at(random.usize(1..=rest.len().min(40)));
        pieces.push(piece);
        rest = tail;
    }
    pieces
}

/// Parses an accepted head a second time, naively, and compares.
fn check_head(head: &[u8], request: &CompleteRequest) {
    let is_allowed = |b: &u8| matches!(b, b'\r' | b'\n' | b'\t' | b' '..=b'~' | 0x80..);
    assert!(head.iter().all(is_allowed));
    let text = String::from_utf8_lossy(head);
    let text = text.strip_prefix("\r\n").unwrap_or(&text);
    assert_eq!(
        text.find("\r\n\r\n"),
        Some(text.len() - 4),
        "the head ends at its first empty line"
    );
    assert!(!text.replace("\r\n", "").contains(['\r', '\n']));
    let mut lines = text.trim_end_matches("\r\n").split("\r\n");
    let line: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
    let &[method, target, version] = line.as_slice() else {
        panic!("malformed request line {line:?}");
    };
    let minor = version.strip_prefix("HTTP/1.").expect("HTTP/1");
    assert!(matches!(minor.as_bytes(), [b'0'..=b'9']), "{line:?}");
    let is_http10 = minor == "0";
    assert_eq!(request.method.as_str(), method);
    assert!(target.is_ascii() && request.path.starts_with(['/', '*']));
    let mut headers: Vec<(String, &str)> = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(':').expect("a colon");
        assert!(!name.is_empty() && !name.contains([' ', '\t']), "{line:?}");
        headers.push((name.to_ascii_lowercase(), value.trim_matches([' ', '\t'])));
    }
    let values = |name: &str| -> Vec<&str> {
        headers.iter().filter(|(header, _)| header == name).map(|(_, value)| *value).collect()
    };
    match (values("content-length").as_slice(), values("transfer-encoding").as_slice()) {
        ([], []) => {
            assert!(
                method != "POST" || request.keep_alive,
                "a POST has a length or a next request"
            );
            assert_eq!(request.framing, BodyFraming::Sized(0));
        }
        ([length], []) => assert_eq!(request.framing, BodyFraming::Sized(length.parse().unwrap())),
        ([], [coding]) => {
            assert!(coding.eq_ignore_ascii_case("chunked") && !is_http10);
            assert_eq!(request.framing, BodyFraming::Chunked);
        }
        framing => panic!("ambiguous framing {framing:?}"),
    }
    let hosts = values("host");
    assert!(hosts.len() == 1 || (is_http10 && hosts.is_empty()));
    let host = request.fields.iter().filter(|(field, _)| *field == HeaderName::Host);
    let host: Vec<&str> = host.map(|(_, value)| value.as_str()).collect();
    match target.get(..7).filter(|scheme| scheme.eq_ignore_ascii_case("http://")) {
        Some(_) => assert!(target[7..].starts_with(host[0]), "the target's host takes precedence"),
        None => assert_eq!(host, hosts),
    }
    assert!(host.iter().all(|host| !host.is_empty() && !host.contains(['@', '/', ' '])));
}

/// Writes the request in its canonical form; reading that must give the same request.
fn check_round_trip(request: &CompleteRequest) {
    let host = request.fields.iter().any(|(field, _)| *field == HeaderName::Host);
    let version = if host { "1.1" } else { "1.0" };
    let CompleteRequest { method, path, query, fields, framing, .. } = request;
    let question = if query.is_empty() { "" } else { "?" };
    let mut text = format!("{method} {path}{question}{query} HTTP/{version}\r\n");
    for (field, value) in fields {
        let _ = write!(text, "{}: {value}\r\n", field.as_str());
    }
    if !request.keep_alive {
        text.push_str("Connection: close\r\n");
    }
    if fields.iter().any(|(field, _)| *field == HeaderName::Upgrade) {
        text.push_str("Connection: upgrade\r\n");
    }
    if request.expects_continue {
        text.push_str("Expect: 100-continue\r\n");
    }
    let length = request.body.len();
    let (framing_header, before, after) = match (framing, length) {
        (BodyFraming::Sized(_), _) => (format!("Content-Length: {length}"), String::new(), ""),
        (_, 0) => ("Transfer-Encoding: chunked".into(), String::new(), "0\r\n\r\n"),
        _ => ("Transfer-Encoding: chunked".into(), format!("{length:x}\r\n"), "\r\n0\r\n\r\n"),
    };
    text.push_str(&framing_header);
    text.push_str("\r\n\r\n");
    let head_end = text.len();
    let bytes = [text.as_bytes(), before.as_bytes(), &request.body, after.as_bytes()].concat();
    // The canonical form may be longer than the input.
    if head_end > HEAD_LIMIT {
        return;
    }
    let mut again = read_stream(std::iter::once(bytes.as_slice()));
    assert_eq!(again.refused, None, "{text}");
    assert_eq!(again.requests.len(), 1, "{text}");
    let again_end = std::mem::replace(&mut again.requests[0].end, request.end);
    let again_head_end = std::mem::replace(&mut again.requests[0].head_end, request.head_end);
    assert_eq!((again_head_end, again_end), (head_end, bytes.len()));
    assert_eq!(&again.requests[0], request);
}
