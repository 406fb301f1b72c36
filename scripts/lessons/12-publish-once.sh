#!/usr/bin/env bash
# Lesson 12: publish once, however often it is tried.
#
# A publisher sends an event, and the connection breaks. Was it published? From that side nobody can
# know: the request may have been lost, or only its answer. Not to try again may lose the event, and
# to try again may double it. So each event gets a name from its publisher, the Idempotency-Key, and
# a server that knows the name repeats its answer, not the event.
#
# Run:     scripts/lessons/12-publish-once.sh
# See:     an order that is booked twice, and `"duplicate":true`, which keeps the next one from that.
# Where:   src/api/publish.rs: Api::publish, src/log/keys.rs: Keys::look_up,
#          src/client/publish.rs: Publisher::publish
# Without: a retry is a second event, or is not dared at all.
set -euo pipefail
# shellcheck source=/dev/null
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# Publishes, and never hears what came of it: the line is dead before the answer is there. (By hand,
# because curl would wait for it.)
post_and_lose_the_line() { # BODY HEADER...
    local body=$1 place=${URL#http://}
    shift
    exec 4<>"/dev/tcp/${place%:*}/${place##*:}"
    {
        printf '%s\r\n' 'POST /topics/orders HTTP/1.1' "Host: $place" "Content-Length: ${#body}" "$@" ''
        printf '%s' "$body"
    } >&4
    exec 4>&-
}

start_server

say "A shop sends an order, and hears nothing:"
show post_and_lose_the_line '1 red bicycle'
say "Had it arrived? The shop can't see this, but it had:"
show curl "$URL/topics/orders?wait=20"
check 'the order is there' "$(values data)" = '1 red bicycle'

say "The shop has to do something. It sends the order again:"
show curl -d '1 red bicycle' "$URL/topics/orders"
show curl "$URL/topics/orders"
check 'two bicycles will be delivered' "$(values seq)" = '1 2'
next=$(values next)

say "The same once more, but the order has a name of its own, chosen by the shop:"
show post_and_lose_the_line '1 blue bicycle' 'Idempotency-Key: order-1042'
show curl "$URL/topics/orders?since=$next&wait=20"
check 'the order is there' "$(values data)" = '1 blue bicycle'
show curl -i -H 'Idempotency-Key: order-1042' -d '1 blue bicycle' "$URL/topics/orders"
check 'nothing new was made' "$(printf '%s\n' "$OUT" | head -n 1)" = 'HTTP/1.1 200 OK'
check 'the server says so' "$(values duplicate)" = true
check 'and tells what the first answer would have told' "$(values seq)" = 3

say "Five that try at the same moment are one order, too. (curl fills in the [1-5]: whatever comes" \
    "after the # is never sent, so it asks for the same five times, at once.)"
show curl --parallel --parallel-immediate -H 'Idempotency-Key: order-1043' -d '1 green bicycle' "$URL/topics/orders#[1-5]"
check 'one seq for all' "$(values seq | tr ' ' '\n' | sort -u)" = 4
check 'four of the five answers are repeats' "$(values duplicate)" = 'true true true true'

say "A name is for one order. For another one it is refused, as that has to be a mistake:"
show curl -H 'Idempotency-Key: order-1043' -d '9 green bicycles' "$URL/topics/orders"
check 'refused' "$(values status)" = 422

say "So this is what there is:"
show curl "$URL/topics/orders"
check 'each order that had a name, once' "$(values data)" = \
    '1 red bicycle 1 red bicycle 1 blue bicycle 1 green bicycle'
