//! JSON: an object writer that keeps the order of its members, and a validator for published
//! bodies.
//!
//! `serde_json` formats strings and numbers. The writer exists because an event's JSON body is sent
//! as it was received, with digits and member order unchanged, and without being parsed for each
//! reader.

use std::cell::Cell;
use std::fmt;
use std::time::SystemTime;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::limits::MAX_JSON_DEPTH;
use crate::time::push_rfc3339;

/// A JSON object that is appended to a buffer, member by member.
pub struct JsonObject<'a> {
    out: &'a mut Vec<u8>,
    is_empty: bool,
}

impl<'a> JsonObject<'a> {
    /// Appends the opening brace.
    pub fn begin(out: &'a mut Vec<u8>) -> JsonObject<'a> {
        out.push(b'{');
        JsonObject { out, is_empty: true }
    }

    /// Appends a key: a literal of the protocol or a topic name, neither of which needs escaping.
    fn key(&mut self, key: &str) -> &mut Vec<u8> {
        self.out.reserve(key.len() + 4);
        // Single bytes are pushed: appending them as slices, with one call each, was a tenth of the
        // cost of a publish.
        if !std::mem::take(&mut self.is_empty) {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(key.as_bytes());
        self.out.push(b'"');
        self.out.push(b':');
        self.out
    }

    pub fn number(&mut self, key: &str, value: u64) -> &mut Self {
        push_number(self.key(key), value);
        self
    }

    /// Adds a string that needs no escaping: a name, a cursor, a time.
    pub fn unescaped(&mut self, key: &str, value: &str) -> &mut Self {
        let out = self.key(key);
        out.reserve(value.len() + 2);
        out.push(b'"');
        out.extend_from_slice(value.as_bytes());
        out.push(b'"');
        self
    }

    /// Adds a time in RFC 3339.
    pub fn time(&mut self, key: &str, value: SystemTime) -> &mut Self {
        let out = self.key(key);
        out.push(b'"');
        push_rfc3339(out, value);
        out.push(b'"');
        self
    }

    pub fn string(&mut self, key: &str, value: &str) -> &mut Self {
        push_string(self.key(key), value);
        self
    }

    pub fn boolean(&mut self, key: &str, value: bool) -> &mut Self {
        let text: &[u8] = if value { b"true" } else { b"false" };
        self.key(key).extend_from_slice(text);
        self
    }

    /// Adds validated JSON text, on one line: line breaks become spaces. They can only be between
    /// tokens, as [`validate`] refuses them in strings.
    pub fn raw(&mut self, key: &str, json: &[u8]) -> &mut Self {
        let out = self.key(key);
        let start = out.len();
        out.extend_from_slice(json);
        for b in &mut out[start..] {
            if matches!(b, b'\n' | b'\r') {
                *b = b' ';
            }
        }
        self
    }

    /// Adds the value that `write` appends, which has to be one JSON value.
    pub fn with(&mut self, key: &str, write: impl FnOnce(&mut Vec<u8>)) -> &mut Self {
        write(self.key(key));
        self
    }

    /// Appends the closing brace.
    pub fn end(self) {
        self.out.push(b'}');
    }
}

/// Formats a string as JSON, with quotes.
#[must_use]
pub fn encode_string(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    push_string(&mut out, text);
    out
}

fn push_string(out: &mut Vec<u8>, text: &str) {
    // Writing to a Vec cannot fail.
    let _ = serde_json::to_writer(out, text);
}

/// Appends a number in decimal.
pub fn push_number(out: &mut Vec<u8>, value: u64) {
    let _ = serde_json::to_writer(out, &value);
}

/// Checks that the text is one JSON value that any client can parse: RFC 8259, at most
/// [`MAX_JSON_DEPTH`] levels deep, numbers within a double's range, no lone surrogates.
///
/// # Errors
/// The first fault and its position.
pub fn validate(text: &[u8]) -> Result<(), String> {
    let deepest = Cell::new(0);
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    // Visits each part and keeps none. Unlike `IgnoredAny`, this checks strings and numbers.
    let value = DepthChecker { depth: 0, deepest: &deepest }.deserialize(&mut deserializer);
    let result = value.and_then(|()| deserializer.end());
    // The visitor only records the depth: refusing there would add two kilobytes of code, by which
    // `serde_json` formats custom errors. `serde_json` bounds the recursion at a depth of its own.
    if deepest.get() > MAX_JSON_DEPTH {
        return Err(format!("nested more than {MAX_JSON_DEPTH} levels deep"));
    }
    result.map_err(|e| e.to_string())
}

/// A visitor of a value at this depth, which records the greatest depth.
#[derive(Clone, Copy)]
struct DepthChecker<'a> {
    depth: usize,
    deepest: &'a Cell<usize>,
}

impl DepthChecker<'_> {
    fn one_level_deeper(self) -> Self {
        let depth = self.depth + 1;
        self.deepest.set(self.deepest.get().max(depth));
        DepthChecker { depth, ..self }
    }
}

impl<'de> DeserializeSeed<'de> for DepthChecker<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for DepthChecker<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let inner = self.one_level_deeper();
        while seq.next_element_seed(inner)?.is_some() {}
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let inner = self.one_level_deeper();
        while map.next_entry_seed(inner, inner)?.is_some() {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_json_value_is_valid() {
        for good in ["0", " null ", "\"\\u00e9\"", "[1,2.5e3,{\"a\":[]}]", "-1", "\"\u{1f600}\""] {
            assert!(validate(good.as_bytes()).is_ok(), "{good}");
        }
        for bad in [
            "",
            " ",
            "1 2",
            "{",
            "[1,]",
            "nul",
            "'a'",
            "\"\\ud800\"",
            "01",
            "{\"a\":1,}",
            "NaN",
            "\u{feff}1",
        ] {
            assert!(validate(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(validate(b"\"\xff\"").is_err());
    }

    #[test]
    fn nesting_deeper_than_the_limit_is_refused() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(validate(nested(MAX_JSON_DEPTH).as_bytes()).is_ok());
        for depth in [MAX_JSON_DEPTH + 1, 60_000] {
            assert_eq!(
                validate(nested(depth).as_bytes()),
                Err("nested more than 120 levels deep".into())
            );
        }
    }

    #[test]
    fn raw_json_is_written_on_one_line() {
        let mut out = Vec::new();
        let mut object = JsonObject::begin(&mut out);
        object.number("n", 3).raw("data", b"{\n \"a\": 1.10}\r\n");
        object.end();
        assert_eq!(out, b"{\"n\":3,\"data\":{  \"a\": 1.10}  }");
    }
}
