//! Names of topics and event types, and the patterns by which a poll selects topics.
//!
//! A [`Name`] is valid by construction, so no other module checks it again. Its characters need no
//! escaping in a URL, a header or JSON. A [`TopicSet`] drops patterns that another one covers, so
//! that no event is found twice.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use crate::limits::{NAME_CHARS, NAMES_PER_POLL};

/// The rule for names, for error texts.
pub const NAME_RULE: &str = "1 to 128 characters of A-Z a-z 0-9 . _ ~ -";

fn is_name_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'~' | b'-')
}

/// The name of a topic or an event type. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Name(Arc<str>);

impl Name {
    /// Checks the text against [`NAME_RULE`].
    #[must_use]
    pub fn new(text: &str) -> Option<Name> {
        let ok = (1..=NAME_CHARS).contains(&text.len()) && text.bytes().all(is_name_byte);
        ok.then(|| Name(text.into()))
    }

    /// The shared text, for a map that is keyed by it.
    #[must_use]
    pub fn as_arc(&self) -> &Arc<str> {
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

/// One entry in a poll's list of topics.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Pattern {
    Topic(Name),
    /// Every topic whose name begins with this text, including topics that do not exist yet.
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
        let ok = prefix.len() <= NAME_CHARS && prefix.bytes().all(is_name_byte);
        ok.then(|| Pattern::Prefix(prefix.into()))
    }

    #[must_use]
    pub fn is_prefix(&self) -> bool {
        matches!(self, Pattern::Prefix(_))
    }

    fn matches(&self, topic: &str) -> bool {
        match self {
            Pattern::Topic(name) => **name == *topic,
            Pattern::Prefix(prefix) => topic.starts_with(&**prefix),
        }
    }

    /// Whether this pattern matches every topic that `other` matches.
    fn covers(&self, other: &Pattern) -> bool {
        match (self, other) {
            (Pattern::Topic(a), Pattern::Topic(b)) => a == b,
            (Pattern::Topic(_), Pattern::Prefix(_)) => false,
            (Pattern::Prefix(a), Pattern::Topic(b)) => b.starts_with(&**a),
            (Pattern::Prefix(a), Pattern::Prefix(b)) => b.starts_with(&**a),
        }
    }
}

/// The topics of one poll: sorted patterns of which none covers another, so that two lists with the
/// same meaning compare equal.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct TopicSet(Arc<[Pattern]>);

impl TopicSet {
    /// Parses a comma-separated list.
    ///
    /// # Errors
    /// What is wrong with the list, and what is expected.
    pub fn parse(list: &str) -> Result<TopicSet, String> {
        let count = list.split(',').count();
        if count > NAMES_PER_POLL {
            return Err(format!("{count} topics; expected at most {NAMES_PER_POLL}"));
        }
        let mut patterns: Vec<Pattern> = Vec::with_capacity(count);
        for text in list.split(',') {
            let pattern = Pattern::parse(text).ok_or_else(|| {
                format!("topic {text:?} is invalid; expected {NAME_RULE}, or a prefix and *")
            })?;
            if !patterns.iter().any(|known| known.covers(&pattern)) {
                patterns.retain(|known| !pattern.covers(known));
                insert_sorted(&mut patterns, pattern);
            }
        }
        Ok(TopicSet(patterns.into()))
    }

    /// Whether this set matches every topic that `pattern` matches.
    #[must_use]
    pub fn covers(&self, pattern: &Pattern) -> bool {
        // A prefix matches topics that do not exist yet, so only a prefix of it can cover it.
        self.0.iter().any(|own| own.covers(pattern))
    }

    #[must_use]
    pub fn matches(&self, topic: &str) -> bool {
        self.0.iter().any(|pattern| pattern.matches(topic))
    }

    /// Whether this set is `*`.
    #[must_use]
    pub fn matches_all(&self) -> bool {
        matches!(&*self.0, [Pattern::Prefix(prefix)] if prefix.is_empty())
    }

    /// The patterns, none of which covers another.
    #[must_use]
    pub fn patterns(&self) -> &[Pattern] {
        &self.0
    }
}

impl fmt::Display for TopicSet {
    /// Formats the list as [`TopicSet::parse`] reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_list(f, self.0.iter())
    }
}

fn write_list<T: fmt::Display>(
    f: &mut fmt::Formatter<'_>,
    items: impl Iterator<Item = T>,
) -> fmt::Result {
    for (index, item) in items.enumerate() {
        f.write_str(if index == 0 { "" } else { "," })?;
        item.fmt(f)?;
    }
    Ok(())
}

/// Inserts an item unless the sorted list contains it. The lists are short; most have one item.
pub fn insert_sorted<T: Ord>(list: &mut Vec<T>, item: T) {
    if let Err(index) = list.binary_search(&item) {
        list.insert(index, item);
    }
}

/// The event types that a poll selects: all, or those in a sorted list.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct TypeFilter(Option<Arc<[Name]>>);

impl TypeFilter {
    /// Parses a comma-separated list.
    ///
    /// # Errors
    /// What is wrong with the list, and what is expected.
    pub fn parse(list: &str) -> Result<TypeFilter, String> {
        let count = list.split(',').count();
        if count > NAMES_PER_POLL {
            return Err(format!("{count} event types; expected at most {NAMES_PER_POLL}"));
        }
        let mut types = Vec::with_capacity(count);
        for text in list.split(',') {
            let event_type =
                Name::new(text).ok_or_else(|| format!("{text:?}: expected {NAME_RULE}"))?;
            insert_sorted(&mut types, event_type);
        }
        Ok(TypeFilter(Some(types.into())))
    }

    /// Whether the filter selects an event with this type, or with none.
    #[must_use]
    pub fn matches(&self, event_type: Option<&Name>) -> bool {
        match (&self.0, event_type) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(types), Some(event_type)) => types.binary_search(event_type).is_ok(),
        }
    }

    /// Whether the filter selects every event.
    #[must_use]
    pub fn matches_all(&self) -> bool {
        self.0.is_none()
    }
}

impl fmt::Display for TypeFilter {
    /// Formats the list as [`TypeFilter::parse`] reads it; an empty text for a filter without one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_list(f, self.0.iter().flat_map(|types| types.iter()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn covered_patterns_are_dropped() {
        let set = |list| TopicSet::parse(list).unwrap();
        assert_eq!(set("b,a,b"), set("a,b"));
        assert_eq!(set("a.x,a.*,a.b.*"), set("a.*"));
        assert_eq!(set("a,*"), set("*"));
        assert_ne!(set("a"), set("a*"));
        assert_eq!(set("n*,b,a,b").to_string(), "a,b,n*");
        assert_eq!(TypeFilter::parse("y,x,y").unwrap().to_string(), "x,y");
    }

    #[test]
    fn invalid_names_and_too_long_lists_are_refused() {
        for list in ["", "a,", ",", "a b", "a**", "*a", "a/b", "é", &"x".repeat(129)] {
            assert!(TopicSet::parse(list).is_err(), "{list}");
        }
        assert!(TopicSet::parse(&vec!["a"; 65].join(",")).is_err());
        assert!(TopicSet::parse(&"x".repeat(128)).is_ok());
    }
}
