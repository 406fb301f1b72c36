#!/usr/bin/env bash
# Tests the installation and the proxy configurations in a scratch root; changes nothing outside of it.
#
#   scripts/host.sh    installs and uninstalls, checks the units with systemd-analyze, and runs the
#                      server behind nginx, Caddy and HAProxy with scripts/nginx.conf, the block of
#                      src/access/README.md, scripts/Caddyfile and scripts/haproxy.cfg
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
        ! grep -qa "$1" "$2" || return 0
        sleep 0.05
    done
    fail "no line with $1 in $2: $(tr -d '\0' <"$2")"
}

now() { echo "${EPOCHREALTIME//[^0-9]/}"; } # In microseconds.

# Ends a client by its process, and prints how long the server takes to count it.
hang_up() { # WHAT PROCESS METRIC COUNT
    local begun
    begun=$(now)
    kill "$2"
    wait "$2" 2>/dev/null || true
    wait_for_metric "$3" "$4"
    wait_for_metric polls_held 0
    echo "ok: the server notices within $((($(now) - begun) / 1000)) ms that the client of $1 hung up"
}

# Checks a poll that is held, answered, timed out and given up.
check_polls() { # URL
    local url=$1 held
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

    # Not `request`: `kill` has to end curl, not a subshell.
    curl --silent --max-time 30 "$url/topics/news?since=now&wait=60" >/dev/null &
    held=$!
    wait_for_metric polls_held 1
    hang_up "a poll" "$held" 'polls_total{reason="hung_up"}' 1
}

# Checks that each event of a stream is forwarded without waiting for the next one.
check_stream() { # URL
    local url=$1 held number begun arrived least=1000000 most=0
    curl --silent --max-time 30 --no-buffer -H 'Accept: text/event-stream' "$url/topics/news?since=now" \
        > >(while IFS= read -r line; do echo "$(now) $line"; done >"$scratch/held") &
    held=$!
    wait_for_metric polls_held 1
    for number in 1 2 3 4 5; do
        begun=$(now)
        request -o /dev/null -d "streamed $number" "$url/topics/news"
        wait_for_line "\"streamed $number\"" "$scratch/held"
        arrived=$((($(sed -n "s/ .*\"streamed $number\".*//p" "$scratch/held") - begun) / 1000))
        least=$((arrived < least ? arrived : least)) most=$((arrived > most ? arrived : most))
    done
    kill -0 "$held" || fail "the stream ended after an event"
    # Of the fastest, because the machine may be busy. A proxy that waits for more delays every event.
    [ "$least" -lt 100 ] || fail "the events of a stream came $least to $most ms after curl began to publish them"
    echo "ok: the events of a stream come $least to $most ms after curl begins to publish them"
    hang_up "a stream" "$held" 'streams_total{reason="hung_up"}' 1
}

# Checks events and a publish over WebSocket. Its client is bash, because not every curl speaks it.
check_websocket() { # URL
    local url=$1 address=${1#http://} held
    exec 7<>"/dev/tcp/${address/://}"
    cat <&7 >"$scratch/held" &
    held=$!
    printf '%s\r\n' 'GET /topics/chat?since=now HTTP/1.1' "Host: $address" "Origin: $url" \
        'Connection: keep-alive, Upgrade' 'Upgrade: websocket' 'Sec-WebSocket-Version: 13' \
        'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==' '' >&7
    wait_for_line ' 101 ' "$scratch/held"
    request -o /dev/null -d pushed "$url/topics/chat"
    wait_for_line '"data":"pushed"' "$scratch/held"
    # A whole text of two bytes, with a mask of zeros.
    printf '\x81\x82\0\0\0\0hi' >&7
    wait_for_line '"published":{"topic":"chat"' "$scratch/held"
    wait_for_line '"data":"hi"' "$scratch/held"
    echo "ok: a WebSocket receives and publishes"
    exec 7>&-
    hang_up "a WebSocket" "$held" 'streams_total{reason="hung_up"}' 2
}

# Checks that the server's own pages may publish on any port, and those of other sites may not.
check_origins() { # URL
    local url=$1 name=events.example.org
    publish_as() { # ORIGIN HOST
        request -o /dev/null -w '%{http_code}' -H "Origin: $1" -H "Host: $2" -d own "$url/topics/pages"
    }
    expect_equal "a page of the proxy's port may publish" 201 "$(publish_as "$url" "${url#http://}")"
    expect_equal "a page of an allowed name on another port may publish" 201 "$(publish_as "https://$name:8443" "$name:8443")"
    expect_equal "a page of an allowed name without a port may publish" 201 "$(publish_as "https://$name" "$name")"
    expect_equal "a page of another port may not" 403 "$(publish_as "http://$name:1" "$name:8443")"
    expect_equal "a page of another site may not" 403 "$(publish_as https://evil.example "$name")"
}

# Checks, through the proxy at URL, every property of long polling that a proxy could break.
check_through_proxy() { # URL
    local url=$1 before
    check_polls "$url"
    check_stream "$url"
    check_websocket "$url"
    check_origins "$url"

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
    wait_for_line 'bad_request' "$scratch/err"
    expect_equal "the server knows the address of the client" "refused 127.0.0.2 by 127.0.0.1" \
        "$(sed -n 's/.*\(refused [0-9.]* by [0-9.]*\):.* bad_request.*/\1/p' "$scratch/err")"
}

# All times are scaled so that --max-wait, 55s, becomes 4s: otherwise one check would take a minute.
flags=(--max-wait 4s --wait-jitter 0 --idle-timeout 4364ms --trust-proxy 127.0.0.1 --allow-host events.example.org)
shorten() { perl -pe 's/\b(\d+)s\b/int($1 * 4000 \/ 55) . "ms"/ge unless /^\s*#/'; }

# Starts nginx with a configuration that is included in http { }, and sets `front` to its port.
start_nginx() { # CONFIGURATION
    find_free_port
    front=$port
    serve "${flags[@]}"
    sed -e "s/127.0.0.1:8080/127.0.0.1:$port/" -e "s/listen 80;/listen 127.0.0.1:$front;/" "$1" |
        shorten >"$scratch/example.conf"
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
}

step "nginx with scripts/nginx.conf"
if have nginx; then
    start_nginx scripts/nginx.conf
    check_through_proxy "http://127.0.0.1:$front"
    stop_all
    step "nginx with the block of src/access/README.md"
    # shellcheck disable=SC2016 # Backquotes of Markdown.
    sed -n '/^```nginx$/,/^```$/{/^```/!p}' src/access/README.md >"$scratch/block"
    [ -s "$scratch/block" ] || fail "src/access/README.md has no nginx block"
    start_nginx "$scratch/block"
    check_polls "http://127.0.0.1:$front"
    check_stream "http://127.0.0.1:$front"
    check_websocket "http://127.0.0.1:$front"
    check_origins "http://127.0.0.1:$front"
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
            -e "s|^events.example.org|http://127.0.0.1:$front, http://events.example.org:$front|" scripts/Caddyfile | shorten
    } >"$scratch/Caddyfile"
    XDG_DATA_HOME=$scratch/caddy XDG_CONFIG_HOME=$scratch/caddy HOME=$scratch caddy run --adapter caddyfile --config "$scratch/Caddyfile" \
        2>"$scratch/caddy.log" &
    pids+=($!)
    check_through_proxy "http://127.0.0.1:$front"
    stop_all
else
    skip "Caddy (needs caddy)"
fi

step "HAProxy"
if have haproxy; then
    find_free_port
    front=$port
    serve "${flags[@]}"
    sed -e "s/127.0.0.1:8080/127.0.0.1:$port/" -e "s/bind :80$/bind 127.0.0.1:$front/" scripts/haproxy.cfg |
        shorten >"$scratch/haproxy.cfg"
    haproxy -db -f "$scratch/haproxy.cfg" 2>"$scratch/haproxy.log" &
    pids+=($!)
    check_through_proxy "http://127.0.0.1:$front"
    stop_all
else
    skip "HAProxy (needs haproxy)"
fi
