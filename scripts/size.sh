#!/usr/bin/env bash
# Measures how small the server is, and holds it to its bounds: exit status 1 when a row is over.
#
#   scripts/size.sh    binary, crates, memory idle and for each held poll, start to first answer,
#                      and what 5,000 held polls cost while nothing happens
set -euo pipefail
cd "$(dirname "$0")/.."

cargo build --release --quiet
load=$(cargo bench --bench load --no-run --message-format=json 2>/dev/null |
    sed -n 's/.*"executable":"\([^"]*load-[^"]*\)".*/\1/p' | tail -n 1)
server=${CARGO_TARGET_DIR:-target}/release/longpoll
out=$(mktemp)
trap 'rm -f "$out"' EXIT

# Starts a server with some flags, runs a load against it, stops it; prints the load's figures.
measure() { # FLAGS... -- LOAD...
    local flags=() pid port
    while [ "$1" != -- ]; do flags+=("$1"); shift; done
    shift
    : >"$out"
    "$server" --listen 127.0.0.1:0 --log error "${flags[@]+"${flags[@]}"}" >"$out" &
    pid=$!
    until grep -q '^listening' "$out"; do kill -0 "$pid"; done
    port=$(sed -n 's/.*:\([0-9]*\)$/\1/p' "$out")
    "$load" "$@" --server longpoll --port "$port" --pid "$pid"
    kill "$pid"
    wait "$pid"
}

figure() { # NAME, figures on stdin
    sed -n "s/.*\"$1\":\([0-9.]*\).*/\1/p"
}

over=0
row() { # WHAT FIGURE BOUND UNIT
    local verdict=ok
    if awk "BEGIN { exit !($2 > $3) }"; then verdict=OVER over=1; fi
    printf '| %s | %s %s | %s %s | %s |\n' "$1" "$2" "$4" "$3" "$4" "$verdict"
}

echo "| what | measured | bound | |"
echo "| --- | --- | --- | --- |"
row "binary, stripped" "$(stat -c %s "$server" | awk '{ print $1 / 1000 }')" 800 kB
row "third-party crates" "$(($(cargo tree -e normal --prefix none | awk '{ print $1, $2 }' | sort -u | wc -l) - 1))" 35 ""
held=$(measure --max-connections 1100 --max-polls 1050 -- memory --polls 1000)
row "resident memory, idle" "$(figure idle_mib <<<"$held")" 4 MiB
row "resident memory of a held poll, its thread included" "$(figure per_poll_bytes <<<"$held")" 16384 bytes
quiet=$(measure --max-connections 5100 --max-polls 5050 -- memory --polls 5000 --quiet 10)
row "CPU of 5,000 held polls in 10 quiet seconds" "$(figure quiet_cpu_percent <<<"$quiet")" 2 "% of a core"
port=$("$load" free-port)
start=$("$load" start --server longpoll --port "$port" --repeats 11 -- "$server" --listen "127.0.0.1:$port" --log error)
row "start to first answer" "$(figure median_ms <<<"$start")" 10 ms
exit "$over"
