#!/usr/bin/env bash
# Lesson 9: a gap, and how to resume after it.
#
# A server with bounded memory trims old events. A client that stayed away too long has then lost
# some, and must be told: skipping them in silence would be a lie. So the server answers 410, counts
# what is lost, and gives the cursor from which to resume. A client that prefers not to handle an
# error asks for gap=skip, and gets the same information in a 200.
#
# Run:     scripts/lessons/09-gap.sh
# See:     `"lost"`, and what is no gap: a busy topic costs the reader of a quiet one nothing.
# Where:   src/log/read.rs: LogState::check_cursor (is_gap), src/log/trims.rs: TrimHistory::lost
#          (uncounted)
# Without: a loss that nobody notices.
set -euo pipefail
# shellcheck source=/dev/null
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

say "This server keeps three events of each topic:"
start_server --retain-events 3

show curl -d 'something rare' "$URL/topics/quiet"
show curl -d tick "$URL/topics/busy?type=tick[1-2]"
say "A client reads everything, keeps its cursor, and goes away:"
show curl "$URL/topics/*"
check 'it has three events' "$(values seq)" = '1 2 3'
mine=$(values next)

say "Meanwhile six more are published, of which the last three are kept:"
show curl -d tick "$URL/topics/busy?type=tick[3-8]"

say "It comes back:"
show curl -i "$URL/topics/busy?since=$mine"
check 'the status says that events are gone' "$(values status)" = 410
check 'because they were trimmed' "$(values why)" = trimmed
check 'exactly tick3, tick4 and tick5 are lost' "$(values busy)" = 3
resume=$(values resume)

say "Now it knows, and continues from resume, losing nothing more:"
show curl "$URL/topics/busy?since=$resume"
check 'it got the events that are kept' "$(values type)" = 'tick6 tick7 tick8'

say "Or it asks to skip gaps in the first place:"
show curl "$URL/topics/busy?since=$mine&gap=skip"
check 'it got the events that are kept' "$(values type)" = 'tick6 tick7 tick8'
check 'and the loss was reported as well' "$(values busy)" = 3

say "With the same old cursor, the quiet topic has no gap. Its readers are not affected by events of" \
    "other topics that are gone:"
show curl -i "$URL/topics/quiet?since=$mine&wait=0"
check 'no gap' "$(printf '%s\n' "$OUT" | head -n 1)" = 'HTTP/1.1 200 OK'

say "A gap is never reported twice. This reader begins at the oldest event of both topics, takes one" \
    "at a time, and crosses the place where busy's events are missing. It was promised only what was" \
    "kept when it began; its cursor's third part records that."
show curl "$URL/topics/quiet,busy?limit=1"
check 'the quiet event' "$(values data)" = 'something rare'
show curl "$URL/topics/quiet,busy?since=$(values next)"
check 'then the kept busy ones, and no gap' "$(values type)" = 'tick6 tick7 tick8'

say "The server is stopped, and started again. Its log was in memory and is gone, seqs start again at" \
    "1, and an old cursor must not be mistaken for a new one:"
show kill -TERM "$SERVER"
until_ended
start_server
show curl "$URL/topics/busy?since=$mine"
check 'the status says that events are gone' "$(values status)" = 410
check 'because this log has another epoch' "$(values why)" = epoch
show curl "$URL/topics/busy?since=$(values resume)&wait=0"
check 'resume works here too' "$(values reason)" = timeout
