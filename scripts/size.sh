#!/usr/bin/env bash
# Measures the size of the server against its bounds. Exit status 1: a row exceeds its bound.
#
#   scripts/size.sh    binary and crates, without default features and with them; resident memory
#                      idle and per held poll; start to first answer; CPU of 5,000 idle held polls
set -euo pipefail
cd "$(dirname "$0")/.."

case "${1-}" in
    "") ;;
    --help | -h) sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "usage: scripts/size.sh" >&2; exit 2 ;;
esac

kilobytes() { stat -c %s "$1" | awk '{ print $1 / 1000 }'; }
count_crates() { # FEATURE-FLAGS...
    echo $(($(cargo tree -e normal --prefix none "$@" | awk '{ print $1, $2 }' | sort -u | wc -l) - 1))
}
server=${CARGO_TARGET_DIR:-target}/release/longpoll
cargo build --release --quiet --no-default-features
minimal_kilobytes=$(kilobytes "$server")
cargo build --release --quiet
load=$(cargo bench --bench load --no-run --message-format=json 2>/dev/null |
    sed -n 's/.*"executable":"\([^"]*load-[^"]*\)".*/\1/p' | tail -n 1)
out=$(mktemp)
trap 'rm -f "$out"' EXIT

# Starts a server, runs a load against it, stops the server, and prints the load's figures.
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

exit_status=0
row() { # WHAT FIGURE BOUND UNIT
    local verdict=ok
    if awk "BEGIN { exit !($2 > $3) }"; then verdict=OVER exit_status=1; fi
    printf '| %s | %s %s | %s %s | %s |\n' "$1" "$2" "$4" "$3" "$4" "$verdict"
}

echo "| what | measured | bound | |"
echo "| --- | --- | --- | --- |"
row "binary, stripped, without default features" "$minimal_kilobytes" 850 kB
row "binary, stripped, with default features" "$(kilobytes "$server")" 1450 kB
row "third-party crates, without default features" "$(count_crates --no-default-features)" 35 ""
row "third-party crates, with default features" "$(count_crates)" 70 ""
held=$(measure --max-connections 1100 --max-polls 1050 -- memory --polls 1000)
row "resident memory, idle" "$(figure idle_mib <<<"$held")" 4 MiB
row "resident memory per held poll, its thread included" "$(figure per_poll_bytes <<<"$held")" 16384 bytes
idle=$(measure --max-connections 5100 --max-polls 5050 -- memory --polls 5000 --quiet 10)
row "CPU of 5,000 held polls during 10 s without events" "$(figure quiet_cpu_percent <<<"$idle")" 2 "% of a core"
port=$("$load" free-port)
start=$("$load" start --server longpoll --port "$port" --repeats 11 -- "$server" --listen "127.0.0.1:$port" --log error)
row "start to first answer" "$(figure median_ms <<<"$start")" 10 ms
exit "$exit_status"
