#!/usr/bin/env bash
# Lesson 14: server-sent events.
#
# A poll has one answer, and the next answer needs another request. A client that can read a
# response while it is still being sent needs only one: the server writes each event into it at
# once. That is all that "server-sent events" are, and every browser has a client for it,
# EventSource. The cursor stays: each event's `id` is one. A client that loses the connection sends
# the last id that it saw in the header Last-Event-ID (browsers do that automatically), and resumes
# there.
#
# Run:     scripts/lessons/14-sse.sh
# See:     `id:`, and a reader that comes later and gets only the events that it has not seen.
# Where:   src/api/stream/event_stream.rs: EventStream::next_part (reader.read), src/api/framing/sse.rs: part
#          (push_id), src/server/stream.rs: Handler::stream (send_events)
# Without: a request and a response head for every event.
set -euo pipefail
# shellcheck source=/dev/null
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

start_server

show curl -d one "$URL/topics/news"
first=$(values cursor)

say "A reader opens a stream. It gets the first event at once, and waits for more, on one connection:"
begin ann curl -N -H 'Accept: text/event-stream' "$URL/topics/news"
until_held 1

show curl -d two "$URL/topics/news"
check 'the stream counts as a held poll' "$(values released)" = 1
until_held 1
show curl -d three "$URL/topics/news?type=alert"
last=$(values cursor)

say "Another reader lost its connection after the first event. It says what it saw last:"
begin ben curl -N -H 'Accept: text/event-stream' -H "Last-Event-ID: $first" "$URL/topics/news"
until_held 2

say "A stream has no end of its own. So stop the server: it says when to reconnect."
show kill -TERM "$SERVER"
answer ann
check 'ann has every event, in order' "$(values data)" = 'one two three'
check 'each with its cursor' "$(printf '%s\n' "$OUT" | sed -n 's/^id: //p' | sed -n '1p;$p' | paste -sd ' ' -)" = "$first $last"
check 'and its type' "$(printf '%s\n' "$OUT" | sed -n 's/^event: //p')" = alert
answer ben
check 'ben has the other two, and nothing twice' "$(values data)" = 'two three'
check 'the last line says after how many milliseconds to reconnect' "$(printf '%s\n' "$OUT" | sed -n 's/^retry: [1-5][0-9][0-9][0-9]$/yes/p')" = yes
until_ended
check 'the server ended as it should' "$STATUS" = 0
