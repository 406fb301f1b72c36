#!/usr/bin/env bash
# Lesson 2: time-out.
#
# No poll is held for ever: proxies and browsers would cut it, and nobody could tell silence from
# a dead line. At its deadline the server answers "nothing", as an ordinary 200 in the usual shape.
# Watch for `"reason":"timeout"`, and for `next`: it moves on even though there was nothing to say,
# past events of other topics too, so that a patient reader's cursor never grows old.
# The deadline is in src/api/poll.rs and src/bell.rs, `next` in src/log/read.rs.
set -euo pipefail
# shellcheck source=/dev/null
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

start_server

say "Ask for news and wait for at most one second; -i shows the headers too:"
show curl -i "$URL/topics/news?wait=1"
check 'a time-out is not an error' "$(printf '%s\n' "$OUT" | head -n 1)" = 'HTTP/1.1 200 OK'
check 'there is no event' "$(values seq)" = ''
check 'the answer says why it came' "$(values reason)" = timeout
check 'and so does a header' "$(header Poll-Reason)" = timeout

say "Poll-Wait is the wait that was really granted: up to a tenth shorter than asked, at random." \
    "Thousands of clients that reconnect together after a failure then don't come back together" \
    "for ever after."
granted=$(header Poll-Wait)
within=$(awk -v granted="$granted" 'BEGIN { print (granted >= 0.9 && granted <= 1) ? "yes" : "no" }')
check "between 0.9 and 1 second: $granted" "$within" = yes

say "Go on from next, for three seconds. While this poll is held, something happens elsewhere:"
mine=$(values next)
begin reader curl "$URL/topics/news?since=$mine&wait=3"
until_held 1
show curl -d 'it rains' "$URL/topics/weather"
check 'a poll for news is not released by weather' "$(values released)" = 0
elsewhere=$(values cursor)

answer reader
check 'still no news' "$(values reason)" = timeout
check 'but next has moved on' "$(values next)" != "$mine"
check 'past what happened elsewhere' "$(values next)" = "$elsewhere"

say "Who doesn't want to wait at all says wait=0:"
show curl "$URL/topics/news?wait=0"
check 'it was answered at once' "$(values reason)" = timeout
