#!/usr/bin/env bash
# Lesson 2: hold and release.
#
# A client polls before there is an event. The server does not answer "nothing yet": it keeps the
# request unanswered, and the next publish answers that same request at once.
#
# Run:     scripts/lessons/02-hold-and-release.sh
# See:     `"released":1` in the publish's response: it has answered one held poll.
# Where:   src/api/poll.rs: Poller::hold (register), src/waiters.rs: Waiter::wait (wait_until),
#          src/api/deliver.rs: deliver (write_without_blocking)
# Without: clients ask again and again for nothing, and still learn everything late.
set -euo pipefail
# shellcheck source=/dev/null
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

start_server

say "One terminal polls for news, from now on, and is ready to wait 20 seconds:"
begin reader curl "$URL/topics/news?since=now&wait=20"

say "There is none. curl just sits there, and the server counts one held poll:"
until_held 1
check 'one poll is held' "$(metric longpoll_polls_held)" = 1

say "Another terminal publishes:"
at=$SECONDS
show curl -d hello "$URL/topics/news"
check 'the publish released one held poll' "$(values released)" = 1
published=$(values cursor)

say "And the first terminal has it, in the answer to the request that was already there:"
answer reader
check 'at once, not when the 20 seconds were up' "$((SECONDS - at))" -lt 10
check 'the poll got the event' "$(values data)" = hello
check 'it was answered because there was data' "$(values reason)" = data
check 'it can resume right after that event' "$(values next)" = "$published"

say "No poll is held any more. One that finds an event is not held at all:"
show curl "$URL/topics/news?wait=20"
check 'it got the event that is in the log' "$(values data)" = hello
check 'no poll is held' "$(metric longpoll_polls_held)" = 0
