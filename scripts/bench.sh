#!/usr/bin/env bash
# Measures longpoll beside nginx+nchan and beside the least that the same bytes on the wire cost.
set -euo pipefail

usage() {
    cat <<'TEXT'
Usage: scripts/bench.sh [OPTION]...

Builds the release server and the load generator, runs every row against each server in turn
(floor, nchan, longpoll, floor, ...), checks the content of every answer, and prints Markdown:
the median over the rounds, least and most, and the ratios longpoll/nchan and longpoll/floor.
The whole runs twice: server on core 0 with the load on core 1, and with both on all cores.

  --rounds N        how often each row is measured (5)
  --rows LIST       only these, comma-separated: fanout-N (any N; three sizes by default),
                    publish, poll, roundtrip, memory, start
  --only LIST       only these servers, comma-separated: floor, nchan, longpoll
  --pinning LIST    only these, comma-separated: pinned, free
  --curves          the growth curves instead of the rows: fan-out and memory against held polls; publish
                    against topics, history, polls of a prefix and polls on other topics; long histories.
                    Pinned only, and 1 round unless --rounds says more
  --quick           a smoke run: 1 round, small loads, under 30 s
  --json FILE       write all figures there too
  --busy-limit P    no ratios when other programs took more than P % of the machine's time (10)
  --install         first install nginx and its nchan module with apt-get (Debian; needs root);
                    the system's own nginx service is not started
  --help            this text

Environment: LONGPOLL=PATH is a server to measure instead of building one; LOAD=PATH a built load generator.

Exit status: 0 done; 1 a wrong answer or a failure; 2 a wrong option; 3 the machine was busy with something
else, so no ratios were printed.
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
declare -A given=([only]="floor,nchan,longpoll" [busy-limit]=10)

while [ $# -gt 0 ]; do
    case $1 in
        --rounds | --rows | --only | --pinning | --json | --busy-limit)
            [ $# -ge 2 ] || misuse "$1 needs a value"
            given[${1#--}]=$2
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
rounds=${given[rounds]:-} rows=${given[rows]:-} pinnings=${given[pinning]:-}
servers=${given[only]} json=${given[json]:-} busy_limit=${given[busy-limit]}

# Options given win over --quick, and --quick over the defaults.
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
    : >>"$json" || misuse "--json: $json can't be written"
fi

# --- what is needed ---

if [ -n "$install" ]; then
    # The service that the package would start is not ours: the policy file is the way to say no, and one that
    # is there already says it in its owner's way.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod +x "$policy"
        trap 'rm -f "$policy"' EXIT
    fi
    installed=yes
    { apt-get update && DEBIAN_FRONTEND=noninteractive \
        apt-get install -y --no-install-recommends nginx libnginx-mod-nchan; } >&2 || installed=''
    # The trap is there only when the file is ours.
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
    echo "bench: nginx with nchan is not installed (see --install); it is left out" >&2
    servers=$(tr ',' '\n' <<<"$servers" | { grep -v '^nchan$' || true; } | paste -sd,)
    [ -n "$servers" ] || fail "no server is left to measure"
fi

cores=$(nproc)
if [[ ,$pinnings, == *,pinned,* ]] && [ "$cores" -lt 2 ]; then
    echo "bench: one core only, so nothing can be pinned apart" >&2
    pinnings=free
fi

# --- servers ---

ulimit -n "$(ulimit -Hn)"
files=$(ulimit -Hn)
[ "$files" != unlimited ] || files=1048576

scratch=$(mktemp -d)
# nginx workers give up root's rights and must still reach their own directories.
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

# What comes before a command to keep it on its core; set by `pin`.
on_server_core=() on_load_core=()
pin() {
    on_server_core=() on_load_core=()
    if [ "$1" = pinned ]; then
        on_server_core=(taskset -c 0)
        on_load_core=(taskset -c 1)
    fi
}

# Sets `command`: how to start SERVER on PORT for so many POLLS with so many events RETAINED.
# The caps are the same for all, as memory set aside per possible connection counts.
command=()
compose() { # SERVER PORT POLLS RETAINED
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
            # nginx begins to close idle connections when a sixteenth of them is left.
            connections=$((connections * 9 / 8))
            sed -e "s|@MODULES@|$modules|; s|@DIR@|$scratch|; s|@FILES@|$files|; s|@PORT@|$port|" \
                -e "s|@CONNECTIONS@|$connections|; s|@RETAINED@|$retained|" \
                "$root/scripts/bench/nginx.conf" >"$scratch/nginx.conf"
            command=("$nginx" -p "$scratch" -c "$scratch/nginx.conf" -e "$scratch/nginx-error.log")
            ;;
    esac
}

# Runs one load against a fresh server and keeps its line of figures.
measure() { # SERVER POLLS RETAINED LOAD ARGUMENT...
    local server=$1 polls=$2 retained=$3 what=$4 port
    shift 4
    port=$("$load" free-port)
    compose "$server" "$port" "$polls" "$retained"
    if [ "$what" = start ]; then
        # The generator starts the server itself, from the server's core: a child inherits it.
        "${on_server_core[@]}" "$load" start --server "$server" --port "$port" "$@" -- "${command[@]}" >>"$results" \
            || fail "start failed for $server"
        return
    fi
    "${on_server_core[@]}" "${command[@]}" >"$scratch/server.log" 2>&1 &
    server_pid=$!
    [ "$what" != memory ] || set -- --pid "$server_pid" "$@"
    if ! "${on_load_core[@]}" "$load" "$what" --server "$server" --port "$port" "$@" >>"$results"; then
        tail -n 20 "$scratch/server.log" "$scratch/nginx-error.log" >&2 2>/dev/null || true
        fail "$what failed for $server"
    fi
    stop_server
}

# shellcheck source=scripts/bench/others.sh
source "$root/scripts/bench/others.sh"

# --- rows ---

# Large fan-outs take longer each, so fewer do.
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

# --- the run ---

mark
if [ -n "$curves" ]; then
    run_curves
else
    run_rows
fi
tell_others

report=(--results "$results" --foreign "$foreign" --busy-limit "$busy_limit")
[ -z "$json" ] || report+=(--json "$json")
echo "Longpoll's benchmark: $(uname -s) $(uname -r), $cores cores, rounds: $rounds."
echo
"$load" report "${report[@]}"
