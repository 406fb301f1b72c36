#!/usr/bin/env bash
# shellcheck disable=SC2034,SC2154 # `load` and `longpoll` are for whoever sources this, and `root` and `fail` are theirs.
# Which server and which load generator. It is sourced, not run. Sets `longpoll` and `load`: what the
# environment names as LONGPOLL and LOAD, or else what one build makes. No other LONGPOLL_ variable is
# left to change what a server does.

# Cargo says where it put them.
executable() { # KIND NAME, messages on stdin
    sed -n "/\"kind\":\[\"$1\"\],.*\"name\":\"$2\"/s/.*\"executable\":\"\([^\"]*\)\".*/\1/p" | tail -n 1
}

load=${LOAD:-} longpoll=${LONGPOLL:-}
wanted=()
[ -n "$load" ] || wanted+=(--bench load)
[ -n "$longpoll" ] || wanted+=(--bin longpoll)
if [ ${#wanted[@]} -gt 0 ]; then
    messages=$(cd "$root" && cargo build --release "${wanted[@]}" --message-format=json-render-diagnostics)
    [ -n "$load" ] || load=$(executable bench load <<<"$messages")
    [ -n "$longpoll" ] || longpoll=$(executable bin longpoll <<<"$messages")
fi
[ -x "$load" ] || fail "there is no load generator to run ($load)"
[ -x "$longpoll" ] || fail "there is no longpoll to run ($longpoll)"
for setting in "${!LONGPOLL_@}"; do
    unset "$setting"
done
