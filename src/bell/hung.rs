//! Which bells ring for what.
//!
//! Nearly all polls ask for one topic or one prefix, and all that ask for the same share one bell:
//! a ring then finds a thousand waiters by one look. A poll of several has one of its own, hung up
//! in several places, so that it waits at one place only and is woken once. A publish finds its
//! bells by its topic's name and each beginning of that, however many prefixes are waited for.

use std::collections::HashMap;
use std::sync::Arc;

use super::Bell;
use crate::names::{Pattern, TopicSet};

/// The bells of all patterns that somebody waits for.
pub(super) struct Hung<W, D> {
    topics: Places<W, D>,
    prefixes: Places<W, D>,
    /// Every poll's own bell; it hangs in several places.
    own: Own<W, D>,
    next_own: u64,
}

/// Where the bells of one pattern hang.
struct Place<W, D> {
    /// The bell of all polls that ask for nothing else.
    shared: Option<Arc<Bell<W, D>>>,
    own: Own<W, D>,
}

type Places<W, D> = HashMap<Arc<str>, Place<W, D>>;
type Own<W, D> = HashMap<u64, Arc<Bell<W, D>>>;

/// Stands for the bell that polls of one pattern share, where otherwise is a poll's own number.
const SHARED: u64 = 0;

impl<W, D> Default for Hung<W, D> {
    fn default() -> Hung<W, D> {
        let (topics, prefixes) = (HashMap::new(), HashMap::new());
        Hung { topics, prefixes, own: HashMap::new(), next_own: SHARED + 1 }
    }
}

impl<W, D> Hung<W, D> {
    /// Where the bells of a pattern hang, and under which name.
    fn hook<'p>(&mut self, pattern: &'p Pattern) -> (&mut Places<W, D>, &'p Arc<str>) {
        match pattern {
            Pattern::Topic(name) => (&mut self.topics, name.text()),
            Pattern::Prefix(prefix) => (&mut self.prefixes, prefix),
        }
    }

    fn place(&mut self, pattern: &Pattern) -> &mut Place<W, D> {
        let (places, name) = self.hook(pattern);
        let empty = || Place { shared: None, own: HashMap::new() };
        places.entry(Arc::clone(name)).or_insert_with(empty)
    }

    /// The bell for a poll of these topics, hung up if it is not there yet.
    pub(super) fn bell_for(&mut self, topics: &TopicSet) -> (u64, Arc<Bell<W, D>>) {
        if let [pattern] = topics.patterns() {
            let bell = self.place(pattern).shared.get_or_insert_with(Bell::new);
            return (SHARED, Arc::clone(bell));
        }
        let (own, bell) = (self.next_own, Bell::new());
        self.next_own += 1;
        self.own.insert(own, Arc::clone(&bell));
        for pattern in topics.patterns() {
            self.place(pattern).own.insert(own, Arc::clone(&bell));
        }
        (own, bell)
    }

    /// Takes a bell down at which nobody sits any more.
    pub(super) fn take_down(&mut self, topics: &TopicSet, own: u64) {
        self.own.remove(&own);
        for pattern in topics.patterns() {
            let (places, name) = self.hook(pattern);
            if let Some(place) = places.get_mut(name) {
                match own {
                    SHARED => place.shared = None,
                    own => drop(place.own.remove(&own)),
                }
                if place.shared.is_none() && place.own.is_empty() {
                    places.remove(name);
                }
            }
        }
    }

    /// The bells that ring for a topic, each once: a poll has no two patterns for one topic.
    pub(super) fn for_topic(&self, topic: &str) -> Vec<Arc<Bell<W, D>>> {
        let mut bells = Vec::new();
        let mut take = |place: Option<&Place<W, D>>| {
            if let Some(place) = place {
                bells.extend(place.shared.iter().chain(place.own.values()).cloned());
            }
        };
        take(self.topics.get(topic));
        if !self.prefixes.is_empty() {
            (0..=topic.len()).for_each(|length| take(self.prefixes.get(&topic[..length])));
        }
        bells
    }

    /// Every bell, once.
    pub(super) fn all(&self) -> Vec<Arc<Bell<W, D>>> {
        let places = self.topics.values().chain(self.prefixes.values());
        let shared = places.filter_map(|place| place.shared.as_ref());
        shared.chain(self.own.values()).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_there_while_a_bell_hangs_at_it() {
        let mut hung = Hung::<(), ()>::default();
        let lists = ["a", "a,b*", "*", "a,b*"].map(|list| TopicSet::parse(list).unwrap());
        let owns = lists.clone().map(|topics| hung.bell_for(&topics).0);
        assert_eq!(
            (hung.all().len(), hung.for_topic("a").len(), hung.for_topic("b").len()),
            (4, 4, 3)
        );
        assert_eq!((hung.topics.len(), hung.prefixes.len()), (1, 2));
        for (topics, own) in lists.iter().zip(owns) {
            hung.take_down(topics, own);
        }
        assert_eq!(hung.all().len(), 0);
        assert_eq!((hung.topics.len(), hung.prefixes.len()), (0, 0));
    }
}
