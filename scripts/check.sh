#!/usr/bin/env bash
# Runs every check that a change has to pass: format, lints, tests, lessons, faults of the disk, browsers,
# proxies, a short siege, a short comparison and the documentation.
#
#   scripts/check.sh            uses the tools that are installed; names and skips the checks that
#                               need another one
#   scripts/check.sh --install  first installs the missing tools (Debian; as root or with sudo)
#
# Exit status: 0 all checks passed, apart from those named SKIPPED; 2 invalid usage; any other: a
# check failed.
set -euo pipefail
cd "$(dirname "$0")/.."

install=no
case "${1-}" in
    "") ;;
    --install) install=yes ;;
    --help | -h) sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; exit 0 ;;
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

# Installs a Debian package if its command is missing.
need() { # COMMAND PACKAGE
    if have "$1" || [ "$install" = no ]; then return 0; fi
    step "installing $2"
    update_once
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "$2" >/dev/null
}

# Unpacks a Debian package if its command is missing, and installs the libraries that the command lacks.
# Installing a package with a service would start that service.
unpack() { # COMMAND PACKAGE
    if have "$1" || [ "$install" = no ]; then return 0; fi
    local libraries
    step "unpacking $1"
    update_once
    mkdir -p "$tools"
    (cd "$tools" && apt-get download -q "$2" >/dev/null && dpkg-deb -x "$2"_*.deb .)
    mapfile -t libraries < <(dpkg-deb -f "$tools/$2"_*.deb Depends | grep -o '\blib[^ ,|]*')
    rm "$tools/$2"_*.deb
    if [[ "$(ldd "$(command -v "$1")")" = *"not found"* ]]; then
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${libraries[@]}" >/dev/null
    fi
}

# The browser driver and the type checker, in the versions of tests/web/package-lock.json.
need_web() {
    [ "$install" = yes ] || return 0
    if [ -e "$web/node_modules/.package-lock.json" ] && cmp -s {tests/web,"$web"}/package-lock.json; then return 0; fi
    step "installing the npm packages of the browser tests"
    mkdir -p "$web"
    cp tests/web/package.json tests/web/package-lock.json "$web"
    (cd "$web" && npm ci --silent --no-audit --no-fund </dev/null)
}

# The Python stream clients, in the versions of tests/web/requirements.txt.
need_python() {
    [ "$install" = yes ] || return 0
    if cmp -s {tests/web,"$web/python"}/requirements.txt; then return 0; fi
    if ! python3 -c "import ensurepip" 2>/dev/null; then
        step "installing python3-venv"
        update_once
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends python3-venv >/dev/null
    fi
    step "installing the Python stream clients"
    if python3 -m venv "$web/python" && "$web/python/bin/pip" install -q --disable-pip-version-check \
        -r tests/web/requirements.txt </dev/null; then
        cp tests/web/requirements.txt "$web/python"
    else
        echo "cannot install the Python stream clients; their tests are skipped" >&2
        rm -rf "$web/python"
    fi
}

need_component() { # CARGO-COMMAND COMPONENT PACKAGE
    if have "$1" || [ "$install" = no ]; then return 0; fi
    if have rustup; then rustup component add "$2"; else need "$1" "$3"; fi
}

# Runs a step if its command is installed; otherwise records the step as skipped.
with() { # COMMAND NAME STEP...
    local command=$1 name=$2
    shift 2
    if ! have "$command" && [ ! -x "$command" ]; then
        skipped+=("$name (needs $(basename "$command"))")
        return 0
    fi
    step "$name"
    "$@"
}

# Checks /metrics, after one publish and one poll, with Prometheus' promtool.
metrics() {
    local server line url data
    data=$(mktemp -d)
    exec 3< <(exec "${CARGO_TARGET_DIR:-target}/debug/longpoll" --listen 127.0.0.1:0 --log error --data "$data")
    server=$!
    # shellcheck disable=SC2064 # Expand now: the variables are local.
    trap "kill $server; rm -r '$data'" EXIT
    read -r -u 3 line
    url=${line#listening on }
    curl -sf -d hello "$url/topics/news" >/dev/null
    curl -sf "$url/topics/news" >/dev/null
    curl -sf "$url/metrics" | promtool check metrics
    trap - EXIT
    kill "$server"
    wait "$server" || true
    rm -r "$data"
}

# Tests longpoll.js, the console and streams in Node, Python and a browser.
browsers() {
    local tool
    for tool in node chromium "$web/node_modules/.bin/tsc"; do
        if ! have "$tool"; then
            skipped+=("browser tests (need $(basename "$tool"))")
            return 0
        fi
    done
    [ -x "$web/python/bin/python" ] || skipped+=("streams read by Python clients (need $web/python)")
    step "browser tests"
    scripts/browser.sh "$web"
}

# Checks the code with the oldest supported Rust, if rustup has it or can install it.
oldest_rust() {
    local oldest
    oldest=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
    if [ "$install" = yes ] && have rustup && ! rustup run "$oldest" cargo --version >/dev/null 2>&1; then
        timeout 300 rustup toolchain install "$oldest" --profile minimal </dev/null || echo "cannot install Rust $oldest" >&2
    fi
    if ! have rustup || ! rustup run "$oldest" cargo --version >/dev/null 2>&1; then
        skipped+=("Rust $oldest (needs rustup with that toolchain)")
        return 0
    fi
    step "Rust $oldest"
    rustup run "$oldest" cargo check --quiet --locked --all-targets \
        --target-dir "${CARGO_TARGET_DIR:-target}/oldest"
}

# Runs the whole comparison for a few seconds, all rows at once: every method has its rows, methods with
# a cursor lose no event, and the chart is well-formed.
comparison() {
    # 8 methods for 1 and 10 clients, quiet and busy; 2 with two polls at once; 4 over a slow network.
    local dir rows expected=$((8 * 2 * 2 + 2 + 4))
    dir=$(mktemp -d)
    # shellcheck disable=SC2064 # Expand now: the variable is local.
    trap "rm -r '$dir'" EXIT
    scripts/compare.sh --quick --json "$dir/figures" --svg "$dir/chart.svg" >"$dir/tables"
    rows=$(sed -n '/^### A quiet/,$p' "$dir/tables" | grep -E '^\| (1|10) \|' | tee "$dir/rows" | wc -l)
    [ "$rows" = "$expected" ] || { cat "$dir/tables"; echo "check.sh: $rows rows, expected $expected" >&2; exit 1; }
    if grep -v -e 'no cursor' -e careless "$dir/rows" | grep -v '| 0 |$'; then
        echo "check.sh: a method with a cursor lost events" >&2
        exit 1
    fi
    grep -q '"verdict": "depends"' "$dir/figures"
    if have xmllint; then
        xmllint --nonet --noout "$dir/chart.svg"
    else
        skipped+=("the chart of the comparison (needs xmllint)")
    fi
    trap - EXIT
    rm -r "$dir"
    echo "$rows rows"
}

for tool in cargo curl; do
    have "$tool" || need "$tool" "$tool"
    have "$tool" || { echo "check.sh: $tool is required and not installed" >&2; exit 1; }
done
need shellcheck shellcheck
need faketime faketime
need slowhttptest slowhttptest
need xmllint libxml2-utils
need systemd-analyze systemd || echo "cannot install systemd; the check of the units is skipped" >&2
unpack promtool prometheus
unpack nginx nginx
unpack caddy caddy
unpack haproxy haproxy
need node nodejs
need npm npm
need chromium chromium
need_web
need_python
need_component cargo-fmt rustfmt rustfmt
need_component cargo-clippy clippy rust-clippy

with cargo-fmt "format" cargo fmt --all --check
with rustfmt "format of the lessons' Rust files" rustfmt --edition 2024 --check scripts/lessons/*.rs
with cargo-clippy "lints" cargo clippy --locked --all-targets -- -D warnings
with cargo-clippy "lints without default features" \
    cargo clippy --locked --all-targets --no-default-features -- -D warnings
oldest_rust
mapfile -t scripts < <(git ls-files 'scripts/*.sh' 'scripts/**/*.sh' .ci/run | sort -u)
with shellcheck "shell scripts" shellcheck -x "${scripts[@]}"
step "tests and lessons"
cargo test --locked
have faketime || skipped+=("tests with a wall clock that jumps (need faketime)")
with promtool "metrics" metrics
step "faults of the disk"
if have cc; then scripts/faults.sh; else skipped+=("scripts/faults.sh (needs cc)"); fi
step "install, units and proxies"
for tool in systemd-analyze nginx caddy haproxy; do
    have "$tool" || skipped+=("scripts/host.sh: the part with $tool (needs $tool)")
done
scripts/host.sh
browsers
step "a short siege"
have slowhttptest || skipped+=("the attacks of slowhttptest (need slowhttptest)")
scripts/siege.sh --seconds 1
step "a short comparison"
comparison
step "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --lib --document-private-items

echo
for check in "${skipped[@]+"${skipped[@]}"}"; do echo "SKIPPED: $check; --install installs it"; done
echo "check.sh: ok"
