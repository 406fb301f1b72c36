#!/usr/bin/env bash
# Lesson 11: resume after a crash.
#
# A log in memory is lost with its process, and with it the meaning of every cursor. With --data the
# server writes each event to a directory, and shows it to no publisher and no reader before it is
# synced to disk. So a crash can only take away events that nobody has seen.
#
# Run:     scripts/lessons/11-restart.sh
# See:     the same epoch, the part of a cursor before the dot, on both sides of a `kill -9`.
# Where:   src/store/commit.rs: Store::group_commit (write), src/store/recovery.rs: open (replay)
# Without: a crash undoes events that clients have seen, and gives their seqs to other events.
set -euo pipefail
# shellcheck source=/dev/null
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

start_server --data "$TMP/data"

show curl -d one "$URL/topics/news"
check 'the server says that the event is on disk' "$(values durable)" = true
show curl -H 'Idempotency-Key: 7' -d two "$URL/topics/news"
first=$OUT
show curl "$URL/topics/news"
mine=$(values next)
show curl -d three "$URL/topics/news"

say "The server gets no chance to say goodbye:"
crash

say "These are the files that it leaves, with a line for each event:"
show ls "$TMP/data"
show cut -d' ' -f3- "$TMP"/data/*.log

say "Another server starts with the same directory, and the reader resumes from its old cursor:"
start_server --data "$TMP/data"
show curl "$URL/topics/news?since=$mine"
check 'it gets what it had not seen' "$(values data)" = three
check 'in the same epoch' "$(values next | cut -d. -f1)" = "${mine%%.*}"

say "A publisher that lost the response tries again, with the same key:"
show curl -H 'Idempotency-Key: 7' -d two "$URL/topics/news"
check 'the event is not published twice' "$(values duplicate)" = true
check 'and the response has the same seq' "$(values seq)" = "$(values seq "$first")"
show curl -d four "$URL/topics/news"
check 'the next event has the next seq' "$(values seq)" = 4
