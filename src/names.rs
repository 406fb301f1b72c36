//! Names: topics, event types, and the patterns by which a poll asks for topics.
//!
//! A [`Name`] can only be made from text that the wire contract allows, so nothing further in has
//! to check again. The few characters that it may have need no escaping in a URL, a header or JSON.
//! A list of patterns keeps only what nothing else in it covers, so that no event can be found
//! twice.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use crate::limits::{NAME_CHARS, NAMES_PER_POLL};

/// What a name may be, as errors say it.
pub const NAME_RULE: &str = "1 to 128 characters of A-Z a-z 0-9 . _ ~ -";

fn allowed(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'~' | b'-')
}

/// A topic's name or an event's type. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Name(Arc<str>);

impl Name {
    /// The name, when the text is one.
    #[must_use]
    pub fn new(text: &str) -> Option<Name> {
        let ok = (1..=NAME_CHARS).contains(&text.len()) && text.bytes().all(allowed);
        ok.then(|| Name(text.into()))
    }

    /// The shared text.
    #[must_use]
    pub fn text(&self) -> &Arc<str> {
        &self.0
    }
}

impl Deref for Name {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One part of a poll's topic list.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Pattern {
    /// This topic.
    Topic(Name),
    /// Every topic whose name begins so, those not yet made included.
    Prefix(Arc<str>),
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pattern::Topic(name) => name.fmt(f),
            Pattern::Prefix(prefix) => write!(f, "{prefix}*"),
        }
    }
}

impl Pattern {
    fn parse(text: &str) -> Option<Pattern> {
        let Some(prefix) = text.strip_suffix('*') else {
            return Name::new(text).map(Pattern::Topic);
        };
        let ok = prefix.len() <= NAME_CHARS && prefix.bytes().all(allowed);
        ok.then(|| Pattern::Prefix(prefix.into()))
    }

    /// Whether every topic that `other` stands for is one of this pattern's.
    fn covers(&self, other: &Pattern) -> bool {
        match (self, other) {
            (Pattern::Topic(a), Pattern::Topic(b)) => a == b,
            (Pattern::Topic(_), Pattern::Prefix(_)) => false,
            (Pattern::Prefix(a), Pattern::Topic(b)) => b.starts_with(&**a),
            (Pattern::Prefix(a), Pattern::Prefix(b)) => b.starts_with(&**a),
        }
    }
}

/// The topics of one poll: sorted, and no topic covered twice, so that equal sets are equal.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct TopicSet(Arc<[Pattern]>);

impl TopicSet {
    /// Reads a comma-separated list.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it and what is allowed.
    pub fn parse(list: &str) -> Result<TopicSet, String> {
        let count = list.split(',').count();
        if count > NAMES_PER_POLL {
            return Err(format!("{count} topics named; one poll may name {NAMES_PER_POLL}"));
        }
        let mut patterns: Vec<Pattern> = Vec::with_capacity(count);
        for text in list.split(',') {
            let pattern = Pattern::parse(text).ok_or_else(|| {
                format!("topic {text:?} is not {NAME_RULE}, nor a prefix of those that ends in *")
            })?;
            if !patterns.iter().any(|known| known.covers(&pattern)) {
                patterns.retain(|known| !pattern.covers(known));
                insert_sorted(&mut patterns, pattern);
            }
        }
        Ok(TopicSet(patterns.into()))
    }

    /// Whether every topic that `pattern` stands for is one of these.
    #[must_use]
    pub fn covers(&self, pattern: &Pattern) -> bool {
        // Only a shorter prefix holds all of a prefix's topics: those to come are without number.
        self.0.iter().any(|own| own.covers(pattern))
    }

    /// The patterns, none of which covers another.
    #[must_use]
    pub fn patterns(&self) -> &[Pattern] {
        &self.0
    }
}

impl fmt::Display for TopicSet {
    /// The list again, as [`TopicSet::parse`] takes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, pattern) in self.0.iter().enumerate() {
            f.write_str(if place == 0 { "" } else { "," })?;
            match pattern {
                Pattern::Topic(name) => name.fmt(f)?,
                Pattern::Prefix(prefix) => write!(f, "{prefix}*")?,
            }
        }
        Ok(())
    }
}

/// Inserts what is not there yet. The lists are short and mostly of one.
pub fn insert_sorted<T: Ord>(list: &mut Vec<T>, item: T) {
    if let Err(place) = list.binary_search(&item) {
        list.insert(place, item);
    }
}

/// The event types that a poll keeps: all, or those named.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct TypeFilter(Option<Arc<[Name]>>);

impl TypeFilter {
    /// Reads a comma-separated list.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it and what is allowed.
    pub fn parse(list: &str) -> Result<TypeFilter, String> {
        let count = list.split(',').count();
        if count > NAMES_PER_POLL {
            return Err(format!("{count} event types named; one poll may name {NAMES_PER_POLL}"));
        }
        let mut types = Vec::with_capacity(count);
        for text in list.split(',') {
            let event_type =
                Name::new(text).ok_or_else(|| format!("{text:?} is not {NAME_RULE}"))?;
            insert_sorted(&mut types, event_type);
        }
        Ok(TypeFilter(Some(types.into())))
    }

    /// Whether an event with this type (or none) is wanted.
    #[must_use]
    pub fn keeps(&self, event_type: Option<&Name>) -> bool {
        match (&self.0, event_type) {
            (None, _) => true,
            (Some(_), None) => false,
            // They are sorted.
            (Some(types), Some(event_type)) => types.binary_search(event_type).is_ok(),
        }
    }

    /// Whether every event is wanted.
    #[must_use]
    pub fn keeps_all(&self) -> bool {
        self.0.is_none()
    }
}

impl fmt::Display for TypeFilter {
    /// The list again, as [`TypeFilter::parse`] takes it; nothing when all are wanted.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, name) in self.0.iter().flat_map(|types| types.iter()).enumerate() {
            f.write_str(if place == 0 { "" } else { "," })?;
            name.fmt(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_keeps_only_what_nothing_else_covers() {
        let set = |list| TopicSet::parse(list).unwrap();
        assert_eq!(set("b,a,b"), set("a,b"));
        assert_eq!(set("a.x,a.*,a.b.*"), set("a.*"));
        assert_eq!(set("a,*"), set("*"));
        assert_ne!(set("a"), set("a*"));
        assert_eq!(set("n*,b,a,b").to_string(), "a,b,n*");
        assert_eq!(TypeFilter::parse("y,x,y").unwrap().to_string(), "x,y");
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for list in ["", "a,", ",", "a b", "a**", "*a", "a/b", "é", &"x".repeat(129)] {
            assert!(TopicSet::parse(list).is_err(), "{list}");
        }
        assert!(TopicSet::parse(&vec!["a"; 65].join(",")).is_err());
        assert!(TopicSet::parse(&"x".repeat(128)).is_ok());
    }
}
