#!/usr/bin/env bash
# shellcheck disable=SC2034,SC2154 # The sourcing script reads `load` and `longpoll`, and sets `root` and `fail`.
# Finds the server and the load generator. To be sourced. Sets `longpoll` and `load`: the programs that the
# environment names as LONGPOLL and LOAD, otherwise release builds. Unsets every LONGPOLL_ variable, because
# each is a flag of the server.

# Prints the path of an executable that cargo has built.
executable() { # KIND NAME, cargo's messages on stdin
    sed -n "/\"kind\":\[\"$1\"\],.*\"name\":\"$2\"/s/.*\"executable\":\"\([^\"]*\)\".*/\1/p" | tail -n 1
}

load=${LOAD:-} longpoll=${LONGPOLL:-}
targets=()
[ -n "$load" ] || targets+=(--bench load)
[ -n "$longpoll" ] || targets+=(--bin longpoll)
if [ ${#targets[@]} -gt 0 ]; then
    messages=$(cd "$root" && cargo build --release "${targets[@]}" --message-format=json-render-diagnostics)
    [ -n "$load" ] || load=$(executable bench load <<<"$messages")
    [ -n "$longpoll" ] || longpoll=$(executable bin longpoll <<<"$messages")
fi
[ -x "$load" ] || fail "the load generator '$load' is not an executable file"
[ -x "$longpoll" ] || fail "the server '$longpoll' is not an executable file"
for variable in "${!LONGPOLL_@}"; do
    unset "$variable"
done
