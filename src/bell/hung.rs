//! Which bells ring for what.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::Bell;
use crate::names::{Pattern, TopicSet};

/// The bells of all patterns that somebody waits for.
pub(super) struct Hung<W, D> {
    topics: ByName<W, D>,
    prefixes: ByName<W, D>,
    next_own: u64,
}

/// The bell that polls of one pattern share is number 0; the others belong to one poll each.
type Bells<W, D> = BTreeMap<u64, Arc<Bell<W, D>>>;
type ByName<W, D> = HashMap<Arc<str>, Bells<W, D>>;
const SHARED: u64 = 0;

impl<W, D> Default for Hung<W, D> {
    fn default() -> Hung<W, D> {
        Hung { topics: HashMap::new(), prefixes: HashMap::new(), next_own: SHARED + 1 }
    }
}

impl<W, D> Hung<W, D> {
    /// Where the bells of a pattern hang, and under which name.
    fn hook<'p>(&mut self, pattern: &'p Pattern) -> (&mut ByName<W, D>, &'p Arc<str>) {
        match pattern {
            Pattern::Topic(name) => (&mut self.topics, name.text()),
            Pattern::Prefix(prefix) => (&mut self.prefixes, prefix),
        }
    }

    fn bells_at(&mut self, pattern: &Pattern) -> &mut Bells<W, D> {
        let (bells, name) = self.hook(pattern);
        bells.entry(Arc::clone(name)).or_default()
    }

    /// Takes a bell down at which nobody sits any more.
    pub(super) fn take_down(&mut self, pattern: &Pattern, own: u64) {
        let (bells, name) = self.hook(pattern);
        if let Some(hung) = bells.get_mut(name) {
            hung.remove(&own);
            if hung.is_empty() {
                bells.remove(name);
            }
        }
    }

    /// The bells that ring for a topic, each once.
    pub(super) fn for_topic(&self, topic: &str) -> Vec<Arc<Bell<W, D>>> {
        let longest = if self.prefixes.is_empty() { None } else { Some(topic.len()) };
        let prefixes = longest.into_iter().flat_map(|longest| 0..=longest);
        let prefixes = prefixes.filter_map(|length| self.prefixes.get(&topic[..length]));
        once_each(self.topics.get(topic).into_iter().chain(prefixes))
    }

    /// Every bell, once.
    pub(super) fn all(&self) -> Vec<Arc<Bell<W, D>>> {
        once_each(self.topics.values().chain(self.prefixes.values()))
    }

    /// The bell for a poll of these topics, hung up if it is not there yet.
    pub(super) fn bell_for(&mut self, topics: &TopicSet) -> (u64, Arc<Bell<W, D>>) {
        if let [pattern] = topics.patterns() {
            let bell = self.bells_at(pattern).entry(SHARED).or_insert_with(Bell::new);
            return (SHARED, Arc::clone(bell));
        }
        let (own, bell) = (self.next_own, Bell::new());
        self.next_own += 1;
        for pattern in topics.patterns() {
            self.bells_at(pattern).insert(own, Arc::clone(&bell));
        }
        (own, bell)
    }
}

/// A poll's own bell may hang in several of these places; a shared one hangs in one.
fn once_each<'h, W: 'h, D: 'h>(
    places: impl Iterator<Item = &'h Bells<W, D>>,
) -> Vec<Arc<Bell<W, D>>> {
    let mut bells = Vec::new();
    let mut own = Bells::new();
    for (&number, bell) in places.flatten() {
        if number == SHARED || own.insert(number, Arc::clone(bell)).is_none() {
            bells.push(Arc::clone(bell));
        }
    }
    bells
}
