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

    /// The bells that ring for a topic. A poll's own bell may come twice.
    pub(super) fn for_topic<'h>(
        &'h self,
        topic: &str,
    ) -> impl Iterator<Item = &'h Arc<Bell<W, D>>> {
        let longest = if self.prefixes.is_empty() { None } else { Some(topic.len()) };
        let prefixes = longest.into_iter().flat_map(|longest| 0..=longest);
        self.topics
            .get(topic)
            .into_iter()
            .chain(prefixes.filter_map(|len| self.prefixes.get(&topic[..len])))
            .flat_map(BTreeMap::values)
    }

    /// Every bell, once for each place where it hangs.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Bell<W, D>>> {
        self.topics.values().chain(self.prefixes.values()).flat_map(BTreeMap::values)
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
