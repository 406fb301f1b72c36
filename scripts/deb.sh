#!/usr/bin/env bash
# Builds the Debian package with cargo-deb; then installs it in a scratch root, has a look at what is
# there, runs the program, and removes it.
#
#   scripts/deb.sh            the package is target/debian/longpoll_*.deb
#   scripts/deb.sh FOLDER     the package goes there
set -euo pipefail
folder=$(realpath -m "${1:-$(dirname "$0")/../target/debian}")
cd "$(dirname "$0")/.."

if ! command -v cargo-deb >/dev/null; then
    echo "deb.sh: cargo-deb is needed: cargo install --locked cargo-deb" >&2
    exit 1
fi
cargo run --quiet --locked --example docs -- target/docs
machine=$(rustc -vV | sed -n 's/^host: \([^-]*\)-.*/\1/p')
target=$machine-unknown-linux-musl
if [ -d "$(rustc --print sysroot)/lib/rustlib/$target" ]; then
    cargo deb --quiet --locked --target "$target" -o "$folder/" >/dev/null
else
    echo "deb.sh: Rust has no target $target here, so the program is not static" >&2
    cargo deb --quiet --locked -o "$folder/" >/dev/null
fi
package=$(find "$folder" -maxdepth 1 -name 'longpoll_*.deb' -printf '%T@ %p\n' | sort -n | tail -n 1 | cut -d ' ' -f 2-)
echo "$package"

# A system of its own, in which nothing runs. The scripts of the package know that by DPKG_ROOT, which
# dpkg sets, and touch nothing outside of it.
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir -p "$root"/var/lib/dpkg/{info,updates}
touch "$root"/var/lib/dpkg/status
tool() { dpkg --root="$root" --force-not-root --force-script-chrootless --force-depends --log=/dev/null "$@"; }
echo "== installed"
tool --install "$package" >/dev/null
find "$root/etc/systemd" -type l -printf '/etc/systemd/%P -> %l\n'
mkdir -p "$root/var/lib/private/longpoll"
dpkg --root="$root" --listfiles longpoll | while read -r path; do
    if [ -f "$root$path" ]; then echo "$path"; fi
done
"$root/usr/bin/longpoll" --version
echo "== removed"
tool --purge longpoll >/dev/null
left=$(find "$root" -name '*longpoll*')
[ -z "$left" ] || { echo "deb.sh: left behind: $left" >&2; exit 1; }
echo "nothing is left"
