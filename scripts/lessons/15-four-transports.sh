#!/usr/bin/env bash
# Lesson 15: short poll, long poll, SSE and WebSocket.
#
# Four readers follow the same topic over four transports, and all get the same ten events. This
# lesson counts what each transport costs. A short poll is repeated whether there is news or not; a
# long poll takes one request per answer; a stream of server-sent events takes one request and never
# ends; a WebSocket takes one request and then speaks another protocol than HTTP.
#
# Each event is published just before the short poll's third request, so two of its three answers
# are empty: in real life their number, and the age of its news, depend on how often it polls. The
# other three have their event before the publish is answered.
#
# Run:     scripts/lessons/15-four-transports.sh
# See:     the table: requests, bytes sent, bytes received, and empty answers.
# Where:   src/api/transport.rs: Transport::of (Upgrade), src/api/poll.rs: Poller::hold (register),
#          src/api/framing/sse.rs: part (push_id), src/api/framing/websocket.rs: part (push_events),
#          src/server/websocket.rs: Handler::converse (write)
# Without: you pay for a head with each event, or use a kind of connection that your proxy, client
#          or debugger may not know.
set -euo pipefail
# shellcheck source=/dev/null
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

events='one two three four five six seven eight nine ten'

# Counts the bytes sent and received, a line for each request. curl counts heads and bodies; --raw
# includes the framing of a chunked body.
counted() { # READER CURL-ARGUMENTS...
    local reader=$1
    shift
    curl --raw -w '%{stderr}%{size_request} %{size_header} %{size_download}\n' "$@" 2>>"$TMP/$reader.counts"
}

# One of many: a client repeats it every now and then.
short_poll() {
    local page
    page=$(counted short "$URL/topics/news?since=$short_next&wait=0")
    short_next=$(values next "$page")
    printf '%s\n' "$page" >>"$TMP/short.pages"
}

long_poll() {
    local next=start page=''
    until [ "$(values data "$page")" = ten ]; do
        page=$(counted long "$URL/topics/news?since=$next&wait=20")
        next=$(values next "$page")
        printf '%s\n' "$page"
    done
}

sse() {
    counted sse -N -H 'Accept: text/event-stream' "$URL/topics/news"
}

# A WebSocket in bash, because not every curl speaks it. It begins as HTTP; after that each side sends
# frames: one byte for the type, one or three for the length n (or nine, for frames longer than any
# here), then n bytes.
websocket() {
    local LC_ALL=C port=${URL##*:} request line kind length text received=0
    exec 7<>"/dev/tcp/127.0.0.1/$port"
    # The key is a random number, so that a server that does not know WebSocket cannot answer it. This
    # one is from the standard (RFC 6455, section 1.3), which also gives the right answer.
    printf -v request '%s\r\n' "GET /topics/news HTTP/1.1" "Host: 127.0.0.1:$port" \
        'Connection: Upgrade' 'Upgrade: websocket' \
        'Sec-WebSocket-Version: 13' 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==' ''
    printf '%s' "$request" >&7
    until [ "${line-}" = $'\r' ]; do
        IFS= read -r -t "$HANG" -u 7 line
        received=$((received + ${#line} + 1))
        printf '%s\n' "$line"
    done
    while true; do
        byte kind
        byte length
        received=$((received + 2 + length))
        if [ "$length" = 126 ]; then
            byte length
            byte text
            length=$((length * 256 + text))
            received=$((received - 126 + 2 + length))
        fi
        case $kind in
        129) # A text frame, final.
            IFS= read -r -t "$HANG" -N "$length" -u 7 text
            printf '%s\n' "$text"
            ;;
        137) # A ping; a reader that stays would have to answer with a pong.
            IFS= read -r -t "$HANG" -N "$length" -u 7 text
            ;;
        136) # Close, with a reason. A client masks its frames, this one with zeros.
            printf '\x88\x82\0\0\0\0\x03\xe9' >&7
            printf '%s 0 %s\n' "$((${#request} + 8))" "$received" >>"$TMP/websocket.counts"
            return
            ;;
        *) return 1 ;;
        esac
    done
}

byte() { # NAME: sets it to the value of the next byte
    local char=''
    IFS= read -r -t "$HANG" -d '' -n 1 -u 7 char || return 1
    printf -v "$1" %d "'$char"
    printf -v "$1" %d "$((${!1} & 255))"
}

start_server

say "Three of the four are held, and wait:"
short_next=start
begin long long_poll
begin sse sse
begin websocket websocket
until_held 3

say "For each event: two short polls that find nothing, the publish, and one that finds it."
for event in $events; do
    short_poll
    short_poll
    show curl -d "$event" "$URL/topics/news"
    check 'it released the other three' "$(values released)" = 3
    short_poll
    [ "$event" = ten ] || until_held 3
done

say "The long poll has all, and stops. A stream ends only when its server does:"
answer long
cp "$TMP/long.out" "$TMP/long.pages"
until_held 2
show kill -TERM "$SERVER"
answer sse
cp "$TMP/sse.out" "$TMP/sse.pages"
answer websocket
cp "$TMP/websocket.out" "$TMP/websocket.pages"
check 'the handshake was understood' "$(header Sec-WebSocket-Accept)" = 's3pPLMBiTxaQ9kYGzzhZRbK+xOo='
until_ended

say "The events are the same over each transport:"
for reader in short long sse websocket; do
    check "$reader: ten events, in order" "$(values data "$(cat "$TMP/$reader.pages")")" = "$events"
    check "$reader: the same seqs" "$(values seq "$(cat "$TMP/$reader.pages")")" = "$(echo {1..10})"
done

say "The costs. (Heads, bodies and frames, without TCP and TLS; and curl makes a new connection for" \
    "each request here, where a browser keeps one.)"
printf '%-11s%10s%12s%16s%17s\n' '' requests 'bytes sent' 'bytes received' 'empty answers'
for reader in short long sse websocket; do
    empty=$(grep -c '"events":\[\]' "$TMP/$reader.pages") || true
    awk -v reader="$reader" -v empty="$empty" '
        { sent += $1; received += $2 + $3 }
        END { printf "%-11s%10d%12d%16d%17d\n", reader, NR, sent, received, empty }' "$TMP/$reader.counts"
done | tee "$TMP/table"

cell() { # READER COLUMN
    awk -v reader="$1" -v column="$2" '$1 == reader { print $column }' "$TMP/table"
}
check 'a short poll takes three requests for each event' "$(cell short 2)" = 30
check 'and two of its three answers are empty' "$(cell short 5)" = 20
check 'a long poll takes one request for each event' "$(cell long 2)" = 10
check 'and no answer is empty, because there was always an event within its wait' "$(cell long 5)" = 0
check 'a stream takes one request' "$(cell sse 2)" = 1
check 'a WebSocket too' "$(cell websocket 2)" = 1
check 'a short poll sends most' "$(cell short 3)" -gt "$(cell long 3)"
check 'and receives most' "$(cell short 4)" -gt "$(cell long 4)"
check 'a long poll pays for a head with each answer, a stream does not' "$(cell long 4)" -gt "$(cell sse 4)"
