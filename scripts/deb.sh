#!/usr/bin/env bash
# Builds the Debian package with cargo-deb, and tests it: installs it in a scratch root, lists its files,
# runs the program and purges the package.
#
#   scripts/deb.sh            writes target/debian/longpoll_*.deb
#   scripts/deb.sh FOLDER     writes FOLDER/longpoll_*.deb
set -euo pipefail
case "${1-}" in
    --help | -h) sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; exit 0 ;;
    -*) echo "usage: scripts/deb.sh [FOLDER]" >&2; exit 2 ;;
esac
folder=$(realpath -m "${1:-$(dirname "$0")/../target/debian}")
cd "$(dirname "$0")/.."

if ! command -v cargo-deb >/dev/null; then
    echo "deb.sh: cargo-deb is not installed: cargo install --locked cargo-deb" >&2
    exit 1
fi
cargo run --quiet --locked --example docs -- target/docs
machine=$(rustc -vV | sed -n 's/^host: \([^-]*\)-.*/\1/p')
target=$machine-unknown-linux-musl
if [ -d "$(rustc --print sysroot)/lib/rustlib/$target" ]; then
    cargo deb --quiet --locked --target "$target" -o "$folder/" >/dev/null
else
    echo "deb.sh: Rust's target $target is not installed; the program is linked dynamically" >&2
    cargo deb --quiet --locked -o "$folder/" >/dev/null
fi
package=$(find "$folder" -maxdepth 1 -name 'longpoll_*.deb' -printf '%T@ %p\n' | sort -n | tail -n 1 | cut -d ' ' -f 2-)
echo "$package"

# A scratch root without running services. dpkg sets DPKG_ROOT, from which the maintainer scripts know that
# they may change nothing outside of it.
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir -p "$root"/var/lib/dpkg/{info,updates}
touch "$root"/var/lib/dpkg/status
dpkg_in_root() { dpkg --root="$root" --force-not-root --force-script-chrootless --force-depends --log=/dev/null "$@"; }
echo "== installed"
dpkg_in_root --install "$package" >/dev/null
find "$root/etc/systemd" -type l -printf '/etc/systemd/%P -> %l\n'
mkdir -p "$root/var/lib/private/longpoll"
dpkg --root="$root" --listfiles longpoll | while read -r path; do
    if [ -f "$root$path" ]; then echo "$path"; fi
done
"$root/usr/bin/longpoll" --version
echo "== purged"
dpkg_in_root --purge longpoll >/dev/null
left=$(find "$root" -name '*longpoll*')
[ -z "$left" ] || { echo "deb.sh: files left after the purge: $left" >&2; exit 1; }
echo "no file is left"
