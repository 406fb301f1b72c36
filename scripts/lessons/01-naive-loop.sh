#!/usr/bin/env bash
# Lesson 1: the naive loop, which loses events.
#
# "Ask every now and then whether there is something new" is everybody's first try, and it works in
# every demonstration. This lesson tries it twice, with short polls and with held ones, on a server
# that could do better if it were asked better. Both lose an event, and neither can notice.
#
# Run:     scripts/lessons/01-naive-loop.sh
# See:     the price of 70 and the fire in the cellar, which are published and never arrive.
# Where:   src/api/poll_query.rs: parse_since (Since::Now), src/log/read.rs: LogState::read (Since::After)
# Without: this is the lesson without: it has no cursor. Lesson 4 has one.
set -euo pipefail
# shellcheck source=/dev/null
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

start_server

say "The first try: ask for the newest price every now and then, to sell when it falls below 80." \
    "wait=0 makes it a short poll, which is answered at once, even with nothing."
show curl -d 100 "$URL/topics/price"
show curl "$URL/topics/price?since=last:1&wait=0"
saw=$(values data)

say "A moment later it asks again:"
show curl "$URL/topics/price?since=last:1&wait=0"
saw="$saw $(values data)"
check 'it has the same price again, though nothing has happened' "$saw" = '100 100'

say "Before it asks for the third time, the price falls, and rises again:"
show curl -d 70 "$URL/topics/price"
show curl -d 101 "$URL/topics/price"
show curl "$URL/topics/price?since=last:1&wait=0"
saw="$saw $(values data)"
check "published: 100 70 101; it has seen: $saw" "$saw" = '100 100 101'

say "It saw one price twice, and the one that it was waiting for not at all. Asking more often only" \
    "makes that rarer, and the empty answers more frequent."

say "The second try: let the server hold the request until something happens. Now no answer is" \
    "empty, and none is late:"
begin guard curl "$URL/topics/cellar?since=now&wait=20"
until_held 1
show curl -d smoke "$URL/topics/cellar"
answer guard
check 'it has the event at once' "$(values data)" = smoke
next=$(values next)

say "The guard goes to make a phone call. No poll is held meanwhile, and just then:"
show curl -d fire "$URL/topics/cellar"

say "Then the guard asks again, for everything from now on. But \"now\" is when the request arrives:"
show curl "$URL/topics/cellar?since=now&wait=1"
check 'there was a fire, and the guard will never know' "$(values reason)" = timeout

say "Being faster would not repair this. Between two requests there is always a moment without a" \
    "request. What helps is to say where to resume, and every answer says how. This is the \"next\" of" \
    "the answer that brought the smoke:"
show curl "$URL/topics/cellar?since=$next"
check 'the fire was there all the time' "$(values data)" = fire
