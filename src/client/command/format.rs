//! The output formats of `longpoll follow`.
//!
//! The formats serve other programs as much as people. `json` and `ndjson` are the server's text,
//! digit for digit; `raw` is the publisher's body, line ends included. A template is parsed once,
//! and its errors are reported before the first request.

use crate::client::event::{ReceivedEvent, ReceivedPage};

/// How events are printed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OutputFormat {
    /// One line per response, as the server wrote it.
    Json,
    /// One line per event, as the server wrote it.
    Ndjson,
    /// The event's own bytes.
    Raw,
    /// One line per event, made of these parts.
    Template(Vec<TemplatePart>),
}

/// A part of a template.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TemplatePart {
    Text(String),
    Field(EventField),
}

/// A field of an event that a template can contain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EventField {
    Seq,
    Topic,
    Time,
    Type,
    Data,
    Json,
}

const EVENT_FIELDS: [(&str, EventField); 6] = [
    ("seq", EventField::Seq),
    ("topic", EventField::Topic),
    ("time", EventField::Time),
    ("type", EventField::Type),
    ("data", EventField::Data),
    ("json", EventField::Json),
];

impl OutputFormat {
    /// Parses the name of a format, or a template.
    ///
    /// # Errors
    /// Says what is expected.
    pub fn parse(text: &str) -> Result<OutputFormat, String> {
        match text {
            "json" => Ok(OutputFormat::Json),
            "ndjson" => Ok(OutputFormat::Ndjson),
            "raw" => Ok(OutputFormat::Raw),
            _ if text.contains('{') => parse_template(text).map(OutputFormat::Template),
            _ => Err("expected json, ndjson, raw, or a template such as '{topic} {data}'".into()),
        }
    }

    /// Encodes a page for stdout, in lines.
    pub fn encode_page(&self, page: &ReceivedPage) -> Vec<u8> {
        let mut out = Vec::with_capacity(page.json.len() + 1);
        if *self == OutputFormat::Json && !page.events.is_empty() {
            out.extend_from_slice(page.json.as_bytes());
            out.push(b'\n');
            return out;
        }
        for event in &page.events {
            self.push_event(&mut out, event);
            out.push(b'\n');
        }
        out
    }

    /// Encodes the event of a one-event page for the stdin of a command: a line or, for `raw`, the
    /// event's own bytes without a line end.
    pub fn encode_for_command(&self, event: &ReceivedEvent, page: &ReceivedPage) -> Vec<u8> {
        match self {
            OutputFormat::Raw => event.data.bytes().to_vec(),
            _ => self.encode_page(page),
        }
    }

    fn push_event(&self, out: &mut Vec<u8>, event: &ReceivedEvent) {
        match self {
            OutputFormat::Json | OutputFormat::Ndjson => {
                out.extend_from_slice(event.json.as_bytes());
            }
            OutputFormat::Raw => out.extend_from_slice(event.data.bytes()),
            OutputFormat::Template(parts) => {
                for part in parts {
                    part.push(out, event);
                }
            }
        }
    }
}

impl TemplatePart {
    fn push(&self, out: &mut Vec<u8>, event: &ReceivedEvent) {
        let bytes = match self {
            TemplatePart::Text(text) => text.as_bytes(),
            TemplatePart::Field(EventField::Seq) => {
                return crate::json::push_number(out, event.seq);
            }
            TemplatePart::Field(EventField::Topic) => event.topic.as_bytes(),
            TemplatePart::Field(EventField::Time) => event.time.as_bytes(),
            TemplatePart::Field(EventField::Type) => {
                event.event_type.as_deref().unwrap_or_default().as_bytes()
            }
            TemplatePart::Field(EventField::Data) => event.data.bytes(),
            TemplatePart::Field(EventField::Json) => event.json.as_bytes(),
        };
        out.extend_from_slice(bytes);
    }
}

fn parse_template(template: &str) -> Result<Vec<TemplatePart>, String> {
    let mut parts = Vec::new();
    let mut text = String::new();
    let mut chars = template.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '{' if chars.next_if_eq(&'{').is_some() => text.push('{'),
            '}' if chars.next_if_eq(&'}').is_some() => text.push('}'),
            '}' => return Err("a } without a {; write }} for a literal }".into()),
            '{' => {
                let name: String = std::iter::from_fn(|| chars.next_if(|c| *c != '}')).collect();
                if chars.next().is_none() {
                    return Err("a { without a }; write {{ for a literal {".into());
                }
                if !text.is_empty() {
                    parts.push(TemplatePart::Text(std::mem::take(&mut text)));
                }
                parts.push(TemplatePart::Field(parse_field(&name)?));
            }
            '\\' => text.push(match chars.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some('\\') => '\\',
                _ => return Err("a \\ without an escape; expected \\n, \\t or \\\\".into()),
            }),
            c => text.push(c),
        }
    }
    if !text.is_empty() {
        parts.push(TemplatePart::Text(text));
    }
    Ok(parts)
}

fn parse_field(name: &str) -> Result<EventField, String> {
    let field = EVENT_FIELDS.iter().find(|(known, _)| *known == name);
    field.map(|(_, field)| *field).ok_or_else(|| {
        let known: Vec<_> = EVENT_FIELDS.iter().map(|(known, _)| *known).collect();
        format!("no field {name:?}; expected one of {}", known.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_parsed_into_texts_and_fields() {
        let parts = parse_template("{{{seq}}}\\t{data}\\\\é").unwrap();
        let text = |text: &str| TemplatePart::Text(text.into());
        let expected = [
            text("{"),
            TemplatePart::Field(EventField::Seq),
            text("}\t"),
            TemplatePart::Field(EventField::Data),
            text("\\é"),
        ];
        assert_eq!(parts, expected);
    }

    #[test]
    fn invalid_formats_are_refused_with_a_reason() {
        for text in
            ["", "JSON", "xml", "{", "{seq", "{sequence}", "{}", "{seq}}", "{seq}\\x", "{seq}\\"]
        {
            assert!(!OutputFormat::parse(text).unwrap_err().is_empty(), "{text}");
        }
        assert!(OutputFormat::parse("{sequence}").unwrap_err().contains("seq, topic"));
    }
}
