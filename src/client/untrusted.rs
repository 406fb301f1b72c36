//! Input that the client did not write: texts and JSON from a server, and small files.
//!
//! All of it is bounded, and a text is made printable before it reaches a terminal, because a
//! terminal obeys the control characters that it is sent.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Error, Read as _, Result};
use std::path::Path;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::limits::SERVER_TEXT_CHARS;

/// The members of a JSON object, each still in its original text: numbers keep all their digits.
pub struct JsonMembers<'a>(BTreeMap<&'a str, &'a RawValue>);

impl<'a> JsonMembers<'a> {
    /// Parses an object; `None` for anything else.
    pub fn parse(json: &'a [u8]) -> Option<JsonMembers<'a>> {
        serde_json::from_slice(json).ok().map(JsonMembers)
    }

    /// The value of a member; `None` when it is missing or has another type.
    pub fn get<T: Deserialize<'a>>(&self, name: &str) -> Option<T> {
        serde_json::from_slice(self.text(name)?.as_bytes()).ok()
    }

    /// The JSON text of a member's value.
    pub fn text(&self, name: &str) -> Option<&'a str> {
        self.0.get(name).map(|value| value.get())
    }
}

/// The first [`SERVER_TEXT_CHARS`] characters of a text, with spaces in place of control characters.
pub fn printable(text: &str) -> String {
    let shown = text.trim().chars().take(SERVER_TEXT_CHARS);
    shown.map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Reads a UTF-8 file of at most `max_bytes`.
pub fn read_small_file(path: &Path, max_bytes: usize) -> Result<String> {
    let mut text = String::new();
    File::open(path)?.take(max_bytes as u64 + 1).read_to_string(&mut text)?;
    if text.len() > max_bytes {
        return Err(Error::other(format!("is larger than {max_bytes} bytes")));
    }
    Ok(text)
}
