#!/usr/bin/env bash
# Lesson 12: publish once, however often it is tried.
#
# A publisher sends an event, and the connection breaks. Was the event published? The publisher
# cannot know: either the request is lost, or only its response. Not trying again may lose the
# event, and trying again may double it. So the publisher gives each event a key, the
# Idempotency-Key, and a server that knows the key repeats its response, not the event.
#
# Run:     scripts/lessons/12-publish-once.sh
# See:     an order that is booked twice, and `"duplicate":true`, which saves the next one from
#          that.
# Where:   src/api/publish.rs: EventPublisher::publish (append), src/log/idempotency.rs:
#          IdempotencyTable::look_up (fingerprint), src/client/publish.rs: Publisher::publish
#          (random_key)
# Without: a retry is a second event, or the publisher does not dare to retry.
set -euo pipefail
# shellcheck source=/dev/null
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# Publishes, and closes the connection before the response arrives. (By hand, because curl would wait
# for the response.)
post_and_lose_response() { # BODY HEADER...
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

say "A shop sends an order, and gets no response:"
show post_and_lose_response '1 red bicycle'
say "Has it arrived? The shop can't see this, but it has:"
show curl "$URL/topics/orders?wait=20"
check 'the order is there' "$(values data)" = '1 red bicycle'

say "The shop has to do something. It sends the order again:"
show curl -d '1 red bicycle' "$URL/topics/orders"
show curl "$URL/topics/orders"
check 'two bicycles will be delivered' "$(values seq)" = '1 2'
next=$(values next)

say "The same once more, but the order has a key of its own, chosen by the shop:"
show post_and_lose_response '1 blue bicycle' 'Idempotency-Key: order-1042'
show curl "$URL/topics/orders?since=$next&wait=20"
check 'the order is there' "$(values data)" = '1 blue bicycle'
show curl -i -H 'Idempotency-Key: order-1042' -d '1 blue bicycle' "$URL/topics/orders"
check 'no new event' "$(printf '%s\n' "$OUT" | head -n 1)" = 'HTTP/1.1 200 OK'
check 'the server says so' "$(values duplicate)" = true
check 'and repeats the seq of the first response' "$(values seq)" = 3

say "Five tries at the same moment are one order, too. (curl expands the [1-5], and never sends the" \
    "part after the #: so it sends the same request five times, at once.)"
show curl --parallel --parallel-immediate -H 'Idempotency-Key: order-1043' -d '1 green bicycle' "$URL/topics/orders#[1-5]"
check 'one seq for all' "$(values seq | tr ' ' '\n' | sort -u)" = 4
check 'four of the five responses are repeats' "$(values duplicate)" = 'true true true true'

say "A key is for one order. For another one it is refused, because that has to be a mistake:"
show curl -H 'Idempotency-Key: order-1043' -d '9 green bicycles' "$URL/topics/orders"
check 'refused' "$(values status)" = 422

say "So these are the orders:"
show curl "$URL/topics/orders"
check 'each order that had a key, once' "$(values data)" = \
    '1 red bicycle 1 red bicycle 1 blue bicycle 1 green bicycle'
