#!/usr/bin/env bash
# Kills a server with --data at random moments, while clients publish and poll, and compares the store
# with what the clients observed. One end in four is in order instead, and, where a tmpfs can be mounted,
# one comes while the disk is full. The ordinary tests end it 30 times; this script does 1,000 times.
#
#   scripts/crash.sh [CRASHES]
set -euo pipefail
cd "$(dirname "$0")/.."

usage="Usage: scripts/crash.sh [CRASHES]   ends the server CRASHES times [1000]"
crashes=${1-1000}
case $crashes in
    --help | -h) echo "$usage"; exit 0 ;;
    '' | *[!0-9]*) echo "$usage" >&2; exit 2 ;;
esac

run_tests() { cargo test --release --quiet --locked --test it -- "$@" </dev/null; }

# Find the tests by their module and run them by their full names: a filter that matches no test
# would run none and succeed.
list=$(run_tests --list)
mapfile -t tests < <(sed -n 's/^\(store\(::\|_\)crash::.*\): test$/\1/p' <<<"$list")
[ ${#tests[@]} -gt 0 ] || { echo "crash.sh: no test in the module store::crash" >&2; exit 1; }
LONGPOLL_CRASHES=$crashes run_tests --exact "${tests[@]}" --nocapture
