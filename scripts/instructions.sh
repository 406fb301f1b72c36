#!/usr/bin/env bash
# Counts the instructions of one publish, and of one poll that is answered at once, with callgrind. Unlike
# times, the counts are the same on a busy machine, so a slow loss of speed is noticed.
#
#   scripts/instructions.sh          compares with scripts/instructions.txt; exit status 1: a count is
#                                    more than 5 % higher
#   scripts/instructions.sh --write  writes that file, after an intended change
#
# Counts of two compilers are not comparable: with another compiler than the file's the script only prints
# them.
set -euo pipefail
cd "$(dirname "$0")/.."

case "${1-}" in
    "" | --write) ;;
    --help | -h) sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "usage: scripts/instructions.sh [--write]" >&2; exit 2 ;;
esac
command -v valgrind >/dev/null || { echo "instructions.sh: valgrind is not installed (Debian: valgrind)" >&2; exit 2; }
baseline=scripts/instructions.txt
compiler=$(rustc --version | cut -d' ' -f1,2)
cargo build --release --quiet
load=$(cargo bench --bench load --no-run --message-format=json 2>/dev/null |
    sed -n 's/.*"executable":"\([^"]*load-[^"]*\)".*/\1/p' | tail -n 1)
server=${CARGO_TARGET_DIR:-target}/release/longpoll
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# Prints the instructions of a server from start to exit that answers COUNT requests.
count_instructions() { # KIND COUNT
    local pid port
    : >"$tmp/out"
    valgrind --tool=callgrind --callgrind-out-file="$tmp/counts" "$server" \
        --listen 127.0.0.1:0 --log error >"$tmp/out" 2>/dev/null &
    pid=$!
    until grep -q '^listening' "$tmp/out"; do kill -0 "$pid"; done
    port=$(sed -n 's/.*:\([0-9]*\)$/\1/p' "$tmp/out")
    "$load" sequence --server longpoll --port "$port" --kind "$1" --count "$2" >/dev/null
    kill "$pid"
    wait "$pid"
    sed -n 's/^summary: //p; s/^totals: //p' "$tmp/counts" | head -n 1
}

# Prints the instructions per request: the difference between two runs contains no start and no exit.
per_request() { # KIND
    local few many
    few=$(count_instructions "$1" 1000)
    many=$(count_instructions "$1" 6000)
    echo $(((many - few) / 5000))
}

publish=$(per_request publish)
poll=$(per_request poll)
printf 'publish %s\npoll %s\n' "$publish" "$poll"
if [ "${1-}" = --write ]; then
    printf 'compiler %s\npublish %s\npoll %s\n' "$compiler" "$publish" "$poll" >"$baseline"
    exit 0
fi
if ! grep -qx "compiler $compiler" "$baseline"; then
    echo "not compared: $baseline is of $(sed -n 's/^compiler //p' "$baseline"), this is $compiler"
    exit 0
fi
awk -v publish="$publish" -v poll="$poll" '
    $1 == "publish" { now = publish } $1 == "poll" { now = poll }
    $1 != "compiler" {
        printf "%s: %+.1f %%\n", $1, (now / $2 - 1) * 100
        if (now > $2 * 1.05) grown = 1
    }
    END { exit grown }' "$baseline"
