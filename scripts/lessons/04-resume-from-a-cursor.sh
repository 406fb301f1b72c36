#!/usr/bin/env bash
# Lesson 4: resume from a cursor.
#
# Events are published between two polls, when no request is there to take them. Nothing is lost:
# every answer contains a cursor, `next`, which means "I have everything up to here", and the next
# poll begins there. The server keeps no state about the client; the client keeps one short string.
#
# Run:     scripts/lessons/04-resume-from-a-cursor.sh
# See:     events that are published while no poll is held, and still arrive, once, in order.
# Where:   src/cursor.rs: Cursor::from_str (epoch), src/log/read.rs: LogState::read (Since::After)
# Without: an event that is published between two polls is lost, as lesson 1 shows.
set -euo pipefail
# shellcheck source=/dev/null
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

start_server

show curl -d one "$URL/topics/news"
say "The first poll has no cursor yet, so it begins at the oldest event in the log:"
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

say "If that answer is lost on the way, the same request brings it again: the client keeps the" \
    "position, and only the client moves it."
show curl "$URL/topics/news?since=$mine"
check 'the same answer again' "$(values data)" = 'two three'
check 'with the same next' "$(values next)" = "$after"

say "Now a whole client: poll, take the events, resume from next. It takes three events at a time" \
    "while somebody publishes twenty. (curl expands the [1-20].)"
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
