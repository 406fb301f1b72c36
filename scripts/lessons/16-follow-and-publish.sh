#!/usr/bin/env bash
# Lesson 16: `longpoll follow` and `longpoll publish`, the loop that you need not write again.
#
# The lessons before say what a client has to get right: the cursor, time-outs, Retry-After and
# random pauses, drains, gaps, idempotency keys, and a position that survives the client's own
# restart. These two commands do all of it. Here the server is killed under both, and comes back.
#
# Run:     scripts/lessons/16-follow-and-publish.sh
# See:     a reader that continues as if nothing had happened, a publish that takes as long as the
#          server is away, and a state file that is one cursor.
# Where:   src/client/follow.rs: Follow::next_page (self.poll), src/client/publish.rs: Publisher::publish
#          (random_key), src/client/backoff.rs: Backoff::next (fastrand),
#          src/client/command/state.rs: StateFile::save (replace)
# Without: everybody writes lesson 1.
set -euo pipefail
# shellcheck source=/dev/null
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

say "A server that can come back: its log is on disk, and its address is a socket file."
socket=unix:$TMP/socket
start_server --listen "$socket" --data "$TMP/data"

say "A reader that keeps its position in a file, and ends after five events:"
begin reader longpoll follow --state "$TMP/position" --count 5 --format '{seq} {data}' "$socket" news
until_held 1

say "One event, and then three, a JSON value on each line:"
show longpoll publish "$socket" news hello
check 'published' "$(values seq)" = 1
# shellcheck disable=SC2016 # The inner bash expands $1.
show bash -c 'seq 3 | longpoll publish "$1" news -' bash "$socket"
until_held 1

say "The server is killed:"
crash

say "Somebody publishes all the same. The command retries with one key, so it does not matter which" \
    "of the tries arrives:"
begin writer longpoll publish "$socket" news 'is anybody there?'

say "It comes back:"
start_server --listen "$socket" --data "$TMP/data"
answer writer
check 'published, after the events before the crash' "$(values seq | awk '{ print $NF }')" = 5

say "And this is what the reader printed:"
answer reader
check 'nothing lost, nothing twice, in order' \
    "$(printf '%s\n' "$OUT" | grep '^[0-9]' | tr '\n' ';')" = '1 hello;2 1;3 2;4 3;5 is anybody there?;'

say "It has ended, and left its position:"
show cat "$TMP/position"
show longpoll publish "$socket" news later
say "Another reader continues there. (--wait 0: it ends when it has all events.)"
show longpoll follow --state "$TMP/position" --wait 0 --format raw "$socket" news
check 'only the new event' "$OUT" = later

say "And follow can run a program for each event. It gets the event's data on stdin, never as part of" \
    "the command; the publisher of this one will be disappointed:"
show longpoll publish "$socket" jobs '"; echo "I am in" #'
# shellcheck disable=SC2016
show longpoll follow --wait 0 --format raw --exec 'echo "event $LONGPOLL_SEQ: $(cat)"' "$socket" jobs
check 'the event was given to the command, and nothing else happened' "$OUT" = 'event 7: "; echo "I am in" #'
