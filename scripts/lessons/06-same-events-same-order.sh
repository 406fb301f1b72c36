#!/usr/bin/env bash
# Lesson 6: fan-out; all readers get the same events in the same order.
#
# All events of all topics are numbered in one sequence, `seq`. Unlike a queue's consumer, a reader
# takes events away from no other reader. So all readers of a topic see the same events in the same
# order, however many publishers there are. And because equal polls have equal answers, an answer is
# rendered once and its bytes go to all of them.
#
# Run:     scripts/lessons/06-same-events-same-order.sh
# See:     two answers that are equal byte for byte, and two lists of seqs that are the same.
# Where:   src/log/state.rs: LogState::append (self.head),
#          src/api/page_cache.rs: PageCache::get (version), src/api/deliver.rs: deliver (page_for)
# Without: two readers disagree about what happened; a thousand readers cost a thousand renderings.
set -euo pipefail
# shellcheck source=/dev/null
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

start_server

say "Two readers wait for the same topic:"
begin ann curl "$URL/topics/news?since=now&wait=20"
begin ben curl "$URL/topics/news?since=now&wait=20"
until_held 2

say "Three events are published as one batch, a JSON value on each line:"
show curl -H 'Content-Type: application/x-ndjson' --data-binary $'"a"\n"b"\n"c"' "$URL/topics/news"
check 'three events' "$(values count)" = 3
check 'released two held polls' "$(values released)" = 2

answer ann
ann=$OUT
answer ben
check 'both got the whole batch' "$(values data)" = 'a b c'
check 'in the very same bytes' "$OUT" = "$ann"

# A client's loop: poll, take the events (here: print their seqs), resume from next. It stops at the
# event "end".
follow() {
    local limit=$1 next=start page
    for _ in {1..100}; do
        page=$(curl "$URL/topics/news?since=$next&limit=$limit&wait=20")
        values seq "$page"
        next=$(values next "$page")
        case " $(values data "$page") " in
        *' end '* | '  ') return ;;
        esac
    done
}

say "Now two publish at the same time, and two follow while they do: one takes up to four events" \
    "at a time, the other all there are."
begin fours follow 4
begin all follow 1000
begin left curl -d left "$URL/topics/news?type=no[1-15]"
begin right curl -d right "$URL/topics/news?type=no[1-15]"
answer left >/dev/null
answer right >/dev/null
show curl -d end "$URL/topics/news"

answer fours
fours=$(printf '%s' "$OUT" | tr '\n' ' ')
answer all
all=$(printf '%s' "$OUT" | tr '\n' ' ')
check 'both saw the same events in the same order' "$fours" = "$all"
everything=$(echo {1..34})
check 'each event once, none missing' "$all" = "$everything"
