//! Whole streams: bytes before a request, requests without a body, other protocols, and sizes above
//! the limits.

use super::Expected::{Declined, Fine, Last, Refused};
use super::{Case, Expected, Group, Row};

pub const GROUPS: &[Group] = &[Group { before: b"", rows: STREAMS, after: b"" }];

const STREAMS: &[Row] = &[
    ("an empty line before the request", b"\r\nGET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", Fine(200)),
    ("an empty line that ends in LF before the request", b"\r\n\nGET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", Refused(400, "LF alone")),
    ("two empty lines before the request", b"\r\n\r\nGET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", Refused(400, "empty line")),
    ("LF before the request", b"\nGET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", Refused(400, "LF alone")),
    ("CR before the request", b"\rGET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", Refused(400, "CR stands alone")),
    ("a blank line before the request", b" \r\nGET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", Refused(400, "method")),
    ("LF at every line's end", b"GET /health HTTP/1.1\nHost: localhost\n\n", Refused(400, "LF alone")),
    ("CR at every line's end", b"GET /health HTTP/1.1\rHost: localhost\r\r", Refused(400, "CR stands alone")),
    ("no fields", b"GET /health HTTP/1.1\r\n\r\n", Refused(400, "Host")),
    ("no fields in HTTP/1.0", b"GET /health HTTP/1.0\r\n\r\n", Last(200)),
    ("the absolute form in HTTP/1.0", b"GET http://localhost/health HTTP/1.0\r\n\r\n", Last(200)),
    ("a foreign target in HTTP/1.0", b"GET http://evil.example/health HTTP/1.0\r\nConnection: close\r\n\r\n", Refused(403, "evil")),
    ("two hosts in HTTP/1.0", b"GET /health HTTP/1.0\r\nHost: localhost\r\nHost: localhost\r\n\r\n", Refused(400, "Host")),
    ("an empty host in HTTP/1.0", b"GET /health HTTP/1.0\r\nHost:\r\n\r\n", Refused(400, "Host")),
    ("HTTP/1.0 with keep-alive", b"GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", Last(200)),
    ("a length in HTTP/1.0", b"POST /topics/other HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello", Last(201)),
    ("a coding in HTTP/1.0", b"POST /topics/strict HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refused(400, "HTTP/1.0")),
    // A POST of HTTP/1.0 has a length (RFC 1945, section 8.3). Its body may be meant to end with the
    // connection; read as no body, it would be lost, so a length is required (RFC 9110, 15.5.12).
    ("no length in HTTP/1.0", b"POST /topics/strict HTTP/1.0\r\n\r\nhello", Refused(411, "Content-Length")),
    ("no length and no body in HTTP/1.0", b"POST /topics/strict HTTP/1.0\r\n\r\n", Refused(411, "Content-Length")),
    ("no length in HTTP/1.0 with keep-alive", b"POST /topics/strict HTTP/1.0\r\nConnection: keep-alive\r\n\r\nhello", Refused(411, "Content-Length")),
    ("an expectation and no length in HTTP/1.0", b"POST /topics/strict HTTP/1.0\r\nExpect: 100-continue\r\n\r\nhello", Refused(411, "Content-Length")),
    ("a length of zero in HTTP/1.0", b"POST /topics/other HTTP/1.0\r\nContent-Length: 0\r\n\r\n", Last(201)),
    ("GET without a length in HTTP/1.0", b"GET /health HTTP/1.0\r\n\r\nhello", Last(200)),
    ("chunks in HTTP/1.2", b"POST /topics/strict HTTP/1.2\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", Fine(201)),
    ("HTTP/1.2 without a Host", b"GET /health HTTP/1.2\r\n\r\n", Refused(400, "missing")),
    ("the absolute form without a Host", b"GET http://localhost/health HTTP/1.1\r\n\r\n", Refused(400, "missing")),
    ("the absolute form with a bad Host", b"GET http://localhost/health HTTP/1.1\r\nHost: a b\r\n\r\n", Refused(400, "Host")),
    ("the absolute form with a foreign Host", b"GET http://localhost/health HTTP/1.1\r\nHost: evil.example\r\n\r\n", Fine(200)),
    ("a body with GET", b"GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello", Refused(413, "no body")),
    ("a request as a body with GET", b"GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 33\r\n\r\nDELETE /topics/strict HTTP/1.1\r\n\r\n", Refused(413, "no body")),
    ("a chunk with GET", b"GET /health HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", Refused(413, "0 bytes")),
    ("no chunks with GET", b"GET /health HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Fine(200)),
    ("a body with DELETE", b"DELETE /topics/other HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello", Refused(413, "no body")),
    ("a body with OPTIONS", b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello", Refused(413, "no body")),
    ("a body for a path that is not there", b"POST /nope HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello", Refused(404, "/nope")),
    ("a body with a method that is not there", b"PUT /topics/strict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello", Refused(405, "PUT")),
    ("no body for a path that is not there", b"POST /nope HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", Declined(404, "/nope")),
    ("a head alone", b"HEAD /health HTTP/1.1\r\nHost: localhost\r\n\r\n", Fine(200)),
    ("a head of what is not there", b"HEAD /nope HTTP/1.1\r\nHost: localhost\r\n\r\n", Fine(404)),
    ("a body with HEAD", b"HEAD /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello", Refused(413, "")),
    ("HEAD without a host", b"HEAD /health HTTP/1.1\r\n\r\n", Refused(400, "")),
    ("HEAD with LF", b"HEAD /health HTTP/1.1\nHost: localhost\n\n", Refused(400, "")),
    ("a greeting of TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", Refused(400, "TLS")),
    ("a greeting of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Refused(505, "HTTP/1.1")),
    ("a proxy's preface", b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", Refused(400, "HTTP/1.1")),
    ("a proxy's preface in binary", b"\r\n\r\n\0\r\nQUIT\n!\x11\0\x0c", Refused(400, "empty line")),
    ("a greeting of SSH", b"SSH-2.0-OpenSSH_9.2\r\n", Refused(400, "method")),
    ("a greeting of mail", b"EHLO example.com\r\n", Refused(400, "HTTP/1.1")),
    ("a command of Redis", b"*1\r\n$4\r\nPING\r\n", Refused(400, "method")),
    ("a response for a request", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Refused(400, "method")),
    ("JSON for a request", b"{\"a\":1}\r\n", Refused(400, "method")),
    ("UTF-16 for a request", b"G\0E\0T\0 \0/\0", Refused(400, "method")),
    ("zeros for a request", b"\0\0\0\0", Refused(400, "method")),
    ("high bytes for a request", b"\xff\xfe\xfd", Refused(400, "method")),
];

/// The default limit of a head.
const LIMIT: usize = 16 << 10;

/// Rows that are too long to write out.
pub fn made() -> Vec<Case> {
    let filler = |count: usize| "x".repeat(count);
    let head = |fields: &str| format!("GET /health HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
    let fitting = |length: usize| {
        let bare = head("X: \r\n").len();
        head(&format!("X: {}\r\n", filler(length - bare)))
    };
    let fields = |count: usize| {
        let lines: Vec<String> = (0..count).map(|n| format!("X-{n}: y\r\n")).collect();
        head(&lines.concat())
    };
    let chunked = |chunks: &str| {
        let post = "POST /topics/strict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked";
        format!("{post}\r\n\r\n{chunks}0\r\n\r\n")
    };
    let trailers = |count: usize| {
        let lines = format!("A: {}\r\n", filler(97)).repeat(count);
        let text = chunked("1\r\nx\r\n");
        format!("{}{lines}\r\n", text.trim_end_matches("\r\n\r\n").to_owned() + "\r\n")
    };
    let line = |start: &str| format!("{start} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let long = filler(LIMIT);
    let rows: Vec<(&'static str, String, Expected)> = vec![
        ("a head of just the right size", fitting(LIMIT), Fine(200)),
        ("a head that is a byte too large", fitting(LIMIT + 1), Refused(431, "16384")),
        ("the largest number of fields", fields(63), Fine(200)),
        ("a field too many", fields(64), Refused(431, "64")),
        ("a target that is too long", line(&format!("GET /{long}")), Refused(414, "16384")),
        ("a query that is too long", line(&format!("GET /?{long}")), Refused(414, "16384")),
        ("a method that is too long", line(&format!("{long} /")), Refused(414, "16384")),
        ("an empty line, then one too long", format!("\r\nGET /{long}"), Refused(414, "16384")),
        ("a request line without end", format!("GET /{long}{long}"), Refused(414, "16384")),
        ("a name that is too long", head(&format!("{long}: x\r\n")), Refused(431, "16384")),
        ("a value that is too long", head(&format!("X: {long}\r\n")), Refused(431, "16384")),
        (
            "too large and also malformed",
            head(&format!("X: {long}\r\nX : y\r\n")),
            Refused(431, "16384"),
        ),
        (
            "too many chunk extensions",
            chunked(&format!("1;{}\r\nx\r\n", filler(200)).repeat(21)),
            Refused(431, "4096"),
        ),
        (
            "the longest chunk extensions",
            chunked(&format!("1;{}\r\nx\r\n", filler(200)).repeat(20)),
            Fine(201),
        ),
        (
            "too much white space before chunk extensions",
            chunked(&format!("1{};\r\nx\r\n", " ".repeat(200)).repeat(21)),
            Refused(431, "4096"),
        ),
        (
            "white space without end",
            chunked(&format!("1{}", " ".repeat(LIMIT))),
            Refused(400, "256"),
        ),
        ("a chunk extension too long", chunked(&format!("1;{long}")), Refused(400, "256")),
        ("too many trailers", trailers(41), Refused(431, "4096")),
        ("the longest trailers", trailers(40), Fine(201)),
    ];
    rows.into_iter()
        .map(|(name, text, expected)| Case { name: name.into(), bytes: text.into(), expected })
        .collect()
}
