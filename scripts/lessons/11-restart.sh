#!/usr/bin/env bash
# Lesson 11: resume after a crash.
#
# A log in memory dies with its process, and every cursor with it. With --data the server writes
# each event to a directory, and tells nobody about it, neither publisher nor reader, before the disk
# has said that it is safe. So a crash can take away only what nobody was told.
#
# Run:     scripts/lessons/11-restart.sh
# See:     the same epoch, the part of a cursor before the dot, on both sides of a `kill -9`.
# Where:   src/store/commit.rs: Store::group_commit, src/store/recovery.rs: open
# Without: a crash undoes what clients were told, and gives its number to something else.
set -euo pipefail
# shellcheck source=/dev/null
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

start_server --data "$TMP/data"

show curl -d one "$URL/topics/news"
check 'it says that it is on the disk' "$(values durable)" = true
show curl -H 'Idempotency-Key: 7' -d two "$URL/topics/news"
first=$OUT
show curl "$URL/topics/news"
mine=$(values next)
show curl -d three "$URL/topics/news"

say "The server does not get to say goodbye:"
crash

say "This is what it leaves behind, a line for each event:"
show ls "$TMP/data"
show cut -d' ' -f3- "$TMP"/data/*.log

say "Another one starts with the same directory, and the reader goes on from its old cursor:"
start_server --data "$TMP/data"
show curl "$URL/topics/news?since=$mine"
check 'it gets what it had not seen' "$(values data)" = three
check 'in the same life of the log' "$(values next | cut -d. -f1)" = "${mine%%.*}"

say "A publisher that never heard of its success tries again, with the same key:"
show curl -H 'Idempotency-Key: 7' -d two "$URL/topics/news"
check 'it is not published twice' "$(values duplicate)" = true
check 'and is told the same seq' "$(values seq)" = "$(values seq "$first")"
show curl -d four "$URL/topics/news"
check 'the next one goes on counting' "$(values seq)" = 4
