//! Guards the client's response parser: each response has one result, in any division into packets,
//! and an error says what is wrong.

use std::iter::once;
use std::panic::catch_unwind;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use longpoll::client::{Follow, Subscription};
use longpoll::limits::{
    MAX_INTERIM_RESPONSES, MAX_RESPONSE_FIELDS, RESPONSE_BODY_BYTES, RESPONSE_HEAD_BYTES,
};
use longpoll::shutdown::Shutdown;

use crate::support::fake_server::FakeServer;

/// A page and its length.
const PAGE: &str = r#"{"events":[],"next":"e.1","more":false,"behind":0,"reason":"data"}"#;
const LENGTH: &str = "Content-Length: 66\r\n";
const JSON: &str = "Content-Type: application/json\r\n";
const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";

/// What the server does with the connection after the response.
#[derive(Clone, Copy)]
enum Connection {
    /// The connection stays open, so that the client must detect the end of the response itself.
    StaysOpen,
    Closes,
}
use Connection::{Closes, StaysOpen};

/// A description, the bytes in question, what follows them, and a part of the expected result.
type Row = (&'static str, &'static str, Connection, &'static str);

/// A row with the whole response.
struct Case {
    name: &'static str,
    response: Vec<u8>,
    connection: Connection,
    says: &'static str,
}

/// Polls once; returns the text of the page or an error.
fn poll_once(fake: &FakeServer) -> JoinHandle<String> {
    let mut subscription = Subscription::new(fake.url().parse().unwrap(), "news").unwrap();
    let stop = Shutdown::new().unwrap();
    subscription.shutdown = Some(stop.clone());
    let error_text = Arc::new(Mutex::new(String::new()));
    let recorded = Arc::clone(&error_text);
    let mut follow = Follow::start(subscription).unwrap().on_retry(move |error, _| {
        *recorded.lock().unwrap() = format!("{error:?}");
        stop.trigger();
    });
    std::thread::spawn(move || match follow.next_page() {
        Ok(Some(page)) => page.json,
        Ok(None) => error_text.lock().unwrap().clone(),
        Err(error) => format!("{error:?}"),
    })
}

/// The client's result for a response that arrives in these pieces.
fn result_of<'a>(response: impl Iterator<Item = &'a [u8]>, connection: Connection) -> String {
    let fake = FakeServer::new();
    let poll = poll_once(&fake);
    let mut connection_of_client = fake.accept();
    connection_of_client.request();
    response.for_each(|piece| connection_of_client.send(piece));
    let open = match connection {
        StaysOpen => Some(connection_of_client),
        Closes => {
            drop(connection_of_client);
            None
        }
    };
    let result = poll.join().expect("no panic");
    drop(open);
    result
}

/// Status lines, before the fields and the page.
const LINES: &[Row] = &[
    ("an ordinary response", "HTTP/1.1 200 OK", StaysOpen, PAGE),
    ("no reason", "HTTP/1.1 200 ", StaysOpen, PAGE),
    ("not even a space for one", "HTTP/1.1 200", StaysOpen, PAGE),
    ("a reason in another script", "HTTP/1.1 200 \u{438}", StaysOpen, PAGE),
    ("HTTP/1.0", "HTTP/1.0 200 OK", StaysOpen, PAGE),
    ("an empty line in front", "\r\nHTTP/1.1 200 OK", StaysOpen, PAGE),
    ("an interim response", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK", StaysOpen, PAGE),
    ("another protocol", "HTTP/1.1 101 Switching Protocols", StaysOpen, "status 101 instead"),
    ("HTTP/2", "HTTP/2.0 200 OK", StaysOpen, "does not speak HTTP: invalid HTTP version"),
    ("a status below all", "HTTP/1.1 099 Low", StaysOpen, "status 099"),
    ("a status above all", "HTTP/1.1 600 High", StaysOpen, "status 600"),
    ("a status of two digits", "HTTP/1.1 20 OK", StaysOpen, "invalid response status"),
    ("a status of four digits", "HTTP/1.1 2000 OK", StaysOpen, "invalid response status"),
    (
        "a control character in the reason",
        "HTTP/1.1 200 \u{7}",
        StaysOpen,
        "invalid response status",
    ),
    ("a greeting", "SSH-2.0-OpenSSH_9.2", StaysOpen, "invalid HTTP version"),
    ("a TLS alert", "\u{15}\u{3}\u{3}\0\u{2}\u{2}\u{28}", StaysOpen, "speaks TLS"),
];

/// Header fields of a `200`, before the page.
const FIELDS: &[Row] = &[
    ("a length", "Content-Length: 66\r\n", StaysOpen, PAGE),
    ("in small letters, with blanks", "content-length: \t 66 \r\n", StaysOpen, PAGE),
    ("a line that ends in LF alone", "CONTENT-LENGTH:66\n", StaysOpen, PAGE),
    ("less than there is", "Content-Length: 6\r\n", StaysOpen, "not that of a longpoll server"),
    ("more than there is", "Content-Length: 67\r\n", Closes, "hangs up"),
    ("none", "", Closes, "without a length"),
    ("none, and no end", "Connection: close\r\n", StaysOpen, "without a length"),
    ("a sign", "Content-Length: +66\r\n", StaysOpen, "decimal number"),
    ("a negative length", "Content-Length: -1\r\n", StaysOpen, "decimal number"),
    ("a length in hex", "Content-Length: 0x42\r\n", StaysOpen, "decimal number"),
    ("a zero in front", "Content-Length: 066\r\n", StaysOpen, "leading zeros"),
    ("two numbers", "Content-Length: 6 6\r\n", StaysOpen, "decimal number"),
    ("a list", "Content-Length: 66, 66\r\n", StaysOpen, "decimal number"),
    ("an empty length", "Content-Length: \r\n", StaysOpen, "decimal number"),
    (
        "a number too large",
        "Content-Length: 99999999999999999999\r\n",
        StaysOpen,
        "than 8388608 bytes",
    ),
    ("a byte too many", "Content-Length: 8388609\r\n", StaysOpen, "more than 8388608 bytes"),
    ("two lengths", "Content-Length: 6\r\nContent-Length: 66\r\n", StaysOpen, "is repeated"),
    ("one length twice", "Content-Length: 66\r\nContent-Length: 66\r\n", StaysOpen, "is repeated"),
    (
        "both",
        "Content-Length: 66\r\nTransfer-Encoding: chunked\r\n",
        StaysOpen,
        "exclude each other",
    ),
    (
        "chunks twice",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        StaysOpen,
        "chunked",
    ),
    ("gzip", "Transfer-Encoding: gzip\r\n", StaysOpen, "expected chunked"),
    ("gzip in chunks", "Transfer-Encoding: gzip, chunked\r\n", StaysOpen, "expected chunked"),
    ("no coding", "Transfer-Encoding: \r\n", StaysOpen, "expected chunked"),
    ("a space before the colon", "X : y\r\n", StaysOpen, "invalid header name"),
    ("a folded line", "X: y\r\n z\r\n", StaysOpen, "invalid header name"),
    ("no colon", "X\r\n", StaysOpen, "invalid header name"),
    ("NUL in a value", "X: \0\r\n", StaysOpen, "invalid header value"),
    ("CR in a value", "X: \ry\r\n", StaysOpen, "invalid header value"),
];

/// Bodies of a `200` in chunks; the page is in two of 26 and 40 bytes.
const CHUNKS: &[Row] = &[
    ("two chunks", "1a\r\n{one}\r\n28\r\n{two}\r\n0\r\n\r\n", StaysOpen, PAGE),
    (
        "white space before extensions",
        "1a ;a\r\n{one}\r\n28\t;b=c\r\n{two}\r\n0 ;d\r\n\r\n",
        StaysOpen,
        PAGE,
    ),
    (
        "an extension, capitals, zeros",
        "001A;a=\"b\"\r\n{one}\r\n28\r\n{two}\r\n00\r\n\r\n",
        StaysOpen,
        PAGE,
    ),
    ("trailers", "1a\r\n{one}\r\n28\r\n{two}\r\n0\r\nA: b\r\nC: d\r\n\r\n", StaysOpen, PAGE),
    ("no size", "\r\n{one}", StaysOpen, "hex digits"),
    ("a negative size", "-1\r\n", StaysOpen, "hex digits"),
    ("a size with its base", "0x1a\r\n", StaysOpen, "hex digits"),
    ("a size of nine digits", "00000001a\r\n", StaysOpen, "hex digits"),
    ("a blank after the size", "1a \r\n{one}", StaysOpen, "hex digits"),
    ("a size that ends in LF alone", "1a\n{one}", StaysOpen, "CR LF"),
    ("a size beyond all", "ffffffff\r\n", StaysOpen, "more than 8388608 bytes"),
    ("a chunk longer than its size", "19\r\n{one}\r\n", StaysOpen, "longer than its size"),
    ("a trailer that is none", "0\r\nnonsense\r\n", StaysOpen, "trailer"),
    ("no last chunk", "1a\r\n{one}\r\n28\r\n{two}\r\n", Closes, "hangs up"),
    ("no empty line at the end", "1a\r\n{one}\r\n28\r\n{two}\r\n0\r\n", Closes, "hangs up"),
    ("an end within a chunk", "1a\r\n{one}\r\n28\r\n{", Closes, "hangs up"),
    ("an end within a size", "1", Closes, "hangs up"),
    ("no chunk at all", "", Closes, "hangs up"),
];

/// Whole responses.
const RESPONSES: &[Row] = &[
    ("nothing", "", Closes, "hangs up"),
    ("a byte", "H", Closes, "hangs up"),
    ("a head without its end", "HTTP/1.1 404 Not Found\r\n", Closes, "hangs up"),
    ("only an interim response", "HTTP/1.1 100 Continue\r\n\r\n", Closes, "hangs up"),
    (
        "chunks in 1.0",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        StaysOpen,
        "HTTP/1.0",
    ),
    ("a 204", "HTTP/1.1 204 No Content\r\n\r\n", StaysOpen, "status: 204"),
    (
        "with a length",
        "HTTP/1.1 204 No Content\r\nContent-Length: 9\r\n\r\n",
        StaysOpen,
        "status: 204",
    ),
    ("a 304", "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", StaysOpen, "status: 304"),
    (
        "with chunks",
        "HTTP/1.1 304 No\r\nTransfer-Encoding: chunked\r\n\r\n",
        StaysOpen,
        "status: 304",
    ),
    ("a refusal without a length", "HTTP/1.1 404 Not Found\r\n\r\ngone", Closes, "status: 404"),
    ("nothing but a head", "HTTP/1.1 404 Not Found\r\n\r\n", Closes, "status: 404"),
    ("one cut off", "HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\ngone", Closes, "hangs up"),
    (
        "a time to come back",
        "HTTP/1.1 503 No\r\nRetry-After: 7\r\n\r\n",
        Closes,
        "retry_after: Some(7s)",
    ),
    (
        "a time that is none",
        "HTTP/1.1 503 No\r\nRetry-After: -7\r\n\r\n",
        Closes,
        "retry_after: None",
    ),
    (
        "one in bytes",
        "HTTP/1.1 301 Moved\r\nLocation: http://x/\r\n\r\n",
        Closes,
        "go to http://x/",
    ),
];

/// A `200` of this body.
fn good(fields: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{JSON}{fields}\r\n{body}")
}

/// All rows as cases.
fn table() -> Vec<Case> {
    let (one, two) = PAGE.split_at(26);
    let mut cases = at_the_limits();
    let mut add = |rows: &[Row], spell: &dyn Fn(&str) -> String| {
        for &(name, text, connection, says) in rows {
            cases.push(Case { name, response: spell(text).into(), connection, says });
        }
    };
    add(LINES, &|line| format!("{line}\r\n{JSON}{LENGTH}\r\n{PAGE}"));
    add(FIELDS, &|fields| good(fields, PAGE));
    add(CHUNKS, &|body| good(CHUNKED, &body.replace("{one}", one).replace("{two}", two)));
    add(RESPONSES, &str::to_owned);
    cases
}

/// Responses at the limits and just above them.
fn at_the_limits() -> Vec<Case> {
    let interim = |count| "HTTP/1.1 103 Hints\r\n\r\n".repeat(count) + &good(LENGTH, PAGE);
    let fields = |count| good(&("X: y\r\n".repeat(count - 2) + LENGTH), PAGE);
    let head = |length: usize| {
        let filler = "y".repeat(length - good(LENGTH, "X: \r\n").len());
        good(&format!("X: {filler}\r\n{LENGTH}"), PAGE)
    };
    let body = PAGE.to_owned() + &" ".repeat(RESPONSE_BODY_BYTES - PAGE.len());
    let full = format!("{RESPONSE_BODY_BYTES:x}\r\n{body}\r\n");
    let extended = |count| format!("1;{}\r\n \r\n", "x".repeat(203)).repeat(count);
    let page = format!("42\r\n{PAGE}\r\n0\r\n\r\n");
    let longest = |more: usize| format!("42;{}\r\n{PAGE}\r\n0\r\n\r\n", "x".repeat(253 + more));
    let cases = [
        ("interim responses", interim(MAX_INTERIM_RESPONSES), PAGE),
        ("one too many", interim(MAX_INTERIM_RESPONSES + 1), "status 103 instead"),
        ("fields", fields(MAX_RESPONSE_FIELDS), PAGE),
        ("one field too many", fields(MAX_RESPONSE_FIELDS + 1), "more than 128 header fields"),
        ("a head", head(RESPONSE_HEAD_BYTES), PAGE),
        ("a head too long", head(RESPONSE_HEAD_BYTES + 1), "head of more than 65536 bytes"),
        ("empty lines", "\n".repeat(RESPONSE_HEAD_BYTES), "head of more than 65536 bytes"),
        ("a body", good("Content-Length: 8388608\r\n", &body), PAGE),
        ("a body in a chunk", good(CHUNKED, &format!("{full}0\r\n\r\n")), PAGE),
        ("one byte more", good(CHUNKED, &format!("{full}1\r\n")), "more than 8388608 bytes"),
        ("a size line", good(CHUNKED, &longest(0)), PAGE),
        ("a size line too long", good(CHUNKED, &longest(1)), "at most 256 bytes"),
        ("extensions", good(CHUNKED, &(extended(20) + &page)), PAGE),
        ("too many", good(CHUNKED, &(extended(21) + &page)), "at most 4096 bytes"),
        ("no end", format!("HTTP/1.1 404 No\r\n\r\n{body} "), "more than 8388608 bytes"),
    ];
    let case = |(name, response, says): (_, String, _)| Case {
        name,
        response: response.into(),
        connection: StaysOpen,
        says,
    };
    cases.map(case).into()
}

#[test]
fn every_response_has_its_result_in_any_division_into_packets() {
    for Case { name, response, connection, says } in table() {
        let whole = result_of(once(&*response), connection);
        assert!(whole.contains(says), "{name}: {whole}");
        // Not for the largest responses, where each byte would be a packet.
        if response.len() < 2 * RESPONSE_HEAD_BYTES {
            let result = result_of(response.chunks(1), connection);
            assert!(result.contains(says), "{name}, byte by byte: {result}");
        }
    }
}

#[test]
fn truncated_response_is_an_error() {
    let chunked = good(CHUNKED, &format!("42;a=b\r\n{PAGE}\r\n0\r\nA: b\r\n\r\n"));
    for response in [good(LENGTH, PAGE), chunked] {
        for end in 0..response.len() {
            let result = result_of(once(&response.as_bytes()[..end]), Closes);
            assert!(result.contains("hangs up"), "{end}: {result}");
        }
    }
}

#[test]
fn changed_responses_have_a_result_and_cause_no_panic() {
    let responses: Vec<Vec<u8>> = table().into_iter().map(|case| case.response).collect();
    let responses: Vec<Vec<u8>> =
        responses.into_iter().filter(|bytes| bytes.len() < 1_000).collect();
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..1_000 {
        let mut response = random.choice(&responses).cloned().unwrap_or_default();
        for _ in 0..random.u8(1..=3) {
            let at = random.usize(..=response.len());
            let to = at + random.usize(..=(response.len() - at).min(20));
            match random.u8(..5) {
                0 => response.truncate(at),
                1 => drop(response.drain(at..to)),
                2 => response.insert(at, b"\r\n :;,09afx\0\x80"[random.usize(..13)]),
                3 => response.extend_from_within(at..to),
                _ => response[at..to].iter_mut().for_each(|byte| *byte = random.u8(..)),
            }
        }
        let result = catch_unwind(|| result_of(once(&*response), Closes));
        let shown = response.escape_ascii();
        assert!(result.is_ok_and(|result| !result.is_empty()), "seed {seed}: {shown}");
    }
}
