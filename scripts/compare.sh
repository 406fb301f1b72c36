#!/usr/bin/env bash
# Measures the same events over short polls, long polls, server-sent events and WebSocket, and tests
# common claims about long polling.
set -euo pipefail

usage() {
    cat <<'TEXT'
Usage: scripts/compare.sh [OPTION]...

Builds the release server and the load generator, and prints Markdown: a table with a row per method of
receiving events, for 1, 10 and 100 clients, on a quiet topic (an event every 2 s) and on a busy one (50
a second), published at random times that are the same for all rows; and a table of claims, each with a
verdict that is computed from the rows. Takes about four minutes after the build.

Each row has a fresh server with default flags and one load generator. A single thread of it publishes
and reads, so latencies are measured with one monotonic clock and include the client. The publisher waits
for each answer. Requests have the fewest headers possible; an event is 64 characters. Bytes are those
that the clients' sockets sent and received, without the headers of TCP and without those of the setup;
connections include the ones that the setup opened.

Quiet rows are measured all at once, because they leave the machine idle, and so are the busy rows of
short polls at long intervals; every other busy row is measured alone. A few further rows simulate a
network with a round trip of 50 ms: the load generator delays what it sends and what it has received.

  --seconds N     duration of a busy row [6]; short polls at intervals above 0.5 s take four times as
                  long, quiet rows ten times
  --intervals L   intervals of short polls in seconds, comma-separated [0.1,1,5]
  --clients L     numbers of clients, comma-separated [1,10,100]
  --quick         a smoke run: a few seconds, all rows at once; its figures mean nothing
  --json FILE     also write all figures and verdicts to FILE
  --svg FILE      write the chart to FILE
  --help          print this help

Environment: LONGPOLL=PATH is the server to measure and LOAD=PATH the load generator; without them the
script builds them.

Exit status: 0 done; 1 a wrong answer, an event lost by a method with a cursor, or another failure; 2
invalid usage.
TEXT
}

fail() {
    echo "compare: $*" >&2
    exit 1
}

misuse() {
    echo "compare: $* (see --help)" >&2
    exit 2
}

root=$(cd "$(dirname "$0")/.." && pwd)
seconds='' intervals='' clients='' quick='' json='' svg=''

while [ $# -gt 0 ]; do
    case $1 in
        --seconds | --intervals | --clients | --json | --svg)
            [ $# -ge 2 ] || misuse "$1 needs a value"
            declare "${1#--}=$2"
            shift
            ;;
        --quick) quick=yes ;;
        --help | -h)
            usage
            exit 0
            ;;
        *) misuse "unknown option $1" ;;
    esac
    shift
done
# Explicit options override --quick, and --quick overrides the defaults.
[ -z "$quick" ] || : "${seconds:=2}" "${intervals:=0.1,1}" "${clients:=1,10}"
: "${seconds:=6}" "${intervals:=0.1,1,5}" "${clients:=1,10,100}"
[[ $seconds =~ ^[1-9][0-9]{0,2}$ ]] || misuse "--seconds takes a whole number from 1 to 999"
[[ $intervals =~ ^[0-9]{1,2}(\.[0-9]{1,3})?(,[0-9]{1,2}(\.[0-9]{1,3})?)*$ ]] \
    || misuse "--intervals takes seconds, separated by commas"
for interval in ${intervals//,/ }; do
    awk "BEGIN { exit !($interval >= 0.01 && $interval <= 60) }" || misuse "--intervals: from 0.01 to 60 seconds"
done
# By default a server allows 448 held polls and 128 WebSockets.
[[ $clients =~ ^[1-9][0-9]{0,2}(,[1-9][0-9]{0,2})*$ ]] || misuse "--clients takes numbers, separated by commas"
for count in ${clients//,/ }; do
    [ "$count" -le 128 ] || misuse "--clients: at most 128, the server's cap of WebSockets"
done
for file in "$json" "$svg"; do
    [ -z "$file" ] || : >>"$file" || misuse "cannot write $file"
done

# --- programs ---

# shellcheck source=scripts/bench/programs.sh
source "$root/scripts/bench/programs.sh"

# --- processes that end with this script ---

scratch=$(mktemp -d)
servers=() loads=()

stop() { # PID...
    local pid
    [ $# -gt 0 ] || return 0
    kill "$@" 2>/dev/null || true
    for pid in "$@"; do
        wait "$pid" 2>/dev/null || true
    done
}

clean_up() {
    stop "${loads[@]+"${loads[@]}"}"
    stop "${servers[@]+"${servers[@]}"}"
    rm -rf "$scratch"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Starts a fresh server and a load against it, both in the background.
count_of_loads=0
start_load() { # LOAD SERVER-FLAG... -- ARGUMENT...
    local load_name=$1 flags=() files server url
    shift
    while [ "$1" != -- ]; do
        flags+=("$1")
        shift
    done
    shift
    count_of_loads=$((count_of_loads + 1))
    files=$scratch/$(printf %03d "$count_of_loads")
    : >"$files.out"
    "$longpoll" --listen 127.0.0.1:0 --log error "${flags[@]+"${flags[@]}"}" \
        >"$files.out" 2>"$files.err" </dev/null &
    server=$!
    servers+=("$server")
    until grep -q '^listening on' "$files.out"; do
        kill -0 "$server" 2>/dev/null || fail "the server did not start: $(cat "$files.err")"
    done
    url=$(sed -n '1s/^listening on //p' "$files.out")
    "$load" "$load_name" --server longpoll --port "${url##*:}" --pid "$server" "$@" >"$files.figures" </dev/null &
    loads+=("$!")
}

# Waits for all loads that were started, and stops their servers.
finish_loads() {
    local pid failed=0
    for pid in "${loads[@]}"; do
        wait "$pid" || failed=$((failed + 1))
    done
    loads=()
    stop "${servers[@]}"
    servers=()
    [ "$failed" -eq 0 ] || fail "$failed loads failed"
}

# Ends a group of rows that may not run beside the next ones. With --quick all run at once.
end_group() {
    [ -n "$quick" ] || finish_loads
}

# --- the workloads ---

declare -A rates=([quiet]=0.5 [busy]=50 [far]=50) round_trips=([quiet]=0 [busy]=0 [far]=50)
start_row() { # WORKLOAD METHOD CLIENTS SECONDS
    start_load scenario -- --method "$2" --clients "$3" --rate "${rates[$1]}" --seconds "$4" \
        --round-trip-ms "${round_trips[$1]}" --tag "workload=$1"
}

short=() slow=() fast=()
for interval in ${intervals//,/ }; do
    short+=("short-$interval")
    if awk "BEGIN { exit !($interval > 0.5) }"; then slow+=("short-$interval"); else fast+=("short-$interval"); fi
done
pushed=(long long-anew sse websocket)
sizes=${clients//,/ }
largest=$(tr ' ' '\n' <<<"$sizes" | sort -n | tail -n 1)

quiet_seconds=$((seconds * 10)) slow_seconds=$((seconds * 4))
[ -z "$quick" ] || quiet_seconds=4 slow_seconds=$seconds
# shellcheck source=scripts/bench/others.sh
source "$root/scripts/bench/others.sh"
load_before=$(cut -d ' ' -f 1-3 /proc/loadavg)
started=$SECONDS
start_watching_others

echo "compare: quiet, all at once: $quiet_seconds s" >&2
for count in $sizes; do
    for method in "${short[@]}" "${pushed[@]}" naive-short-1 naive-long; do
        start_row quiet "$method" "$count" "$quiet_seconds"
        # All rows publish on the same schedule; staggered starts keep them from publishing at the same moment.
        sleep 0.07
    done
done
end_group

echo "compare: busy, short polls at long intervals: $slow_seconds s" >&2
for count in $sizes; do
    for method in "${slow[@]+"${slow[@]}"}" naive-short-1; do
        start_row busy "$method" "$count" "$slow_seconds"
    done
done
end_group

echo "compare: busy, one after the other: $seconds s each" >&2
for count in $sizes; do
    for method in "${fast[@]+"${fast[@]}"}" "${pushed[@]}" naive-long; do
        start_row busy "$method" "$count" "$seconds"
        end_group
    done
done
for method in two-loose two-strict; do
    start_row busy "$method" "$largest" "$seconds"
    end_group
done
echo "compare: busy with a round trip of 50 ms, all at once: $seconds s" >&2
for method in "${pushed[@]}"; do
    start_row far "$method" "$largest" "$seconds"
done
end_group

held=400
[ -z "$quick" ] || held=50
start_load caps --max-connections 512 --max-polls "$held" -- --polls "$held"
finish_loads

# --- the report ---

cat "$scratch"/*.figures >"$scratch/results"
measure_others
about="Measured in $((SECONDS - started)) s on $(uname -s) $(uname -r), $(nproc) cores, load average before"
about+=" $load_before. Other programs took $others_percent % of the machine."
[ -z "$quick" ] || about="**A quick run, everything at once: these figures mean nothing.** $about"
report=(--results "$scratch/results" --about "$about")
[ -z "$json" ] || report+=(--json "$json")
[ -z "$svg" ] || report+=(--svg "$svg")
"$load" comparison "${report[@]}"
