//! What an event looks like when it is printed.
//!
//! Formats are for other programs as much as for people. `json` and `ndjson` are what the server
//! wrote, digit for digit; `raw` is what the publisher sent, line ends and all. A template is read
//! once, and what is wrong with it is told before anything is asked.

use crate::client::{Event, Page};

/// How events are printed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Format {
    /// A line for each answer, as the server wrote it.
    Json,
    /// A line for each event, as the server wrote it.
    Ndjson,
    /// An event's own bytes.
    Raw,
    /// A line made of these.
    Template(Vec<Part>),
}

/// A piece of a template.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Part {
    Text(String),
    Field(Field),
}

/// What a template can show.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Field {
    Seq,
    Topic,
    Time,
    Type,
    Data,
    Json,
}

const FIELDS: [(&str, Field); 6] = [
    ("seq", Field::Seq),
    ("topic", Field::Topic),
    ("time", Field::Time),
    ("type", Field::Type),
    ("data", Field::Data),
    ("json", Field::Json),
];

impl Format {
    /// Reads the name of a format, or a template.
    ///
    /// # Errors
    /// Says what is allowed.
    pub fn parse(text: &str) -> Result<Format, String> {
        match text {
            "json" => Ok(Format::Json),
            "ndjson" => Ok(Format::Ndjson),
            "raw" => Ok(Format::Raw),
            _ if text.contains('{') => template(text).map(Format::Template),
            _ => Err("allowed is json, ndjson, raw, or a template such as '{topic} {data}'".into()),
        }
    }

    /// A page as it is printed: in lines.
    pub fn lines(&self, page: &Page) -> Vec<u8> {
        let mut out = Vec::with_capacity(page.json.len() + 1);
        if *self == Format::Json && !page.events.is_empty() {
            out.extend_from_slice(page.json.as_bytes());
            out.push(b'\n');
            return out;
        }
        for event in &page.events {
            self.push(&mut out, event);
            out.push(b'\n');
        }
        out
    }

    /// A page of one event as a command gets it: a line, or the event's own bytes and no more.
    pub fn input(&self, event: &Event, page: &Page) -> Vec<u8> {
        match self {
            Format::Raw => event.data.bytes().to_vec(),
            _ => self.lines(page),
        }
    }

    fn push(&self, out: &mut Vec<u8>, event: &Event) {
        match self {
            Format::Json | Format::Ndjson => out.extend_from_slice(event.json.as_bytes()),
            Format::Raw => out.extend_from_slice(event.data.bytes()),
            Format::Template(parts) => parts.iter().for_each(|part| part.push(out, event)),
        }
    }
}

impl Part {
    fn push(&self, out: &mut Vec<u8>, event: &Event) {
        match self {
            Part::Text(text) => out.extend_from_slice(text.as_bytes()),
            Part::Field(Field::Seq) => crate::json::push_number(out, event.seq),
            Part::Field(Field::Topic) => out.extend_from_slice(event.topic.as_bytes()),
            Part::Field(Field::Time) => out.extend_from_slice(event.time.as_bytes()),
            Part::Field(Field::Type) => {
                out.extend_from_slice(event.tag.as_deref().unwrap_or_default().as_bytes());
            }
            Part::Field(Field::Data) => out.extend_from_slice(event.data.bytes()),
            Part::Field(Field::Json) => out.extend_from_slice(event.json.as_bytes()),
        }
    }
}

fn template(text: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut plain = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '{' if chars.next_if_eq(&'{').is_some() => plain.push('{'),
            '}' if chars.next_if_eq(&'}').is_some() => plain.push('}'),
            '}' => return Err("a } without {; }} is one".into()),
            '{' => {
                let name: String = std::iter::from_fn(|| chars.next_if(|c| *c != '}')).collect();
                if chars.next().is_none() {
                    return Err("a { without }; {{ is one".into());
                }
                let field = FIELDS.iter().find(|(known, _)| *known == name);
                let (_, field) = field.ok_or_else(|| {
                    let known: Vec<_> = FIELDS.iter().map(|(known, _)| *known).collect();
                    format!("no field {name:?}; there are {}", known.join(", "))
                })?;
                if !plain.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut plain)));
                }
                parts.push(Part::Field(*field));
            }
            '\\' => plain.push(match chars.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some('\\') => '\\',
                _ => return Err("after a \\ there may be n, t or \\".into()),
            }),
            c => plain.push(c),
        }
    }
    if !plain.is_empty() {
        parts.push(Part::Text(plain));
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_read_into_texts_and_fields() {
        let parts = template("{{{seq}}}\\t{data}\\\\é").unwrap();
        let text = |text: &str| Part::Text(text.into());
        let expected = [
            text("{"),
            Part::Field(Field::Seq),
            text("}\t"),
            Part::Field(Field::Data),
            text("\\é"),
        ];
        assert_eq!(parts, expected);
    }

    #[test]
    fn what_is_no_format_is_refused_with_what_is() {
        for text in
            ["", "JSON", "xml", "{", "{seq", "{sequence}", "{}", "{seq}}", "{seq}\\x", "{seq}\\"]
        {
            assert!(!Format::parse(text).unwrap_err().is_empty(), "{text}");
        }
        assert!(Format::parse("{sequence}").unwrap_err().contains("seq, topic"));
    }
}
