#!/usr/bin/env bash
# What the lessons share: starting and stopping servers, printing commands, checking claims. Lessons
# source this file. The curl commands are all in the lessons.
#
#   start_server FLAG...    start a server, on a free port unless a flag gives an address; sets URL,
#                           and SERVER to its process id
#   start_whole_server      the same with the server of lesson 0
#   until_ended             wait until that server has ended; sets STATUS to its exit status
#   crash                   kill that server with SIGKILL, so that it cannot clean up
#   say TEXT                tell the story
#   show COMMAND...         print a command as you would paste it, run it, print its output; sets OUT
#   begin NAME COMMAND...   the same in the background, as if in a terminal of its own
#   answer NAME             wait for what `begin NAME` started, print its output; sets OUT
#   hang_up NAME            kill what `begin NAME` started, which closes its connection
#   waits NAME              true while what `begin NAME` started has no answer yet
#   until_held N            wait until the server's /metrics count N held polls
#   values MEMBER [JSON]    the values of that JSON member, on one line; without JSON, those in OUT
#   header NAME             the value of that header in OUT
#   metric NAME             a number from /metrics
#   check CLAIM A OP B      print the claim if [ A OP B ] is true, or else stop the lesson
#
# The programs are built with cargo, unless an environment variable names one that is built already:
# LONGPOLL for the server, LONGPOLL_CHAPTER_ZERO for the server of lesson 0.
#
# Nothing here sleeps: a lesson continues when the server's state says so.

unset CDPATH
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
TMP=$(mktemp -d "${TMPDIR:-/tmp}/longpoll-lesson.XXXXXX")
HANG=20 # seconds after which a wait has failed
URL='' SERVER='' STATUS='' OUT=''
exec {STDERR}>&2

# Lessons behave the same on every machine: curl reads this file instead of yours, and the server
# gets no settings but a lesson's.
export CURL_HOME=$TMP
printf '%s\n' silent show-error no-progress-meter 'noproxy = "*"' 'max-time = 30' >"$TMP/.curlrc"
CHAPTER_ZERO=${LONGPOLL_CHAPTER_ZERO:-}
for setting in "${!LONGPOLL_@}"; do
    unset "$setting"
done

# Ends the shell's jobs by their process ids, on every exit from a lesson.
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

# A job may be a function that runs commands. Stopping it first keeps it from starting another.
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
            sed 's/^/    stderr of the server: /' "$TMP/stderr"
        fi
    } >&"$STDERR"
    exit 1
}

# Makes a program a command: the prebuilt one, or else the one that cargo builds from this source.
find_program() { # NAME PREBUILT DIRECTORY CARGO-FLAG...
    local name=$1 program=$2 directory=$3
    shift 3
    if [ -e "$TMP/bin/$name" ]; then
        return
    fi
    if [ -z "$program" ]; then
        echo "building $name, the first time only ..." >&"$STDERR"
        (cd "$ROOT" && exec cargo build --release --quiet "$@") &
        wait "$!" || fail "$name does not build"
        program=$(cd "$ROOT" && cd "${CARGO_TARGET_DIR:-target}" && pwd)/$directory/$name
    fi
    mkdir -p "$TMP/bin"
    ln -s "$(realpath "$program")" "$TMP/bin/$name"
    PATH=$TMP/bin:$PATH
}

start_server() {
    find_program longpoll "${LONGPOLL:-}" release
    case " $* " in
    *' --listen '*) ;;
    *) set -- --listen 127.0.0.1:0 "$@" ;;
    esac
    start longpoll "$@"
}

start_whole_server() {
    find_program whole-server "$CHAPTER_ZERO" release/examples --example whole-server
    start whole-server 0
}

start() { # PROGRAM ARGUMENT...
    local line=''
    rm -f "$TMP/stdout"
    mkfifo "$TMP/stdout"
    printf '$ %s &\n' "$(quoted "$@")"
    "$@" >"$TMP/stdout" 2>"$TMP/stderr" &
    SERVER=$!
    # Descriptor 3 stays open: end of file on it means that the server has ended.
    exec 3<"$TMP/stdout"
    read -r -t "$HANG" -u 3 line || fail 'the server did not start'
    printf '%s\n' "$line"
    case $line in
    'listening on http://'*) URL=${line#listening on } ;;
    'listening on unix:/'*)
        URL=http://localhost
        printf 'unix-socket = "%s"\n' "${line#listening on unix:}" >>"$TMP/.curlrc"
        ;;
    *) fail "unexpected first line of the server: $line" ;;
    esac
}

# shellcheck disable=SC2034 # STATUS is for the lessons.
until_ended() {
    local line='' got=0
    read -r -t "$HANG" -u 3 line || got=$?
    # 1 is the end of the pipe; a status above 128 is the time-out.
    [ "$got" -eq 1 ] || fail 'the server has not ended'
    STATUS=0
    wait "$SERVER" || STATUS=$?
}

# The shell's report of the killed job is noise here.
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

# A command as text, quoted where a shell needs it.
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

# Sets OUT to a command's output, and prints it.
take() {
    OUT=$(tr -d '\r' <"$TMP/$1.out")
    if [ -n "$OUT" ]; then
        printf '%s\n' "$OUT"
    fi
}

show() {
    printf '$ %s\n' "$(quoted "$@")"
    # In the background, because bash handles a signal during `wait` but not during a command.
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

# The process id is read, not substituted: when a signal arrives while bash 5.2 parses a command
# substitution, bash fails to parse the trap's command, and the lesson ends with another status.
answer() {
    local pid
    read -r pid <"$TMP/$1.pid"
    rm "$TMP/$1.pid"
    printf '[%s]\n' "$1"
    wait "$pid" || fail "$1 got no answer: $(cat "$TMP/$1.out")"
    take "$1"
}

hang_up() {
    local pid
    read -r pid <"$TMP/$1.pid"
    rm "$TMP/$1.pid"
    printf '[%s] ^C\n' "$1"
    kill "$pid"
    wait "$pid" 2>"$TMP/killed" || true
}

waits() {
    local pid
    read -r pid <"$TMP/$1.pid"
    kill -0 "$pid" 2>/dev/null
}

until_held() {
    local held file name give_up=$((SECONDS + HANG))
    while true; do
        held=$(metric longpoll_polls_held) || fail 'the server does not answer /metrics'
        [ "$held" != "$1" ] || return 0
        for file in "$TMP"/*.pid; do
            name=$(basename "$file" .pid)
            waits "$name" ||
                fail "$name is answered, not held: $(cat "$TMP/$name.out")"
        done
        [ "$SECONDS" -lt "$give_up" ] || fail "expected $1 held polls, found $held"
    done
}

metric() {
    curl "$URL/metrics" | sed -n "s/^$1 //p"
}

# Enough JSON for the lessons, which publish texts without quotes under unambiguous names.
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
        fail "$claim" "false: [ $(quoted "$@") ]"
    fi
}
