#!/usr/bin/env bash
# Fuzzes the request reader and whatever a request is aimed at, guided by coverage, on stable Rust.
#
#   scripts/fuzz.sh [--install] [SECONDS [TARGET...]]    60 seconds, both targets: request query
#
# What is found goes to target/fuzz; the least set of inputs that reaches all of it is then kept in
# tests/fuzz/corpus, and the ordinary tests replay that. Exit status 1: a target failed; the input is
# named, and belongs into a test. Needs a C++ compiler and cargo-fuzz, which --install gets.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "${1-}" = --install ]; then
    shift
    command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz
fi
seconds=${1-60}
shift || true
case "$seconds" in
    "" | *[!0-9]*) echo "usage: scripts/fuzz.sh [--install] [SECONDS [TARGET...]]" >&2; exit 2 ;;
esac
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(request query)
for target in "${targets[@]}"; do
    [ -f "tests/fuzz/targets/$target.rs" ] || { echo "fuzz.sh: no target $target in tests/fuzz/targets" >&2; exit 2; }
done
command -v cargo-fuzz >/dev/null || { echo "fuzz.sh: cargo-fuzz is needed; --install gets it" >&2; exit 2; }

work=$(realpath -m "${CARGO_TARGET_DIR:-target}")/fuzz
export CARGO_TARGET_DIR=$work
# Coverage takes flags that stable Rust has and does not offer; sanitizers, which are for unsafe
# code, it does not have.
RUSTC_BOOTSTRAP=1 cargo fuzz build --fuzz-dir tests/fuzz -s none

for target in "${targets[@]}"; do
    program=$(find "$work" -path "*/release/$target" -type f | head -n 1)
    kept=tests/fuzz/corpus/$target
    mkdir -p "$kept" "$work/corpus/$target" "$work/found"
    printf '\n== %s for %s s\n' "$target" "$seconds"
    if ! "$program" "$work/corpus/$target" "$kept" -max_total_time="$seconds" -max_len=2500 \
        -timeout=20 -dict="tests/fuzz/$target.dict" -artifact_prefix="$work/found/$target-" \
        >"$work/$target.log" 2>&1; then
        grep -aE -A 3 'panicked|ERROR|written to' "$work/$target.log" >&2
        exit 1
    fi
    grep -a '^Done' "$work/$target.log"
    rm -rf "$work/least" && mkdir "$work/least"
    "$program" -set_cover_merge=1 -use_counters=0 "$work/least" "$work/corpus/$target" "$kept" 2>&1 | tail -n 1
    rm -rf "$kept"
    mv "$work/least" "$kept"
    echo "$(find "$kept" -type f | wc -l) inputs, $(cat "$kept"/* | wc -c) bytes in $kept"
done
