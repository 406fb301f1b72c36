//! Guards the syntax of WebSocket: a table of handshakes and frames in bytes, with the answer that
//! RFC 6455 asks for. The table also has valid ones, so that strictness does not refuse them.

use super::websocket::{handshake, open_raw};
use crate::support::{Client, Server, wait_until};

/// The key of the example in RFC 6455, section 1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// Values of `Sec-WebSocket-Key` and whether they are accepted. A key is 16 bytes in base64 (section
/// 4.2.1): 22 characters of its alphabet and two of padding. Pad bits may be set (RFC 4648, section
/// 3.5, leaves that to the decoder), because small clients draw 22 random characters.
const KEYS: &[(&str, &str, bool)] = &[
    ("the key of the example", KEY, true),
    ("white space around a key", "  dGhlIHNhbXBsZSBub25jZQ== \t", true),
    ("every bit is set", "/////////////////////w==", true),
    ("the two marks of the alphabet", "+/+/+/+/+/+/+/+/+/+/+A==", true),
    ("pad bits are set", "dGhlIHNhbXBsZSBub25jZR==", true),
    ("an empty key", "", false),
    ("24 characters that are no base64", "!!!!!!!!!!!!!!!!!!!!!!!!", false),
    ("24 characters of the alphabet are 18 bytes", "dGhlIHNhbXBsZSBub25jZXMh", false),
    ("17 bytes", "dGhlIHNhbXBsZSBub25jZXM=", false),
    ("15 bytes", "dGhlIHNhbXBsZSBub25j", false),
    ("16 bytes without padding", "dGhlIHNhbXBsZSBub25jZQ", false),
    ("16 bytes with half the padding", "dGhlIHNhbXBsZSBub25jZQ=", false),
    ("padding inside", "dGhlIHNhbXBsZSBub25=ZQ==", false),
    ("padding alone", "========================", false),
    ("the alphabet for URLs", "_-_-_-_-_-_-_-_-_-_-_A==", false),
    ("a blank inside", "dGhlIHNhbXBs ZSBub25jZQ==", false),
    ("a blank for a character", "dGhlIHNhbXBs SBub25jZQ==", false),
    ("two keys in one field", "dGhlIHNhbXBsZSBub25jZQ==, dGhlIHNhbXBsZSBub25jZQ==", false),
    ("characters beyond ASCII", "dGhlIHNhbXBsZSBub25j\u{e9}==", false),
];

#[test]
fn handshake_key_is_16_bytes_in_base64() {
    let server = Server::start(&[]);
    for (name, key, is_accepted) in KEYS {
        let mut client = server.connect();
        let field = format!("Sec-WebSocket-Key: {key}");
        client.send(handshake("/topics/news?since=now", "Sec-WebSocket-Key", &field));
        if *is_accepted {
            let response = client.response_head();
            assert_eq!(response.status, 101, "{name}: {response:?}");
            let accepts_example =
                response.header("Sec-WebSocket-Accept") == Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
            assert_eq!(accepts_example, key.trim() == KEY, "{name}");
        } else {
            let response = client.response();
            assert_eq!(response.status, 400, "{name}: {response:?}");
            assert!(
                response.detail().contains("16 random bytes in base64"),
                "{name}: {response:?}"
            );
            // The connection goes on, because the request was read whole.
            assert_eq!(client.get("/health").status, 200, "{name}");
        }
    }
}

/// A frame with a mask of zeros: its first byte, the bytes of its length, its payload.
fn frame(first: u8, length: &[u8], payload: &[u8]) -> Vec<u8> {
    let (short, extended) = length.split_first().unwrap();
    [&[first, 0x80 | short], extended, &[0; 4], payload].concat()
}

/// A name, the bytes that a client sends, and the code of the close frame that answers them.
type Row = (&'static str, Vec<u8>, u16);

/// The bytes of a length in its longest form.
fn u64_length(length: u64) -> Vec<u8> {
    [&[127][..], &length.to_be_bytes()].concat()
}

fn heads() -> Vec<Row> {
    vec![
        // Section 5.1: a client masks every frame.
        ("a text without a mask", b"\x81\x01x".to_vec(), 1002),
        ("a ping without a mask", b"\x89\x00".to_vec(), 1002),
        ("a close without a mask", b"\x88\x02\x03\xe8".to_vec(), 1002),
        ("a text without a mask, before it arrives", b"\x81\x7e\x03\xe8".to_vec(), 1002),
        // Section 5.2: reserved bits are 0 without an extension, and opcodes are defined.
        ("the bit of compressed messages", frame(0xc1, &[1], b"x"), 1002),
        ("the second reserved bit", frame(0xa1, &[1], b"x"), 1002),
        ("the third reserved bit", frame(0x91, &[1], b"x"), 1002),
        ("a reserved bit of a ping", frame(0xc9, &[1], b"x"), 1002),
        ("a reserved bit of a close", frame(0xc8, &[2], b"\x03\xe8"), 1002),
        ("the first reserved opcode of data", frame(0x83, &[1], b"x"), 1002),
        ("the last reserved opcode of data", frame(0x87, &[1], b"x"), 1002),
        ("the first reserved control opcode", frame(0x8b, &[1], b"x"), 1002),
        ("the last reserved control opcode", frame(0x8f, &[0], b""), 1002),
        ("a reserved opcode and a huge length", frame(0x83, &u64_length(1 << 62), b""), 1002),
    ]
}

/// Section 5.2: a length takes the fewest bytes that can hold it, and has no top bit.
fn lengths() -> Vec<Row> {
    let text = [b'x'; 1000];
    let too_large = [frame(0x01, &[126, 0x03, 0xe8], &text), frame(0x80, &[1], b"x")].concat();
    vec![
        ("a length below 126 in two bytes", frame(0x81, &[126, 0, 125], &text[..125]), 1002),
        ("a length of zero in two bytes", frame(0x81, &[126, 0, 0], b""), 1002),
        ("a length below 126 in eight bytes", frame(0x81, &u64_length(125), &text[..125]), 1002),
        ("a length of two bytes in eight", frame(0x81, &u64_length(200), &text[..200]), 1002),
        ("the longest length of two bytes in eight", frame(0x81, &u64_length(0xffff), b""), 1002),
        ("every bit of a length is set", frame(0x81, &u64_length(u64::MAX), b""), 1002),
        ("the top bit of a length is set", frame(0x81, &u64_length(1 << 63 | 5), b"hello"), 1002),
        ("the top bit of a binary frame's length", frame(0x82, &u64_length(1 << 63), b""), 1002),
        ("the largest length", frame(0x81, &u64_length(u64::MAX >> 1), b""), 1009),
        ("a length beyond 32 bits", frame(0x81, &u64_length(1 << 32 | 5), b"hello"), 1009),
        ("a text beyond --max-event", frame(0x81, &[126, 0x03, 0xe9], b""), 1009),
        ("fragments beyond --max-event together", too_large, 1009),
    ]
}

fn fragments_and_control_frames() -> Vec<Row> {
    let ping = [b'p'; 126];
    let close = [&b"\x03\xe8"[..], &ping[..124]].concat();
    let two = |first: Vec<u8>, second: Vec<u8>| [first, second].concat();
    let begins = || frame(0x01, &[1], b"x");
    vec![
        // Section 5.4: a continuation continues a message, and messages do not overlap.
        ("a continuation of nothing", frame(0x80, &[1], b"x"), 1002),
        ("a continuation of nothing that goes on", frame(0x00, &[1], b"x"), 1002),
        ("a text inside another", two(begins(), frame(0x81, &[1], b"x")), 1002),
        ("a binary frame inside a text", two(begins(), frame(0x82, &[1], b"x")), 1002),
        // Section 5.5: control frames have 125 bytes at most, are whole, and may stand anywhere.
        ("a fragmented ping", frame(0x09, &[1], b"x"), 1002),
        ("a fragmented pong", frame(0x0a, &[1], b"x"), 1002),
        ("a fragmented close", frame(0x08, &[2], b"\x03\xe8"), 1002),
        ("a ping of 126 bytes", frame(0x89, &[126, 0, 126], &ping), 1002),
        ("a pong of 126 bytes", frame(0x8a, &[126, 0, 126], &ping), 1002),
        ("a close of 126 bytes", frame(0x88, &[126, 0, 126], &close), 1002),
        ("a ping beyond --max-event", frame(0x89, &[126, 0xff, 0xff], b""), 1002),
        ("a ping of zero bytes, said in two", frame(0x89, &[126, 0, 0], b""), 1002),
        ("a close inside a text", two(begins(), frame(0x88, &[2], b"\x03\xe8")), 1000),
        (
            "a ping of 125 bytes",
            two(frame(0x89, &[125], &ping[..125]), frame(0x88, &[0], b"")),
            1000,
        ),
        ("a pong without a ping", two(frame(0x8a, &[1], b"x"), frame(0x88, &[0], b"")), 1000),
        // Section 5.6: a text is UTF-8, and this server takes no other message.
        ("a text that is not UTF-8", frame(0x81, &[1], b"\xff"), 1007),
        ("a surrogate", frame(0x81, &[3], b"\xed\xa0\x80"), 1007),
        ("a text that ends inside a character", frame(0x81, &[1], b"\xc3"), 1007),
        (
            "fragments that are not UTF-8",
            two(frame(1, &[1], b"\xc3"), frame(0x80, &[1], b"x")),
            1007,
        ),
        ("a binary message", frame(0x82, &[1], b"x"), 1003),
        ("the first fragment of a binary message", frame(0x02, &[1], b"x"), 1003),
    ]
}

/// Payloads of a close frame and the code of the answer. Section 7.4 and the registry of IANA define
/// 1000 to 1003 and 1007 to 1014; applications use 3000 to 4999. 1005, 1006 and 1015 are never sent,
/// and the other numbers below 3000 are not defined.
fn closes() -> Vec<(Vec<u8>, u16)> {
    let valid = [1000..=1003, 1007..=1014, 3000..=3001, 3999..=4000, 4998..=4999];
    let invalid = [
        0..=1,
        255..=256,
        998..=999,
        1004..=1006,
        1015..=1017,
        1100..=1100,
        1999..=2000,
        2998..=2999,
        5000..=5001,
        65534..=65535,
    ];
    let mut rows = vec![
        // No code is a normal close, half a code is none, and a reason is UTF-8 (section 5.5.1).
        (b"".to_vec(), 1000),
        (b"\x03".to_vec(), 1002),
        (b"\x03\xe9going away".to_vec(), 1001),
        ([&b"\x03\xe8"[..], &[b'x'; 123]].concat(), 1000),
        (b"\x03\xe8\xc3\xa9".to_vec(), 1000),
        (b"\x03\xe8\xff".to_vec(), 1007),
        (b"\x03\xe8caf\xc3".to_vec(), 1007),
        (b"\x03\xe8\xed\xa0\x80".to_vec(), 1007),
    ];
    for code in valid.into_iter().flatten() {
        rows.push((u16::to_be_bytes(code).to_vec(), code));
    }
    for code in invalid.into_iter().flatten() {
        rows.push((u16::to_be_bytes(code).to_vec(), 1002));
    }
    rows
}

fn send_at_once(client: &mut Client, bytes: &[u8]) {
    client.send(bytes);
}

fn send_one_by_one(client: &mut Client, bytes: &[u8]) {
    for byte in bytes {
        client.send([*byte]);
    }
}

/// Sends bytes on a new connection, in one packet or in many, and returns the code of the close
/// frame that ends it. `None` when the server goes on instead.
fn close_code(server: &Server, bytes: &[u8], send: fn(&mut Client, &[u8])) -> Option<u16> {
    let mut client = open_raw(server);
    send(&mut client, bytes);
    // The server ignores what follows an error or a close.
    client.send(frame(0x81, &[8], b"too late"));
    let is_heartbeat = |bytes: &&[u8]| *bytes == b"\x89\x12";
    // The first heartbeat comes at once. A second one shows that the server waits for more.
    while client.reader.buffered().windows(2).filter(is_heartbeat).count() < 2 {
        if client.reader.fill() == 0 {
            let received = client.reader.take_buffered();
            let (rest, code) = received.split_last_chunk()?;
            return rest.ends_with(&[0x88, 2]).then(|| u16::from_be_bytes(*code));
        }
    }
    None
}

/// Checks every row, and that no text of a row was published.
fn assert_codes<'r>(rows: impl Iterator<Item = (String, &'r [u8], u16)>) {
    let server = Server::start(&["--max-event", "1000"]);
    let mut failures = Vec::new();
    for (name, bytes, expected) in rows {
        for send in [send_at_once, send_one_by_one] {
            let code = close_code(&server, bytes, send);
            if code != Some(expected) {
                failures.push(format!("{name}: expected {expected}, got {code:?}"));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert_eq!(server.metric("publishes_total"), 0.0);
    server.wait_until_held(0);
}

#[test]
fn every_row_of_frames_is_closed_with_its_code() {
    let rows = [heads(), lengths(), fragments_and_control_frames()].concat();
    assert_codes(rows.iter().map(|(name, bytes, code)| ((*name).to_owned(), &bytes[..], *code)));
}

#[test]
fn every_close_code_is_answered_as_its_registry_says() {
    let rows = closes().into_iter().map(|(payload, code)| {
        (format!("{payload:?}"), frame(0x88, &[payload.len() as u8], &payload), code)
    });
    let rows: Vec<_> = rows.collect();
    assert_codes(rows.iter().map(|(name, bytes, code)| (name.clone(), &bytes[..], *code)));
}

#[test]
fn texts_at_the_bounds_of_the_three_forms_of_a_length_are_published() {
    let server = Server::start(&["--max-event", "70000"]);
    let mut client = open_raw(&server);
    let texts = [0, 1, 125, 126, 0xffff, 0x1_0000, 70_000].map(|length: usize| {
        let digits = (0..10).cycle().map(|digit| char::from(b'0' + digit));
        digits.take(length).collect::<String>()
    });
    for text in &texts {
        let length = text.len() as u64;
        let length = match length {
            0..=125 => vec![0x80 | length as u8],
            126..=0xffff => [&[0xfe][..], &length.to_be_bytes()[6..]].concat(),
            _ => [&[0xff][..], &length.to_be_bytes()].concat(),
        };
        let mask = [0x37, 0xfa, 0x21, 0x3d];
        let masked: Vec<u8> = text.bytes().zip(mask.iter().cycle()).map(|(b, m)| b ^ m).collect();
        client.send([&[0x81][..], &length, &mask, &masked].concat());
    }
    wait_until("every text is published", || {
        server.metric("publishes_total") == texts.len() as f64
    });
    assert_eq!(server.get("/topics/news?wait=0").data(), texts);
}
