#!/usr/bin/env bash
# Everything that has to hold before a change is good: format, lints, tests, lessons, documents, and
# that a server under attack still serves.
#
#   scripts/check.sh            checks with what is there; names what is missing and skips only that
#   scripts/check.sh --install  gets what is missing first (Debian packages, as root or with sudo)
set -euo pipefail
cd "$(dirname "$0")/.."

install=no
case "${1-}" in
    "") ;;
    --install) install=yes ;;
    *) echo "usage: scripts/check.sh [--install]" >&2; exit 2 ;;
esac

tools=$(realpath -m "${CARGO_TARGET_DIR:-target}/tools")
PATH=$PATH:/usr/sbin:$tools/usr/bin:$tools/usr/sbin
web="$tools/web"
skipped=()

step() { printf '\n== %s\n' "$*"; }
have() { command -v "$1" >/dev/null 2>&1; }
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

updated=no
update_once() {
    [ "$updated" = yes ] || as_root apt-get update -q >/dev/null
    updated=yes
}

# A Debian package, when one of its commands is missing.
need() { # COMMAND PACKAGE
    if have "$1" || [ "$install" = no ]; then return 0; fi
    step "installing $2"
    update_once
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "$2" >/dev/null
}

# The same for a command that comes with a service: the package is only unpacked, so that nothing is
# started.
unpack() { # COMMAND PACKAGE
    if have "$1" || [ "$install" = no ]; then return 0; fi
    step "unpacking $1"
    update_once
    mkdir -p "$tools"
    (cd "$tools" && apt-get download -q "$2" >/dev/null && dpkg-deb -x "$2"_*.deb . && rm "$2"_*.deb)
}

# What drives the browser, and the type checker, as tests/web/package-lock.json pins them.
need_web() {
    [ "$install" = yes ] || return 0
    if [ -e "$web/node_modules/.package-lock.json" ] && cmp -s {tests/web,"$web"}/package-lock.json; then return 0; fi
    step "installing what the browser tests need"
    mkdir -p "$web"
    cp tests/web/package.json tests/web/package-lock.json "$web"
    (cd "$web" && npm ci --silent --no-audit --no-fund </dev/null)
}

# The Python clients of streams, as tests/web/requirements.txt pins them.
need_python() {
    [ "$install" = yes ] || return 0
    if cmp -s {tests/web,"$web/python"}/requirements.txt; then return 0; fi
    if ! python3 -c "import ensurepip" 2>/dev/null; then
        step "installing python3-venv"
        update_once
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends python3-venv >/dev/null
    fi
    step "installing the Python clients of streams"
    if python3 -m venv "$web/python" && "$web/python/bin/pip" install -q --disable-pip-version-check \
        -r tests/web/requirements.txt </dev/null; then
        cp tests/web/requirements.txt "$web/python"
    else
        echo "they cannot be had here; what needs them is skipped" >&2
        rm -rf "$web/python"
    fi
}

need_component() { # CARGO-COMMAND COMPONENT PACKAGE
    if have "$1" || [ "$install" = no ]; then return 0; fi
    if have rustup; then rustup component add "$2"; else need "$1" "$3"; fi
}

# Runs a step if its command is there; otherwise says so.
with() { # COMMAND NAME STEP...
    local command=$1 name=$2
    shift 2
    if ! have "$command" && [ ! -x "$command" ]; then
        skipped+=("$name (no $(basename "$command"))")
        return 0
    fi
    step "$name"
    "$@"
}

# What /metrics says after some use, as Prometheus' own tool sees it.
metrics() {
    local server line url place
    place=$(mktemp -d)
    exec 3< <(exec "${CARGO_TARGET_DIR:-target}/debug/longpoll" --listen 127.0.0.1:0 --log error --data "$place")
    server=$!
    # shellcheck disable=SC2064 # The process and the place of now.
    trap "kill $server; rm -r '$place'" EXIT
    read -r -u 3 line
    url=${line#listening on }
    curl -sf -d hello "$url/topics/news" >/dev/null
    curl -sf "$url/topics/news" >/dev/null
    curl -sf "$url/metrics" | promtool check metrics
    trap - EXIT
    kill "$server"
    wait "$server" || true
    rm -r "$place"
}

# longpoll.js, the console and streams, in Node, in Python and in a browser.
browsers() {
    local needed
    for needed in node chromium "$web/node_modules/.bin/tsc"; do
        if ! have "$needed"; then
            skipped+=("browsers (no $(basename "$needed"))")
            return 0
        fi
    done
    [ -x "$web/python/bin/python" ] || skipped+=("the Python clients of streams (they are not there)")
    step "browsers"
    scripts/browser.sh "$web"
}

# The oldest Rust that will do, where rustup has it or can get it.
oldest_rust() {
    local oldest
    oldest=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
    if [ "$install" = yes ] && have rustup && ! rustup run "$oldest" cargo --version >/dev/null 2>&1; then
        timeout 300 rustup toolchain install "$oldest" --profile minimal </dev/null || echo "it cannot be had here" >&2
    fi
    if ! have rustup || ! rustup run "$oldest" cargo --version >/dev/null 2>&1; then
        skipped+=("Rust $oldest (rustup has none)")
        return 0
    fi
    step "Rust $oldest"
    rustup run "$oldest" cargo check --quiet --locked --all-targets \
        --target-dir "${CARGO_TARGET_DIR:-target}/oldest"
}

# Every way to learn of events, all at once and for seconds only: each has its rows, only those lose
# events that keep no cursor, and the picture can be read.
comparison() {
    local place rows all=38 # 8 ways for 1 and 10 clients, quiet and busy; 2 with two polls at once; 4 from afar
    place=$(mktemp -d)
    # shellcheck disable=SC2064 # The place of now.
    trap "rm -r '$place'" EXIT
    scripts/compare.sh --quick --json "$place/figures" --svg "$place/picture.svg" >"$place/tables"
    rows=$(sed -n '/^### A quiet/,$p' "$place/tables" | grep -E '^\| (1|10) \|' | tee "$place/rows" | wc -l)
    [ "$rows" = "$all" ] || { cat "$place/tables"; echo "check.sh: $rows rows, not $all" >&2; exit 1; }
    if grep -v -e 'no cursor' -e careless "$place/rows" | grep -v '| 0 |$'; then
        echo "check.sh: with a cursor, events were lost" >&2
        exit 1
    fi
    grep -q '"verdict": "depends"' "$place/figures"
    if have xmllint; then
        xmllint --nonet --noout "$place/picture.svg"
    else
        skipped+=("the picture of the comparison (no xmllint)")
    fi
    trap - EXIT
    rm -r "$place"
    echo "$rows rows"
}

for tool in cargo curl; do
    have "$tool" || need "$tool" "$tool"
    have "$tool" || { echo "check.sh: $tool is needed and not there" >&2; exit 1; }
done
need shellcheck shellcheck
need faketime faketime
need slowhttptest slowhttptest
need xmllint libxml2-utils
need systemd-analyze systemd || echo "it cannot be had here; what needs it is skipped" >&2
unpack promtool prometheus
unpack nginx nginx
unpack caddy caddy
need node nodejs
need npm npm
need chromium chromium
need_web
need_python
need_component cargo-fmt rustfmt rustfmt
need_component cargo-clippy clippy rust-clippy

with cargo-fmt "format" cargo fmt --all --check
with rustfmt "format of what the lessons compile" rustfmt --edition 2024 --check scripts/lessons/*.rs
with cargo-clippy "lints" cargo clippy --locked --all-targets -- -D warnings
with cargo-clippy "lints without default features" \
    cargo clippy --locked --all-targets --no-default-features -- -D warnings
oldest_rust
mapfile -t scripts < <(git ls-files 'scripts/*.sh' 'scripts/**/*.sh' .ci/run | sort -u)
with shellcheck "shell scripts" shellcheck -x "${scripts[@]}"
step "tests and lessons"
cargo test --locked
have faketime || skipped+=("a clock that jumps (no faketime)")
with promtool "metrics" metrics
step "on a host"
for tool in systemd-analyze nginx caddy; do
    have "$tool" || skipped+=("what needs $tool on a host (it is not there)")
done
scripts/host.sh
browsers
step "a short siege"
have slowhttptest || skipped+=("the attacks of slowhttptest (it is not there)")
scripts/siege.sh --seconds 1
step "a short comparison"
comparison
step "documents"
RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --lib --document-private-items

echo
for what in "${skipped[@]+"${skipped[@]}"}"; do echo "SKIPPED: $what; --install would get it"; done
echo "check.sh: ok"
