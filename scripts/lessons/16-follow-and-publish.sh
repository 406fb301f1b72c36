#!/usr/bin/env bash
# Lesson 16: `longpoll follow` and `longpoll publish`, the loop that nobody has to write again.
#
# All that a client has to get right is in the lessons before: the cursor, the time-outs, Retry-After
# and random pauses, drains, gaps, keys for what is published, a place that survives the client's own
# end. These two commands have it all. Here the server is killed under both, and comes back.
#
# Run:     scripts/lessons/16-follow-and-publish.sh
# See:     a reader that goes on as if nothing had happened, a publish that takes as long as the
#          server is away, and a state file that is one cursor.
# Where:   src/client/follow.rs: Follow::next_page, src/client/publish.rs: Publisher::publish,
#          src/client/backoff.rs: Backoff::next, src/client/command/state.rs: StateFile::save
# Without: everybody writes lesson 1.
set -euo pipefail
# shellcheck source=/dev/null
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

say "A server that can come back: its log is on the disk, and its address is a file."
socket=unix:$TMP/socket
start_server --listen "$socket" --data "$TMP/data"

say "A reader that keeps its place in a file, and ends after five events:"
begin reader longpoll follow --state "$TMP/place" --count 5 --format '{seq} {data}' "$socket" news
until_held 1

say "One event, and then some, a JSON value on each line:"
show longpoll publish "$socket" news hello
check 'published' "$(values seq)" = 1
# shellcheck disable=SC2016 # Both are for another shell.
show bash -c 'seq 3 | longpoll publish "$1" news -' bash "$socket"
until_held 1

say "The server is killed:"
crash

say "Somebody publishes all the same. That has to wait; each try has the same key, so it does not" \
    "matter which of them arrives:"
begin writer longpoll publish "$socket" news 'is anybody there?'

say "It comes back:"
start_server --listen "$socket" --data "$TMP/data"
answer writer
check 'published, after what was there before' "$(values seq | awk '{ print $NF }')" = 5

say "And this is what the reader has made of it:"
answer reader
check 'nothing lost, nothing twice, in order' \
    "$(printf '%s\n' "$OUT" | grep '^[0-9]' | tr '\n' ';')" = '1 hello;2 1;3 2;4 3;5 is anybody there?;'

say "It has ended, and left its place:"
show cat "$TMP/place"
show longpoll publish "$socket" news later
say "Another one goes on there. (--wait 0: it ends when it has all there is.)"
show longpoll follow --state "$TMP/place" --wait 0 --format raw "$socket" news
check 'only what is new' "$OUT" = later

say "And a program can be run for each event. What was published is on its stdin, and never part of" \
    "the command; whoever publishes this will be disappointed:"
show longpoll publish "$socket" jobs '"; echo "I am in" #'
# shellcheck disable=SC2016
show longpoll follow --wait 0 --format raw --exec 'echo "event $LONGPOLL_SEQ: $(cat)"' "$socket" jobs
check 'the event was given to the command, and nothing else happened' "$OUT" = 'event 7: "; echo "I am in" #'
