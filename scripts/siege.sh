#!/usr/bin/env bash
# Attacks a server with small caps, next to a client that behaves well, and holds it to its promises.
set -euo pipefail

usage() {
    cat <<'TEXT'
Usage: scripts/siege.sh [OPTION]...

Builds the release server and the load generator. Each case gets a fresh server whose places have all
been used once; then it is attacked for a while, next to a probe: a client that publishes, polls for
what it has published and asks for the health, each on a new connection, one after the other. Prints
Markdown: how many requests the probe made, how many were answered, how often one was refused before
that, and how long the slowest took, refusals included; memory, threads and descriptors of the server
before, at most, and after. Attackers that are thrown out come back: at once where they give way to
others, after 2 s where they read nothing, and after a quarter of one where they poll.

  silent          connections that say nothing
  heads           heads sent a byte at a time, without end
  bodies          bodies that stop half-way
  readers         clients that ask for much and read nothing
  polls           2,000 polls held to their cap, and more that come again and again
  greedy          one client behind a proxy that would hold all polls, and may have half of the places
  slow-headers, slow-body, slow-read, range
                  slowhttptest in its four modes, if it is installed

A row breaks the promises when a request of the probe is not answered, or later than within

  1 s             where connections that wait for (more of) a request fill the server
  --write-timeout (2 s here), and half a second for the probe to come back, where readers do
  250 ms          where held polls are at their cap, or one client is at its own

each plus four times the latest that the machine woke anybody up meanwhile; when a connection, poll,
thread, descriptor or more than 4 MiB of memory (8 where bodies are) is not given back within 10 s, or
when not all places serve afterwards. An attack that had no effect counts as broken, too. Before is after all places have
been used once: workers are kept, and so is some of the memory that they have freed. (glibc keeps much of it,
in an arena for each few threads, so the server runs with MALLOC_ARENA_MAX=2.)

  --seconds N     how long each case is attacked (30)
  --only LIST     only these cases, comma-separated
  --attackers N   how many attack at once, instead of four for each place, 1,000 silent ones, or 2,100 polls
  --install       first install slowhttptest with apt-get (Debian; needs root)
  --help          this text

Environment: LONGPOLL=PATH is a server to attack instead of building one; LOAD=PATH a built load generator.

Exit status: 0 all rows are ok; 1 one is not, or a failure; 2 a wrong option.
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
own=(silent heads bodies readers polls greedy)
foreign=(slow-headers slow-body slow-read range)
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
[ ${#cases[@]} -gt 0 ] || cases=("${own[@]}" "${foreign[@]}")
for case in "${cases[@]}"; do
    [[ " ${own[*]} ${foreign[*]} " == *" $case "* ]] || misuse "--only: unknown case '$case'"
done

# --- what is needed ---

if [ -n "$install" ] && ! command -v slowhttptest >/dev/null; then
    { apt-get update && DEBIAN_FRONTEND=noninteractive \
        apt-get install -y --no-install-recommends slowhttptest; } >&2 || fail "apt-get could not install slowhttptest"
fi

# shellcheck source=scripts/bench/programs.sh
source "$root/scripts/bench/programs.sh"

# --- the server, and whoever is started here, ends with this script ---

scratch=$(mktemp -d)
server_pid='' load_pid=''

stop() { # PID
    [ -n "$1" ] || return 0
    kill "$1" 2>/dev/null || true
    wait "$1" 2>/dev/null || true
}

clean_up() {
    # It takes the attackers along that it has started.
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

# Sets `attack`: the command of a case that is not the load generator's own. It ends by itself, after
# the case has ended it.
attack=()
compose() { # CASE
    # Slower than places are made (four a second for each), and still many more than there are.
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
broken=0
skipped=()

cat <<'TEXT'
| case | asked | answered | refused before | slowest ms (may be) | MiB before, peak, after | threads | descriptors | |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
TEXT
for case in "${cases[@]}"; do
    if [[ " ${foreign[*]} " == *" $case "* ]] && ! command -v slowhttptest >/dev/null; then
        skipped+=("$case")
        continue
    fi
    connections=64 polls=56 count=$attackers
    [ "$case" != silent ] || : "${count:=1000}"
    if [ "$case" = polls ]; then
        connections=2250 polls=2000
        : "${count:=2100}"
    fi
    flags=(--max-connections "$connections" --max-polls "$polls" --write-timeout "$write_timeout")
    [ "$case" != greedy ] || flags+=(--trust-proxy 127.0.0.1 --max-connections-per-client $((connections / 2)))
    start_server "${flags[@]}"
    compose "$case"
    options=(--case "$case" --port "${url##*:}" --pid "$server_pid" --seconds "$seconds" --write-timeout "$write_timeout"
        --max-connections "$connections" --max-polls "$polls")
    [ -z "$count" ] || [ ${#attack[@]} -gt 0 ] || options+=(--attackers "$count")
    # In the background only because `wait`, unlike a command, can be interrupted at once.
    "$load" siege "${options[@]}" "${attack[@]}" </dev/null &
    load_pid=$!
    wait "$load_pid" || broken=$((broken + 1))
    load_pid=''
    kill -0 "$server_pid" 2>/dev/null || fail "the server has ended during $case: $(tail -n 5 "$scratch/stderr")"
    stop "$server_pid"
    server_pid=''
done

[ ${#skipped[@]} -eq 0 ] || echo "siege: skipped without slowhttptest (see --install): ${skipped[*]}" >&2
[ "$broken" -eq 0 ] || fail "$broken of ${#cases[@]} cases broke the promises"
