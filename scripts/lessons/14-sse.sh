#!/usr/bin/env bash
# Lesson 14: server-sent events.
#
# A poll is answered once, and the next one needs another request. A client that can read an answer
# while it is still being sent needs only one: the server writes each event into it as it comes. That
# is all that "server-sent events" are, and every browser has the client for it, EventSource. What
# does not change is the cursor: each event's `id` is one. Whoever loses the connection sends the last
# id that it saw (the header Last-Event-ID; browsers do that by themselves), and goes on there.
#
# Run:     scripts/lessons/14-sse.sh
# See:     `id:`, and the reader that comes later and has only what it did not have.
# Where:   src/api/stream.rs: Stream::next_piece, src/api/sse.rs: part, src/door/stream.rs: Desk::stream
# Without: a request and a head for every event.
set -euo pipefail
# shellcheck source=/dev/null
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

start_server

show curl -d one "$URL/topics/news"
first=$(values cursor)

say "A reader asks for a stream. It has the first event at once, and waits for more, on one connection:"
begin ann curl -N -H 'Accept: text/event-stream' "$URL/topics/news"
until_held 1

show curl -d two "$URL/topics/news"
check 'the stream counts as a held poll' "$(values released)" = 1
until_held 1
show curl -d three "$URL/topics/news?type=alert"
last=$(values cursor)

say "Another one had lost its connection after the first event. It says what it saw last:"
begin ben curl -N -H 'Accept: text/event-stream' -H "Last-Event-ID: $first" "$URL/topics/news"
until_held 2

say "A stream has no end of its own. So stop the server: it says when to come back."
show kill -TERM "$SERVER"
answer ann
check 'ann has every event, in order' "$(values data)" = 'one two three'
check 'each with its cursor' "$(printf '%s\n' "$OUT" | sed -n 's/^id: //p' | sed -n '1p;$p' | paste -sd ' ' -)" = "$first $last"
check 'and its type' "$(printf '%s\n' "$OUT" | sed -n 's/^event: //p')" = alert
answer ben
check 'ben has what it did not have, and nothing twice' "$(values data)" = 'two three'
check 'the last line says after how many milliseconds to reconnect' "$(printf '%s\n' "$OUT" | sed -n 's/^retry: [1-5][0-9][0-9][0-9]$/yes/p')" = yes
until_ended
check 'the server ended as it should' "$STATUS" = 0
