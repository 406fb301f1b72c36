#!/usr/bin/env bash
# Lesson 0: a whole server in one file, and where it ends.
#
# Five small crates and 200 lines make a server that holds a poll, releases it, times it out, and
# loses no event between two polls. Read 00-whole-server.rs first; it takes ten minutes. This lesson
# runs it, and then shows five ways in which it fails. Each failure names the module of the real
# server that prevents it, so this is also the table of contents of the course.
#
# Run:     scripts/lessons/00-whole-server.sh
# See:     a poll that is held and released; then wake-ups for nothing, slow readers, dead clients,
#          a restart that loses events, and connections that are never answered.
# Where:   scripts/lessons/00-whole-server.rs: EventLog::poll (wait_until),
#          src/waiters.rs: Waiters::notify (for_topic), src/conn.rs: Conn::send_within (send_until),
#          src/server/housekeeping.rs: cancel_disconnected (RDHUP),
#          src/log/read.rs: LogState::check_cursor (self.epoch),
#          src/server/pool.rs: WorkerPool::admit (try_send)
# Without: the real server answers questions that you have not asked yet.
set -euo pipefail
# shellcheck source=/dev/null
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

kept=256      # events that the server keeps, as its KEPT_EVENTS says
threads=4     # its WORKERS
queue=4       # its QUEUE
burst=100     # connections; fewer than the 128 that the kernel accepts for a stopped server
max_bursts=20 # a burst shows the failure about two times in three

# The value of NAME in /counters. Asked again soon if there is no answer: tiny_http may have left the
# connection waiting, as the fifth failure shows. Another one then gets a new thread, which afterwards
# serves those that wait.
counter() { # NAME
    values "$1" "$(curl --max-time 2 "$URL/counters")"
}

until_counter() { # NAME VALUE
    local value give_up=$((SECONDS + HANG))
    until value=$(counter "$1") && [ "$value" = "$2" ]; do
        [ "$SECONDS" -lt "$give_up" ] || fail "expected $2 $1, found $value"
    done
}

until_output() { # NAME: until what `begin NAME` started has printed something
    local give_up=$((SECONDS + HANG))
    until [ -s "$TMP/$1.out" ]; do
        counter held >"$TMP/ignored" || true
        [ "$SECONDS" -lt "$give_up" ] || fail "$1 has received nothing"
    done
}

# A client that stops reading after the status line, as one does that is overloaded or suspended. (By
# hand, because curl reads more than it prints.)
poll_and_stop_reading() { # URL
    local line place=${1#http://}
    local host=${place%%/*}
    exec 4<>"/dev/tcp/${host%:*}/${host##*:}"
    printf '%s\r\n' "GET /${place#*/} HTTP/1.1" "Host: $host" '' >&4
    IFS= read -r -u 4 line
    printf '%s\n' "$line"
    exec tail -f /dev/null
}

say "Part one: it works."
start_whole_server

say "A poll is held while there is nothing to say. The server counts it:"
begin reader curl "$URL/topics/news?since=0&wait=20"
until_counter held 1
show curl "$URL/counters"

say "A publish releases it:"
show curl -d hello "$URL/topics/news"
answer reader
check 'the poll got the event' "$(values data)" = hello
next=$(values next)

say "Without an event, a poll ends at its deadline. That is no error:"
show curl "$URL/topics/news?since=$next&wait=1"
check 'it timed out' "$(values reason)" = timeout

say "What is published between two polls is not lost, because the next poll says where to resume:"
show curl -d two "$URL/topics/news"
show curl -d three "$URL/topics/news"
show curl "$URL/topics/news?since=$next&wait=20"
check 'both events, in order' "$(values data)" = 'two three'
next=$(values next)

say "Part two: where it ends. First, wake-ups for nothing. All polls wait on one condition variable," \
    "so a publish has to wake all of them. Three polls wait for three topics, none of them the" \
    "weather:"
for topic in bread milk eggs; do
    begin "$topic" curl "$URL/topics/$topic?since=$next&wait=20"
done
until_counter held 3
before=$(counter wakeups)
for number in 1 2 3; do
    show curl -d rain "$URL/topics/weather"
    # Two notifications in a row may wake a thread only once: each is given time to arrive.
    until_counter wakeups $((before + 3 * number))
done
show curl "$URL/counters"
say "$(($(counter wakeups) - before)) wake-ups more than before the three publishes, all for nothing:"
check 'three publishes, nine wake-ups' "$(counter wakeups)" = $((before + 9))
check 'and nobody released' "$(counter held)" = 3
for topic in bread milk eggs; do
    hang_up "$topic"
    curl -o "$TMP/ignored" -d sold "$URL/topics/$topic"
done
say "With 5,000 polls, 5,000 threads compete for one lock at every publish. The real server has a" \
    "wait queue for each topic: src/waiters.rs, lessons 5 and 6."

say "Second, slow readers. First, a log full of large events. (curl replaces #[1-$kept] by each of these" \
    "numbers in turn, and sends nothing of it: so it publishes $kept times.)"
head -c 65536 /dev/zero | tr '\0' x >"$TMP/large"
show curl -o "$TMP/ignored" --data-binary "@$TMP/large" "$URL/topics/big#[1-$kept]"
say "The memory is bounded: older events are gone by now, and an old cursor gets 410."
show curl "$URL/topics/news?since=$next"
check 'gone' "$(values status)" = 410

say "Now $threads clients ask for all of it, and read only the first line:"
for number in $(seq "$threads"); do
    begin "slow$number" poll_and_stop_reading "$URL/topics/big"
    until_output "slow$number"
done
say "Each keeps a thread, which waits to write the rest. No thread is left for a publish, so it queues:"
for number in $(seq "$queue"); do
    begin "publisher$number" curl -d hello "$URL/topics/news"
    until_counter queued "$number"
done
say "When the queue is full too, a request is refused:"
begin refused curl -i -d hello "$URL/topics/news"
until_output refused
answer refused
check 'refused' "$(values status)" = 503
check 'with a time to come back' "$(header Retry-After)" = 1
for number in $(seq "$threads"); do
    hang_up "slow$number"
done
for number in $(seq "$queue"); do
    answer "publisher$number"
    check 'published, now that the slow readers are gone' "$(values topic)" = news
done
say "The real server gives each response a deadline (src/conn.rs), and allows fewer held polls than" \
    "connections, so that a publish gets one: src/api/poll.rs, lesson 8."

say "Third, clients that hang up. These poll, and are interrupted:"
for number in $(seq "$threads"); do
    begin "gone$number" curl "$URL/topics/cellar?wait=20"
    until_counter held "$number"
done
for number in $(seq "$threads"); do
    hang_up "gone$number"
done
say "The clients are gone, but a thread that waits for an event does not see a connection end. So" \
    "the very publish that would release the four has to queue behind them:"
begin publisher curl -d 'is anybody there?' "$URL/topics/cellar"
until_counter queued 1
show curl "$URL/counters"
check 'every thread waits for a client that is gone' "$(counter held)" = "$threads"
check 'and the publish waits' "$(counter queued)" = 1
say "The real server looks for closed connections once a second: src/server/housekeeping.rs."

say "The drain releases what is held, and then answers what is queued:"
show kill -TERM "$SERVER"
answer publisher
check 'published, at last' "$(values topic)" = cellar
until_ended
check 'it ended as it should' "$STATUS" = 0

say "Fourth, a restart. Here is a new server, and a reader that has seen three events:"
start_whole_server
show curl -d one "$URL/topics/news"
show curl -d two "$URL/topics/news"
show curl -d three "$URL/topics/news"
show curl "$URL/topics/news"
next=$(values next)
begin reader curl "$URL/topics/news?since=$next&wait=20"
until_counter held 1
show kill -TERM "$SERVER"
answer reader
check 'the drain answered the reader' "$(values reason)" = drain
check 'with the cursor that it had' "$(values next)" = "$next"
until_ended

say "The server is started again, and four other events are published while the reader is away:"
start_whole_server
for word in four five six seven; do
    show curl -d "$word" "$URL/topics/news"
done
say "The reader resumes from its cursor:"
show curl "$URL/topics/news?since=$next"
check 'four, five and six are lost, and nobody has noticed' "$(values data)" = seven
say "A seq alone does not say which log it belongs to. The real server's cursor also has an epoch," \
    "which a restart without a store changes, and such a reader gets 410: src/cursor.rs, lesson 9." \
    "With --data the log survives: src/store/, lesson 11."
show kill -TERM "$SERVER"
until_ended

# Opens many connections and sends a request on each while the server is stopped: the kernel
# accepts them, and the server then finds all at once, as after a network failure. Waits until no
# more of them are answered. Sets FDS, and UNANSWERED to those of them without a response.
burst() { # PATH
    local fd number pending give_up
    FDS=()
    kill -STOP "$SERVER"
    for number in $(seq "$burst"); do
        exec {fd}<>"/dev/tcp/127.0.0.1/${URL##*:}"
        printf '%s\r\n' "GET $1 HTTP/1.1" "Host: burst$number" '' >&"$fd"
        FDS+=("$fd")
    done
    kill -CONT "$SERVER"
    UNANSWERED=("${FDS[@]}")
    give_up=$((SECONDS + 2))
    while [ "${#UNANSWERED[@]}" -gt 0 ] && [ "$SECONDS" -lt "$give_up" ]; do
        pending=()
        for fd in "${UNANSWERED[@]}"; do
            read -r -t 0 -u "$fd" || pending+=("$fd")
        done
        [ "${#pending[@]}" = "${#UNANSWERED[@]}" ] || give_up=$((SECONDS + 2))
        UNANSWERED=(${pending[@]+"${pending[@]}"})
    done
}

close_burst() {
    local fd
    for fd in "${FDS[@]}"; do
        exec {fd}>&-
    done
}

say "Fifth, a burst: $burst clients connect at once, ask for /counters, and keep their connections" \
    "open, as browsers do. tiny_http has a thread pool of its own for reading requests, and counts a" \
    "thread as idle until it has really woken up: so it gives one thread several connections. Whether" \
    "that happens is up to the scheduler. Try up to $max_bursts times, each time with a new server:"
for number in $(seq "$max_bursts"); do
    start_whole_server >"$TMP/ignored"
    burst /counters
    printf 'burst %s: %s of %s connections unanswered\n' "$number" "${#UNANSWERED[@]}" "$burst"
    [ "${#UNANSWERED[@]}" = 0 ] || break
    close_burst
    kill -TERM "$SERVER"
    until_ended
done
if [ "${#UNANSWERED[@]}" = 0 ]; then
    say "All were answered this time, by chance. Try again, on a busier machine."
else
    say "The others stay unanswered as long as the answered ones stay open. Close those:"
    answered=0
    for fd in "${FDS[@]}"; do
        case " ${UNANSWERED[*]} " in
        *" $fd "*) ;;
        *)
            exec {fd}>&-
            answered=$((answered + 1))
            ;;
        esac
    done
    FDS=("${UNANSWERED[@]}")
    IFS= read -r -t "$HANG" -u "${FDS[0]}" line || fail 'the first of them is still not answered'
    printf '%s connections closed; then one of the others has its answer: %s\n' "$answered" "${line%$'\r'}"
    check 'it only lacked a thread' "${line%$'\r'}" = 'HTTP/1.1 200 OK'
    close_burst
    kill -TERM "$SERVER"
    until_ended
fi

say "The same burst, at the real server:"
start_server
burst /health
check 'all are answered while all stay open' "${#UNANSWERED[@]}" = 0
close_burst
say "It does not use tiny_http's server. Each connection that it admits has a worker of its own, and" \
    "one too many gets a 503: src/server/acceptor.rs and src/server/pool.rs, lesson 8."
