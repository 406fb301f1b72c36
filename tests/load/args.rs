//! `--name value` arguments, and the tags that are copied into the figures.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde_json::{Map, Value};

use crate::wire::Outcome;

pub struct Args {
    named: BTreeMap<String, String>,
    rest: Vec<String>,
    tags: Map<String, Value>,
}

impl Args {
    /// Everything after a lone `--` is kept as it is. `--tag name=value` may be repeated.
    pub fn parse(mut words: impl Iterator<Item = String>) -> Outcome<Args> {
        let mut args = Args { named: BTreeMap::new(), rest: Vec::new(), tags: Map::new() };
        while let Some(word) = words.next() {
            if word == "--" {
                args.rest = words.by_ref().collect();
                break;
            }
            let name = word.strip_prefix("--").ok_or(format!("'{word}' is not an option"))?;
            let value = words.next().ok_or(format!("--{name} needs a value"))?;
            if name == "tag" {
                let (tag, value) = value.split_once('=').ok_or("--tag takes name=value")?;
                let value = value.parse::<u64>().map_or_else(|_| Value::from(value), Value::from);
                args.tags.insert(tag.into(), value);
            } else if args.named.insert(name.into(), value).is_some() {
                return Err(format!("--{name} is given twice").into());
            }
        }
        Ok(args)
    }

    pub fn text(&mut self, name: &str) -> Option<String> {
        self.named.remove(name)
    }

    pub fn number<T: FromStr>(&mut self, name: &str, default: T) -> Outcome<T> {
        match self.named.remove(name) {
            Some(text) => {
                text.parse().map_err(|_| format!("--{name}: '{text}' is not a number").into())
            }
            None => Ok(default),
        }
    }

    pub fn rest(&mut self) -> Outcome<Vec<String>> {
        match std::mem::take(&mut self.rest) {
            rest if rest.is_empty() => Err("a command is needed after --".into()),
            rest => Ok(rest),
        }
    }

    /// After every known option has been taken: what is left is a mistake.
    pub fn finish(&self) -> Outcome<()> {
        match (self.named.keys().next(), self.rest.first()) {
            (Some(name), _) => Err(format!("unknown option --{name}").into()),
            (None, Some(word)) => Err(format!("unexpected '{word}'").into()),
            (None, None) => Ok(()),
        }
    }

    /// The figures as one line of JSON, tags first.
    pub fn tagged(mut self, figures: Value) -> Value {
        if let Value::Object(figures) = figures {
            self.tags.extend(figures);
        }
        Value::Object(self.tags)
    }
}
