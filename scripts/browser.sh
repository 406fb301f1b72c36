#!/usr/bin/env bash
# Tests longpoll.js, the console, and streams read by third-party clients: in Node, in Python and in a
# real browser.
#
#   scripts/browser.sh TOOLS    TOOLS has the npm packages of tests/web/package.json and, in the virtual
#                               environment TOOLS/python, the packages of tests/web/requirements.txt;
#                               without TOOLS/python the tests with Python clients are skipped.
#                               `scripts/check.sh --install` puts both in target/tools/web.
#
# Environment: LONGPOLL=PATH is the program under test (the debug build), CHROMIUM=PATH the browser (the
# one on the PATH), SCREENSHOTS=FOLDER a folder for screenshots of the console.
set -euo pipefail
cd "$(dirname "$0")/.."

case "${1-}" in
    --help | -h) sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; exit 0 ;;
esac
[ "$#" = 1 ] || { echo "usage: scripts/browser.sh TOOLS" >&2; exit 2; }
WEB_TOOLS=$(cd "$1" && pwd)
LONGPOLL=${LONGPOLL:-${CARGO_TARGET_DIR:-target}/debug/longpoll}
CHROMIUM=${CHROMIUM:-$(command -v chromium)}
PYTHON="$WEB_TOOLS/python/bin/python"
[ -x "$PYTHON" ] || PYTHON=
export WEB_TOOLS LONGPOLL CHROMIUM PYTHON

# The module is checked with --strict, because a project that imports it may be; the console less so.
tsc="$WEB_TOOLS/node_modules/.bin/tsc"
"$tsc" --noEmit --allowJs --checkJs --strict --target es2022 --module esnext \
    --lib es2023,dom,dom.iterable src/web/longpoll.js
"$tsc" -p tests/web

# Node 18, the version of Debian 12, has the Web Crypto global only behind a flag.
case $(node --version) in v18.*) export NODE_OPTIONS=--experimental-global-webcrypto ;; esac

# The time limit ends a test that hangs.
exec timeout 600 node --test --test-reporter=spec --test-concurrency=3 \
    tests/web/module.mjs tests/web/retries.mjs tests/web/tabs.mjs tests/web/console.mjs tests/web/streams.mjs </dev/null
