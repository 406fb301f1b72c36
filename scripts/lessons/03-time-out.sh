#!/usr/bin/env bash
# Lesson 3: time-out, and deadlines.
#
# No poll is held for ever: proxies and browsers would cut it, and nobody could tell silence from
# a dead line. At its deadline the server answers "nothing", as an ordinary 200 in the usual shape.
# A deadline is an instant, fixed when the poll comes; what happens meanwhile does not move it.
#
# Run:     scripts/lessons/03-time-out.sh
# See:     `"reason":"timeout"`, and `next`, which moves on even though there was nothing to say,
#          past events of other topics too, so that a patient reader's cursor never grows old.
# Where:   src/api/poll.rs: Api::granted, src/bell.rs: Seat::wait, src/log/read.rs: Slice::next
# Without: a proxy cuts the silence, waits get longer with each thing that is let pass, and cursors
#          go stale.
set -euo pipefail
# shellcheck source=/dev/null
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# Whether a number of seconds is what was asked for, or up to a tenth less.
is_about() { # SECONDS ASKED
    awk -v granted="$1" -v asked="$2" \
        'BEGIN { print (granted >= 0.9 * asked && granted <= asked) ? "yes" : "no" }'
}

say "This server holds nobody for longer than two seconds (the default is 55):"
start_server --max-wait 2s

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
check "between 0.9 and 1 second: $granted" "$(is_about "$granted" 1)" = yes

say "Go on from next, for two seconds. While this poll is held, something happens elsewhere:"
mine=$(values next)
begin reader curl "$URL/topics/news?since=$mine&wait=2"
until_held 1
show curl -d 'it rains' "$URL/topics/weather"
check 'a poll for news is not released by weather' "$(values released)" = 0
elsewhere=$(values cursor)

answer reader
check 'still no news' "$(values reason)" = timeout
check 'but next has moved on' "$(values next)" != "$mine"
check 'past what happened elsewhere' "$(values next)" = "$elsewhere"

say "A deadline does not move, however much happens. This poll wants alerts, and its own topic is" \
    "noisy: it is woken for each event, finds that it is none for it, and waits for what is left of" \
    "its time. Were each wait as long as the first, it would never end. (It asks for an hour, and gets" \
    "what this server grants.)"
begin reader curl -i "$URL/topics/street?type=alert&wait=3600"
until_held 1
noise=0
while waits reader; do
    curl -o "$TMP/noise" -d 'a car goes by' "$URL/topics/street"
    noise=$((noise + 1))
done
answer reader
check "after $noise events that it did not want it ended by itself" "$(values reason)" = timeout
check 'it was granted two seconds, not an hour' "$(is_about "$(header Poll-Wait)" 2)" = yes

say "Who doesn't want to wait at all says wait=0:"
show curl "$URL/topics/news?wait=0"
check 'it was answered at once' "$(values reason)" = timeout
