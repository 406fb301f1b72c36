#!/usr/bin/env bash
# Lesson 3: time-outs and deadlines.
#
# No poll is held for ever: proxies and browsers would cut it, and nobody could tell silence from a
# dead connection. At its deadline a poll is answered without events, as an ordinary 200 in the
# usual shape. The deadline is an instant, fixed when the poll arrives; nothing moves it later.
#
# Run:     scripts/lessons/03-time-out.sh
# See:     `"reason":"timeout"`, and a `next` that advances although there is nothing to say, past
#          events of other topics too, so that a patient reader's cursor never becomes stale.
# Where:   src/api/poll.rs: Poller::grant_wait (fastrand), src/waiters.rs: Waiter::wait (wait_until),
#          src/log/read.rs: LogSlice::next (self.head)
# Without: a proxy cuts the silence, each event of no interest makes a wait longer, and cursors
#          become stale.
set -euo pipefail
# shellcheck source=/dev/null
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# Prints "yes" if SECONDS is what was asked for, or up to a tenth less.
is_about() { # SECONDS ASKED
    awk -v granted="$1" -v asked="$2" \
        'BEGIN { print (granted >= 0.9 * asked && granted <= asked) ? "yes" : "no" }'
}

say "This server holds a poll for two seconds at most (the default is 55):"
start_server --max-wait 2s

say "Poll for news and wait for at most one second; -i shows the headers too:"
show curl -i "$URL/topics/news?wait=1"
check 'a time-out is not an error' "$(printf '%s\n' "$OUT" | head -n 1)" = 'HTTP/1.1 200 OK'
check 'there is no event' "$(values seq)" = ''
check 'the answer says why it was sent' "$(values reason)" = timeout
check 'and so does a header' "$(header Poll-Reason)" = timeout

say "Poll-Wait is the wait that was really granted: up to a tenth shorter than asked, at random." \
    "Thousands of clients that reconnect together after a failure would otherwise return together for" \
    "ever after."
granted=$(header Poll-Wait)
check "between 0.9 and 1 second: $granted" "$(is_about "$granted" 1)" = yes

say "Resume from next, for two seconds. While this poll is held, something happens in another topic:"
mine=$(values next)
begin reader curl "$URL/topics/news?since=$mine&wait=2"
until_held 1
show curl -d 'it rains' "$URL/topics/weather"
check 'a poll for news is not released by weather' "$(values released)" = 0
elsewhere=$(values cursor)

answer reader
check 'still no news' "$(values reason)" = timeout
check 'but next has advanced' "$(values next)" != "$mine"
check 'past the event of the other topic' "$(values next)" = "$elsewhere"

say "A deadline does not move, however much happens. This poll is for alerts only, in a noisy topic:" \
    "it is woken for each event, finds that the type does not match, and waits for the rest of its" \
    "time. If each wait were as long as the first, it would never end. (It asks for an hour, and gets" \
    "what this server grants.)"
begin reader curl -i "$URL/topics/street?type=alert&wait=3600"
until_held 1
noise=0
while waits reader; do
    curl -o "$TMP/noise" -d 'a car goes by' "$URL/topics/street"
    noise=$((noise + 1))
done
answer reader
check "after $noise events of the wrong type it timed out" "$(values reason)" = timeout
check 'it was granted two seconds, not an hour' "$(is_about "$(header Poll-Wait)" 2)" = yes

say "A client that cannot wait at all says wait=0:"
show curl "$URL/topics/news?wait=0"
check 'it was answered at once' "$(values reason)" = timeout
