#!/usr/bin/env bash
# What longpoll is on a host, tried out in a scratch root: nothing outside of it is touched.
#
# It installs and uninstalls, and looks the units over with systemd-analyze.
#
# A tool that is missing is named, and only what needs it is skipped. LONGPOLL=PATH is a program to
# try instead of target/debug/longpoll.
set -euo pipefail
cd "$(dirname "$0")/.."

[ $# = 0 ] || { echo "usage: scripts/host.sh" >&2; exit 2; }

PATH=$PATH:/usr/sbin
target=${CARGO_TARGET_DIR:-target}
scratch=$(mktemp -d)
# nginx's workers give up root's rights and still have to reach what is here.
chmod 755 "$scratch"
pids=()
clean_up() {
    if [ ${#pids[@]} -gt 0 ]; then
        kill "${pids[@]}" 2>/dev/null || true
        wait "${pids[@]}" 2>/dev/null || true
    fi
    rm -rf "$scratch"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

step() { printf '\n== %s\n' "$*"; }
fail() { echo "host.sh: $*" >&2; exit 1; }
skip() { echo "SKIPPED: $*"; }
have() { command -v "$1" >/dev/null 2>&1; }
same() { # WHAT EXPECTED GOT
    [ "$2" = "$3" ] || fail "$1: expected $2, got $3"
    echo "ok: $1"
}

program=${LONGPOLL:-}
if [ -z "$program" ]; then
    cargo build --quiet --locked
    program=$target/debug/longpoll
fi
program=$(realpath "$program")
docs=$scratch/docs
cargo run --quiet --locked --example docs -- "$docs"

# --- installed, looked over, uninstalled ---

step "install and uninstall"
root=$scratch/root
install() { DESTDIR=$root LONGPOLL=$program LONGPOLL_DOCS=$docs scripts/install.sh "$@"; }
install >/dev/null
(cd "$root" && find . -type f | sort)
same "the version that is installed" "longpoll $(cargo pkgid | sed 's/.*[#@]//')" \
    "$("$root/usr/local/bin/longpoll" --version)"
if have systemd-analyze; then
    # As if it were installed here: it looks for the program.
    units=$root/usr/local/lib/systemd/system
    cp -r "$units" "$scratch/units"
    sed -i "s|^ExecStart=/usr/local|ExecStart=$root/usr/local|" "$scratch/units/longpoll.service"
    said=$(systemd-analyze verify --man=no "$scratch"/units/longpoll.{service,socket} 2>&1) || fail "$said"
    same "what systemd-analyze verify says" "" "$said"
    systemd-analyze security --offline=yes --threshold=10 "$scratch/units/longpoll.service" | tail -n 1
else
    skip "units (no systemd-analyze)"
fi
install --uninstall >/dev/null
same "files that are left" "" "$(find "$root" -type f)"
