#!/usr/bin/env bash
# Makes the disk fail under a server with --data, while clients publish and poll: syncs, writes, short
# writes, a full, read-only or vanished disk, too many open files, renames, removals; once, several times
# or for ever. Then the fault ends, or the server is killed, or it ends in order; it starts again, and the
# store is compared with what the clients saw.
#
#   scripts/faults.sh [--trials N] [--seed S]
#
#   --trials N   trials [68]: each fault with each continuation, in about half a minute
#   --seed S     the first trial [random]; a trial that failed prints its seed, and
#                --trials 1 --seed S repeats its plan, though not the order of its threads
#
# Needs a C compiler. Prints a table, and each violation with the trial's plan and its directory, which is
# kept. Exit status: 0 no violation; 1 violations; 2 invalid usage.
set -euo pipefail
cd "$(dirname "$0")/.."

usage="usage: scripts/faults.sh [--trials N] [--seed S]"
number() {
    case ${2-} in
        '' | *[!0-9]*) echo "faults.sh: $1 needs a number; $usage" >&2; exit 2 ;;
    esac
}
trials=68
seed=
while [ $# -gt 0 ]; do
    case $1 in
        --help | -h) sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; exit 0 ;;
        --trials) number "$@"; trials=$2; shift 2 ;;
        --seed) number "$@"; seed=$2; shift 2 ;;
        *) echo "$usage" >&2; exit 2 ;;
    esac
done

# The build of the ordinary tests, because it checks overflows and the order of locks.
run_tests() { cargo test --quiet --locked --test it -- "$@" </dev/null; }

# Find the tests by their module and run them by their full names: a filter that matches no test
# would run none and succeed.
list=$(run_tests --list)
mapfile -t tests < <(sed -n 's/^\(store::injected_faults::.*\): test$/\1/p' <<<"$list")
[ ${#tests[@]} -gt 0 ] || { echo "faults.sh: no test in the module store::injected_faults" >&2; exit 1; }
export LONGPOLL_FAULT_TRIALS=$trials
[ "$trials" -gt 0 ] || { echo "faults.sh: --trials needs at least 1; $usage" >&2; exit 2; }
[ -z "$seed" ] || export LONGPOLL_FAULT_SEED=$seed
RUST_BACKTRACE=0 run_tests --include-ignored --exact "${tests[@]}" --nocapture || exit 1
