//! Command-line options of the form `--name value`, and the tags that are copied into the figures.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde_json::{Map, Value};

use crate::LoadResult;

/// Options are removed as they are read, so that [`Args::finish`] finds the unknown ones.
pub struct Args {
    options: BTreeMap<String, String>,
    command: Vec<String>,
    tags: Map<String, Value>,
}

impl Args {
    /// Parses `--name value` pairs and repeated `--tag name=value`; a lone `--` begins a command.
    pub fn parse(mut words: impl Iterator<Item = String>) -> LoadResult<Args> {
        let mut args = Args { options: BTreeMap::new(), command: Vec::new(), tags: Map::new() };
        while let Some(word) = words.next() {
            if word == "--" {
                args.command = words.by_ref().collect();
                break;
            }
            let name = word.strip_prefix("--").ok_or(format!("'{word}' is not an option"))?;
            let value = words.next().ok_or(format!("--{name} needs a value"))?;
            if name == "tag" {
                let (tag, value) = value.split_once('=').ok_or("--tag: expected name=value")?;
                let value = value.parse::<u64>().map_or_else(|_| Value::from(value), Value::from);
                args.tags.insert(tag.into(), value);
            } else if args.options.insert(name.into(), value).is_some() {
                return Err(format!("--{name} is given twice").into());
            }
        }
        Ok(args)
    }

    pub fn text(&mut self, name: &str) -> Option<String> {
        self.options.remove(name)
    }

    pub fn required(&mut self, name: &str) -> LoadResult<String> {
        self.text(name).ok_or_else(|| format!("--{name} is required").into())
    }

    pub fn number<T: FromStr>(&mut self, name: &str, default: T) -> LoadResult<T> {
        match self.text(name) {
            Some(text) => {
                text.parse().map_err(|_| format!("--{name} {text}: expected a number").into())
            }
            None => Ok(default),
        }
    }

    /// The words after `--`.
    pub fn command(&mut self) -> LoadResult<Vec<String>> {
        match std::mem::take(&mut self.command) {
            command if command.is_empty() => Err("expected a command after --".into()),
            command => Ok(command),
        }
    }

    /// Fails if an option or a word was given that no load has read.
    pub fn finish(&self) -> LoadResult<()> {
        match (self.options.keys().next(), self.command.first()) {
            (Some(name), _) => Err(format!("unknown option --{name}").into()),
            (None, Some(word)) => Err(format!("unexpected '{word}'").into()),
            (None, None) => Ok(()),
        }
    }

    /// The figures as one JSON object, tags first.
    pub fn with_tags(mut self, figures: Value) -> Value {
        if let Value::Object(figures) = figures {
            self.tags.extend(figures);
        }
        Value::Object(self.tags)
    }
}
