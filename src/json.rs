//! Writing and checking JSON: an object writer that keeps the order of its members, and the test
//! that a published body is one JSON value.
//!
//! Strings and numbers are `serde_json`'s. The writer exists because an event's JSON body goes out
//! as it came in, digits and member order untouched, without being parsed again for each reader.

use std::cell::Cell;
use std::fmt;
use std::time::SystemTime;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::limits::MAX_JSON_DEPTH;
use crate::time::push_rfc3339;

/// An object being written to the end of `out`.
pub struct JsonObject<'a> {
    out: &'a mut Vec<u8>,
    empty: bool,
}

impl<'a> JsonObject<'a> {
    /// Opens the object.
    pub fn open(out: &'a mut Vec<u8>) -> JsonObject<'a> {
        out.push(b'{');
        JsonObject { out, empty: true }
    }

    /// Keys are words of the contract or topic names: there is nothing in them to escape.
    fn key(&mut self, key: &str) -> &mut Vec<u8> {
        self.out.reserve(key.len() + 4);
        // Single bytes are pushed: a call each, to append them as slices, was a tenth of what a
        // publish costs.
        if !std::mem::take(&mut self.empty) {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(key.as_bytes());
        self.out.push(b'"');
        self.out.push(b':');
        self.out
    }

    /// A number.
    pub fn number(&mut self, key: &str, value: u64) -> &mut Self {
        push_number(self.key(key), value);
        self
    }

    /// A string in which there is nothing to escape: a name, a cursor, a time.
    pub fn plain(&mut self, key: &str, value: &str) -> &mut Self {
        let out = self.key(key);
        out.reserve(value.len() + 2);
        out.push(b'"');
        out.extend_from_slice(value.as_bytes());
        out.push(b'"');
        self
    }

    /// A moment, as RFC 3339.
    pub fn time(&mut self, key: &str, value: SystemTime) -> &mut Self {
        let out = self.key(key);
        out.push(b'"');
        push_rfc3339(out, value);
        out.push(b'"');
        self
    }

    /// A string.
    pub fn string(&mut self, key: &str, value: &str) -> &mut Self {
        push_string(self.key(key), value);
        self
    }

    /// `true` or `false`.
    pub fn boolean(&mut self, key: &str, value: bool) -> &mut Self {
        let text: &[u8] = if value { b"true" } else { b"false" };
        self.key(key).extend_from_slice(text);
        self
    }

    /// JSON text that was checked when it came in, on one line: outside of strings, where alone a
    /// line break can stand, it is as good as a space.
    pub fn checked(&mut self, key: &str, json: &[u8]) -> &mut Self {
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

    /// Whatever `write` puts there, which has to be one JSON value.
    pub fn nested(&mut self, key: &str, write: impl FnOnce(&mut Vec<u8>)) -> &mut Self {
        write(self.key(key));
        self
    }

    /// Closes the object.
    pub fn close(self) {
        self.out.push(b'}');
    }
}

/// A string as JSON.
#[must_use]
pub fn string(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    push_string(&mut out, text);
    out
}

fn push_string(out: &mut Vec<u8>, text: &str) {
    // Writing to a Vec cannot fail.
    let _ = serde_json::to_writer(out, text);
}

/// Writes a number in decimal.
pub fn push_number(out: &mut Vec<u8>, value: u64) {
    let _ = serde_json::to_writer(out, &value);
}

/// Checks that the text is one JSON value that any reader can take: RFC 8259, nested at most
/// [`MAX_JSON_DEPTH`] deep, numbers within a double's range, no lone surrogates.
///
/// # Errors
/// What is wrong with it and where.
pub fn check(text: &[u8]) -> Result<(), String> {
    let deepest = Cell::new(0);
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    // Visiting each part without keeping any: unlike `IgnoredAny` this checks strings and numbers.
    let value = DepthChecker { depth: 0, deepest: &deepest }.deserialize(&mut deserializer);
    let whole = value.and_then(|()| deserializer.end());
    // Not for the visitor to refuse: `serde_json`, which stops at a depth of its own, writes
    // errors of others' with two kilobytes of code.
    if deepest.get() > MAX_JSON_DEPTH {
        return Err(format!("nested more than {MAX_JSON_DEPTH} deep"));
    }
    whole.map_err(|e| e.to_string())
}

/// A value inside of so many arrays and objects.
#[derive(Clone, Copy)]
struct DepthChecker<'a> {
    depth: usize,
    deepest: &'a Cell<usize>,
}

impl DepthChecker<'_> {
    fn inner(self) -> Self {
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
        let inner = self.inner();
        while seq.next_element_seed(inner)?.is_some() {}
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let inner = self.inner();
        while map.next_entry_seed(inner, inner)?.is_some() {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_and_nothing_else_passes() {
        for good in ["0", " null ", "\"\\u00e9\"", "[1,2.5e3,{\"a\":[]}]", "-1", "\"\u{1f600}\""] {
            assert!(check(good.as_bytes()).is_ok(), "{good}");
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
            assert!(check(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(check(b"\"\xff\"").is_err());
    }

    #[test]
    fn nesting_has_a_bound() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(check(nested(MAX_JSON_DEPTH).as_bytes()).is_ok());
        for depth in [MAX_JSON_DEPTH + 1, 60_000] {
            assert_eq!(check(nested(depth).as_bytes()), Err("nested more than 120 deep".into()));
        }
    }

    #[test]
    fn a_checked_value_goes_out_on_one_line() {
        let mut out = Vec::new();
        let mut object = JsonObject::open(&mut out);
        object.number("n", 3).checked("data", b"{\n \"a\": 1.10}\r\n");
        object.close();
        assert_eq!(out, b"{\"n\":3,\"data\":{  \"a\": 1.10}  }");
    }
}
