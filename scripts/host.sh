#!/usr/bin/env bash
# Tests the installation and the proxy configurations in a scratch root; changes nothing outside of it.
#
#   scripts/host.sh    installs and uninstalls, checks the units with systemd-analyze, and runs the
#                      server behind nginx and Caddy with scripts/nginx.conf and scripts/Caddyfile
#
# Names each missing tool and skips only the part that needs it. Environment: LONGPOLL=PATH is the program
# under test (the debug build).
set -euo pipefail
cd "$(dirname "$0")/.."

case "${1-}" in
    "") ;;
    --help | -h) sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "usage: scripts/host.sh" >&2; exit 2 ;;
esac

PATH=$PATH:/usr/sbin
target=${CARGO_TARGET_DIR:-target}
scratch=$(mktemp -d)
# The workers of nginx run as another user than root and need access to this directory.
chmod 755 "$scratch"
pids=()
stop_all() {
    [ ${#pids[@]} -gt 0 ] || return 0
    kill "${pids[@]}" 2>/dev/null || true
    wait "${pids[@]}" 2>/dev/null || true
    pids=()
}
clean_up() {
    stop_all
    rm -rf "$scratch"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

step() { printf '\n== %s\n' "$*"; }
fail() { echo "host.sh: $*" >&2; exit 1; }
skip() { echo "SKIPPED: $*"; }
have() { command -v "$1" >/dev/null 2>&1; }
expect_equal() { # WHAT EXPECTED ACTUAL
    [ "$2" = "$3" ] || fail "$1: expected '$2', got '$3'"
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

# --- install, check the units, uninstall ---

step "install and uninstall"
root=$scratch/root
install() { DESTDIR=$root LONGPOLL=$program LONGPOLL_DOCS=$docs scripts/install.sh "$@"; }
install >/dev/null
(cd "$root" && find . -type f | sort)
expect_equal "the installed version" "longpoll $(cargo pkgid | sed 's/.*[#@]//')" \
    "$("$root/usr/local/bin/longpoll" --version)"
if have systemd-analyze; then
    # systemd-analyze checks that the program exists, so the copy names its path in the scratch root.
    units=$root/usr/local/lib/systemd/system
    cp -r "$units" "$scratch/units"
    sed -i "s|^ExecStart=/usr/local|ExecStart=$root/usr/local|" "$scratch/units/longpoll.service"
    complaints=$(systemd-analyze verify --man=no "$scratch"/units/longpoll.{service,socket} 2>&1) || fail "$complaints"
    expect_equal "complaints of systemd-analyze verify" "" "$complaints"
    systemd-analyze security --offline=yes --threshold=10 "$scratch/units/longpoll.service" | tail -n 1
else
    skip "check of the units (needs systemd-analyze)"
fi
install --uninstall >/dev/null
expect_equal "files left after --uninstall" "" "$(find "$root" -type f)"

# --- behind a proxy ---

# Starts longpoll with flags, and sets `port` to the port that it listens on.
port=''
serve() { # FLAGS...
    : >"$scratch/out"
    "$program" --listen 127.0.0.1:0 "$@" >"$scratch/out" 2>"$scratch/err" &
    pids+=($!)
    until grep -q '^listening' "$scratch/out"; do kill -0 "${pids[-1]}"; sleep 0.05; done
    port=$(sed -n 's/.*:\([0-9]*\)$/\1/p' "$scratch/out")
}

# Sets `port` to a port that was free a moment ago.
find_free_port() {
    serve --log error
    kill "${pids[-1]}"
    wait "${pids[-1]}" || true
    unset 'pids[-1]'
}

request() { curl --silent --show-error --max-time 30 "$@"; }
metric() { request "http://127.0.0.1:$port/metrics" | sed -n "s/^longpoll_$1 //p"; }
wait_for_metric() { # NAME VALUE
    local tries
    for ((tries = 0; tries < 200; tries++)); do
        [ "$(metric "$1")" != "$2" ] || return 0
        sleep 0.05
    done
    fail "$1 is $(metric "$1"), expected $2"
}

wait_for_line() { # PATTERN FILE
    local tries
    for ((tries = 0; tries < 200; tries++)); do
        ! grep -q "$1" "$2" || return 0
        sleep 0.05
    done
    fail "no line with $1 in $2: $(cat "$2")"
}

# Checks, through the proxy at URL, every property of long polling that a proxy could break.
check_through_proxy() { # URL
    local url=$1 before held
    curl --silent --retry 50 --retry-connrefused --retry-delay 0 --retry-max-time 10 -o /dev/null "$url/health" ||
        fail "no response from $url: $(cat "$scratch"/*.log)"

    request "$url/topics/news?since=now&wait=20" >"$scratch/held" &
    held=$!
    wait_for_metric polls_held 1
    request -o /dev/null -d hello "$url/topics/news"
    wait "$held"
    expect_equal "a poll is held and answered" '"data":"hello"' "$(grep -o '"data":"hello"' "$scratch/held")"

    expect_equal "a poll is held for all of --max-wait" '"reason":"timeout"' \
        "$(request "$url/topics/news?since=now&wait=60" | grep -o '"reason":"timeout"')"

    # Not `request`: `kill` below has to end curl, not a subshell.
    curl --silent --max-time 30 --no-buffer -H 'Accept: text/event-stream' "$url/topics/news?since=now" >"$scratch/held" &
    held=$!
    wait_for_metric polls_held 1
    request -o /dev/null -d streamed "$url/topics/news"
    wait_for_line '"data":"streamed"' "$scratch/held"
    kill -0 "$held" || fail "the stream ended after an event"
    expect_equal "a stream is forwarded immediately" '"data":"streamed"' "$(grep -o '"data":"streamed"' "$scratch/held")"
    kill "$held"
    wait "$held" 2>/dev/null || true
    wait_for_metric 'streams_total{reason="hung_up"}' 1
    curl --silent --max-time 30 "$url/topics/news?since=now&wait=60" >/dev/null &
    held=$!
    wait_for_metric polls_held 1
    kill "$held"
    wait "$held" 2>/dev/null || true
    wait_for_metric 'polls_total{reason="hung_up"}' 1
    echo "ok: the server notices that a client hung up"

    before=$(metric connections_accepted_total)
    seq 50 | xargs -I{} curl --silent -o /dev/null --max-time 30 "$url/topics/news?wait=0"
    # More than one, because the proxy may not have the connection back when the next request arrives.
    before=$(($(metric connections_accepted_total) - before))
    [ "$before" -le 25 ] || fail "$before connections for 50 requests"
    echo "ok: the proxy reuses its connections to the server"

    head -c 1000000 /dev/zero | tr '\0' '1' | fold -w 60000 | sed 's|.*|"&"|' >"$scratch/batch"
    expect_equal "a large batch passes" 201 "$(request -o /dev/null -w '%{http_code}' -H 'Content-Type: application/x-ndjson' \
        --data-binary @"$scratch/batch" "$url/topics/batch")"

    request -o /dev/null --interface 127.0.0.2 "$url/topics/no!"
    wait_for_line refused "$scratch/err"
    expect_equal "the server knows the address of the client" "refused 127.0.0.2 by 127.0.0.1" \
        "$(grep -o 'refused [0-9.]* by [0-9.]*' "$scratch/err")"
}

# All times are scaled so that --max-wait, 55s, becomes 4s: otherwise one check would take a minute.
flags=(--max-wait 4s --wait-jitter 0 --idle-timeout 4364ms --trust-proxy 127.0.0.1 --allow-host events.example.org)
shorten() { perl -pe 's/\b(\d+)s\b/int($1 * 4000 \/ 55) . "ms"/ge unless /^\s*#/'; }

step "nginx"
if have nginx; then
    find_free_port
    front=$port
    serve "${flags[@]}"
    sed -e "s/127.0.0.1:8080/127.0.0.1:$port/" -e "s/listen 80;/listen 127.0.0.1:$front;/" \
        scripts/nginx.conf | shorten >"$scratch/example.conf"
    cat >"$scratch/nginx.conf" <<CONF
daemon off;
pid $scratch/nginx.pid;
error_log $scratch/nginx.log warn;
events { }
http {
    access_log off;
    client_body_temp_path $scratch/body;
    proxy_temp_path $scratch/proxy;
    fastcgi_temp_path $scratch/fastcgi;
    uwsgi_temp_path $scratch/uwsgi;
    scgi_temp_path $scratch/scgi;
    include $scratch/example.conf;
}
CONF
    nginx -c "$scratch/nginx.conf" -e "$scratch/nginx.log" &
    pids+=($!)
    check_through_proxy "http://127.0.0.1:$front"
    stop_all
else
    skip "nginx (needs nginx)"
fi

step "Caddy"
if have caddy; then
    find_free_port
    front=$port
    serve "${flags[@]}"
    {
        printf '{\n\tadmin off\n\tlog {\n\t\toutput discard\n\t}\n}\n'
        sed -e "s/127.0.0.1:8080/127.0.0.1:$port/" \
            -e "s|^events.example.org|http://127.0.0.1:$front|" scripts/Caddyfile | shorten
    } >"$scratch/Caddyfile"
    XDG_DATA_HOME=$scratch/caddy XDG_CONFIG_HOME=$scratch/caddy HOME=$scratch caddy run --adapter caddyfile --config "$scratch/Caddyfile" \
        2>"$scratch/caddy.log" &
    pids+=($!)
    check_through_proxy "http://127.0.0.1:$front"
    stop_all
else
    skip "Caddy (needs caddy)"
fi
