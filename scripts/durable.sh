#!/usr/bin/env bash
# Measures the cost of --data: publishes a second for each --sync, with 1 and with 64 publishers, beside
# memory only and beside Redis Streams with `appendfsync always`. The rows are measured in turn, on the
# disk of TMPDIR. Prints medians as Markdown.
#
#   scripts/durable.sh             measures; Redis only if it is installed
#   scripts/durable.sh --install   first unpacks Redis in target/tools (Debian; needs root or sudo)
#   scripts/durable.sh --memory    instead measures peak memory and time to open a store of 1 GiB
#                                  (needs 2.5 GiB of disk while it runs)
#
# Environment: ROUNDS [3] is the number of measurements per row, SECONDS_EACH [3] their duration.
set -euo pipefail
cd "$(dirname "$0")/.."

rounds=${ROUNDS:-3}
seconds=${SECONDS_EACH:-3}
memory=no
case "${1-}" in
    "") ;;
    --help | -h) sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; exit 0 ;;
    --memory) memory=yes ;;
    --install)
        as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
        as_root apt-get update -q >/dev/null
        # Unpacked, not installed: the installation would start a service.
        tools=${CARGO_TARGET_DIR:-target}/tools
        mkdir -p "$tools"
        (cd "$tools" && apt-get download -q redis-server redis-tools libjemalloc2 liblzf1 liblua5.1-0 lua-bitop lua-cjson >/dev/null &&
            for package in redis*.deb lib*.deb lua*.deb; do dpkg-deb -x "$package" .; done && rm ./*.deb)
        ;;
    *) echo "usage: scripts/durable.sh [--install | --memory]" >&2; exit 2 ;;
esac
tools=$(cd "${CARGO_TARGET_DIR:-target}" 2>/dev/null && pwd)/tools/usr
PATH=$PATH:$tools/bin
LD_LIBRARY_PATH=$tools/lib/$(uname -m)-linux-gnu${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export LD_LIBRARY_PATH

cargo build --release --quiet
server=${CARGO_TARGET_DIR:-target}/release/longpoll
tmp=$(mktemp -d)
pid=
clean_up() {
    if [ -n "$pid" ]; then kill "$pid" 2>/dev/null || true; wait "$pid" 2>/dev/null || true; fi
    rm -rf "$tmp"
}
trap clean_up EXIT

stop() {
    kill "$pid"
    wait "$pid" || true
    pid=
    rm -rf "$tmp/data"
}

serve() { # FLAGS...
    : >"$tmp/out"
    "$server" --listen 127.0.0.1:0 --log error "$@" >"$tmp/out" &
    pid=$!
    until grep -q '^listening' "$tmp/out"; do kill -0 "$pid"; done
    port=$(sed -n 's/.*:\([0-9]*\)$/\1/p' "$tmp/out")
}

# Lets the server write a store of 1 GiB, then opens it twice under each of three retentions.
if [ "$memory" = yes ]; then
    metric() { curl -sf "localhost:$port/metrics" | sed -n "s/^longpoll_$1 //p"; }
    stop_and_keep_data() { kill "$pid"; wait "$pid" || true; pid=; }
    line=$(printf 'x%.0s' {1..1000})
    for ((n = 0; n < 1000; n++)); do printf '"%s"\n' "$line"; done >"$tmp/batch"
    flags=(--data "$tmp/data" --retain-events 100000000)
    serve "${flags[@]}" --retain-bytes 2GiB --sync never
    for ((n = 0; n < 960; n++)); do
        curl -sf -o /dev/null --data-binary "@$tmp/batch" -H 'Content-Type: application/x-ndjson' "localhost:$port/topics/news"
    done
    stop_and_keep_data
    echo "| opened with | events retained | bytes retained | on disk | peak memory | opened in |"
    echo "| --- | --- | --- | --- | --- | --- |"
    for retain in 2GiB 2GiB 64MiB 64MiB 1MiB 1MiB; do
        serve "${flags[@]}" --retain-bytes "$retain" --sync never
        # The size on disk is read right after the start, while the server may still delete segments.
        printf '| --retain-bytes %s | %s | %d MiB | %s MiB | %d MiB | %.1f s |\n' "$retain" \
            "$(metric retained_events)" "$(($(metric retained_bytes) >> 20))" "$(du -sm "$tmp/data" | cut -f1)" \
            "$(($(sed -n 's/^VmHWM:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/$pid/status") >> 10))" "$(metric store_recovery_seconds)"
        stop_and_keep_data
    done
    exit
fi
load=$(cargo bench --bench load --no-run --message-format=json 2>/dev/null |
    sed -n 's/.*"executable":"\([^"]*load-[^"]*\)".*/\1/p' | tail -n 1)

# Both print the publishes a second of one measurement.
measure_longpoll() { # PUBLISHERS FLAGS...
    local publishers=$1 port
    shift
    serve "$@"
    "$load" publish --server longpoll --port "$port" --connections "$publishers" --seconds "$seconds" |
        sed -n 's/.*"thousand_per_second":\([0-9.]*\).*/\1/p' | awk '{ printf "%d\n", $1 * 1000 }'
    stop
}

measure_redis() { # PUBLISHERS
    local port count body
    port=$("$load" free-port)
    mkdir "$tmp/data"
    redis-server --port "$port" --bind 127.0.0.1 --dir "$tmp/data" --save '' --appendonly yes \
        --appendfsync always --no-appendfsync-on-rewrite no --auto-aof-rewrite-percentage 0 >/dev/null &
    pid=$!
    until redis-cli -p "$port" ping >/dev/null 2>&1; do kill -0 "$pid"; done
    body=$(printf 'x%.0s' {1..100})
    count=$(($1 == 1 ? seconds * 3000 : seconds * 30000))
    redis-benchmark -p "$port" -c "$1" -n "$count" --csv XADD news MAXLEN '~' 1000 '*' data "$body" |
        tail -n 1 | cut -d, -f2 | tr -d '"' | cut -d. -f1
    stop
}

median() { sort -n | awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }'; }

rows=("memory only" "--sync never" "--sync 100ms" "--sync always")
if command -v redis-server >/dev/null; then rows+=("Redis Streams, appendfsync always"); fi
for ((round = 0; round < rounds; round++)); do
    for publishers in 1 64; do
        for row in "${rows[@]}"; do
            case $row in
                memory*) measure_longpoll "$publishers" ;;
                Redis*) measure_redis "$publishers" ;;
                *) measure_longpoll "$publishers" --data "$tmp/data" --sync "${row#--sync }" ;;
            esac >>"$tmp/$row.$publishers"
        done
    done
done
echo "| publishes a second | 1 publisher | 64 publishers |"
echo "| --- | --- | --- |"
for row in "${rows[@]}"; do
    echo "| $row | $(median <"$tmp/$row.1") | $(median <"$tmp/$row.64") |"
done
