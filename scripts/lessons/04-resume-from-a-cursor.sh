#!/usr/bin/env bash
# Lesson 4: resume from a cursor.
#
# Between two polls nobody listens, and just then things happen. Nothing is lost: every answer
# brings a cursor, `next`, which means "I have everything up to here", and the next poll begins
# there. The server remembers nothing about the client; the client keeps one short string.
#
# Run:     scripts/lessons/04-resume-from-a-cursor.sh
# See:     events that were published while no poll was held, and still arrive, once, in order.
# Where:   src/cursor.rs: Cursor::from_str, src/log/read.rs: State::read
# Without: what is published between two polls is lost, as lesson 1 shows.
set -euo pipefail
# shellcheck source=/dev/null
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

start_server

show curl -d one "$URL/topics/news"
say "The first poll has no cursor yet, so it begins at the oldest event that is kept:"
show curl "$URL/topics/news"
check 'it got what was there' "$(values data)" = one
mine=$(values next)

say "The client is busy with that, and nobody polls. Meanwhile:"
show curl -d two "$URL/topics/news"
show curl -d three "$URL/topics/news"

say "Then it polls again, from its cursor:"
show curl "$URL/topics/news?since=$mine"
check 'it got what it had not seen, in order' "$(values data)" = 'two three'
after=$(values next)

say "If that answer had been lost on the way, the same question would bring it again: the place" \
    "is the client's to keep, and moves only when the client says so."
show curl "$URL/topics/news?since=$mine"
check 'the same answer again' "$(values data)" = 'two three'
check 'with the same next' "$(values next)" = "$after"

say "Now a whole client: poll, take what came, go on from next. It takes three events at a time" \
    "while somebody publishes twenty. (curl fills in the [1-20].)"
begin publisher curl -d tick "$URL/topics/clock?type=no[1-20]"

next=start
got=''
until [[ $got == *"no20 "* ]]; do
    show curl "$URL/topics/clock?since=$next&limit=3&wait=10"
    [ "$(values reason)" = data ] || break
    next=$(values next)
    got="$got$(values type) "
done

answer publisher >/dev/null
check 'nothing lost, nothing twice, all in order' "$got" = "$(printf 'no%d ' {1..20})"
