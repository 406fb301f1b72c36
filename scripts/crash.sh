#!/usr/bin/env bash
# Kills a server with --data again and again, at random moments, while clients publish and poll, and
# compares what they know with what is there in the end. The tests do this 30 times; here it is 1,000.
#
#   scripts/crash.sh [CRASHES]
set -euo pipefail
cd "$(dirname "$0")/.."

LONGPOLL_CRASHES=${1-1000}
export LONGPOLL_CRASHES
case $LONGPOLL_CRASHES in
    '' | *[!0-9]*) echo "usage: scripts/crash.sh [CRASHES]" >&2; exit 2 ;;
esac
exec cargo test --release --quiet --locked --test it store_crash -- --nocapture </dev/null
