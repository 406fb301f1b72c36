#!/usr/bin/env bash
# Measures how small the server is, and holds it to its bounds: exit status 1 when a row is over.
#
#   scripts/size.sh    binary and crates, for the server alone and with all features; memory idle
#                      and for each held poll, start to first answer, and what 5,000 held polls
#                      cost while nothing happens
set -euo pipefail
cd "$(dirname "$0")/.."

kilobytes() { stat -c %s "$1" | awk '{ print $1 / 1000 }'; }
crates() { # FEATURE-FLAGS...
    echo $(($(cargo tree -e normal --prefix none "$@" | awk '{ print $1, $2 }' | sort -u | wc -l) - 1))
}
built=${CARGO_TARGET_DIR:-target}/release/longpoll
cargo build --release --quiet --no-default-features
alone=$(kilobytes "$built")
cargo build --release --quiet
load=$(cargo bench --bench load --no-run --message-format=json 2>/dev/null |
    sed -n 's/.*"executable":"\([^"]*load-[^"]*\)".*/\1/p' | tail -n 1)
server=$built
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
row "binary, stripped, server alone" "$alone" 800 kB
row "binary, stripped, all features" "$(kilobytes "$server")" 1300 kB
row "third-party crates, server alone" "$(crates --no-default-features)" 35 ""
row "third-party crates, all features" "$(crates)" 70 ""
held=$(measure --max-connections 1100 --max-polls 1050 -- memory --polls 1000)
row "resident memory, idle" "$(figure idle_mib <<<"$held")" 4 MiB
row "resident memory of a held poll, its thread included" "$(figure per_poll_bytes <<<"$held")" 16384 bytes
quiet=$(measure --max-connections 5100 --max-polls 5050 -- memory --polls 5000 --quiet 10)
row "CPU of 5,000 held polls in 10 quiet seconds" "$(figure quiet_cpu_percent <<<"$quiet")" 2 "% of a core"
port=$("$load" free-port)
start=$("$load" start --server longpoll --port "$port" --repeats 11 -- "$server" --listen "127.0.0.1:$port" --log error)
row "start to first answer" "$(figure median_ms <<<"$start")" 10 ms
exit "$over"
