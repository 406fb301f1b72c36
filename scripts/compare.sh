#!/usr/bin/env bash
# The same events by short polls, long polls, server-sent events and WebSocket: what each costs, and
# what the common claims about long polling are worth.
set -euo pipefail

usage() {
    cat <<'TEXT'
Usage: scripts/compare.sh [OPTION]...

Builds the release server and the load generator, and prints Markdown: a table with a row for each
way to learn of events, for 1, 10 and 100 clients, on a quiet topic (an event every 2 s) and a busy
one (50 a second), both at random times, the same for all; and a table of claims, each with a verdict
that is computed from the rows. Takes about four minutes after the build.

Each row has a fresh server with its default flags, and one load generator: a thread that publishes
and reads, so that latencies are of one monotonic clock, and include the client. The publisher waits
for each answer. Requests have the fewest headers possible, events 64 characters. Bytes are those
that a client's sockets were given and gave, without the headers of TCP; what it takes to get into
place is left out, except that connections are all that were ever opened.

Quiet rows are measured together, as they leave the machine idle, and so are those of busy short
polls at long intervals; every other busy row has the machine for itself. A few rows more are as if
there were 50 ms of network, there and back: the load generator sends, and takes what it has received,
that much later.

  --seconds N     how long a busy row is measured (6); short polls at intervals above 0.5 s four
                  times, and quiet rows ten times as long
  --intervals L   of short polls, in seconds, comma-separated (0.1,1,5)
  --clients L     how many clients, comma-separated (1,10,100)
  --quick         does it all work: a few seconds, everything at once. Its figures mean nothing
  --json FILE     write all figures and verdicts there too
  --svg FILE      write the picture there
  --help          this text

Environment: LONGPOLL=PATH is a server to measure instead of building one; LOAD=PATH a built load generator.

Exit status: 0 done; 1 a wrong answer, a lost event that nobody may lose, or a failure; 2 a wrong option.
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
# Options given win over --quick, and --quick over the defaults.
[ -z "$quick" ] || : "${seconds:=2}" "${intervals:=0.1,1}" "${clients:=1,10}"
: "${seconds:=6}" "${intervals:=0.1,1,5}" "${clients:=1,10,100}"
[[ $seconds =~ ^[1-9][0-9]{0,2}$ ]] || misuse "--seconds takes a whole number from 1 to 999"
[[ $intervals =~ ^[0-9]{1,2}(\.[0-9]{1,3})?(,[0-9]{1,2}(\.[0-9]{1,3})?)*$ ]] \
    || misuse "--intervals takes seconds, separated by commas"
for interval in ${intervals//,/ }; do
    awk "BEGIN { exit !($interval >= 0.01 && $interval <= 60) }" || misuse "--intervals: from 0.01 to 60 seconds"
done
# A server holds 448 polls, and 128 WebSockets, unless told otherwise.
[[ $clients =~ ^[1-9][0-9]{0,2}(,[1-9][0-9]{0,2})*$ ]] || misuse "--clients takes numbers, separated by commas"
for count in ${clients//,/ }; do
    [ "$count" -le 128 ] || misuse "--clients: at most 128, as there may be no more WebSockets"
done
for file in "$json" "$svg"; do
    [ -z "$file" ] || : >>"$file" || misuse "$file can't be written"
done

# --- what is needed ---

# shellcheck source=scripts/bench/programs.sh
source "$root/scripts/bench/programs.sh"

# --- whoever is started here ends with this script ---

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

# Starts a server of its own and a load against it, in the background.
lanes=0
begin() { # LOAD SERVER-FLAG... -- ARGUMENT...
    local what=$1 flags=() place server url
    shift
    while [ "$1" != -- ]; do
        flags+=("$1")
        shift
    done
    shift
    lanes=$((lanes + 1))
    place=$scratch/$(printf %03d "$lanes")
    : >"$place.out"
    "$longpoll" --listen 127.0.0.1:0 --log error "${flags[@]+"${flags[@]}"}" \
        >"$place.out" 2>"$place.err" </dev/null &
    server=$!
    servers+=("$server")
    until grep -q '^listening on' "$place.out"; do
        kill -0 "$server" 2>/dev/null || fail "the server did not start: $(cat "$place.err")"
    done
    url=$(sed -n '1s/^listening on //p' "$place.out")
    "$load" "$what" --server longpoll --port "${url##*:}" --pid "$server" "$@" >"$place.figures" </dev/null &
    loads+=("$!")
}

# Waits for all that was begun.
finish() {
    local pid broken=0
    for pid in "${loads[@]}"; do
        wait "$pid" || broken=$((broken + 1))
    done
    loads=()
    stop "${servers[@]}"
    servers=()
    [ "$broken" -eq 0 ] || fail "$broken lanes failed"
}

# When nothing else may run meanwhile.
finish_alone() {
    [ -n "$quick" ] || finish
}

# --- the workloads ---

declare -A rates=([quiet]=0.5 [busy]=50 [far]=50) round_trips=([quiet]=0 [busy]=0 [far]=50)
lane() { # WORKLOAD METHOD CLIENTS SECONDS
    begin lane -- --method "$2" --clients "$3" --rate "${rates[$1]}" --seconds "$4" \
        --round-trip-ms "${round_trips[$1]}" --tag "workload=$1"
}

short=() slow=() fast=()
for interval in ${intervals//,/ }; do
    short+=("short-$interval")
    if awk "BEGIN { exit !($interval > 0.5) }"; then slow+=("short-$interval"); else fast+=("short-$interval"); fi
done
pushed=(long long-anew sse websocket)
sizes=${clients//,/ }
most=$(tr ' ' '\n' <<<"$sizes" | sort -n | tail -n 1)

quiet_seconds=$((seconds * 10)) slow_seconds=$((seconds * 4))
[ -z "$quick" ] || quiet_seconds=4 slow_seconds=$seconds
# shellcheck source=scripts/bench/others.sh
source "$root/scripts/bench/others.sh"
load_before=$(cut -d ' ' -f 1-3 /proc/loadavg)
started=$SECONDS
mark

echo "compare: quiet, all at once: $quiet_seconds s" >&2
for count in $sizes; do
    for method in "${short[@]}" "${pushed[@]}" naive-short-1 naive-long; do
        lane quiet "$method" "$count" "$quiet_seconds"
        # All have the same gaps between events; begun apart, they do not have them at the same time.
        sleep 0.07
    done
done
finish_alone

echo "compare: busy, short polls at long intervals: $slow_seconds s" >&2
for count in $sizes; do
    for method in "${slow[@]+"${slow[@]}"}" naive-short-1; do
        lane busy "$method" "$count" "$slow_seconds"
    done
done
finish_alone

echo "compare: busy, one after the other: $seconds s each" >&2
for count in $sizes; do
    for method in "${fast[@]+"${fast[@]}"}" "${pushed[@]}" naive-long; do
        lane busy "$method" "$count" "$seconds"
        finish_alone
    done
done
for method in two-loose two-strict; do
    lane busy "$method" "$most" "$seconds"
    finish_alone
done
echo "compare: busy and far, all at once: $seconds s" >&2
for method in "${pushed[@]}"; do
    lane far "$method" "$most" "$seconds"
done
finish_alone

held=400
[ -z "$quick" ] || held=50
begin caps --max-connections 512 --max-polls "$held" -- --polls "$held"
finish

# --- the report ---

cat "$scratch"/*.figures >"$scratch/results"
tell_others
about="Measured in $((SECONDS - started)) s on $(uname -s) $(uname -r), $(nproc) cores, load average before"
about+=" $load_before. Other programs took $foreign % of the machine."
[ -z "$quick" ] || about="**A quick run, everything at once: these figures mean nothing.** $about"
report=(--results "$scratch/results" --about "$about")
[ -z "$json" ] || report+=(--json "$json")
[ -z "$svg" ] || report+=(--svg "$svg")
"$load" comparison "${report[@]}"
