#!/usr/bin/env bash
# Lesson 2: hold and release.
#
# A client asks for news before there is any. The server does not say "nothing yet": it keeps the
# request unanswered, and the moment somebody publishes, that same request gets its answer.
#
# Run:     scripts/lessons/02-hold-and-release.sh
# See:     `"released":1`, with which the publish says that it has answered a held poll.
# Where:   src/api/poll.rs: Api::poll, src/bell.rs: Seat::wait, src/api/deliver.rs: Api::deliver
# Without: clients ask again and again for nothing, and still hear of everything too late.
set -euo pipefail
# shellcheck source=/dev/null
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

start_server

say "One terminal asks for news, from now on, and is ready to wait 20 seconds for it:"
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
check 'it can go on right after that event' "$(values next)" = "$published"

say "Nobody is held any more. A poll that finds something to say is never held at all:"
show curl "$URL/topics/news?wait=20"
check 'it got the event that is kept' "$(values data)" = hello
check 'no poll is held' "$(metric longpoll_polls_held)" = 0
