#!/usr/bin/env bash
# Measures longpoll beside nginx with nchan and beside the floor, a loop that only sends the same bytes.
set -euo pipefail

usage() {
    cat <<'TEXT'
Usage: scripts/bench.sh [OPTION]...

Builds the release server and the load generator, runs every row against each server in turn
(floor, nchan, longpoll, floor, ...), checks the content of every answer, and prints Markdown: the median
over the rounds, the minimum and maximum, and the ratios longpoll/nchan and longpoll/floor. Each round
runs twice: pinned, with the server on core 0 and the load on core 1, and free, with both on all cores.

  --rounds N        measurements per row [5]
  --rows LIST       only these rows, comma-separated: fanout-N (any N), publish, poll, roundtrip,
                    memory, start [all, with fanout-1000, fanout-5000 and fanout-10000]
  --only LIST       only these servers, comma-separated [floor,nchan,longpoll]
  --pinning LIST    only these, comma-separated [pinned,free]
  --curves          growth curves instead of the rows: fan-out and memory against held polls; publish
                    against topics, history, polls of a prefix and polls on other topics; reading a
                    history against its length. The defaults are then --pinning pinned --rounds 1
  --quick           a smoke run: 1 round, small loads, under 30 s
  --json FILE       also write all figures to FILE
  --busy-limit P    print no ratios if other programs took more than P % of the machine's time [10]
  --install         first install nginx and its nchan module with apt-get (Debian; needs root);
                    the nginx service of the package is not started
  --help            print this help

Environment: LONGPOLL=PATH is the server to measure and LOAD=PATH the load generator; without them the
script builds them.

Exit status: 0 done; 1 a wrong answer or another failure; 2 invalid usage; 3 the machine was busy with
other programs, so no ratios were printed.
TEXT
}

fail() {
    echo "bench: $*" >&2
    exit 1
}

misuse() {
    echo "bench: $* (see --help)" >&2
    exit 2
}

root=$(cd "$(dirname "$0")/.." && pwd)
curves='' quick='' install=''
declare -A options=([only]="floor,nchan,longpoll" [busy-limit]=10)

while [ $# -gt 0 ]; do
    case $1 in
        --rounds | --rows | --only | --pinning | --json | --busy-limit)
            [ $# -ge 2 ] || misuse "$1 needs a value"
            options[${1#--}]=$2
            shift
            ;;
        --curves) curves=yes ;;
        --quick) quick=yes ;;
        --install) install=yes ;;
        --help | -h)
            usage
            exit 0
            ;;
        *) misuse "unknown option $1" ;;
    esac
    shift
done
rounds=${options[rounds]:-} rows=${options[rows]:-} pinnings=${options[pinning]:-}
servers=${options[only]} json=${options[json]:-} busy_limit=${options[busy-limit]}

# Explicit options override --quick, and --quick overrides the defaults.
if [ -n "$quick" ]; then
    : "${rounds:=1}" "${rows:=fanout-200,publish,poll,roundtrip,memory,start}"
    seconds=0.3 round_trips=300 starts=2 repeats=3
else
    : "${rows:=fanout-1000,fanout-5000,fanout-10000,publish,poll,roundtrip,memory,start}"
    seconds=2 round_trips=3000 starts=5 repeats=''
fi
if [ -n "$curves" ]; then
    : "${rounds:=1}" "${pinnings:=pinned}"
fi
: "${rounds:=5}" "${pinnings:=pinned,free}"

[[ $rounds =~ ^[1-9][0-9]*$ ]] || misuse "--rounds takes a whole number from 1 up"
[[ $busy_limit =~ ^[0-9]+(\.[0-9]+)?$ ]] || misuse "--busy-limit takes a percentage"
for server in ${servers//,/ }; do
    case $server in floor | nchan | longpoll) ;; *) misuse "--only: unknown server $server" ;; esac
done
for row in ${rows//,/ }; do
    [[ $row =~ ^(fanout-[1-9][0-9]*|publish|poll|roundtrip|memory|start)$ ]] || misuse "--rows: unknown row $row"
done
for pinning in ${pinnings//,/ }; do
    case $pinning in pinned | free) ;; *) misuse "--pinning: unknown $pinning" ;; esac
done
if [ -n "$json" ]; then
    : >>"$json" || misuse "--json: cannot write $json"
fi

# --- programs ---

if [ -n "$install" ]; then
    # A policy file keeps apt-get from starting the nginx service. An existing policy file stays: it is the
    # administrator's decision.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod +x "$policy"
        trap 'rm -f "$policy"' EXIT
    fi
    installed=yes
    { apt-get update && DEBIAN_FRONTEND=noninteractive \
        apt-get install -y --no-install-recommends nginx libnginx-mod-nchan; } >&2 || installed=''
    # The trap is set only if this script wrote the file.
    [ -z "$(trap -p EXIT)" ] || rm -f "$policy"
    trap - EXIT
    [ -n "$installed" ] || fail "apt-get could not install nginx and nchan"
fi

# shellcheck source=scripts/bench/programs.sh
source "$root/scripts/bench/programs.sh"

nginx=$(PATH=$PATH:/usr/sbin command -v nginx || true)
modules=
if [ -n "$nginx" ]; then
    modules=$("$nginx" -V 2>&1 | tr ' ' '\n' | sed -n 's/^--modules-path=//p')
fi
if [[ ,$servers, == *,nchan,* && ! -e $modules/ngx_nchan_module.so ]]; then
    echo "bench: nginx with nchan is not installed (see --install); the rows of nchan are skipped" >&2
    servers=$(tr ',' '\n' <<<"$servers" | { grep -v '^nchan$' || true; } | paste -sd,)
    [ -n "$servers" ] || fail "no server is left to measure"
fi

cores=$(nproc)
if [[ ,$pinnings, == *,pinned,* ]] && [ "$cores" -lt 2 ]; then
    echo "bench: this machine has one core, so server and load cannot be pinned to two" >&2
    pinnings=free
fi

# --- servers ---

ulimit -n "$(ulimit -Hn)"
files=$(ulimit -Hn)
[ "$files" != unlimited ] || files=1048576

scratch=$(mktemp -d)
# The workers of nginx run as another user than root and need access to their directories.
chmod 755 "$scratch"
results=$scratch/results
: >"$results"
server_pid=

stop_server() {
    if [ -n "$server_pid" ]; then
        kill "$server_pid" 2>/dev/null || true
        wait "$server_pid" 2>/dev/null || true
        server_pid=
    fi
}

clean_up() {
    stop_server
    rm -rf "$scratch"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Sets the command prefixes that keep the server and the load on their cores.
on_server_core=() on_load_core=()
pin() {
    on_server_core=() on_load_core=()
    if [ "$1" = pinned ]; then
        on_server_core=(taskset -c 0)
        on_load_core=(taskset -c 1)
    fi
}

# Sets `command`, which starts SERVER on PORT for a number of POLLS with a number of RETAINED events.
# All servers get the same caps, because memory reserved per possible connection counts.
command=()
set_command() { # SERVER PORT POLLS RETAINED
    local server=$1 port=$2 connections=$(($3 + 64)) retained=$4
    [ "$connections" -ge 512 ] || connections=512
    case $server in
        floor) command=("$load" floor --port "$port") ;;
        longpoll)
            command=("$longpoll" --listen "127.0.0.1:$port" --max-connections "$connections"
                --max-polls $((connections - 16)) --max-wait 600 --wait-jitter 0 --idle-timeout 600
                --retain-events "$retained" --max-topics 20000 --log error)
            ;;
        nchan)
            # nginx closes idle connections when only a sixteenth of the connections is free.
            connections=$((connections * 9 / 8))
            sed -e "s|@MODULES@|$modules|; s|@DIR@|$scratch|; s|@FILES@|$files|; s|@PORT@|$port|" \
                -e "s|@CONNECTIONS@|$connections|; s|@RETAINED@|$retained|" \
                "$root/scripts/bench/nginx.conf" >"$scratch/nginx.conf"
            command=("$nginx" -p "$scratch" -c "$scratch/nginx.conf" -e "$scratch/nginx-error.log")
            ;;
    esac
}

# Runs one load against a fresh server and appends its line of figures to the results.
measure() { # SERVER POLLS RETAINED LOAD ARGUMENT...
    local server=$1 polls=$2 retained=$3 workload=$4 port
    shift 4
    port=$("$load" free-port)
    set_command "$server" "$port" "$polls" "$retained"
    if [ "$workload" = start ]; then
        # The load generator starts the server as its child, so it runs on the server's core too.
        "${on_server_core[@]}" "$load" start --server "$server" --port "$port" "$@" -- "${command[@]}" >>"$results" \
            || fail "start failed for $server"
        return
    fi
    "${on_server_core[@]}" "${command[@]}" >"$scratch/server.log" 2>&1 &
    server_pid=$!
    [ "$workload" != memory ] || set -- --pid "$server_pid" "$@"
    if ! "${on_load_core[@]}" "$load" "$workload" --server "$server" --port "$port" "$@" >>"$results"; then
        tail -n 20 "$scratch/server.log" "$scratch/nginx-error.log" >&2 2>/dev/null || true
        fail "$workload failed for $server"
    fi
    stop_server
}

# shellcheck source=scripts/bench/others.sh
source "$root/scripts/bench/others.sh"

# --- rows ---

# Larger fan-outs take longer, so they are repeated less often.
repeats_for() { # POLLS
    if [ -n "$repeats" ]; then
        echo "$repeats"
    elif [ "$1" -ge 10000 ]; then
        echo 5
    elif [ "$1" -ge 5000 ]; then
        echo 10
    else
        echo 20
    fi
}

run_row() { # ROW SERVER TAG...
    local row=$1 server=$2 polls
    shift 2
    case $row in
        fanout-*)
            polls=${row#fanout-}
            measure "$server" "$polls" 1000 fanout --polls "$polls" --repeats "$(repeats_for "$polls")" "$@"
            ;;
        memory)
            polls=1000
            measure "$server" "$polls" 1000 memory --polls "$polls" "$@"
            ;;
        publish | poll) measure "$server" 0 1000 "$row" --seconds "$seconds" "$@" ;;
        roundtrip) measure "$server" 0 1000 roundtrip --rounds "$round_trips" "$@" ;;
        start) measure "$server" 0 1000 start --repeats "$starts" "$@" ;;
    esac
}

run_rows() {
    local round pinning row server
    for ((round = 1; round <= rounds; round++)); do
        for pinning in ${pinnings//,/ }; do
            pin "$pinning"
            for row in ${rows//,/ }; do
                for server in ${servers//,/ }; do
                    echo "round $round of $rounds, $pinning: $row, $server" >&2
                    run_row "$row" "$server" --tag "row=$row" --tag "server=$server" --tag "pinning=$pinning" \
                        --tag "round=$round"
                done
            done
        done
    done
}

# --- curves ---

# The floor keeps one event of one topic, and nchan has neither prefixes nor pages.
has_curve() { # SERVER CURVE
    case $1:$2 in
        *:fanout | *:memory | longpoll:* | nchan:topics | nchan:retained | nchan:other) return 0 ;;
        *) return 1 ;;
    esac
}

run_point() { # CURVE X SERVER TAG...
    local curve=$1 x=$2 server=$3
    shift 3
    case $curve in
        fanout) measure "$server" "$x" 1000 fanout --polls "$x" --repeats "$(repeats_for "$x")" "$@" ;;
        memory) measure "$server" "$x" 1000 memory --polls "$x" "$@" ;;
        topics) measure "$server" 0 1000 publish --seconds "$seconds" --topics "$x" "$@" ;;
        retained) measure "$server" 0 "$x" publish --seconds "$seconds" --retained "$x" "$@" ;;
        prefix) measure "$server" "$x" 1000 publish --seconds "$seconds" --prefix-polls "$x" "$@" ;;
        other) measure "$server" "$x" 1000 publish --seconds "$seconds" --other-polls "$x" "$@" ;;
        pages) measure "$server" 0 "$x" pages --events "$x" "$@" ;;
    esac
}

run_curves() {
    local round pinning curve x server
    local -A points=(
        [fanout]="1 10 100 1000 5000 10000" [memory]="100 1000 5000 10000"
        [topics]="1 10 100 1000 10000" [retained]="1 10 100 1000 10000" [pages]="1000 10000 100000"
        [prefix]="1 10 100 1000 5000" [other]="1 10 100 1000 5000"
    )
    if [ -n "$quick" ]; then
        points=([fanout]="10 100 300" [memory]="100 300" [topics]="1 100" [retained]="1 100"
            [pages]="1000 5000" [prefix]="1 100" [other]="1 100")
    fi
    for ((round = 1; round <= rounds; round++)); do
        for pinning in ${pinnings//,/ }; do
            pin "$pinning"
            for curve in fanout memory topics retained prefix other pages; do
                for x in ${points[$curve]}; do
                    for server in ${servers//,/ }; do
                        has_curve "$server" "$curve" || continue
                        echo "round $round of $rounds, $pinning: $curve at $x, $server" >&2
                        run_point "$curve" "$x" "$server" --tag "curve=$curve" --tag "x=$x" \
                            --tag "server=$server" --tag "pinning=$pinning" --tag "round=$round"
                    done
                done
            done
        done
    done
}

# --- run and report ---

start_watching_others
if [ -n "$curves" ]; then
    run_curves
else
    run_rows
fi
measure_others

report=(--results "$results" --foreign "$others_percent" --busy-limit "$busy_limit")
[ -z "$json" ] || report+=(--json "$json")
echo "Longpoll's benchmark: $(uname -s) $(uname -r), $cores cores, rounds: $rounds."
echo
"$load" report "${report[@]}"
