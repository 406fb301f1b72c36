//! What holds for the request reader whatever arrives. The fuzz target and the replay in the
//! ordinary tests both run this.

use std::fmt::Write as _;

use longpoll::http::chunked::{BodySink as _, ChunkedDecoder};
use longpoll::http::{BodyFraming, HeaderName, Method};
use longpoll::problem::{Cause, Problem};
use longpoll::server::body::{BodyBudget, RequestBody};
use longpoll::server::head::{HeadParser, NOT_SPLIT, ParsedHead};

/// Small, so that inputs of a fuzzer's size reach them.
const HEAD_LIMIT: usize = 1_000;
const BODY_LIMIT: usize = 300;

/// A request that was read whole.
#[derive(Debug, PartialEq)]
struct Request {
    method: Method,
    path: String,
    query: String,
    fields: Vec<(HeaderName, String)>,
    framing: BodyFraming,
    keep_alive: bool,
    expects_continue: bool,
    body: Vec<u8>,
    /// Where in the stream its head ends, and itself.
    head_end: usize,
    end: usize,
}

/// What became of a stream of bytes.
#[derive(Debug, PartialEq)]
struct Outcome {
    requests: Vec<Request>,
    /// Status and problem body, and after how many bytes at the earliest.
    refused: Option<(u16, String)>,
}

/// Reads a stream as the door does, without a socket.
struct Reader<'a> {
    stream: Vec<u8>,
    used: usize,
    head: HeadParser,
    parsed: Option<(ParsedHead, ChunkedDecoder)>,
    room: &'a BodyBudget,
    body: RequestBody<'a>,
    outcome: Outcome,
}

impl<'a> Reader<'a> {
    fn new(room: &'a BodyBudget) -> Reader<'a> {
        Reader {
            stream: Vec::new(),
            used: 0,
            head: HeadParser::default(),
            parsed: None,
            body: RequestBody::new(room),
            room,
            outcome: Outcome { requests: Vec::new(), refused: None },
        }
    }

    /// Reads on with these bytes, for as long as they make sense.
    fn feed(&mut self, piece: &[u8]) {
        self.stream.extend_from_slice(piece);
        while self.outcome.refused.is_none() {
            match self.step() {
                Ok(true) => {}
                Ok(false) => return,
                Err(problem) => {
                    let body = String::from_utf8(problem.body()).expect("a problem is text");
                    self.outcome.refused = Some((problem.cause().status(), body));
                }
            }
        }
    }

    /// One head, or one body. False: it goes on.
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
        let body = std::mem::replace(&mut self.body, RequestBody::new(self.room)).bytes;
        let Some((ParsedHead { head, length, framing, keep_alive, expects_continue }, _)) =
            self.parsed.take()
        else {
            return Ok(false);
        };
        let begin = self.outcome.requests.last().map_or(0, |before| before.end);
        self.outcome.requests.push(Request {
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

fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Outcome {
    let room = BodyBudget::new(1 << 20);
    let mut reader = Reader::new(&room);
    for piece in pieces {
        reader.feed(piece);
    }
    reader.outcome
}

/// Panics if something that should hold does not.
pub fn check(bytes: &[u8]) {
    let whole = read(std::iter::once(bytes));
    assert_eq!(read(bytes.chunks(1)), whole, "byte by byte");
    assert_eq!(read(random_pieces(bytes).into_iter()), whole, "in pieces");
    if let Some((status, body)) = &whole.refused {
        let problem: serde_json::Value = serde_json::from_str(body).expect("JSON");
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert!([400, 405, 413, 414, 417, 431, 501, 505].contains(status), "{body}");
        assert!(!detail.is_empty() && detail != NOT_SPLIT, "{body}");
    }
    let mut begin = 0;
    for request in &whole.requests {
        let (head, body) = (&bytes[begin..request.head_end], &bytes[request.head_end..request.end]);
        looks_like_one_head(head, request);
        if request.framing == BodyFraming::Sized(request.body.len() as u64) {
            assert_eq!(body, request.body);
        } else {
            assert_eq!(request.framing, BodyFraming::Chunked);
            assert!(body.starts_with(b"0") || !request.body.is_empty());
            assert!(body.ends_with(b"\r\n\r\n") && body.len() >= request.body.len() + 5);
        }
        reads_back(request);
        begin = request.end;
    }
}

/// The same bytes cut at random, and the same cuts each time.
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

/// A second, naive reading of a head that was accepted.
fn looks_like_one_head(head: &[u8], request: &Request) {
    let clean = |b: &u8| matches!(b, b'\r' | b'\n' | b'\t' | b' '..=b'~' | 0x80..);
    assert!(head.iter().all(clean));
    let text = String::from_utf8_lossy(head);
    let text = text.strip_prefix("\r\n").unwrap_or(&text);
    assert_eq!(text.find("\r\n\r\n"), Some(text.len() - 4), "the head ends where it should");
    assert!(!text.replace("\r\n", "").contains(['\r', '\n']));
    let mut lines = text.trim_end_matches("\r\n").split("\r\n");
    let line: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
    let &[method, target, version @ ("HTTP/1.1" | "HTTP/1.0")] = line.as_slice() else {
        panic!("a request line of {line:?}");
    };
    assert_eq!(request.method.as_str(), method);
    assert!(target.is_ascii() && request.path.starts_with(['/', '*']));
    let mut named: Vec<(String, &str)> = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(':').expect("a colon");
        assert!(!name.is_empty() && !name.contains([' ', '\t']), "{line:?}");
        named.push((name.to_ascii_lowercase(), value.trim_matches([' ', '\t'])));
    }
    let all = |name: &str| -> Vec<&str> {
        named.iter().filter(|(known, _)| known == name).map(|(_, value)| *value).collect()
    };
    match (all("content-length").as_slice(), all("transfer-encoding").as_slice()) {
        ([], []) => assert_eq!(request.framing, BodyFraming::Sized(0)),
        ([length], []) => assert_eq!(request.framing, BodyFraming::Sized(length.parse().unwrap())),
        ([], [coding]) => {
            assert!(coding.eq_ignore_ascii_case("chunked") && version == "HTTP/1.1");
            assert_eq!(request.framing, BodyFraming::Chunked);
        }
        both => panic!("framed by {both:?}"),
    }
    let hosts = all("host");
    assert!(hosts.len() == 1 || (version == "HTTP/1.0" && hosts.is_empty()));
    let host = request.fields.iter().filter(|(field, _)| *field == HeaderName::Host);
    let host: Vec<&str> = host.map(|(_, value)| value.as_str()).collect();
    match target.get(..7).filter(|scheme| scheme.eq_ignore_ascii_case("http://")) {
        Some(_) => assert!(target[7..].starts_with(host[0]), "the target's host counts"),
        None => assert_eq!(host, hosts),
    }
    assert!(host.iter().all(|host| !host.is_empty() && !host.contains(['@', '/', ' '])));
}

/// What was read, written in the one plain way, is read as the same.
fn reads_back(request: &Request) {
    let host = request.fields.iter().any(|(field, _)| *field == HeaderName::Host);
    let version = if host { "1.1" } else { "1.0" };
    let Request { method, path, query, fields, framing, .. } = request;
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
    let (framed, before, after) = match (framing, length) {
        (BodyFraming::Sized(_), _) => (format!("Content-Length: {length}"), String::new(), ""),
        (_, 0) => ("Transfer-Encoding: chunked".into(), String::new(), "0\r\n\r\n"),
        _ => ("Transfer-Encoding: chunked".into(), format!("{length:x}\r\n"), "\r\n0\r\n\r\n"),
    };
    text.push_str(&framed);
    text.push_str("\r\n\r\n");
    let head_end = text.len();
    let bytes = [text.as_bytes(), before.as_bytes(), &request.body, after.as_bytes()].concat();
    // Plain is not always shorter.
    if head_end > HEAD_LIMIT {
        return;
    }
    let mut again = read(std::iter::once(bytes.as_slice()));
    assert_eq!(again.refused, None, "{text}");
    assert_eq!(again.requests.len(), 1, "{text}");
    let again_end = std::mem::replace(&mut again.requests[0].end, request.end);
    let again_head_end = std::mem::replace(&mut again.requests[0].head_end, request.head_end);
    assert_eq!((again_head_end, again_end), (head_end, bytes.len()));
    assert_eq!(&again.requests[0], request);
}
