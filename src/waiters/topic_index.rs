//! Which wait queues a publish to a topic notifies.
//!
//! Nearly all polls request one topic or one prefix, and all polls of the same pattern share one
//! queue: a publish then finds a thousand waiters by one lookup. A poll of several patterns has a
//! dedicated queue, indexed under each of them, so that it waits in one place and is woken once. A
//! publish looks up its topic's name and each beginning of that name, so the cost of a lookup does
//! not depend on how many prefixes have waiters.

use std::collections::HashMap;
use std::sync::Arc;

use crate::names::{Pattern, TopicSet};

/// The queues of all patterns that have waiters. Generic over the queue `Q`: the index creates,
/// finds and removes queues, and knows nothing of waiting.
#[derive(Default)]
pub(super) struct TopicIndex<Q> {
    topics: PatternMap<Q>,
    prefixes: PatternMap<Q>,
    /// Every dedicated queue once; each is also in the entries of its patterns.
    dedicated: DedicatedQueues<Q>,
    last_id: u64,
}

/// Identifies a dedicated queue in the index.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct QueueId(u64);

/// The queues of one pattern.
struct PatternQueues<Q> {
    /// Shared by the polls that request this pattern and nothing else.
    shared: Option<Arc<Q>>,
    dedicated: DedicatedQueues<Q>,
}

type PatternMap<Q> = HashMap<Arc<str>, PatternQueues<Q>>;
type DedicatedQueues<Q> = HashMap<QueueId, Arc<Q>>;

impl<Q: Default> TopicIndex<Q> {
    /// The map that has a pattern's entry, and the entry's key.
    fn map_of<'p>(&mut self, pattern: &'p Pattern) -> (&mut PatternMap<Q>, &'p Arc<str>) {
        match pattern {
            Pattern::Topic(name) => (&mut self.topics, name.as_arc()),
            Pattern::Prefix(prefix) => (&mut self.prefixes, prefix),
        }
    }

    fn entry(&mut self, pattern: &Pattern) -> &mut PatternQueues<Q> {
        let (map, key) = self.map_of(pattern);
        let empty = || PatternQueues { shared: None, dedicated: HashMap::new() };
        map.entry(Arc::clone(key)).or_insert_with(empty)
    }

    /// The queue for a poll of these topics, created if necessary. The id is `None` for a shared
    /// queue.
    pub(super) fn queue_for(&mut self, topics: &TopicSet) -> (Option<QueueId>, Arc<Q>) {
        if let [pattern] = topics.patterns() {
            let queue = self.entry(pattern).shared.get_or_insert_default();
            return (None, Arc::clone(queue));
        }
        self.last_id += 1;
        let (id, queue) = (QueueId(self.last_id), Arc::<Q>::default());
        self.dedicated.insert(id, Arc::clone(&queue));
        for pattern in topics.patterns() {
            self.entry(pattern).dedicated.insert(id, Arc::clone(&queue));
        }
        (Some(id), queue)
    }

    /// Removes the queue that [`TopicIndex::queue_for`] returned for these topics.
    pub(super) fn remove_queue(&mut self, topics: &TopicSet, id: Option<QueueId>) {
        if let Some(id) = id {
            self.dedicated.remove(&id);
        }
        for pattern in topics.patterns() {
            let (map, key) = self.map_of(pattern);
            if let Some(entry) = map.get_mut(key) {
                match id {
                    None => entry.shared = None,
                    Some(id) => drop(entry.dedicated.remove(&id)),
                }
                if entry.shared.is_none() && entry.dedicated.is_empty() {
                    map.remove(key);
                }
            }
        }
    }

    /// The queues that a publish to a topic notifies, each once: the patterns of a [`TopicSet`]
    /// do not overlap, so at most one of them matches a topic.
    pub(super) fn queues_for_topic(&self, topic: &str) -> Vec<Arc<Q>> {
        let mut queues = Vec::new();
        let mut add = |entry: Option<&PatternQueues<Q>>| {
            if let Some(entry) = entry {
                queues.extend(entry.shared.iter().chain(entry.dedicated.values()).cloned());
            }
        };
        add(self.topics.get(topic));
        if !self.prefixes.is_empty() {
            (0..=topic.len()).for_each(|length| add(self.prefixes.get(&topic[..length])));
        }
        queues
    }

    /// Every queue, each once.
    pub(super) fn all(&self) -> Vec<Arc<Q>> {
        let entries = self.topics.values().chain(self.prefixes.values());
        let shared = entries.filter_map(|entry| entry.shared.as_ref());
        shared.chain(self.dedicated.values()).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pattern_entry_exists_while_it_has_a_queue() {
        let mut index = TopicIndex::<()>::default();
        let lists = ["a", "a,b*", "*", "a,b*"].map(|list| TopicSet::parse(list).unwrap());
        let ids = lists.clone().map(|topics| index.queue_for(&topics).0);
        assert_eq!(index.all().len(), 4);
        assert_eq!(index.queues_for_topic("a").len(), 4);
        assert_eq!(index.queues_for_topic("b").len(), 3);
        assert_eq!((index.topics.len(), index.prefixes.len()), (1, 2));
        for (topics, id) in lists.iter().zip(ids) {
            index.remove_queue(topics, id);
        }
        assert_eq!(index.all().len(), 0);
        assert_eq!((index.topics.len(), index.prefixes.len()), (0, 0));
    }
}
