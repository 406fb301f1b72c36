#!/usr/bin/env bash
# Puts longpoll on this host, or takes it away again.
set -euo pipefail

usage() {
    cat <<'TEXT'
Usage: scripts/install.sh [OPTION]

Builds longpoll and installs it: the program, its systemd units, its man page, and completions for
bash, zsh and fish. It is static if Rust's musl target is there or rustup can get it. Nothing is
started that was not running; a server that was is restarted, and loses nothing by it.

  --uninstall     removes what this has installed; events in /var/lib/longpoll stay
  --dynamic       links to the C library of this machine: see "On a host" in the README for why
  --help          this text

Environment: PREFIX (/usr/local) is where to; DESTDIR (empty) comes before every path, for packages.
LONGPOLL=PATH is a program to install instead of building one, and LONGPOLL_DOCS=FOLDER has what
"cargo run --example docs" writes.

Exit status: 0 done; 1 a failure; 2 a wrong option.
TEXT
}

cd "$(dirname "$0")/.."
prefix=${PREFIX:-/usr/local}
root=${DESTDIR:-}
[[ $prefix == /* ]] || { echo "install.sh: PREFIX=$prefix: it has to begin with /" >&2; exit 2; }

action=install static=yes
for option in "$@"; do
    case $option in
        --uninstall) action=uninstall ;;
        --dynamic) static='' ;;
        --help | -h) usage; exit 0 ;;
        *) echo "install.sh: unknown option $option (see --help)" >&2; exit 2 ;;
    esac
done

# Everything that is installed: where to, below PREFIX, and its mode.
program=bin/longpoll
units=lib/systemd/system
man=share/man/man1/longpoll.1
bash=share/bash-completion/completions/longpoll
zsh=share/zsh/site-functions/_longpoll
fish=share/fish/vendor_completions.d/longpoll.fish
all=("$program" "$units/longpoll.service" "$units/longpoll.socket" "$man" "$bash" "$zsh" "$fish")

# Whether systemd runs here and is about to see what is installed.
has_systemd() { [ -z "$root" ] && [ -d /run/systemd/system ]; }

if [ "$action" = uninstall ]; then
    if has_systemd; then
        systemctl disable --now longpoll.socket longpoll.service || true
    fi
    for file in "${all[@]}"; do rm -f "$root$prefix/$file"; done
    ! has_systemd || systemctl daemon-reload
    echo "longpoll is gone from $root$prefix; its events, if any, stay in /var/lib/longpoll"
    exit 0
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

built=${LONGPOLL:-}
if [ -z "$built" ]; then
    machine=$(rustc -vV | sed -n 's/^host: \([^-]*\)-.*/\1/p')
    target=$machine-unknown-linux-musl
    has_target() { [ -d "$(rustc --print sysroot)/lib/rustlib/$target" ]; }
    if [ -n "$static" ] && ! has_target; then
        rustup target add "$target" || true
        if ! has_target; then
            echo "install.sh: Rust has no target $target here, so the program is not static" >&2
            static=''
        fi
    fi
    target_dir=${CARGO_TARGET_DIR:-target}
    if [ -n "$static" ]; then
        cargo build --release --locked --target "$target"
        built=$target_dir/$target/release/longpoll
    else
        cargo build --release --locked
        built=$target_dir/release/longpoll
    fi
fi
docs=${LONGPOLL_DOCS:-}
if [ -z "$docs" ]; then
    docs=$work
    cargo run --quiet --locked --example docs -- "$docs"
fi

put() { # MODE FROM TO
    install -D -m "$1" "$2" "$root$prefix/$3"
}
put 755 "$built" "$program"
sed "s|^ExecStart=/usr/bin/|ExecStart=$prefix/bin/|" scripts/longpoll.service >"$work/longpoll.service"
put 644 "$work/longpoll.service" "$units/longpoll.service"
put 644 scripts/longpoll.socket "$units/longpoll.socket"
put 644 "$docs/longpoll.1" "$man"
put 644 "$docs/longpoll.bash" "$bash"
put 644 "$docs/_longpoll" "$zsh"
put 644 "$docs/longpoll.fish" "$fish"

if has_systemd; then
    systemctl daemon-reload
    systemctl try-restart longpoll.service
fi
case $prefix in
    /usr | /usr/local) ;;
    *) echo "install.sh: systemd does not look for units in $prefix/$units; link them to /etc/systemd/system" >&2 ;;
esac
cat <<TEXT
longpoll is in $root$prefix. To start it now and with the machine:
    systemctl enable --now longpoll.socket longpoll.service
Its flags are variables in /etc/default/longpoll (LONGPOLL_MAX_WAIT=30s); where it listens is
ListenStream= in "systemctl edit longpoll.socket".
TEXT
