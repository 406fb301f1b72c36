#!/usr/bin/env bash
# Lesson 8: the caps, and Retry-After.
#
# A held poll occupies a connection and a thread, and a small host has few of both. So there are two
# caps. The lower one is for held polls: beyond it a poll gets 503 and Retry-After at once, and a
# publish still finds a connection. The other is for connections: when all are taken, the one that
# has waited longest for its next request is closed in favour of a new one.
#
# Run:     scripts/lessons/08-caps.sh
# See:     a publish that succeeds while no poll can be held, and a held poll that is not evicted.
# Where:   src/api/poll.rs: Poller::acquire_hold_permit (try_acquire), src/problem.rs: retry_after (fastrand),
#          src/server/pool.rs: WorkerPool::evict_idle (min_by_key)
# Without: too many clients exhaust the host, and the polls that wait for news keep the news out.
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

say "The number is random, so that clients that are refused together do not come back together." \
    "With --retry, curl honours Retry-After."

say "A poll that need not be held is answered, and so is a publish:"
show curl "$URL/topics/news?wait=0"
check 'a short poll is not a held poll' "$(values reason)" = timeout
show curl -d hello "$URL/topics/news"
check 'it released both' "$(values released)" = 2
answer first
check 'the first has the event' "$(values data)" = hello
answer second
check 'the second too' "$(values data)" = hello

say "Both permits are free again. A third poll takes one, beside a connection that sends nothing at" \
    "all. (bash opens that one; curl always sends a request.)"
port=${URL##*:}
exec 4<>"/dev/tcp/127.0.0.1/$port"
begin third curl "$URL/topics/news?since=now&wait=20"
until_held 1

say "Two more silent connections, and all four connections are taken."
exec 5<>"/dev/tcp/127.0.0.1/$port"
exec 6<>"/dev/tcp/127.0.0.1/$port"

say "And yet somebody can publish. It may take a quarter of a second, the time that every connection" \
    "is given to send its request."
show curl --retry 3 -d 'there is room' "$URL/topics/news"
check 'it released the held poll' "$(values released)" = 1

ended=0
read -r -t "$HANG" -u 4 || ended=$?
check 'the first silent connection was closed: it had waited longest' "$ended" = 1
check 'the server counts that' "$(metric longpoll_connections_gave_way_total)" -ge 1
answer third
check 'the held poll was not evicted, and got the event' "$(values data)" = 'there is room'
