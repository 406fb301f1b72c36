#!/usr/bin/env bash
# Tests longpoll.js, the console, and streams with clients that others have made: in Node, in Python,
# and in a real browser.
#
#   scripts/browser.sh TOOLS    with what tests/web/package.json names, installed in TOOLS by npm,
#                               and what requirements.txt names beside it, in TOOLS/python; without
#                               that, Python's clients are skipped
#
# LONGPOLL is the program under test, else the debug build; CHROMIUM the browser, else the one that
# is found; SCREENSHOTS a folder for pictures of the console, to be looked at.
set -euo pipefail
cd "$(dirname "$0")/.."

[ "$#" = 1 ] || { echo "usage: scripts/browser.sh TOOLS" >&2; exit 2; }
WEB_TOOLS=$(cd "$1" && pwd)
LONGPOLL=${LONGPOLL:-${CARGO_TARGET_DIR:-target}/debug/longpoll}
CHROMIUM=${CHROMIUM:-$(command -v chromium)}
PYTHON="$WEB_TOOLS/python/bin/python"
[ -x "$PYTHON" ] || PYTHON=
export WEB_TOOLS LONGPOLL CHROMIUM PYTHON

# The module as strictly as a project that uses it may want it; the console a little less so.
tsc="$WEB_TOOLS/node_modules/.bin/tsc"
"$tsc" --noEmit --allowJs --checkJs --strict --target es2022 --module esnext \
    --lib es2023,dom,dom.iterable src/web/longpoll.js
"$tsc" -p tests/web

# Node 18, as Debian 12 has it, keeps the crypto that browsers have behind a flag.
case $(node --version) in v18.*) export NODE_OPTIONS=--experimental-global-webcrypto ;; esac

# Whatever hangs ends.
exec timeout 600 node --test --test-reporter=spec --test-concurrency=3 tests/web/module.mjs tests/web/tabs.mjs tests/web/console.mjs tests/web/streams.mjs </dev/null
