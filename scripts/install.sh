#!/usr/bin/env bash
# Installs longpoll on this host, or uninstalls it.
set -euo pipefail

usage() {
    cat <<'TEXT'
Usage: scripts/install.sh [OPTION]

Builds longpoll and installs the program, its systemd units, its man page, and completions for bash, zsh
and fish. The program is static if Rust's musl target is installed or rustup can install it. A running
server is restarted, without loss of events; a stopped one is not started.

  --uninstall     removes the installed files; events in /var/lib/longpoll stay
  --dynamic       links to the C library of this machine: more requests a second, more memory; see
                  "Static or dynamic" in scripts/README.md
  --help          print this help

Environment:
  PREFIX                 where to install [/usr/local]
  DESTDIR                a folder that stands for /, for building packages [none]
  LONGPOLL=PATH          the program to install [a release build]
  LONGPOLL_DOCS=FOLDER   the output of "cargo run --example docs" [generated]

Exit status: 0 done; 2 invalid usage; any other: a failure.
TEXT
}

cd "$(dirname "$0")/.."
prefix=${PREFIX:-/usr/local}
root=${DESTDIR:-}
[[ $prefix == /* ]] || { echo "install.sh: PREFIX=$prefix: expected an absolute path" >&2; exit 2; }

action=install static=yes
for option in "$@"; do
    case $option in
        --uninstall) action=uninstall ;;
        --dynamic) static='' ;;
        --help | -h) usage; exit 0 ;;
        *) echo "install.sh: unknown option $option (see --help)" >&2; exit 2 ;;
    esac
done

# The installed files, relative to PREFIX.
program=bin/longpoll
units=lib/systemd/system
man=share/man/man1/longpoll.1
bash=share/bash-completion/completions/longpoll
zsh=share/zsh/site-functions/_longpoll
fish=share/fish/vendor_completions.d/longpoll.fish
all=("$program" "$units/longpoll.service" "$units/longpoll.socket" "$man" "$bash" "$zsh" "$fish")

# Whether the files are installed for a running systemd.
has_systemd() { [ -z "$root" ] && [ -d /run/systemd/system ]; }

if [ "$action" = uninstall ]; then
    if has_systemd; then
        systemctl disable --now longpoll.socket longpoll.service || true
    fi
    for file in "${all[@]}"; do rm -f "$root$prefix/$file"; done
    ! has_systemd || systemctl daemon-reload
    echo "longpoll is removed from $root$prefix; any events stay in /var/lib/longpoll"
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
            echo "install.sh: Rust's target $target is not available; the program is linked dynamically" >&2
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

install_file() { # MODE FROM TO
    install -D -m "$1" "$2" "$root$prefix/$3"
}
install_file 755 "$built" "$program"
sed "s|^ExecStart=/usr/bin/|ExecStart=$prefix/bin/|" scripts/longpoll.service >"$work/longpoll.service"
install_file 644 "$work/longpoll.service" "$units/longpoll.service"
install_file 644 scripts/longpoll.socket "$units/longpoll.socket"
install_file 644 "$docs/longpoll.1" "$man"
install_file 644 "$docs/longpoll.bash" "$bash"
install_file 644 "$docs/_longpoll" "$zsh"
install_file 644 "$docs/longpoll.fish" "$fish"

if has_systemd; then
    systemctl daemon-reload
    systemctl try-restart longpoll.service
fi
case $prefix in
    /usr | /usr/local) ;;
    *) echo "install.sh: systemd does not read units from $prefix/$units; link them to /etc/systemd/system" >&2 ;;
esac
cat <<TEXT
longpoll is installed in $root$prefix. To start it now and at each boot:
    systemctl enable --now longpoll.socket longpoll.service
Set flags as variables in /etc/default/longpoll (LONGPOLL_MAX_WAIT=30s), and the address as ListenStream=
with "systemctl edit longpoll.socket".
TEXT
