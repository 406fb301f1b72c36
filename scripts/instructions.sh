#!/usr/bin/env bash
# Counts the instructions of one publish and of one poll that is answered at once, with callgrind.
# Unlike times they are the same on a busy machine, so that speed cannot rot unseen: exit status 1
# when one has grown by more than 5 % over scripts/instructions.txt.
#
#   scripts/instructions.sh          compares
#   scripts/instructions.sh --write  writes that file, when the growth is wanted or a gain is won
#
# The counts belong to one compiler: with another one they are printed, and not compared.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v valgrind >/dev/null || { echo "instructions.sh: valgrind is needed (Debian: valgrind)" >&2; exit 2; }
kept=scripts/instructions.txt
compiler=$(rustc --version | cut -d' ' -f1,2)
cargo build --release --quiet
load=$(cargo bench --bench load --no-run --message-format=json 2>/dev/null |
    sed -n 's/.*"executable":"\([^"]*load-[^"]*\)".*/\1/p' | tail -n 1)
server=${CARGO_TARGET_DIR:-target}/release/longpoll
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# Instructions of a whole life of the server with so many requests in it.
life() { # KIND COUNT
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

each() { # KIND: the difference of two lives, by the difference of their counts
    local few many
    few=$(life "$1" 1000)
    many=$(life "$1" 6000)
    echo $(((many - few) / 5000))
}

publish=$(each publish)
poll=$(each poll)
printf 'publish %s\npoll %s\n' "$publish" "$poll"
if [ "${1-}" = --write ]; then
    printf 'compiler %s\npublish %s\npoll %s\n' "$compiler" "$publish" "$poll" >"$kept"
    exit 0
fi
if ! grep -qx "compiler $compiler" "$kept"; then
    echo "not compared: $(head -n 1 "$kept") made the kept counts, this is $compiler"
    exit 0
fi
awk -v publish="$publish" -v poll="$poll" '
    $1 == "publish" { now = publish } $1 == "poll" { now = poll }
    $1 != "compiler" {
        printf "%s: %+.1f %%\n", $1, (now / $2 - 1) * 100
        if (now > $2 * 1.05) grown = 1
    }
    END { exit grown }' "$kept"
