//! Goal: whatever a server answers, and in whatever pieces, the client comes to one verdict on it,
//! and says what is wrong.

use std::iter::once;
use std::panic::catch_unwind;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use longpoll::client::{Follow, Subscription};
use longpoll::limits::{
    MAX_INTERIM_RESPONSES, MAX_RESPONSE_FIELDS, RESPONSE_BODY_BYTES, RESPONSE_HEAD_BYTES,
};
use longpoll::shutdown::Shutdown;

use crate::support::command::Fake;

/// A page, and its length.
const PAGE: &str = r#"{"events":[],"next":"e.1","more":false,"behind":0,"reason":"data"}"#;
const LENGTH: &str = "Content-Length: 66\r\n";
const JSON: &str = "Content-Type: application/json\r\n";
const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";

/// What the connection does after an answer.
#[derive(Clone, Copy)]
enum Then {
    /// It stays open: the client has to know by itself that this was all, or that it is enough.
    Stays,
    Ends,
}
use Then::{Ends, Stays};

/// A sentence, the bytes that matter, what follows them, and what the verdict says.
type Row = (&'static str, &'static str, Then, &'static str);

/// A row, spelled out.
struct Case {
    name: &'static str,
    answer: Vec<u8>,
    then: Then,
    says: &'static str,
}

/// Asks once, and says what came of it: a page's text or an error.
fn ask(fake: &Fake) -> JoinHandle<String> {
    let mut subscription = Subscription::new(fake.url().parse().unwrap(), "news").unwrap();
    let stop = Shutdown::new().unwrap();
    subscription.stop = Some(stop.clone());
    let told = Arc::new(Mutex::new(String::new()));
    let tell = Arc::clone(&told);
    let mut follow = Follow::start(subscription).unwrap().on_trouble(move |error, _| {
        *tell.lock().unwrap() = format!("{error:?}");
        stop.trigger();
    });
    std::thread::spawn(move || match follow.page() {
        Ok(Some(page)) => page.json,
        Ok(None) => told.lock().unwrap().clone(),
        Err(error) => format!("{error:?}"),
    })
}

/// The client's verdict on an answer that comes in these pieces.
fn verdict<'a>(answer: impl Iterator<Item = &'a [u8]>, then: Then) -> String {
    let fake = Fake::new();
    let asked = ask(&fake);
    let mut caller = fake.accept();
    caller.request();
    answer.for_each(|piece| caller.send(piece));
    let open = match then {
        Stays => Some(caller),
        Ends => {
            drop(caller);
            None
        }
    };
    let verdict = asked.join().expect("no panic");
    drop(open);
    verdict
}

/// First lines, before the fields and the page.
const LINES: &[Row] = &[
    ("an ordinary answer", "HTTP/1.1 200 OK", Stays, PAGE),
    ("no reason", "HTTP/1.1 200 ", Stays, PAGE),
    ("not even a space for one", "HTTP/1.1 200", Stays, PAGE),
    ("a reason in another script", "HTTP/1.1 200 \u{438}", Stays, PAGE),
    ("HTTP/1.0", "HTTP/1.0 200 OK", Stays, PAGE),
    ("an empty line in front", "\r\nHTTP/1.1 200 OK", Stays, PAGE),
    ("an interim answer", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK", Stays, PAGE),
    ("another protocol", "HTTP/1.1 101 Switching Protocols", Stays, "answers 101 and not"),
    ("HTTP/2", "HTTP/2.0 200 OK", Stays, "does not speak HTTP: invalid HTTP version"),
    ("a status below all", "HTTP/1.1 099 Low", Stays, "status 099"),
    ("a status above all", "HTTP/1.1 600 High", Stays, "status 600"),
    ("a status of two digits", "HTTP/1.1 20 OK", Stays, "invalid response status"),
    ("a status of four digits", "HTTP/1.1 2000 OK", Stays, "invalid response status"),
    ("a control character in the reason", "HTTP/1.1 200 \u{7}", Stays, "invalid response status"),
    ("a greeting", "SSH-2.0-OpenSSH_9.2", Stays, "invalid HTTP version"),
    ("a TLS alert", "\u{15}\u{3}\u{3}\0\u{2}\u{2}\u{28}", Stays, "speaks TLS"),
];

/// Fields of a `200`, before the page.
const FIELDS: &[Row] = &[
    ("a length", "Content-Length: 66\r\n", Stays, PAGE),
    ("in small letters, with blanks", "content-length: \t 66 \r\n", Stays, PAGE),
    ("a line that ends in LF alone", "CONTENT-LENGTH:66\n", Stays, PAGE),
    ("less than there is", "Content-Length: 6\r\n", Stays, "not as a longpoll server does"),
    ("more than there is", "Content-Length: 67\r\n", Ends, "hangs up"),
    ("none", "", Ends, "without saying how much"),
    ("none, and no end", "Connection: close\r\n", Stays, "without saying how much"),
    ("a sign", "Content-Length: +66\r\n", Stays, "decimal number"),
    ("a negative length", "Content-Length: -1\r\n", Stays, "decimal number"),
    ("a length in hex", "Content-Length: 0x42\r\n", Stays, "decimal number"),
    ("a zero in front", "Content-Length: 066\r\n", Stays, "leading zeros"),
    ("two numbers", "Content-Length: 6 6\r\n", Stays, "decimal number"),
    ("a list", "Content-Length: 66, 66\r\n", Stays, "decimal number"),
    ("an empty length", "Content-Length: \r\n", Stays, "decimal number"),
    ("a number too large", "Content-Length: 99999999999999999999\r\n", Stays, "than 8388608 bytes"),
    ("a byte too many", "Content-Length: 8388609\r\n", Stays, "more than 8388608 bytes"),
    ("two lengths", "Content-Length: 6\r\nContent-Length: 66\r\n", Stays, "is repeated"),
    ("one length twice", "Content-Length: 66\r\nContent-Length: 66\r\n", Stays, "is repeated"),
    ("both", "Content-Length: 66\r\nTransfer-Encoding: chunked\r\n", Stays, "exclude each other"),
    (
        "chunks twice",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        Stays,
        "chunked",
    ),
    ("gzip", "Transfer-Encoding: gzip\r\n", Stays, "expected chunked"),
    ("gzip in chunks", "Transfer-Encoding: gzip, chunked\r\n", Stays, "expected chunked"),
    ("no coding", "Transfer-Encoding: \r\n", Stays, "expected chunked"),
    ("a space before the colon", "X : y\r\n", Stays, "invalid header name"),
    ("a folded line", "X: y\r\n z\r\n", Stays, "invalid header name"),
    ("no colon", "X\r\n", Stays, "invalid header name"),
    ("NUL in a value", "X: \0\r\n", Stays, "invalid header value"),
    ("CR in a value", "X: \ry\r\n", Stays, "invalid header value"),
];

/// Bodies of a `200` in chunks; the page is in two of 26 and 40 bytes.
const CHUNKS: &[Row] = &[
    ("two chunks", "1a\r\n{one}\r\n28\r\n{two}\r\n0\r\n\r\n", Stays, PAGE),
    (
        "an extension, capitals, zeros",
        "001A;a=\"b\"\r\n{one}\r\n28\r\n{two}\r\n00\r\n\r\n",
        Stays,
        PAGE,
    ),
    ("trailers", "1a\r\n{one}\r\n28\r\n{two}\r\n0\r\nA: b\r\nC: d\r\n\r\n", Stays, PAGE),
    ("no size", "\r\n{one}", Stays, "hex digits"),
    ("a negative size", "-1\r\n", Stays, "hex digits"),
    ("a size with its base", "0x1a\r\n", Stays, "hex digits"),
    ("a size of nine digits", "00000001a\r\n", Stays, "hex digits"),
    ("a blank after the size", "1a \r\n{one}", Stays, "hex digits"),
    ("a size that ends in LF alone", "1a\n{one}", Stays, "CR LF"),
    ("a size beyond all", "ffffffff\r\n", Stays, "more than 8388608 bytes"),
    ("a chunk longer than its size", "19\r\n{one}\r\n", Stays, "longer than its size"),
    ("a trailer that is none", "0\r\nnonsense\r\n", Stays, "trailer"),
    ("no last chunk", "1a\r\n{one}\r\n28\r\n{two}\r\n", Ends, "hangs up"),
    ("no empty line at the end", "1a\r\n{one}\r\n28\r\n{two}\r\n0\r\n", Ends, "hangs up"),
    ("an end within a chunk", "1a\r\n{one}\r\n28\r\n{", Ends, "hangs up"),
    ("an end within a size", "1", Ends, "hangs up"),
    ("no chunk at all", "", Ends, "hangs up"),
];

/// Whole answers.
const ANSWERS: &[Row] = &[
    ("nothing", "", Ends, "hangs up"),
    ("a byte", "H", Ends, "hangs up"),
    ("a head without its end", "HTTP/1.1 404 Not Found\r\n", Ends, "hangs up"),
    ("only an interim answer", "HTTP/1.1 100 Continue\r\n\r\n", Ends, "hangs up"),
    ("chunks in 1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Stays, "HTTP/1.0"),
    ("a 204", "HTTP/1.1 204 No Content\r\n\r\n", Stays, "status: 204"),
    ("with a length", "HTTP/1.1 204 No Content\r\nContent-Length: 9\r\n\r\n", Stays, "status: 204"),
    ("a 304", "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", Stays, "status: 304"),
    ("with chunks", "HTTP/1.1 304 No\r\nTransfer-Encoding: chunked\r\n\r\n", Stays, "status: 304"),
    ("a refusal without a length", "HTTP/1.1 404 Not Found\r\n\r\ngone", Ends, "status: 404"),
    ("nothing but a head", "HTTP/1.1 404 Not Found\r\n\r\n", Ends, "status: 404"),
    ("one cut off", "HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\ngone", Ends, "hangs up"),
    (
        "a time to come back",
        "HTTP/1.1 503 No\r\nRetry-After: 7\r\n\r\n",
        Ends,
        "retry_after: Some(7s)",
    ),
    (
        "a time that is none",
        "HTTP/1.1 503 No\r\nRetry-After: -7\r\n\r\n",
        Ends,
        "retry_after: None",
    ),
    ("one in bytes", "HTTP/1.1 301 Moved\r\nLocation: http://x/\r\n\r\n", Ends, "go to http://x/"),
];

/// A `200` of this body.
fn good(fields: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{JSON}{fields}\r\n{body}")
}

/// All rows, spelled out.
fn table() -> Vec<Case> {
    let (one, two) = PAGE.split_at(26);
    let mut cases = at_the_limits();
    let mut add = |rows: &[Row], spell: &dyn Fn(&str) -> String| {
        for &(name, text, then, says) in rows {
            cases.push(Case { name, answer: spell(text).into(), then, says });
        }
    };
    add(LINES, &|line| format!("{line}\r\n{JSON}{LENGTH}\r\n{PAGE}"));
    add(FIELDS, &|fields| good(fields, PAGE));
    add(CHUNKS, &|body| good(CHUNKED, &body.replace("{one}", one).replace("{two}", two)));
    add(ANSWERS, &str::to_owned);
    cases
}

/// What is just within the limits, and what is just beyond.
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
        ("interim answers", interim(MAX_INTERIM_RESPONSES), PAGE),
        ("one too many", interim(MAX_INTERIM_RESPONSES + 1), "answers 103 and not"),
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
    let case = |(name, answer, says): (_, String, _)| Case {
        name,
        answer: answer.into(),
        then: Stays,
        says,
    };
    cases.map(case).into()
}

#[test]
fn every_answer_has_its_verdict_however_it_comes() {
    for Case { name, answer, then, says } in table() {
        let whole = verdict(once(&*answer), then);
        assert!(whole.contains(says), "{name}: {whole}");
        // Of the largest ones, each byte would be a packet.
        if answer.len() < 2 * RESPONSE_HEAD_BYTES {
            let told = verdict(answer.chunks(1), then);
            assert!(told.contains(says), "{name}, byte by byte: {told}");
        }
    }
}

#[test]
fn an_answer_that_is_cut_off_anywhere_is_none() {
    let chunked = good(CHUNKED, &format!("42;a=b\r\n{PAGE}\r\n0\r\nA: b\r\n\r\n"));
    for answer in [good(LENGTH, PAGE), chunked] {
        for end in 0..answer.len() {
            let told = verdict(once(&answer.as_bytes()[..end]), Ends);
            assert!(told.contains("hangs up"), "{end}: {told}");
        }
    }
}

#[test]
fn answers_that_were_changed_on_the_way_have_a_verdict_too() {
    let answers: Vec<Vec<u8>> = table().into_iter().map(|case| case.answer).collect();
    let answers: Vec<Vec<u8>> = answers.into_iter().filter(|bytes| bytes.len() < 1_000).collect();
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..1_000 {
        let mut answer = random.choice(&answers).cloned().unwrap_or_default();
        for _ in 0..random.u8(1..=3) {
            let at = random.usize(..=answer.len());
            let to = at + random.usize(..=(answer.len() - at).min(20));
            match random.u8(..5) {
                0 => answer.truncate(at),
                1 => drop(answer.drain(at..to)),
                2 => answer.insert(at, b"\r\n :;,09afx\0\x80"[random.usize(..13)]),
                3 => answer.extend_from_within(at..to),
                _ => answer[at..to].iter_mut().for_each(|byte| *byte = random.u8(..)),
            }
        }
        let told = catch_unwind(|| verdict(once(&*answer), Ends));
        let shown = answer.escape_ascii();
        assert!(told.is_ok_and(|told| !told.is_empty()), "seed {seed}: {shown}");
    }
}
