#!/usr/bin/env bash
# What longpoll is on a host, tried out in a scratch root: nothing outside of it is touched.
#
# It installs and uninstalls, looks the units over with systemd-analyze, and runs the server behind nginx
# and Caddy with the configurations that lie beside this script.
#
# A tool that is missing is named, and only what needs it is skipped. LONGPOLL=PATH is a program to
# try instead of target/debug/longpoll.
set -euo pipefail
cd "$(dirname "$0")/.."

[ $# = 0 ] || { echo "usage: scripts/host.sh" >&2; exit 2; }

PATH=$PATH:/usr/sbin
target=${CARGO_TARGET_DIR:-target}
scratch=$(mktemp -d)
# nginx's workers give up root's rights and still have to reach what is here.
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
same() { # WHAT EXPECTED GOT
    [ "$2" = "$3" ] || fail "$1: expected $2, got $3"
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

# --- installed, looked over, uninstalled ---

step "install and uninstall"
root=$scratch/root
install() { DESTDIR=$root LONGPOLL=$program LONGPOLL_DOCS=$docs scripts/install.sh "$@"; }
install >/dev/null
(cd "$root" && find . -type f | sort)
same "the version that is installed" "longpoll $(cargo pkgid | sed 's/.*[#@]//')" \
    "$("$root/usr/local/bin/longpoll" --version)"
if have systemd-analyze; then
    # As if it were installed here: it looks for the program.
    units=$root/usr/local/lib/systemd/system
    cp -r "$units" "$scratch/units"
    sed -i "s|^ExecStart=/usr/local|ExecStart=$root/usr/local|" "$scratch/units/longpoll.service"
    said=$(systemd-analyze verify --man=no "$scratch"/units/longpoll.{service,socket} 2>&1) || fail "$said"
    same "what systemd-analyze verify says" "" "$said"
    systemd-analyze security --offline=yes --threshold=10 "$scratch/units/longpoll.service" | tail -n 1
else
    skip "units (no systemd-analyze)"
fi
install --uninstall >/dev/null
same "files that are left" "" "$(find "$root" -type f)"

# --- behind a proxy ---

# Starts longpoll with flags, and sets `port` to where it listens.
port=''
serve() { # FLAGS...
    : >"$scratch/out"
    "$program" --listen 127.0.0.1:0 "$@" >"$scratch/out" 2>"$scratch/err" &
    pids+=($!)
    until grep -q '^listening' "$scratch/out"; do kill -0 "${pids[-1]}"; sleep 0.05; done
    port=$(sed -n 's/.*:\([0-9]*\)$/\1/p' "$scratch/out")
}

# A port that was free a moment ago.
free_port() {
    serve --log error
    kill "${pids[-1]}"
    wait "${pids[-1]}" || true
    unset 'pids[-1]'
}

ask() { curl --silent --show-error --max-time 30 "$@"; }
metric() { ask "http://127.0.0.1:$port/metrics" | sed -n "s/^longpoll_$1 //p"; }
until_metric() { # NAME VALUE
    local tries
    for ((tries = 0; tries < 200; tries++)); do
        [ "$(metric "$1")" != "$2" ] || return 0
        sleep 0.05
    done
    fail "$1 is $(metric "$1"), not $2"
}

until_in() { # PATTERN FILE
    local tries
    for ((tries = 0; tries < 200; tries++)); do
        ! grep -q "$1" "$2" || return 0
        sleep 0.05
    done
    fail "no $1"
}

# Everything that a proxy could spoil, through the proxy at that address.
through() { # URL
    local url=$1 before held
    curl --silent --retry 50 --retry-connrefused --retry-delay 0 --retry-max-time 10 -o /dev/null "$url/health" ||
        fail "nothing answers: $(cat "$scratch"/*.log)"

    ask "$url/topics/news?since=now&wait=20" >"$scratch/held" &
    held=$!
    until_metric polls_held 1
    ask -o /dev/null -d hello "$url/topics/news"
    wait "$held"
    same "a poll is held and answered" '"data":"hello"' "$(grep -o '"data":"hello"' "$scratch/held")"

    same "a poll is held for all of --max-wait" '"reason":"timeout"' \
        "$(ask "$url/topics/news?since=now&wait=60" | grep -o '"reason":"timeout"')"

    # Not by ask: what is killed then has to be curl itself.
    curl --silent --max-time 30 --no-buffer -H 'Accept: text/event-stream' "$url/topics/news?since=now" >"$scratch/held" &
    held=$!
    until_metric polls_held 1
    ask -o /dev/null -d streamed "$url/topics/news"
    until_in '"data":"streamed"' "$scratch/held"
    kill -0 "$held" || fail "the stream has ended"
    same "a stream is passed on at once" '"data":"streamed"' "$(grep -o '"data":"streamed"' "$scratch/held")"
    kill "$held"
    wait "$held" 2>/dev/null || true
    until_metric 'streams_total{reason="hung_up"}' 1
    curl --silent --max-time 30 "$url/topics/news?since=now&wait=60" >/dev/null &
    held=$!
    until_metric polls_held 1
    kill "$held"
    wait "$held" 2>/dev/null || true
    until_metric 'polls_total{reason="hung_up"}' 1
    echo "ok: a client that hangs up is noticed"

    before=$(metric connections_accepted_total)
    seq 50 | xargs -I{} curl --silent -o /dev/null --max-time 30 "$url/topics/news?wait=0"
    # A few more than one: a connection may not be back yet when the next request comes.
    before=$(($(metric connections_accepted_total) - before))
    [ "$before" -le 25 ] || fail "$before connections for 50 requests"
    echo "ok: connections to the server are kept"

    head -c 1000000 /dev/zero | tr '\0' '1' | fold -w 60000 | sed 's|.*|"&"|' >"$scratch/batch"
    same "a large batch passes" 201 "$(ask -o /dev/null -w '%{http_code}' -H 'Content-Type: application/x-ndjson' \
        --data-binary @"$scratch/batch" "$url/topics/batch")"

    ask -o /dev/null --interface 127.0.0.2 "$url/topics/no!"
    until_in refused "$scratch/err"
    same "the server knows for whom it is asked" "refused 127.0.0.2 by 127.0.0.1" \
        "$(grep -o 'refused [0-9.]* by [0-9.]*' "$scratch/err")"
}

# All times are shorter by so much that --max-wait, 55s, is 4s here, and nobody has to wait for a minute.
flags=(--max-wait 4s --wait-jitter 0 --idle-timeout 4364ms --trust-proxy 127.0.0.1 --allow-host events.example.org)
shorten() { perl -pe 's/\b(\d+)s\b/int($1 * 4000 \/ 55) . "ms"/ge unless /^\s*#/'; }

step "nginx"
if have nginx; then
    free_port
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
    through "http://127.0.0.1:$front"
    stop_all
else
    skip "nginx (it is not there)"
fi

step "Caddy"
if have caddy; then
    free_port
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
    through "http://127.0.0.1:$front"
    stop_all
else
    skip "Caddy (it is not there)"
fi
