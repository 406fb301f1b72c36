#!/usr/bin/env bash
# Lesson 9: a gap, and how to go on.
#
# A server with bounded memory lets old events go. A client that stayed away too long has then lost
# some, and must hear of it: passing over them in silence would be a lie. So the server answers
# 410, counts what is lost, and gives the cursor to go on from. Who would rather not handle an error
# asks for gap=skip, and is told the same in a 200.
#
# Run:     scripts/lessons/09-gap.sh
# See:     `"lost"`, and what is no gap: a busy topic costs the reader of a quiet one nothing.
# Where:   src/log/read.rs: State::check_cursor, src/log/trims.rs: Trims::lost
# Without: a hole that nobody notices.
set -euo pipefail
# shellcheck source=/dev/null
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

say "This server keeps three events of each topic:"
start_server --retain-events 3

show curl -d 'something rare' "$URL/topics/quiet"
show curl -d tick "$URL/topics/busy?type=no[1-2]"
say "A client reads everything, keeps its cursor, and goes away:"
show curl "$URL/topics/*"
check 'it has three events' "$(values seq)" = '1 2 3'
mine=$(values next)

say "Meanwhile six more, of which the last three are kept:"
show curl -d tick "$URL/topics/busy?type=no[3-8]"

say "It comes back:"
show curl -i "$URL/topics/busy?since=$mine"
check 'the status says that something is gone' "$(values status)" = 410
check 'because it was trimmed' "$(values why)" = trimmed
check 'exactly no3, no4 and no5 are lost' "$(values busy)" = 3
resume=$(values resume)

say "It has been told, and goes on from resume, losing nothing more:"
show curl "$URL/topics/busy?since=$resume"
check 'it got what is kept' "$(values type)" = 'no6 no7 no8'

say "Or it asks to skip gaps in the first place:"
show curl "$URL/topics/busy?since=$mine&gap=skip"
check 'it got what is kept' "$(values type)" = 'no6 no7 no8'
check 'and was told about the loss as well' "$(values busy)" = 3

say "With the same old cursor, the quiet topic has no gap. That other events are gone is nothing" \
    "to its readers:"
show curl -i "$URL/topics/quiet?since=$mine&wait=0"
check 'no gap' "$(printf '%s\n' "$OUT" | head -n 1)" = 'HTTP/1.1 200 OK'

say "Nobody is told twice. This reader begins at the oldest event of both topics, one at a time," \
    "and crosses the place where busy's events are missing. It was promised only what was kept when" \
    "it began; its cursor's third part says so."
show curl "$URL/topics/quiet,busy?limit=1"
check 'the quiet event' "$(values data)" = 'something rare'
show curl "$URL/topics/quiet,busy?since=$(values next)"
check 'then the kept busy ones, and no gap' "$(values type)" = 'no6 no7 no8'

say "The server is stopped, and started again. Its memory is gone, its numbers begin anew, and an" \
    "old cursor must not be taken for a new one:"
show kill -TERM "$SERVER"
until_ended
start_server
show curl "$URL/topics/busy?since=$mine"
check 'the status says that something is gone' "$(values status)" = 410
check 'because this is another life of the log' "$(values why)" = epoch
show curl "$URL/topics/busy?since=$(values resume)&wait=0"
check 'resume works here too' "$(values reason)" = timeout
