//! Goal: what is made of an answer depends on its bytes, and never on the pieces in which they
//! come.

use super::*;

/// Reads a stream in these pieces: the answer, what is wrong with it, or nothing when the
/// connection ended before there was one.
fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Result<Option<Whole>, String> {
    let mut arriving = Arriving::new();
    for piece in pieces {
        for piece in piece.chunks(RESPONSE_HEAD_BYTES / 2) {
            arriving.room().extend_from_slice(piece);
            if let Some(whole) = arriving.read()? {
                return Ok(Some(whole));
            }
            let room = arriving.room();
            assert!(room.len() < room.capacity(), "it waits for more and takes none");
        }
    }
    Ok(arriving.end())
}

/// Answers of all kinds, good and bad.
const ANSWERS: &[&str] = &[
    "HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: 5\r\n\r\n[1,2]",
    "HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\n[1,\r\n2\r\n2]\r\n0\r\nA: b\r\n\r\n",
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103\nLink: x\n\nHTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    "HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\nnothing here",
    "HTTP/1.1 503 Busy\r\nRetry-After: 120\r\nContent-Length: 0\r\nConnection: x, Close\r\n\r\n",
    "HTTP/1.1 307 Elsewhere\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 204 Gone\r\nContent-Length: 9\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n00000001 \r\nx\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
];

#[test]
fn what_an_answer_says_is_read_from_it() {
    let read = |text: &str| read(std::iter::once(text.as_bytes())).unwrap().unwrap();
    let Whole { answer, keeps_alive } = read(ANSWERS[0]);
    assert_eq!((answer.status, &*answer.body), (200, &b"[1,2]"[..]));
    assert!(answer.is_json && keeps_alive);
    let Whole { answer, keeps_alive } = read(ANSWERS[1]);
    assert_eq!((answer.status, &*answer.body), (201, &b"[1,2]"[..]));
    assert!(!answer.is_json && keeps_alive);
    let Whole { answer, keeps_alive } = read(ANSWERS[2]);
    assert_eq!((answer.status, &*answer.body, keeps_alive), (200, &b"{}"[..], false));
    let Whole { answer, keeps_alive } = read(ANSWERS[3]);
    assert_eq!((answer.status, &*answer.body, keeps_alive), (404, &b"nothing here"[..], false));
    let Whole { answer, keeps_alive } = read(ANSWERS[4]);
    assert_eq!((answer.retry_after, keeps_alive), (Some(Duration::from_secs(120)), false));
    assert_eq!(read(ANSWERS[5]).answer.location.as_deref(), Some("/x"));
    let Whole { answer, keeps_alive } = read(ANSWERS[6]);
    assert_eq!((answer.status, &*answer.body, keeps_alive), (204, &b""[..], true));
}

#[test]
fn retry_after_is_a_number_of_seconds_or_a_date() {
    assert_eq!(retry_after(" 7 "), Some(Duration::from_secs(7)));
    assert_eq!(retry_after("Fri, 20 Nov 2015 12:00:00 GMT"), Some(Duration::ZERO));
    let soon = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(3_600));
    let soon = retry_after(&soon).unwrap();
    // Both clocks are the same one; the date has whole seconds.
    assert!((3_500..=3_600).contains(&soon.as_secs()), "{soon:?}");
    assert_eq!(retry_after("soon"), None);
}

#[test]
fn the_pieces_in_which_an_answer_comes_do_not_matter() {
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let telling = b"\r\n\t \0:;,=0159afxAHT/.\x15\x7f\x80\xff";
    for round in 0..20_000 {
        let mut bytes = ANSWERS[round % ANSWERS.len()].as_bytes().to_vec();
        // First each as it is.
        for _ in ANSWERS.len()..round.min(ANSWERS.len() + random.usize(1..4)) {
            let at = random.usize(..=bytes.len());
            let to = at + random.usize(..=(bytes.len() - at).min(20));
            match random.u8(..5) {
                0 => bytes.truncate(at),
                1 => drop(bytes.drain(at..to)),
                2 => bytes.insert(at, telling[random.usize(..telling.len())]),
                3 => bytes.extend_from_within(at..to),
                _ => bytes[at..to].iter_mut().take(1).for_each(|changed| *changed = random.u8(..)),
            }
        }
        let (one, other) = bytes.split_at(random.usize(..=bytes.len()));
        // Whether the connection can be used again is another matter: that depends on what has
        // come by then.
        let answer = |done: Result<Option<Whole>, String>| done.map(|done| Some(done?.answer));
        let whole = answer(read(std::iter::once(&*bytes)));
        for cut in [answer(read([one, other].into_iter())), answer(read(bytes.chunks(1)))] {
            assert_eq!(cut, whole, "seed {seed}: {}", bytes.escape_ascii());
        }
    }
}
