#!/usr/bin/env bash
# What the lessons share. It is sourced by them, not run. The curl lines are all in the lessons.
#
#   start_server FLAG...    start a server, on a free port unless a flag says where; sets URL, and
#                           SERVER to its process id
#   until_ended             wait until that server has ended; sets STATUS to its exit status
#   crash                   kill that server, which does not get to say goodbye
#   say TEXT                tell the story
#   show COMMAND...         print a command as you would paste it, run it, print its output; sets OUT
#   begin NAME COMMAND...   the same in the background, as if in a terminal of its own
#   answer NAME             wait for what `begin NAME` started, print its output; sets OUT
#   waits NAME              whether what `begin NAME` started still has no answer
#   until_held N            wait until the server holds N polls, as its own /metrics say
#   values MEMBER [JSON]    the values of that JSON member, on one line; without JSON, those in OUT
#   header NAME             the value of that header in OUT
#   metric NAME             a number from /metrics
#   check CLAIM A OP B      say that the claim holds, or stop the lesson; the test is [ A OP B ]
#
# Nothing here sleeps: a lesson goes on when the server says so.

unset CDPATH
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
TMP=$(mktemp -d "${TMPDIR:-/tmp}/longpoll-lesson.XXXXXX")
HANG=20 # seconds; whatever takes longer than this is broken
URL='' SERVER='' STATUS='' OUT=''
exec {STDERR}>&2

# Lessons and their curl lines mean the same on every machine: curl reads this file instead of
# yours, and the server's settings are only those that a lesson gives.
export CURL_HOME=$TMP
printf '%s\n' silent show-error no-progress-meter 'noproxy = "*"' 'max-time = 30' >"$TMP/.curlrc"
for setting in "${!LONGPOLL_@}"; do
    unset "$setting"
done

# However a lesson ends, what it started ends too: the shell's own jobs, by their process ids.
clean_up() {
    local status=$? pid
    trap - EXIT
    trap '' HUP INT TERM
    for pid in $(jobs -pr); do
        end "$pid" || true
        wait "$pid" || true
    done 2>"$TMP/killed"
    rm -rf "$TMP"
    exit "$status"
}

# A job may be a function that runs commands: it is stopped first, so that it starts no other.
end() {
    local child children=()
    kill -STOP "$1" || return 0
    read -r -a children <"/proc/$1/task/$1/children" || true
    for child in "${children[@]}"; do
        end "$child"
    done
    kill -KILL "$1"
}

trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

fail() {
    {
        printf 'FAILED: %s\n' "$1"
        if [ "$#" -gt 1 ]; then
            printf '    %s\n' "$2"
        fi
        if [ -s "$TMP/stderr" ]; then
            sed 's/^/    the server said: /' "$TMP/stderr"
        fi
    } >&"$STDERR"
    exit 1
}

# The server: the one that LONGPOLL names, or else the one that cargo builds from this source. From
# here on it is what a lesson calls `longpoll`.
find_server() {
    if [ -e "$TMP/bin/longpoll" ]; then
        return
    fi
    if [ -z "${LONGPOLL:-}" ]; then
        (cd "$ROOT" && exec cargo build --release --quiet) &
        wait "$!" || fail 'the server does not build'
        LONGPOLL=$(cd "$ROOT" && cd "${CARGO_TARGET_DIR:-target}" && pwd)/release/longpoll
    fi
    mkdir "$TMP/bin"
    ln -s "$(realpath "$LONGPOLL")" "$TMP/bin/longpoll"
    PATH=$TMP/bin:$PATH
}

start_server() {
    local line=''
    find_server
    rm -f "$TMP/stdout"
    mkfifo "$TMP/stdout"
    case " $* " in
    *' --listen '*) ;;
    *) set -- --listen 127.0.0.1:0 "$@" ;;
    esac
    printf '$ %s &\n' "$(quoted longpoll "$@")"
    longpoll "$@" >"$TMP/stdout" 2>"$TMP/stderr" &
    SERVER=$!
    # The pipe stays open, as 3: its end is the end of the server.
    exec 3<"$TMP/stdout"
    read -r -t "$HANG" -u 3 line || fail 'the server did not start'
    printf '%s\n' "$line"
    case $line in
    'listening on http://'*) URL=${line#listening on } ;;
    'listening on unix:/'*)
        URL=http://localhost
        printf 'unix-socket = "%s"\n' "${line#listening on unix:}" >>"$TMP/.curlrc"
        ;;
    *) fail "the server's first line is not the promised one" ;;
    esac
}

# shellcheck disable=SC2034 # STATUS is for the lessons.
until_ended() {
    local line='' got=0
    read -r -t "$HANG" -u 3 line || got=$?
    # Above 128 the time was up; 1 is the end of the pipe.
    [ "$got" -eq 1 ] || fail 'the server goes on, though it was asked to end'
    STATUS=0
    wait "$SERVER" || STATUS=$?
}

# The shell says what was killed; everybody knows.
crash() {
    {
        show kill -KILL "$SERVER"
        until_ended
    } 2>"$TMP/killed"
}

say() {
    printf '\n'
    printf '%s\n' "$*" | fold -s -w 90 | sed 's/^/# /; s/ *$//'
}

# The words of a command, in quotes where a shell needs them.
quoted() {
    local word line=''
    for word in "$@"; do
        case $word in
        '' | *[!A-Za-z0-9_./:=,@%+-]*) word="'${word//\'/\'\\\'\'}'" ;;
        esac
        line="$line $word"
    done
    printf '%s\n' "${line# }"
}

# Takes what a command printed as OUT, and prints it.
take() {
    OUT=$(tr -d '\r' <"$TMP/$1.out")
    if [ -n "$OUT" ]; then
        printf '%s\n' "$OUT"
    fi
}

show() {
    printf '$ %s\n' "$(quoted "$@")"
    # In the background only because `wait`, unlike a command, can be interrupted at once.
    "$@" >"$TMP/shown.out" 2>&1 &
    wait "$!" || fail "that command failed: $(cat "$TMP/shown.out")"
    take shown
}

begin() {
    local name=$1
    shift
    printf '$ %s &\n' "$(quoted "$@")"
    "$@" >"$TMP/$name.out" 2>&1 &
    printf '%s\n' "$!" >"$TMP/$name.pid"
}

# The process id is read, not substituted: where a signal finds bash 5.2 parsing a substitution, it
# fails to parse what the trap says, and the lesson ends with another status.
answer() {
    local pid
    read -r pid <"$TMP/$1.pid"
    rm "$TMP/$1.pid"
    printf '[%s]\n' "$1"
    wait "$pid" || fail "$1 got no answer: $(cat "$TMP/$1.out")"
    take "$1"
}

waits() {
    local pid
    read -r pid <"$TMP/$1.pid"
    kill -0 "$pid" 2>/dev/null
}

until_held() {
    local held file name give_up=$((SECONDS + HANG))
    while true; do
        held=$(metric longpoll_polls_held) || fail 'the server does not tell its metrics'
        [ "$held" != "$1" ] || return 0
        for file in "$TMP"/*.pid; do
            name=$(basename "$file" .pid)
            waits "$name" ||
                fail "$name should be held, but has its answer: $(cat "$TMP/$name.out")"
        done
        [ "$SECONDS" -lt "$give_up" ] || fail "$1 polls should be held, but $held are"
    done
}

metric() {
    curl "$URL/metrics" | sed -n "s/^$1 //p"
}

# Good for what the lessons publish: texts without quotes, and members with a name of their own.
values() {
    printf '%s\n' "${2-$OUT}" | awk -v key="\"$1\":" '
        {
            while ((at = index($0, key)) > 0) {
                $0 = substr($0, at + length(key))
                match($0, /^("[^"]*"|[^],}]*)/)
                value = substr($0, 1, RLENGTH)
                gsub(/"/, "", value)
                line = line separator value
                separator = " "
            }
        }
        END { print line }'
}

header() {
    printf '%s\n' "$OUT" | awk -v name="$1:" 'tolower($1) == tolower(name) { print $2 }'
}

check() {
    local claim=$1
    shift
    if [ "$@" ]; then
        printf 'ok: %s\n' "$claim"
    else
        fail "$claim" "this is not so: [ $(quoted "$@") ]"
    fi
}
