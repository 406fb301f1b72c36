//! Which bells ring for what.
//!
//! Nearly all polls ask for one topic or one prefix, and all that ask for the same share one bell:
//! a ring then finds a thousand waiters by one look. A poll of several has one of its own, hung up
//! in several places, so that it waits at one place only and is woken once. A publish finds its
//! bells by its topic's name and each beginning of that, however many prefixes are waited for.

use std::collections::HashMap;
use std::sync::Arc;

use super::WaitQueue;
use crate::names::{Pattern, TopicSet};

/// The bells of all patterns that somebody waits for.
pub(super) struct TopicIndex<W, D> {
    topics: PatternMap<W, D>,
    prefixes: PatternMap<W, D>,
    /// Every poll's own bell; it hangs in several places.
    own: OwnQueues<W, D>,
    next_own: u64,
}

/// Where the bells of one pattern hang.
struct PatternQueues<W, D> {
    /// The bell of all polls that ask for nothing else.
    shared: Option<Arc<WaitQueue<W, D>>>,
    own: OwnQueues<W, D>,
}

type PatternMap<W, D> = HashMap<Arc<str>, PatternQueues<W, D>>;
type OwnQueues<W, D> = HashMap<u64, Arc<WaitQueue<W, D>>>;

/// Stands for the bell that polls of one pattern share, where otherwise is a poll's own number.
const SHARED: u64 = 0;

impl<W, D> Default for TopicIndex<W, D> {
    fn default() -> TopicIndex<W, D> {
        let (topics, prefixes) = (HashMap::new(), HashMap::new());
        TopicIndex { topics, prefixes, own: HashMap::new(), next_own: SHARED + 1 }
    }
}

impl<W, D> TopicIndex<W, D> {
    /// Where the bells of a pattern hang, and under which name.
    fn hook<'p>(&mut self, pattern: &'p Pattern) -> (&mut PatternMap<W, D>, &'p Arc<str>) {
        match pattern {
            Pattern::Topic(name) => (&mut self.topics, name.as_arc()),
            Pattern::Prefix(prefix) => (&mut self.prefixes, prefix),
        }
    }

    fn queues_of(&mut self, pattern: &Pattern) -> &mut PatternQueues<W, D> {
        let (map, name) = self.hook(pattern);
        let empty = || PatternQueues { shared: None, own: HashMap::new() };
        map.entry(Arc::clone(name)).or_insert_with(empty)
    }

    /// The bell for a poll of these topics, hung up if it is not there yet.
    pub(super) fn queue_for(&mut self, topics: &TopicSet) -> (u64, Arc<WaitQueue<W, D>>) {
        if let [pattern] = topics.patterns() {
            let queue = self.queues_of(pattern).shared.get_or_insert_with(WaitQueue::new);
            return (SHARED, Arc::clone(queue));
        }
        let (own, queue) = (self.next_own, WaitQueue::new());
        self.next_own += 1;
        self.own.insert(own, Arc::clone(&queue));
        for pattern in topics.patterns() {
            self.queues_of(pattern).own.insert(own, Arc::clone(&queue));
        }
        (own, queue)
    }

    /// Takes a bell down at which nobody sits any more.
    pub(super) fn remove_queue(&mut self, topics: &TopicSet, own: u64) {
        self.own.remove(&own);
        for pattern in topics.patterns() {
            let (map, name) = self.hook(pattern);
            if let Some(queues_of) = map.get_mut(name) {
                match own {
                    SHARED => queues_of.shared = None,
                    own => drop(queues_of.own.remove(&own)),
                }
                if queues_of.shared.is_none() && queues_of.own.is_empty() {
                    map.remove(name);
                }
            }
        }
    }

    /// The bells that ring for a topic, each once: a poll has no two patterns for one topic.
    pub(super) fn queues_for_topic(&self, topic: &str) -> Vec<Arc<WaitQueue<W, D>>> {
        let mut queues = Vec::new();
        let mut take = |queues_of: Option<&PatternQueues<W, D>>| {
            if let Some(queues_of) = queues_of {
                queues.extend(queues_of.shared.iter().chain(queues_of.own.values()).cloned());
            }
        };
        take(self.topics.get(topic));
        if !self.prefixes.is_empty() {
            (0..=topic.len()).for_each(|length| take(self.prefixes.get(&topic[..length])));
        }
        queues
    }

    /// Every bell, once.
    pub(super) fn all(&self) -> Vec<Arc<WaitQueue<W, D>>> {
        let map = self.topics.values().chain(self.prefixes.values());
        let shared = map.filter_map(|queues_of| queues_of.shared.as_ref());
        shared.chain(self.own.values()).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_there_while_a_bell_hangs_at_it() {
        let mut index = TopicIndex::<(), ()>::default();
        let lists = ["a", "a,b*", "*", "a,b*"].map(|list| TopicSet::parse(list).unwrap());
        let owns = lists.clone().map(|topics| index.queue_for(&topics).0);
        assert_eq!(
            (
                index.all().len(),
                index.queues_for_topic("a").len(),
                index.queues_for_topic("b").len()
            ),
            (4, 4, 3)
        );
        assert_eq!((index.topics.len(), index.prefixes.len()), (1, 2));
        for (topics, own) in lists.iter().zip(owns) {
            index.remove_queue(topics, own);
        }
        assert_eq!(index.all().len(), 0);
        assert_eq!((index.topics.len(), index.prefixes.len()), (0, 0));
    }
}
