#!/usr/bin/env bash
# Fuzzes the request reader and the parser of the request target, guided by coverage, on stable Rust.
#
#   scripts/fuzz.sh [--install] [SECONDS [TARGET...]]
#
#   SECONDS      duration per target [60]
#   TARGET       request or query [both]
#   --install    first installs cargo-fuzz, which needs a C++ compiler
#
# Inputs that reach new code go to target/fuzz. At the end the smallest set of inputs with the same
# coverage replaces tests/fuzz/corpus, which the ordinary tests replay. Exit status 1: a target failed; the
# script names the failing input, which belongs in a test.
set -euo pipefail
cd "$(dirname "$0")/.."

case "${1-}" in
    --help | -h) sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; exit 0 ;;
esac
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
command -v cargo-fuzz >/dev/null || { echo "fuzz.sh: cargo-fuzz is not installed; --install installs it" >&2; exit 2; }

work=$(realpath -m "${CARGO_TARGET_DIR:-target}")/fuzz
export CARGO_TARGET_DIR=$work
# Coverage needs compiler flags that stable Rust has, but accepts only with RUSTC_BOOTSTRAP. Sanitizers need
# nightly; they find errors in unsafe code, and this crate has none.
RUSTC_BOOTSTRAP=1 cargo fuzz build --fuzz-dir tests/fuzz -s none

for target in "${targets[@]}"; do
    program=$(find "$work" -path "*/release/$target" -type f | head -n 1)
    corpus=tests/fuzz/corpus/$target
    mkdir -p "$corpus" "$work/corpus/$target" "$work/found"
    printf '\n== %s for %s s\n' "$target" "$seconds"
    if ! "$program" "$work/corpus/$target" "$corpus" -max_total_time="$seconds" -max_len=2500 \
        -timeout=20 -dict="tests/fuzz/$target.dict" -artifact_prefix="$work/found/$target-" \
        >"$work/$target.log" 2>&1; then
        grep -aE -A 3 'panicked|ERROR|written to' "$work/$target.log" >&2
        exit 1
    fi
    grep -a '^Done' "$work/$target.log"
    rm -rf "$work/minimal" && mkdir "$work/minimal"
    "$program" -set_cover_merge=1 -use_counters=0 "$work/minimal" "$work/corpus/$target" "$corpus" 2>&1 | tail -n 1
    rm -rf "$corpus"
    mv "$work/minimal" "$corpus"
    echo "$(find "$corpus" -type f | wc -l) inputs, $(cat "$corpus"/* | wc -c) bytes in $corpus"
done
