#!/usr/bin/env bash
# Attacks a server with small caps while a well-behaved client uses it, and checks the server's limits.
set -euo pipefail

usage() {
    cat <<'TEXT'
Usage: scripts/siege.sh [OPTION]...

Builds the release server and the load generator. Each case attacks a fresh server, with a probe beside
the attack: a client that publishes, polls for the event that it published and sends GET /health, one
after the other, each on a new connection. Prints a row of Markdown per case: the requests of the probe,
how many were answered, how many refusals preceded those answers, and how long the slowest request took,
its refusals included; memory, threads and descriptors of the server before the attack, at their peak,
and after it. An attacker whose connection is closed reconnects: at once in silent, heads, bodies and
stars, after 2 s in readers, after 250 ms in polls and greedy.

  silent          connections that send nothing
  heads           request heads sent one byte at a time, without end
  bodies          bodies that stop half-way
  readers         clients that request large answers and read nothing
  polls           2,000 held polls, which is their cap, and further polls that are sent repeatedly
  stars           polls of all of 9,900 topics, each with a limit of its own, sent again at once after
                  each event
  greedy          one client behind a proxy that tries to hold all polls; it may hold half of the
                  connections
  slow-headers, slow-body, slow-read, range
                  the four modes of slowhttptest, if it is installed

A row fails when a request of the probe is not answered within its limit:

  1 s                      where connections that wait for (more of) a request fill the server
  --write-timeout + 0.5 s  (2.5 s here) in readers and with slowhttptest; the probe may have to reconnect
                           once after the time-out
  250 ms                   where held polls are at their cap, one client is at its own, or all topics are
                           polled

Added to each limit is four times the longest delay with which the machine woke a thread meanwhile. A row
also fails when a connection, poll, thread, descriptor or more than 4 MiB of memory (8 MiB in bodies, 20
in stars) is not released within 10 s, when not every connection up to the cap is served afterwards, or
when the attack had no effect.

The figures of before are taken after every worker has served a connection: workers are kept, and so is
some of the memory that they have freed. (glibc keeps much of it, in an arena per few threads, so the
server runs with MALLOC_ARENA_MAX=2.)

  --seconds N     duration of each attack [30]
  --only LIST     only these cases, comma-separated
  --attackers N   concurrent attackers [4 per connection; 1,000 in silent; 2,100 in polls; 400 in stars]
  --install       first install slowhttptest with apt-get (Debian; needs root)
  --help          print this help

Environment: LONGPOLL=PATH is the server to attack and LOAD=PATH the load generator; without them the
script builds them.

Exit status: 0 all rows are ok; 1 a row is not, or another failure; 2 invalid usage.
TEXT
}

fail() {
    echo "siege: $*" >&2
    exit 1
}

misuse() {
    echo "siege: $* (see --help)" >&2
    exit 2
}

root=$(cd "$(dirname "$0")/.." && pwd)
load_cases=(silent heads bodies readers polls stars greedy)
slowhttptest_cases=(slow-headers slow-body slow-read range)
seconds=30 only='' attackers='' install=''

while [ $# -gt 0 ]; do
    case $1 in
        --seconds | --only | --attackers)
            [ $# -ge 2 ] || misuse "$1 needs a value"
            declare "${1#--}=$2"
            shift
            ;;
        --install) install=yes ;;
        --help | -h)
            usage
            exit 0
            ;;
        *) misuse "unknown option $1" ;;
    esac
    shift
done
[[ $seconds =~ ^[1-9][0-9]{0,3}$ ]] || misuse "--seconds takes a whole number from 1 to 9999"
[[ -z $attackers || $attackers =~ ^[1-9][0-9]{0,4}$ ]] || misuse "--attackers takes a whole number from 1 to 99999"
IFS=, read -r -a cases <<<"$only"
[ ${#cases[@]} -gt 0 ] || cases=("${load_cases[@]}" "${slowhttptest_cases[@]}")
for case in "${cases[@]}"; do
    [[ " ${load_cases[*]} ${slowhttptest_cases[*]} " == *" $case "* ]] || misuse "--only: unknown case '$case'"
done

# --- programs ---

if [ -n "$install" ] && ! command -v slowhttptest >/dev/null; then
    { apt-get update && DEBIAN_FRONTEND=noninteractive \
        apt-get install -y --no-install-recommends slowhttptest; } >&2 || fail "apt-get could not install slowhttptest"
fi

# shellcheck source=scripts/bench/programs.sh
source "$root/scripts/bench/programs.sh"

# --- processes that end with this script ---

scratch=$(mktemp -d)
server_pid='' load_pid=''

stop() { # PID
    [ -n "$1" ] || return 0
    kill "$1" 2>/dev/null || true
    wait "$1" 2>/dev/null || true
}

clean_up() {
    # The load generator ends the attackers that it has started.
    stop "$load_pid"
    stop "$server_pid"
    rm -rf "$scratch"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Sets `server_pid` and `url`.
start_server() { # FLAG...
    : >"$scratch/stdout"
    MALLOC_ARENA_MAX=2 "$longpoll" --listen 127.0.0.1:0 --log error --retain-events 100 "$@" \
        >"$scratch/stdout" 2>"$scratch/stderr" </dev/null &
    server_pid=$!
    until grep -q '^listening on' "$scratch/stdout"; do
        kill -0 "$server_pid" 2>/dev/null || fail "the server did not start: $(cat "$scratch/stderr")"
    done
    url=$(sed -n '1s/^listening on //p' "$scratch/stdout")
}

# Sets `attack`: the command of a case of slowhttptest, and nothing for a case of the load generator. The
# load generator ends the command with the case; the command's own time limit (-l) is longer.
attack=()
set_attack() { # CASE
    # The server closes up to four waiting connections a second per worker. This rate stays below that, and
    # the count is many times the cap.
    local rate=$((connections * 3)) count=$((connections * 3 * (seconds + 1)))
    local common=(-c "$count" -r "$rate" -l $((seconds + 2)) -i 1 -p 1 -v 0)
    case $1 in
        slow-headers) attack=(-H -u "$url/topics/large" -x 24) ;;
        slow-body) attack=(-B -u "$url/topics/siege" -s 60000 -x 24) ;;
        slow-read) attack=(-X -u "$url/topics/large?format=raw" -k 10 -w 10 -y 20 -n 5 -z 32) ;;
        range) attack=(-R -u "$url/topics/large" -a 10 -b 3000) ;;
        *) attack=() && return ;;
    esac
    attack=(-- slowhttptest "${attack[@]}" "${common[@]}")
}

ulimit -n "$(ulimit -Hn)"
write_timeout=2
failed=0
skipped=()

cat <<'TEXT'
| case | requests | answered | refused before | slowest ms (limit) | MiB before, peak, after | threads | descriptors | |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
TEXT
for case in "${cases[@]}"; do
    if [[ " ${slowhttptest_cases[*]} " == *" $case "* ]] && ! command -v slowhttptest >/dev/null; then
        skipped+=("$case")
        continue
    fi
    connections=64 polls=56 count=$attackers
    [ "$case" != silent ] || : "${count:=1000}"
    if [ "$case" = polls ]; then
        connections=2250 polls=2000
        : "${count:=2100}"
    fi
    # Fewer than the cap: this attack is on the log's lock, not on connections.
    if [ "$case" = stars ]; then
        connections=512 polls=448
        : "${count:=400}"
    fi
    flags=(--max-connections "$connections" --max-polls "$polls" --write-timeout "$write_timeout")
    [ "$case" != greedy ] || flags+=(--trust-proxy 127.0.0.1 --max-connections-per-client $((connections / 2)))
    start_server "${flags[@]}"
    set_attack "$case"
    options=(--case "$case" --port "${url##*:}" --pid "$server_pid" --seconds "$seconds" --write-timeout "$write_timeout"
        --max-connections "$connections" --max-polls "$polls")
    [ -z "$count" ] || [ ${#attack[@]} -gt 0 ] || options+=(--attackers "$count")
    # In the background, because a signal interrupts `wait` at once but a foreground command only at its end.
    "$load" siege "${options[@]}" "${attack[@]}" </dev/null &
    load_pid=$!
    wait "$load_pid" || failed=$((failed + 1))
    load_pid=''
    kill -0 "$server_pid" 2>/dev/null || fail "the server exited during $case: $(tail -n 5 "$scratch/stderr")"
    stop "$server_pid"
    server_pid=''
done

[ ${#skipped[@]} -eq 0 ] || echo "siege: skipped, because slowhttptest is not installed (see --install): ${skipped[*]}" >&2
[ "$failed" -eq 0 ] || fail "$failed of ${#cases[@]} cases failed"
