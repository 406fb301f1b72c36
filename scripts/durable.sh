#!/usr/bin/env bash
# Measures what --data costs: publishes a second with each --sync, with 1 and with 64 publishers,
# beside memory only and beside Redis Streams that sync always. All in one run, in turn, on the disk
# that TMPDIR is on; prints medians as Markdown.
#
#   scripts/durable.sh             measures; Redis only if it is there
#   scripts/durable.sh --install   gets Redis first (Debian: redis-server, redis-tools)
#   scripts/durable.sh --memory    measures something else: how much memory it takes, and how long, to
#                                  open a store of a gibibyte (needs 2.5 GiB of disk for a while)
#
# Environment: ROUNDS=3, SECONDS_EACH=3.
set -euo pipefail
cd "$(dirname "$0")/.."

rounds=${ROUNDS:-3}
time=${SECONDS_EACH:-3}
memory=no
case "${1-}" in
    "") ;;
    --memory) memory=yes ;;
    --install)
        as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
        as_root apt-get update -q >/dev/null
        # Only unpacked, so that no service is started.
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

# A store of a gibibyte, written by the program, then opened under three retentions in turn.
if [ "$memory" = yes ]; then
    metric() { curl -sf "localhost:$port/metrics" | sed -n "s/^longpoll_$1 //p"; }
    end() { kill "$pid"; wait "$pid" || true; pid=; }
    line=$(printf 'x%.0s' {1..1000})
    for ((n = 0; n < 1000; n++)); do printf '"%s"\n' "$line"; done >"$tmp/batch"
    kept=(--data "$tmp/data" --retain-events 100000000)
    serve "${kept[@]}" --retain-bytes 2GiB --sync never
    for ((n = 0; n < 960; n++)); do
        curl -sf -o /dev/null --data-binary "@$tmp/batch" -H 'Content-Type: application/x-ndjson' "localhost:$port/topics/news"
    done
    end
    echo "| opened with | events kept | kept, as counted | on disk | peak memory | in |"
    echo "| --- | --- | --- | --- | --- | --- |"
    for retain in 2GiB 2GiB 64MiB 64MiB 1MiB 1MiB; do
        serve "${kept[@]}" --retain-bytes "$retain" --sync never
        # The directory as it was opened, or is being tidied.
        printf '| --retain-bytes %s | %s | %d MiB | %s MiB | %d MiB | %.1f s |\n' "$retain" \
            "$(metric retained_events)" "$(($(metric retained_bytes) >> 20))" "$(du -sm "$tmp/data" | cut -f1)" \
            "$(($(sed -n 's/^VmHWM:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/$pid/status") >> 10))" "$(metric store_recovery_seconds)"
        end
    done
    exit
fi
load=$(cargo bench --bench load --no-run --message-format=json 2>/dev/null |
    sed -n 's/.*"executable":"\([^"]*load-[^"]*\)".*/\1/p' | tail -n 1)

longpoll() { # PUBLISHERS FLAGS...
    local publishers=$1 port
    shift
    serve "$@"
    "$load" publish --server longpoll --port "$port" --connections "$publishers" --seconds "$time" |
        sed -n 's/.*"thousand_per_second":\([0-9.]*\).*/\1/p' | awk '{ printf "%d\n", $1 * 1000 }'
    stop
}

redis() { # PUBLISHERS
    local port count body
    port=$("$load" free-port)
    mkdir "$tmp/data"
    redis-server --port "$port" --bind 127.0.0.1 --dir "$tmp/data" --save '' --appendonly yes \
        --appendfsync always --no-appendfsync-on-rewrite no --auto-aof-rewrite-percentage 0 >/dev/null &
    pid=$!
    until redis-cli -p "$port" ping >/dev/null 2>&1; do kill -0 "$pid"; done
    body=$(printf 'x%.0s' {1..100})
    count=$(($1 == 1 ? time * 3000 : time * 30000))
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
                memory*) longpoll "$publishers" ;;
                Redis*) redis "$publishers" ;;
                *) longpoll "$publishers" --data "$tmp/data" --sync "${row#--sync }" ;;
            esac >>"$tmp/$row.$publishers"
        done
    done
done
echo "| publishes a second | 1 publisher | 64 publishers |"
echo "| --- | --- | --- |"
for row in "${rows[@]}"; do
    echo "| $row | $(median <"$tmp/$row.1") | $(median <"$tmp/$row.64") |"
done
