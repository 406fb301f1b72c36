//! Goal: every record parses back to what was written, and nothing else parses.

use super::*;
use std::time::Duration;

#[test]
fn every_body_keeps_its_bytes_and_its_kind() {
    let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_763_712_000_123);
    let topic = Name::new("news").unwrap();
    let control = vec![1; 300];
    let bodies: [(BodyKind, &[u8]); 10] = [
        (BodyKind::Json, b" {\"b\":1.10,\"a\":[]} "),
        (BodyKind::Json, b"{\n  \"a\": 1\n}\r\n"),
        (BodyKind::Json, b"\"}\""),
        (BodyKind::Text, b""),
        (BodyKind::Text, "he said \"h\u{e9}\"\n\\".as_bytes()),
        (BodyKind::Text, &control),
        (BodyKind::Binary, b"\xff\x00\n"),
        (BodyKind::Binary, b"text that was sent as bytes"),
        (BodyKind::Binary, b""),
        (BodyKind::Text, "\u{2028}}".as_bytes()),
    ];
    let key = StoredKey { id: KeyId(7), fingerprint: u128::MAX, count: Some(2) };
    for (kind, body) in bodies {
        for full in [false, true] {
            let content = EventContent {
                event_type: full.then(|| Name::new("alert").unwrap()),
                kind,
                content_type: full.then(|| "text/x; y=\"\\\"".into()),
                body: body.into(),
            };
            let mut json = Vec::new();
            let key = full.then_some(&key);
            let batch = if full { 2 } else { 1 };
            EventRecord { seq: Seq::new(9), topic: &topic, time, batch, key, content: &content }
                .write(&mut json);
            assert!(!json.contains(&b'\n'));
            let text = String::from_utf8(json.clone()).unwrap();
            let parsed: serde_json::Value = serde_json::from_str(&text).expect(&text);
            assert_eq!(parsed["seq"], 9);
            let Some(Record::Event(read)) = Record::parse(&json) else { panic!("{text}") };
            assert_eq!((read.seq, &read.topic, read.time), (Seq::new(9), &topic, time));
            assert_eq!((read.batch, read.key.as_ref()), (batch, key));
            assert_eq!(read.content.body, content.body, "{text}");
            assert_eq!(read.content.kind, kind, "{text}");
            assert_eq!(
                (read.content.event_type, read.content.content_type),
                (content.event_type, content.content_type)
            );
        }
    }
}

#[test]
fn malformed_records_do_not_parse() {
    for json in [
        "",
        "{}",
        "{\"seq\":1}",
        "{\"expire\":}",
        "{\"expire\":1,\"x\":2}",
        "{\"trim\":\"a b\"}",
        "{\"closed\":false}",
        "{\"trimmed\":\"a\",\"seqs\":[1,]}",
        "{\"used\":1",
        "{\"seq\":1,\"topic\":\"a\",\"time\":\"now\",\"text\":\"\"}",
        "{\"seq\":1,\"topic\":\"a\",\"time\":\"2026-01-01T00:00:00.000Z\",\"text\":\"\"",
        "{\"seq\":1,\"topic\":\"a\",\"time\":\"2026-01-01T00:00:00.000Z\",\"text\":\"\\\"}",
    ] {
        assert!(Record::parse(json.as_bytes()).is_none(), "{json}");
    }
}
