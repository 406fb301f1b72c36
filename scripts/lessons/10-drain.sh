#!/usr/bin/env bash
# Lesson 10: drain.
#
# A server that is stopped could just drop the polls that it holds; its clients would see a broken
# connection and guess why. This one says goodbye: on SIGTERM every held poll gets a regular answer
# at once, then the process ends. When a restart follows, clients hardly notice.
#
# Run:     scripts/lessons/10-drain.sh
# See:     `"reason":"drain"`, which means: reconnect, and resume from `next`.
# Where:   src/shutdown.rs: Shutdown::trigger (swap), src/waiters.rs: Waiters::drain (drained),
#          src/server/mod.rs: Server::drain (self.api.drain)
# Without: every restart cuts answers off, and clients mistake it for a network failure.
set -euo pipefail
# shellcheck source=/dev/null
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

start_server

show curl -d hello "$URL/topics/news"
last=$(values cursor)

say "Two readers wait, for different things:"
begin ann curl -i "$URL/topics/news?since=now&wait=25"
begin ben curl -i "$URL/topics/weather,sports.*?since=now&wait=25"
until_held 2

say "Somebody stops the server:"
show kill -TERM "$SERVER"

say "Both have their answers, long before their deadlines:"
answer ann
check 'a regular answer' "$(printf '%s\n' "$OUT" | head -n 1)" = 'HTTP/1.1 200 OK'
check 'that says why' "$(values reason)" = drain
check 'and where to resume' "$(values next)" = "$last"
answer ben
check 'a regular answer' "$(printf '%s\n' "$OUT" | head -n 1)" = 'HTTP/1.1 200 OK'
check 'that says why' "$(values reason)" = drain
check 'and where to resume' "$(values next)" = "$last"

say "Then the server is gone, and nothing listens on its port any more:"
until_ended
check 'it ended as it should' "$STATUS" = 0
curl=0
printf '$ %s\n' "curl $URL/health"
curl "$URL/health" 2>&1 || curl=$?
check 'curl could not connect (its exit status for that is 7)' "$curl" = 7
