#!/usr/bin/env bash
# Lesson 8: the caps, and Retry-After.
#
# A held poll occupies a connection and a thread, and a small host has not many of either. So there
# are two caps. Held polls have the lower one: beyond it a poll gets 503 and Retry-After at once,
# and whoever publishes still finds a place. Connections have the other: when all are taken, the
# one that has waited longest for its next request gives way to a new one.
#
# Run:     scripts/lessons/08-caps.sh
# See:     the publish that gets through while no poll can, and a held poll that stays.
# Where:   src/api/poll.rs: Api::may_hold, src/error.rs: retry_after, src/door/pool.rs: Pool::make_room
# Without: too many clients take the host down, and those that wait for news keep the news out.
set -euo pipefail
# shellcheck source=/dev/null
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

say "A very small server: four connections, and at most two held polls."
start_server --max-connections 4 --max-polls 2

begin first curl "$URL/topics/news?since=now&wait=20"
begin second curl "$URL/topics/news?since=now&wait=20"
until_held 2

say "A third one is not held:"
show curl -i "$URL/topics/news?since=now&wait=20"
check 'the server is too busy for it' "$(values status)" = 503
check 'and says when to come back: in 1 second or more' "$(header Retry-After)" -ge 1
check 'but not more than 5' "$(header Retry-After)" -le 5

say "The number is random, so that those who were refused together don't come back together." \
    "With --retry, curl does as Retry-After says by itself."

say "A poll that needs no holding is answered, and a publish gets through:"
show curl "$URL/topics/news?wait=0"
check 'a short poll is no held poll' "$(values reason)" = timeout
show curl -d hello "$URL/topics/news"
check 'it released both' "$(values released)" = 2
answer first
check 'the first has the event' "$(values data)" = hello
answer second
check 'the second too' "$(values data)" = hello

say "Their places are free again. A third poll takes one, beside a connection that says nothing at" \
    "all. (bash opens that one; curl always has something to say.)"
port=${URL##*:}
exec 4<>"/dev/tcp/127.0.0.1/$port"
begin third curl "$URL/topics/news?since=now&wait=20"
until_held 1

say "Two more silent connections, and all four places are taken."
exec 5<>"/dev/tcp/127.0.0.1/$port"
exec 6<>"/dev/tcp/127.0.0.1/$port"

say "And yet somebody can publish. It may take a quarter of a second: so long is every connection" \
    "given to send its request."
show curl --retry 3 -d 'there is room' "$URL/topics/news"
check 'it released the held poll' "$(values released)" = 1

ended=0
read -r -t "$HANG" -u 4 || ended=$?
check 'the first silent connection was closed: it had waited longest' "$ended" = 1
check 'the server counts that' "$(metric longpoll_connections_gave_way_total)" -ge 1
answer third
check 'the held poll was left alone, and got the event' "$(values data)" = 'there is room'
