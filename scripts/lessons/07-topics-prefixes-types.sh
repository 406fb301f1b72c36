#!/usr/bin/env bash
# Lesson 7: several topics, prefixes and types.
#
# One poll can wait for up to 64 topics, separated by commas. A name that ends in * means all topics
# with that prefix, including topics that do not exist yet; * alone means everything. An event may
# have a type, and a poll may ask for some types only. One cursor is enough for all that.
#
# Run:     scripts/lessons/07-topics-prefixes-types.sh
# See:     a held poll that ignores events of other topics and types, and is released by its own.
# Where:   src/names.rs: TopicSet::parse (Pattern::parse), src/log/matching.rs: collect_by_topic (BinaryHeap),
#          src/waiters.rs: Waiters::notify (for_topic)
# Without: a request and a cursor for each topic, and no order between topics.
set -euo pipefail
# shellcheck source=/dev/null
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

start_server

say "The first event creates its topic. Here are three; one event is JSON, one has a type:"
show curl --json '{"t":21}' "$URL/topics/sensors.attic"
show curl -d hello "$URL/topics/news"
show curl -d 'too warm' "$URL/topics/sensors.cellar?type=alert"

say "Two topics in one poll:"
show curl "$URL/topics/news,sensors.attic"
check 'events of both, in the order of their seqs' "$(values topic)" = 'sensors.attic news'
check 'JSON comes back as JSON' "$(values t)" = 21

say "All topics that begin with \"sensors.\":"
show curl "$URL/topics/sensors.*"
check 'both sensors, and nothing else' "$(values topic)" = 'sensors.attic sensors.cellar'

say "Everything, but only alerts:"
show curl "$URL/topics/*?type=alert"
check 'just the alert' "$(values data)" = 'too warm'

say "The last two of everything:"
show curl "$URL/topics/*?since=last:2"
check 'the two newest' "$(values seq)" = '2 3'

say "One poll waits for alerts of any sensor:"
begin watchman curl "$URL/topics/sensors.*?type=alert&since=now&wait=20"
until_held 1

say "An event of another topic does not release it, nor does one without the type, even of a sensor:"
show curl -d 'hello again' "$URL/topics/news?type=alert"
check 'news released no poll' "$(values released)" = 0
show curl -d 20.5 "$URL/topics/sensors.attic"
check 'a plain reading released no poll' "$(values released)" = 0
check 'the poll is still held' "$(metric longpoll_polls_held)" = 1

say "An alert does, from a sensor that did not exist when the poll began:"
show curl -d 'water!' -H 'Event-Type: alert' "$URL/topics/sensors.garage"
check 'the alert released the poll' "$(values released)" = 1
answer watchman
check 'it got the alert, and only that' "$(values data)" = 'water!'

say "The topics that exist now:"
show curl "$URL/topics?prefix=sensors."
check 'three sensors' "$(values topic)" = 'sensors.attic sensors.cellar sensors.garage'
