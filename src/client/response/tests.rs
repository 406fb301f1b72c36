//! Goal: the parsed response depends only on its bytes, never on the pieces in which they arrive.

use super::*;

/// Parses a stream that arrives in these pieces: the response, an error, or `None` when the
/// connection ended before the response was complete.
fn parse_pieces<'a>(
    pieces: impl Iterator<Item = &'a [u8]>,
) -> Result<Option<CompleteResponse>, String> {
    let mut parser = ResponseParser::new();
    for piece in pieces {
        for piece in piece.chunks(RESPONSE_HEAD_BYTES / 2) {
            parser.input_buffer().extend_from_slice(piece);
            if let Some(complete) = parser.parse()? {
                return Ok(Some(complete));
            }
            let buffer = parser.input_buffer();
            assert!(buffer.len() < buffer.capacity(), "no capacity for the rest of the response");
        }
    }
    Ok(parser.finish())
}

/// Responses of all kinds, valid and invalid.
const RESPONSES: &[&str] = &[
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
fn status_fields_and_body_are_parsed() {
    let parse = |text: &str| parse_pieces(std::iter::once(text.as_bytes())).unwrap().unwrap();
    let CompleteResponse { response, keeps_alive } = parse(RESPONSES[0]);
    assert_eq!((response.status, &*response.body), (200, &b"[1,2]"[..]));
    assert!(response.is_json && keeps_alive);
    let CompleteResponse { response, keeps_alive } = parse(RESPONSES[1]);
    assert_eq!((response.status, &*response.body), (201, &b"[1,2]"[..]));
    assert!(!response.is_json && keeps_alive);
    let CompleteResponse { response, keeps_alive } = parse(RESPONSES[2]);
    assert_eq!((response.status, &*response.body, keeps_alive), (200, &b"{}"[..], false));
    let CompleteResponse { response, keeps_alive } = parse(RESPONSES[3]);
    assert_eq!((response.status, &*response.body, keeps_alive), (404, &b"nothing here"[..], false));
    let CompleteResponse { response, keeps_alive } = parse(RESPONSES[4]);
    assert_eq!((response.retry_after, keeps_alive), (Some(Duration::from_secs(120)), false));
    assert_eq!(parse(RESPONSES[5]).response.location.as_deref(), Some("/x"));
    let CompleteResponse { response, keeps_alive } = parse(RESPONSES[6]);
    assert_eq!((response.status, &*response.body, keeps_alive), (204, &b""[..], true));
}

#[test]
fn retry_after_is_a_number_of_seconds_or_a_date() {
    assert_eq!(parse_retry_after(" 7 "), Some(Duration::from_secs(7)));
    assert_eq!(parse_retry_after("Fri, 20 Nov 2015 12:00:00 GMT"), Some(Duration::ZERO));
    let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(3_600));
    let retry_after = parse_retry_after(&date).unwrap();
    // Both sides read the same clock; the date has whole seconds.
    assert!((3_500..=3_600).contains(&retry_after.as_secs()), "{retry_after:?}");
    assert_eq!(parse_retry_after("soon"), None);
}

#[test]
fn the_result_does_not_depend_on_the_pieces() {
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let syntax_bytes = b"\r\n\t \0:;,=0159afxAHT/.\x15\x7f\x80\xff";
    for round in 0..20_000 {
        let mut bytes = RESPONSES[round % RESPONSES.len()].as_bytes().to_vec();
        // The first rounds use each response unchanged.
        for _ in RESPONSES.len()..round.min(RESPONSES.len() + random.usize(1..4)) {
            let at = random.usize(..=bytes.len());
            let to = at + random.usize(..=(bytes.len() - at).min(20));
            match random.u8(..5) {
                0 => bytes.truncate(at),
                1 => drop(bytes.drain(at..to)),
                2 => bytes.insert(at, syntax_bytes[random.usize(..syntax_bytes.len())]),
                3 => bytes.extend_from_within(at..to),
                _ => bytes[at..to].iter_mut().take(1).for_each(|byte| *byte = random.u8(..)),
            }
        }
        let (first, second) = bytes.split_at(random.usize(..=bytes.len()));
        // Only `keeps_alive` may differ: it depends on the input that has arrived by then.
        let response = |result: Result<Option<CompleteResponse>, String>| {
            result.map(|complete| Some(complete?.response))
        };
        let whole = response(parse_pieces(std::iter::once(&*bytes)));
        let halves = response(parse_pieces([first, second].into_iter()));
        let single_bytes = response(parse_pieces(bytes.chunks(1)));
        for result in [halves, single_bytes] {
            assert_eq!(result, whole, "seed {seed}: {}", bytes.escape_ascii());
        }
    }
}
